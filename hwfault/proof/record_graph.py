"""Recording a bundle from a graph alone: what onnxruntime makes of real inputs at every site, without torch.

The faults are recorded as the stream draws them on the codes that the graph holds before them, and a graph that makes
something else of these is refused: what differs from the record is no property of who recorded it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault import __version__
from hwfault.errors import GraphError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.flat import flatten
from hwfault.graph.read.grids import IntegerGrid
from hwfault.graph.run.graph_input import GraphInputs, InputArrays, Samples
from hwfault.plan.fault_plan import FaultPlan
from hwfault.proof.bundling import Given, check_asked, put_together, recorded_inputs
from hwfault.proof.engine import Answer, Engine
from hwfault.proof.manifest import CLEAN_GRAPH, FAULTED_GRAPH, Manifest, RecordedSite, tensor
from hwfault.proof.noted import Noted, join, narrow
from hwfault.proof.places import SiteTensor, find_tensors, match_recorded
from hwfault.proof.sides import Side, differing

Array = NDArray[Any]


def write_graph_bundle(
    path: Path | str,
    graph: ModelProto,
    samples: Samples,
    *,
    plan: FaultPlan | None = None,
    seeds: Sequence[int] = (),
    batch_size: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Manifest:
    """Writes a bundle of a clean graph, and answers with its manifest; arguments and errors as of `write_bundle`.

    Batches are of `batch_size` (None: of all samples, or as the graph is made for). Raises GraphError for a graph whose
    inputs are not float32, int64 or int32, or that has several outputs, or one of integers.
    """
    graph = flatten(graph).model  # in which the clean run is looked at where the faulted one is
    wanted = GraphInputs.of(graph)
    inputs = InputArrays.of(samples.inputs, wanted.names)
    check_asked(len(inputs), plan, seeds)
    recorded = recorded_inputs(inputs)
    if len(graph.graph.output) != 1:
        raise GraphError(f"the graph has the outputs {[o.name for o in graph.graph.output]}, expected one for a bundle")
    size = min(wanted.batch_size(batch_size, len(inputs), len(inputs)), len(inputs))
    graphs = {CLEAN_GRAPH: graph}
    if plan is not None:
        graphs[FAULTED_GRAPH] = insert_faults(graph, plan)
    recorder = GraphRecorder(graph, graphs.get(FAULTED_GRAPH), plan)
    return put_together(
        path,
        graphs,
        Given(recorded, samples.labels, size),
        plan,
        seeds,
        recorder,
        partial(recorder.run, inputs.split(size)),
        versions={"hwfault": __version__, **{name: version(name) for name in ("onnxruntime", "onnx")}},
        progress=progress,
    )


class GraphRecorder:
    """Runs a clean graph, and the faulted one of a plan (None: neither), and notes what becomes of every site.

    Raises PlanError where the two have other sites.
    """

    def __init__(self, clean: ModelProto, faulted: ModelProto | None, plan: FaultPlan | None) -> None:
        self._clean = find_tensors(clean, None)
        self._faulted = self._clean if faulted is None else find_tensors(faulted, plan)
        self._engines = {False: Engine(clean, self._clean)}
        if faulted is not None:
            self._engines[True] = Engine(faulted, self._faulted)
        self.sites = _recorded(self._clean, self._faulted)
        self.needs_stream = False
        """Whether codes were noted that only version 1.1 of the fault stream defines."""
        sums = {entry.site.name for entry in self.sites if entry.site.kind == "accumulator"}
        known = {place.site.name for place in self._clean}
        match_recorded(self._faulted, self.sites, plan)
        match_recorded(self._clean, [e for e in self.sites if e.site.name not in sums - known], None)

    @property
    def parameters(self) -> Collection[str]:
        """The keys of the runs of parameters, which are no samples'."""
        return {_key(place) for place in self._clean if not place.site.batched}

    def run(self, batches: Sequence[InputArrays], plan: FaultPlan | None, seed: int) -> Noted:
        """What becomes of all samples under a plan (None: clean) and a seed; raises GraphError for other faults."""
        engine = self._engines[plan is not None]
        found = self._clean if plan is None else self._faulted
        noted, first = [], 0
        for batch in batches:
            answer = engine.run(batch.arrays, seed, first, found)
            noted.append(self._note(found, answer, seed, first, len(batch)))
            first += len(batch)
        return join(noted)

    def _note(self, found: Sequence[SiteTensor], answer: Answer, seed: int, first: int, samples: int) -> Noted:
        """What a batch became."""
        _check_output(answer.output, samples)
        noted = Noted(output=answer.output)
        for place in found:
            site, key = place.site, _key(place)
            side = place.side(answer.tensors)
            if place.watched is not None:
                _check_faults(place, side, answer, seed, first)
            if place.integers is None:
                grid = {f"{key}.scale": np.array(place.grid[0]), f"{key}.zero_point": np.array(place.grid[1])}
                noted.grids |= grid
            noted.before[key] = side.before.astype(narrow(site))
            noted.after[key] = side.after.astype(narrow(site))
            at = np.flatnonzero(~side.numbers)
            if len(at):
                noted.lost[key] = at, side.values.ravel()[at]
            self.needs_stream |= bool(len(at)) or _needs_stream(place)
        return noted


def _recorded(clean: Sequence[SiteTensor], faulted: Sequence[SiteTensor]) -> tuple[RecordedSite, ...]:
    """The sites in the order in which they run; sums whose width the plan changes are others in the clean run."""
    own = {place.site.name: place.site for place in clean}
    calls = Counter(place.site.name for place in faulted)
    found: dict[str, RecordedSite] = {}
    for place in faulted:
        name = place.site.name
        is_sum = place.site.kind == "accumulator"
        site = place.site if is_sum else own.get(name, place.site)
        other = own.get(name) if is_sum and own.get(name) != site else None
        found[name] = RecordedSite(site=site, calls=calls[name], clean=other, integers=place.integers)
    return tuple(found.values())


def _key(place: SiteTensor) -> str:
    return tensor(place.site.name, place.call, "")[:-1]


def _check_faults(place: SiteTensor, side: Side, answer: Answer, seed: int, first: int) -> None:
    """Raises GraphError where a graph does not do at a site what the stream says."""
    assert place.watched is not None
    excused = np.zeros(len(side.before), bool)
    found = differing(place.watched, side, side, answer.tensors, seed, first, excused)
    if found.faults.any() or found.codes.any():
        raise GraphError(
            f"the graph's faults at the site {place.site.name!r} are not those that the fault stream draws on what it "
            "holds there, so that they are not recorded; please report it, with the graph and the plan"
        )


def _check_output(output: Array, samples: int) -> None:
    if output.dtype.kind != "f" or output.shape[:1] != (samples,):
        raise GraphError(
            f"the graph answers {samples} samples with {output.dtype} of shape {output.shape}, expected floating-point "
            "numbers with a row for each sample"
        )


def _needs_stream(place: SiteTensor) -> bool:
    site = place.site
    if site.kind == "accumulator" or place.integers is not None:
        return False
    return IntegerGrid(*place.grid, site.bit_width, site.signed).needs_stream
