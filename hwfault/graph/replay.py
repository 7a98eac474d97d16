"""The same faults in two engines, word by word: PyTorch under `inject` against onnxruntime on the faulted graph."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper
from qonnx.custom_op.registry import getCustomOp
from torch import Tensor, nn

from hwfault import __version__
from hwfault.codes import CodeFormat, Codes, encode
from hwfault.errors import GraphError, HwfaultError, PlanError
from hwfault.graph.carried import plan_of
from hwfault.graph.insert import FaultNode, fault_nodes
from hwfault.graph.integer import in_double, is_integer
from hwfault.graph.nodes import ARRAY_OP
from hwfault.graph.qonnxgraph import WORDS, Constants, attribute, metadata, site_name, words_sha256
from hwfault.graph.qonnxgraph import quantizers as quantizer_nodes
from hwfault.graph.report import Place, ReplayReport, SiteReport
from hwfault.graph.session import load_model, run, session
from hwfault.inject import inject
from hwfault.inject.integer_arithmetic import integer_arithmetic
from hwfault.inject.mode import evaluation
from hwfault.inject.sites import quantizers
from hwfault.plan import FaultPlan, Site, SitePlan
from hwfault.plan.processes import Step, strike_values

Array = NDArray[Any]
Progress = Callable[[int, int | None], object]


def replay(
    model: nn.Module,
    graph: ModelProto | Path | str,
    batches: Iterable[Tensor | Sequence[Any]],
    *,
    seeds: Sequence[int],
    plan: FaultPlan | None = None,
    progress: Progress | None = None,
) -> ReplayReport:
    """Runs every batch under every seed in both engines and compares each site, the outputs and the predictions.

    `graph` is the faulted graph; its sites are watched in a copy, its outputs are taken from the graph as it is.
    `batches` yields inputs, or tuples that begin with one; samples are numbered through them from 0. One batch is
    held at a time. `progress(done, total)` is called after each batch, the total None if `batches` has no length.
    Raises GraphError for a graph without a plan or with other weights, PlanError if `plan` is not the graph's or the
    model is another one.
    """
    proto = graph if isinstance(graph, ModelProto) else load_model(graph)
    carried = plan_of(proto)
    if plan is not None and plan.digest != carried.digest:
        raise PlanError(
            f"the graph carries the plan {carried.digest[:12]}, given was {plan.digest[:12]}; replay needs the graph's "
            "own: leave `plan` out, or put the given one into the exported graph"
        )
    if not seeds:
        raise HwfaultError("no seed was given, expected at least one")
    total = len(batches) if isinstance(batches, Sized) else None
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    engines = _Engines(proto, carried)
    with (
        evaluation(model),
        torch.no_grad(),
        integer_arithmetic(model) if is_integer(proto) else nullcontext(),
        inject(model, carried, seed=seeds[0], observe=engines.observe) as injection,
    ):
        for done, batch in enumerate(batches, 1):
            x = (batch if isinstance(batch, Tensor) else batch[0]).to(device)
            for seed in seeds if len(x) else ():
                injection.seed, injection.first_sample = seed, engines.samples
                engines.compare(model, x, seed)
            if engines.first_batch and len(x):  # after a forward: Brevitas' binary quantizers clamp weights in it
                _check_parameters(model, proto)
            engines.samples += len(x)
            engines.first_batch = engines.samples == 0
            if progress is not None:
                progress(done, total)
    if engines.first_batch:
        raise HwfaultError("no sample was given to replay, expected at least one")
    return engines.report(carried, tuple(seeds))


def _check_parameters(model: nn.Module, graph: ModelProto) -> None:
    """Raises GraphError if the graph has other weights; one without hwfault's hashes tells nothing."""
    constants, planned = Constants(graph), {entry.site for entry in fault_nodes(graph)}
    stamps = [(site_name(node), metadata(node).get(WORDS)) for node in quantizer_nodes(graph)]
    for node in quantizer_nodes(graph):
        values, stamp = constants.get(node.input[0]), metadata(node).get(WORDS)
        if site_name(node) in planned and values is not None and stamp not in (None, words_sha256(values)):
            raise GraphError(
                f"the values of the site {site_name(node)!r} were changed in the graph after its export; export it anew"
            )
    for name, proxy in quantizers(model):
        own = [words_sha256(values.numpy(force=True)) for values in getattr(proxy, "tracked_parameter_list", ())]
        if any(stamp not in own for site, stamp in stamps if stamp and site == name):
            raise GraphError(
                f"the graph was exported with other values of the site {name!r} than the network has now; export it "
                "anew, or load the checkpoint that it was exported from"
            )


@dataclass
class _Watched:
    """One fault node: its site, its constants, its program."""

    site: Site
    node: FaultNode
    scale: Array
    zero_point: Array
    steps: tuple[Step, ...]
    array: NodeProto | None = None
    """What adds an accumulator up; the sums, and the integers of inputs and weights, are its inputs."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The graph's tensors that tell of the site."""
        return (self.node.before, self.node.after, *(() if self.array is None else self.array.input))

    @property
    def changes(self) -> bool:
        """Whether its faults may differ from batch to batch of a seed."""
        return self.site.batched or any(step.changes for step in self.steps)


@dataclass
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    first_fault_difference: Place | None = None
    first_code_difference: Place | None = None


class _Engines:
    """The two engines on one graph, and what was found so far."""

    def __init__(self, graph: ModelProto, plan: FaultPlan) -> None:
        self._watched = _watched(graph, plan)
        self._plain, self._observed = (session(g, spin=False) for g in (graph, _with_outputs(graph, self._watched)))
        self._output = self._plain.get_outputs()[0].name
        self._tallies = {name: _Tally() for name in plan.names}
        self._totals: Counter[str] = Counter()
        self._max_difference = 0.0
        self.samples = 0
        self.first_batch = True

    def compare(self, model: nn.Module, x: Tensor, seed: int) -> None:
        """One batch under one seed, in onnxruntime and then in PyTorch, whose sites report to `observe`."""
        self._seed, self._calls = seed, Counter[str]()
        inputs, numbers = x.numpy(force=True), {"seed": seed, "first_sample": self.samples}
        (plain,) = run(self._plain, inputs, **numbers, outputs=[self._output])
        names = [self._output, *self._names_now()]
        self._tensors = dict(zip(names, run(self._observed, inputs, **numbers, outputs=names), strict=True))
        result = model(x)
        self._check_calls()
        self._compare_outputs(getattr(result, "value", result).numpy(force=True), plain)

    def _names_now(self) -> list[str]:
        """The tensors to fetch: most parameters are the same in every batch of a seed."""
        watched = [w for nodes in self._watched.values() for w in nodes if w.changes or self.first_batch]
        return [name for name in dict.fromkeys(n for w in watched for n in w.tensors) if name != self._output]

    def observe(self, name: str, before: Tensor, after: Tensor, scale: Tensor, zero_point: Tensor) -> None:
        """Compares one run of a site in PyTorch with the same run in the graph."""
        call = self._calls[name]
        self._calls[name] += 1
        if call >= len(self._watched[name]) or not (self._watched[name][0].changes or self.first_batch):
            return
        watched = self._watched[name][call]
        ours = [tensor.numpy(force=True) for tensor in (before, after, scale, zero_point)]
        theirs = [self._tensors[name] for name in (watched.node.before, watched.node.after)]
        if ours[0].shape != theirs[0].shape:
            raise PlanError(
                f"the site {name!r} has the shape {list(ours[0].shape)} in the network and {list(theirs[0].shape)} in "
                "the graph; expected the network that the graph was exported from"
            )
        theirs += [watched.scale, watched.zero_point]
        ours_side = _Side(watched.site, ours)
        same = all(np.array_equal(_bits(mine), _bits(other)) for mine, other in zip(ours, theirs, strict=True))
        self._compare_site(watched, call, ours_side, ours_side if same else _Side(watched.site, theirs))

    def _added_up(self, watched: _Watched, shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which sums (of `shape`) the array changed in onnxruntime, and which are not what it makes of its inputs."""
        if watched.array is None:
            return np.zeros(shape, bool), np.zeros(shape, bool)
        inputs = {name: self._tensors[name] for name in watched.array.input}
        sums, found = inputs[watched.array.input[0]], self._tensors[watched.node.before]
        getCustomOp(watched.array).execute_node(inputs, None)
        expected = inputs[watched.array.output[0]]
        # where the array adds everything up anew, its sums are no others
        changed = found != (expected if attribute(watched.array, "recompute", 0) else sums)
        return changed.reshape(shape), (_bits(expected) != _bits(found)).reshape(shape)

    def _compare_site(self, watched: _Watched, call: int, ours: "_Side", theirs: "_Side") -> None:
        """Counts the words of one run of a site in one batch; `ours` is PyTorch's side, `theirs` onnxruntime's."""
        codes_differ = ours.before != theirs.before
        array_changed, array_strays = self._added_up(watched, theirs.before.shape)
        faults_differ = (
            theirs.strays(watched, self._seed, self.samples)
            | (~codes_differ & (ours.after != theirs.after))
            | array_strays
        )
        if codes_differ.any():  # where none does, PyTorch has what onnxruntime has, which is what the stream says
            faults_differ |= ours.strays(watched, self._seed, self.samples)
        tally = self._tallies[watched.site.name]
        tally.counts.update(
            words=codes_differ.size,
            faults_expected=int(np.count_nonzero(ours.changed | array_changed)),
            faults_seen=int(np.count_nonzero(theirs.changed | array_changed)),
            faults_differ=int(np.count_nonzero(faults_differ)),
            codes_differ=int(np.count_nonzero(codes_differ)),
        )
        tally.first_fault_difference = tally.first_fault_difference or self._place(faults_differ, call, ours, theirs)
        tally.first_code_difference = tally.first_code_difference or self._place(codes_differ, call, ours, theirs)

    def _place(self, where: NDArray[np.bool_], call: int, ours: "_Side", theirs: "_Side") -> Place | None:
        """The first word of the batch that differs, None if none does."""
        if not where.any():
            return None
        element, word = divmod(int(where.argmax()), where.shape[1])
        return Place(
            seed=self._seed,
            sample=element + self.samples if ours.batched else 0,
            word=word,
            call=call,
            pytorch_before=int(ours.before[element, word]),
            pytorch_after=int(ours.after[element, word]),
            onnxruntime_before=int(theirs.before[element, word]),
            onnxruntime_after=int(theirs.after[element, word]),
        )

    def _check_calls(self) -> None:
        """Raises PlanError if a quantizer ran in PyTorch more or fewer times than the graph has nodes of it."""
        for name, nodes in self._watched.items():
            if self._calls[name] != len(nodes):
                raise PlanError(
                    f"the quantizer {name!r} ran {self._calls[name]} times in the network but the graph has "
                    f"{len(nodes)} nodes of it; expected the network that the graph was exported from"
                )

    def _compare_outputs(self, ours: Array, plain: Array) -> None:
        if ours.shape != plain.shape:
            raise PlanError(
                f"the network's output has the shape {list(ours.shape)}, the graph's {list(plain.shape)}; expected the "
                "network that the graph was exported from"
            )
        self._totals.update(
            predictions=_predictions(plain).size,
            predictions_differ=int(np.count_nonzero(_predictions(ours) != _predictions(plain))),
            logits=plain.size,
            logits_differ=int(np.count_nonzero(_bits(ours) != _bits(plain))),
            logits_changed_by_observation=int(np.count_nonzero(_bits(plain) != _bits(self._tensors[self._output]))),
        )
        difference = np.abs(ours.astype(np.float64) - plain).max(initial=0.0)
        self._max_difference = max(self._max_difference, float(difference))

    def report(self, plan: FaultPlan, seeds: tuple[int, ...]) -> ReplayReport:
        """What was found."""
        versions = {"hwfault": __version__, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
        return ReplayReport(
            plan_sha256=plan.digest,
            versions=versions,
            seeds=seeds,
            samples=self.samples,
            sites=tuple(_site_report(name, tally) for name, tally in self._tallies.items()),
            logits_max_difference=self._max_difference,
            **{key: self._totals[key] for key in _TOTALS},
        )


_TOTALS = ("predictions", "predictions_differ", "logits", "logits_differ", "logits_changed_by_observation")
_COUNTS = ("words", "faults_expected", "faults_seen", "faults_differ", "codes_differ")


class _Side:
    """The values of one run of a site in one engine, and their codes as (samples, words)."""

    def __init__(self, site: Site, values: Sequence[Array]) -> None:
        self.batched = site.batched
        self._format = CodeFormat(site.bit_width, site.signed)
        self._before, self._after, self._scale, self._zero_point = values
        self.before, self.after = self._codes(self._before), self._codes(self._after)

    def _codes(self, values: Array) -> Codes:
        codes = encode(values, self._scale, self._zero_point, self._format)
        return codes.reshape(len(codes) if self.batched else 1, -1)

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Which words (samples, words) the faults changed, to the bit."""
        changed: NDArray[np.bool_] = _bits(self._before) != _bits(self._after)
        return changed.reshape(self.before.shape)

    def strays(self, watched: _Watched, seed: int, first_sample: int) -> NDArray[np.bool_]:
        """Where the values after the faults are not, to the bit, what the stream makes of those before."""
        values, samples = self._before, np.arange(len(self.before)) + first_sample
        grid = (self._scale, self._zero_point, self._format)
        for step in watched.steps:
            values = strike_values(step, values, *grid, seed=seed, samples=samples, batched=self.batched)
        differs: NDArray[np.bool_] = _bits(values) != _bits(self._after)
        return differs.reshape(self.before.shape)


def _watched(graph: ModelProto, plan: FaultPlan) -> dict[str, list[_Watched]]:
    """The fault nodes of each site, in the order in which they run."""
    constants, makers = Constants(graph), {name: node for node in graph.graph.node for name in node.output}
    found: dict[str, list[_Watched]] = {name: [] for name in plan.names}
    for entry in fault_nodes(graph):
        maker = makers.get(entry.before)
        array = maker if maker is not None and maker.op_type == ARRAY_OP else None
        scale, zero_point = _grid(entry, plan.at(entry.site), constants)
        if array is not None and scale is not None and in_double(makers, array.input[0]):
            scale = scale.astype(np.float64)
        if scale is None or zero_point is None:
            raise GraphError(f"the fault node {entry.node.name!r} has a scale or zero point that is not a constant")
        site = plan.at(entry.site).site
        found[entry.site].append(_Watched(site, entry, scale, zero_point, plan.steps(entry.site), array))
    return found


def _grid(entry: FaultNode, planned: SitePlan, constants: Constants) -> tuple[Array | None, Array | None]:
    """Scale and zero point of a site; those of the integers, where only an array strikes an accumulator."""
    if not entry.nodes:
        dtype = np.dtype(planned.array.arithmetic if planned.array is not None else "float32")
        return np.ones((), dtype), np.zeros((), dtype)
    scale, zero_point = (constants.get(name) for name in entry.node.input[1:3])
    return scale, zero_point


def _with_outputs(graph: ModelProto, watched: dict[str, list[_Watched]]) -> ModelProto:
    """The graph with the tensors that tell of its sites among its outputs."""
    out = ModelProto()
    out.CopyFrom(graph)
    present = {info.name for info in graph.graph.output}
    for watch in (watch for nodes in watched.values() for watch in nodes):
        kind = TensorProto.DOUBLE if watch.scale.dtype == np.float64 else TensorProto.FLOAT
        operands = () if watch.array is None else watch.array.input[1:]
        for name in (name for name in dict.fromkeys(watch.tensors) if name not in present):
            own = TensorProto.FLOAT if name in operands else kind
            out.graph.output.append(helper.make_tensor_value_info(name, own, None))
            present.add(name)
    return out


def _site_report(name: str, tally: _Tally) -> SiteReport:
    counts = {key: tally.counts[key] for key in _COUNTS}
    places = (tally.first_fault_difference, tally.first_code_difference)
    return SiteReport(name=name, first_fault_difference=places[0], first_code_difference=places[1], **counts)


def _predictions(logits: Array) -> Array:
    return logits.argmax(axis=1) if logits.ndim > 1 else logits


def _bits(values: Array) -> NDArray[np.integer[Any]]:
    """The bits of float32 or, for sums in that arithmetic, float64 numbers."""
    kind = np.int64 if values.dtype == np.float64 else np.int32
    numbers = np.ascontiguousarray(values, dtype=np.float64 if kind is np.int64 else np.float32)
    return numbers.view(kind)
