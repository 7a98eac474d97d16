"""The same faults in two engines: PyTorch, recorded into memory batch by batch, and onnxruntime on the graph."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from hwfault.errors import GraphError, HwfaultError, PlanError, expect_kind
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.export.of_network import Arithmetic
from hwfault.graph.ops import GRID_OPS
from hwfault.graph.read.integer import is_integer
from hwfault.graph.read.qonnxgraph import PARAMETER, WORDS, metadata, site_name, words_sha256
from hwfault.graph.read.versions import NEW
from hwfault.graph.run.graph_input import InputArrays
from hwfault.graph.run.session import load_model
from hwfault.network.inputs import Example, Inputs, samples_in
from hwfault.network.sites import known_quantizers, unwrap
from hwfault.plan.fault_plan import FaultPlan
from hwfault.proof.check import checked_with, plan_told
from hwfault.proof.compare import Comparison
from hwfault.proof.engine import Engine, engine_name
from hwfault.proof.expected import Batch, Expected
from hwfault.proof.manifest import RecordedSite
from hwfault.proof.places import SiteTensor, exact_sums, find_tensors, match_recorded
from hwfault.proof.record import recorded_with
from hwfault.proof.recorder import Recorder, Recording
from hwfault.proof.report import ReplayReport
from hwfault.stream.check import check_seed

Array = NDArray[Any]
Progress = Callable[[int, int | None], object]


def replay(
    model: nn.Module,
    graph: ModelProto | Path | str,
    batches: Iterable[Example],
    *,
    seeds: Sequence[int],
    plan: FaultPlan | None = None,
    progress: Progress | None = None,
) -> ReplayReport:
    """Runs every batch under every seed in both engines and compares each site, the outputs and the predictions.

    `graph` is the faulted graph; its sites are watched in a copy, its outputs are taken from the graph as it is.
    `batches` yields inputs: a tensor, a dict by the arguments of forward, or a tuple that begins with as many tensors
    as the graph has inputs, or with a tuple or dict of them. Samples are numbered through them from 0. One batch is
    held at a time. `progress(done, total)` is called after each batch, the total None if `batches` has no length.
    Raises GraphError for a graph without a plan or with other weights, PlanError if `plan` is not the graph's or the
    model is another one.
    """
    expect_kind(model, nn.Module, "the network", "a torch.nn.Module with Brevitas quantizers")
    expect_kind(graph, (ModelProto, str, Path), "the graph", "an ONNX ModelProto (as export returns), or a file's path")
    expect_kind(seeds, Sequence, "seeds", "a list of fault seeds")
    if isinstance(batches, Tensor):
        raise HwfaultError("the batches are one tensor, which would be taken apart; expected a list: [inputs]")
    proto = graph if isinstance(graph, ModelProto) else load_model(graph)
    carried = _plan(proto, plan)
    if not seeds:
        raise HwfaultError("no seed was given, expected at least one")
    total = len(batches) if isinstance(batches, Sized) else None
    with ExitStack() as stack:
        beside = _Beside(model, proto, carried, [check_seed(seed) for seed in seeds], stack)
        for done, batch in enumerate(batches, 1):
            beside.add(batch)
            if progress is not None:
                progress(done, total)
    return beside.report()


def _plan(graph: ModelProto, given: FaultPlan | None) -> FaultPlan:
    """The plan that a graph carries; raises PlanError if another one was given."""
    carried = plan_of(graph)
    if given is not None and given.digest != carried.digest:
        raise PlanError(
            f"the graph carries the plan {carried.digest[:12]}, given was {given.digest[:12]}; replay needs the "
            "graph's own: leave `plan` out, or put the given one into the exported graph"
        )
    return carried


class _Facts(NamedTuple):
    """What must be known of the record of one batch."""

    samples: int
    batch_size: int
    spec: str
    sites: Sequence[RecordedSite]


class _Beside:
    """A network and its graph, side by side; what is attached to the network the `stack` takes away again."""

    def __init__(
        self, model: nn.Module, graph: ModelProto, plan: FaultPlan, seeds: Sequence[int], stack: ExitStack
    ) -> None:
        self._model, self._graph, self._plan, self._stack = model, graph, plan, stack
        self._tensors = find_tensors(graph, plan)
        self._engine = Engine(graph, self._tensors)
        self._found: list[SiteTensor] = []
        self._comparisons = [(seed, Comparison(seed, plan, seen_through=True)) for seed in seeds]
        self._recorder: Recorder | None = None
        self._recording: Recording | None = None
        self._samples = 0
        self._seen = sha256()
        self._graph_digest = sha256(graph.SerializeToString(deterministic=True)).hexdigest()

    def add(self, batch: Any) -> None:
        """Runs a batch under every seed in both engines, and compares."""
        inputs = _inputs_of(batch, self._engine.inputs)
        if samples_in(inputs, 0) == 0:  # the last batch of a loader may be empty
            return
        given = Inputs.of(inputs)
        names = given.names(unwrap(self._model))
        arrays = {name: tensor.numpy(force=True) for name, tensor in zip(names, given.tensors, strict=True)}
        InputArrays(arrays).update_digest(self._seen)
        first = self._samples == 0
        for seed, comparison in self._comparisons:
            self._compare(inputs, arrays, given.samples, seed, comparison, first)
        if first:  # after a forward: Brevitas' binary quantizers clamp weights in it
            _check_parameters(self._model, self._graph)
        self._samples += given.samples

    def _compare(
        self, inputs: Example, arrays: dict[str, Array], n: int, seed: int, comparison: Comparison, first: bool
    ) -> None:
        found = self._tensors if first else [place for place in self._found if self._changes(place)]
        answer = self._engine.run(arrays, seed, self._samples, found)
        # recorded into memory, as a bundle is on disk
        if self._recorder is None or self._recording is None:
            self._recorder, self._recording = self._attached(inputs)
        noted = self._recording.run(inputs, seed, self._samples, again=not first)
        facts = _Facts(n, n, NEW, self._recorder.sites)
        expected = Expected(facts, noted.faulty_tensors({}), {}, "the network")
        # and checked
        if first:
            found = self._found = match_recorded(self._tensors, facts.sites, self._plan, whole=False)
        comparison.add_graph(expected, Batch(slice(0, n), 0, self._samples), found, answer)

    def _attached(self, example: Example) -> tuple[Recorder, Recording]:
        """A recorder, to which the first batch shows the runs of each quantizer."""
        arithmetic: Arithmetic = "integer" if is_integer(self._graph) else "float"
        recorder = Recorder(self._model, example, arithmetic, exact_sums(self._graph))
        return recorder, self._stack.enter_context(recorder.attached(self._plan))

    def _changes(self, place: SiteTensor) -> bool:
        """Whether a run of a site may be another in each batch of a seed."""
        struck = place.site.name in self._plan.names
        return place.site.batched or (struck and self._plan.at(place.site.name).changes_with_batches)

    def report(self) -> ReplayReport:
        """What was found; raises HwfaultError if there was no sample."""
        if not self._samples or self._recorder is None:
            raise HwfaultError("no sample was given to replay, expected at least one")
        recorded = len(self._recorder.sites)
        return ReplayReport(
            plan_sha256=self._plan.digest,
            engine=engine_name(),
            versions=checked_with(),
            recorded_with=recorded_with(),
            samples=self._samples,
            runs=tuple(comparison.record(recorded) for _, comparison in self._comparisons),
            network=f"{type(self._model).__name__}, and its graph (SHA-256 {self._graph_digest})",
            data=f"{self._samples:,} samples (SHA-256 of the inputs {self._seen.hexdigest()})",
            **plan_told(self._plan),
        )


def _inputs_of(batch: Any, names: Sequence[str]) -> Example:
    """The inputs that a batch is or begins with, for a graph of inputs of these names."""
    if isinstance(batch, Tensor | Mapping):
        return batch
    if len(names) == 1 or not isinstance(batch[0], Tensor):
        return batch[0]  # type: ignore[no-any-return]
    if len(batch) < len(names):
        raise HwfaultError(f"a batch holds {len(batch)} tensors, expected one for each of the graph's inputs {names}")
    return tuple(batch[: len(names)])


def _check_parameters(model: nn.Module, graph: ModelProto) -> None:
    """Raises GraphError if the graph has other weights; one without hwfault's hashes tells nothing."""
    quantizers = [node for node in graph.graph.node if node.op_type in GRID_OPS]
    told = [(site_name(node), metadata(node)) for node in quantizers]
    stamps = [(site, entries.get(PARAMETER, entries.get(WORDS))) for site, entries in told]
    for name, quantizer in known_quantizers(model).items():
        values = quantizer.parameter
        own = None if values is None else words_sha256(values.numpy(force=True))
        if any(stamp != own for site, stamp in stamps if stamp and site == name):
            raise GraphError(
                f"the graph was exported with other values of the site {name!r} than the network has now; export it "
                "anew, or load the checkpoint that it was exported from"
            )
