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
from onnx import ModelProto
from torch import Tensor, nn

from hwfault import __version__
from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.errors import GraphError, HwfaultError, PlanError, expect_kind
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.read.grids import GRID_OPS
from hwfault.graph.read.integer import is_integer
from hwfault.graph.read.qonnxgraph import WORDS, metadata, site_name, words_sha256
from hwfault.graph.run.session import load_model, run, session
from hwfault.graph.run.watched import Watched, watched_sites, with_outputs
from hwfault.injection.attach import inject
from hwfault.network.mode import evaluation
from hwfault.network.sites import known_quantizers, sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.notes import note_on
from hwfault.program.processes import Site
from hwfault.proof.replay_report import Place, ReplayReport, SiteReport
from hwfault.proof.sides import Array, Mask, Side, bits_of, differing, predictions

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
    expect_kind(model, nn.Module, "the network", "a torch.nn.Module with Brevitas quantizers")
    expect_kind(graph, (ModelProto, str, Path), "the graph", "an ONNX ModelProto (as export returns), or a file's path")
    expect_kind(seeds, Sequence, "seeds", "a list of fault seeds")
    if isinstance(batches, Tensor):
        raise HwfaultError("the batches are one tensor, which would be taken apart; expected a list: [inputs]")
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
                try:
                    engines.compare(model, x, seed)
                except PlanError:
                    if engines.first_batch:
                        _check_batch_axes(model, carried, x)
                    raise
            if engines.first_batch and len(x):  # after a forward: Brevitas' binary quantizers clamp weights in it
                _check_parameters(model, proto)
            engines.samples += len(x)
            engines.first_batch = engines.samples == 0
            if progress is not None:
                progress(done, total)
    if engines.first_batch:
        raise HwfaultError("no sample was given to replay, expected at least one")
    return engines.report(carried, tuple(seeds))


def _check_batch_axes(model: nn.Module, plan: FaultPlan, x: Tensor) -> None:
    """Raises PlanError if the samples of a planned site lie otherwise in the network: the real reason of an error.

    Graphs of versions before 0.5 have samples along axis 0 wherever the network put them. An injection asks for an
    example then, but whoever replays has given one: the inputs.
    """
    try:
        found = sites(model, x)
    except HwfaultError:  # the first error says more
        return
    plan.check_batch_axes(found, "the network")


def _check_parameters(model: nn.Module, graph: ModelProto) -> None:
    """Raises GraphError if the graph has other weights; one without hwfault's hashes tells nothing."""
    stamps = [(site_name(node), metadata(node).get(WORDS)) for node in graph.graph.node if node.op_type in GRID_OPS]
    for name, quantizer in known_quantizers(model).items():
        values = quantizer.parameter
        own = None if values is None else words_sha256(values.numpy(force=True))
        if any(stamp != own for site, stamp in stamps if stamp and site == name):
            raise GraphError(
                f"the graph was exported with other values of the site {name!r} than the network has now; export it "
                "anew, or load the checkpoint that it was exported from"
            )


@dataclass
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    first_fault_difference: Place | None = None
    first_code_difference: Place | None = None


class _Engines:
    """The two engines on one graph, and what was found so far."""

    def __init__(self, graph: ModelProto, plan: FaultPlan) -> None:
        self._watched = watched_sites(graph, plan)
        watches = [watch for nodes in self._watched.values() for watch in nodes]
        self._plain, self._observed = (session(g, spin=False) for g in (graph, with_outputs(graph, watches)))
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

    def observe(
        self,
        name: str,
        before: Tensor,
        after: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        codes_before: Tensor,
        codes_after: Tensor,
    ) -> None:
        """Compares one run of a site in PyTorch with the same run in the graph."""
        call = self._calls[name]
        self._calls[name] += 1
        if call >= len(self._watched[name]) or not (self._watched[name][0].changes or self.first_batch):
            return
        watched = self._watched[name][call]
        ours = [tensor.numpy(force=True) for tensor in (before, after, scale, zero_point)]
        theirs = watched.values(self._tensors)
        if ours[0].shape != theirs[0].shape:
            raise PlanError(
                f"the site {name!r} has the shape {list(ours[0].shape)} in the network and {list(theirs[0].shape)} in "
                "the graph; expected the network that the graph was exported from"
            )
        theirs += [watched.scale, watched.zero_point]
        ours_side = Side(watched.site, ours, (codes_before.numpy(force=True), codes_after.numpy(force=True)))
        same = all(np.array_equal(bits_of(mine), bits_of(other)) for mine, other in zip(ours, theirs, strict=True))
        self._compare_site(watched, call, ours_side, ours_side if same else Side(watched.site, theirs))

    def _compare_site(self, watched: Watched, call: int, ours: Side, theirs: Side) -> None:
        """Counts the words of one run of a site in one batch; `ours` is PyTorch's side, `theirs` onnxruntime's."""
        found = differing(watched, ours, theirs, self._tensors, self._seed, self.samples)
        tally = self._tallies[watched.site.name]
        tally.counts.update(
            words=found.codes.size,
            faults_expected=int(np.count_nonzero(found.expected)),
            faults_seen=int(np.count_nonzero(found.seen)),
            faults_differ=int(np.count_nonzero(found.faults)),
            codes_differ=int(np.count_nonzero(found.codes)),
            no_numbers=int(np.count_nonzero(~ours.numbers)),
        )
        tally.first_fault_difference = tally.first_fault_difference or self._place(found.faults, call, ours, theirs)
        tally.first_code_difference = tally.first_code_difference or self._place(found.codes, call, ours, theirs)

    def _place(self, where: Mask, call: int, ours: Side, theirs: Side) -> Place | None:
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
            predictions=predictions(plain).size,
            predictions_differ=int(np.count_nonzero(predictions(ours) != predictions(plain))),
            logits=plain.size,
            logits_differ=int(np.count_nonzero(bits_of(ours) != bits_of(plain))),
            logits_changed_by_observation=int(np.count_nonzero(bits_of(plain) != bits_of(self._tensors[self._output]))),
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
            sites=tuple(_site_report(plan.at(name).site, tally) for name, tally in self._tallies.items()),
            logits_max_difference=self._max_difference,
            notes=plan.notes,
            **{key: self._totals[key] for key in _TOTALS},
        )


_TOTALS = ("predictions", "predictions_differ", "logits", "logits_differ", "logits_changed_by_observation")
_COUNTS = ("words", "faults_expected", "faults_seen", "faults_differ", "codes_differ")


def _site_report(site: Site, tally: _Tally) -> SiteReport:
    counts = {key: tally.counts[key] for key in _COUNTS}
    places = (tally.first_fault_difference, tally.first_code_difference)
    return SiteReport(
        name=site.name,
        no_numbers=tally.counts["no_numbers"] or None,
        note=note_on(site),
        first_fault_difference=places[0],
        first_code_difference=places[1],
        **counts,
    )
