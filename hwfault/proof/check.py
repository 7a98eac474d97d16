"""Checking a bundle: its graphs in onnxruntime, or another engine, against what PyTorch recorded; without PyTorch."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault import __version__
from hwfault.errors import FileError, GraphError, HwfaultError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.read.layouts import number_words
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.read.versions import NEW, OLD, check_version
from hwfault.graph.run.session import load_model
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.program.processes import Site
from hwfault.proof.answer import Runner, ask, site_answers
from hwfault.proof.engine import Engine, SiteTensor, engine_name, places
from hwfault.proof.expected import Expected, Inputs
from hwfault.proof.manifest import CLEAN, CLEAN_GRAPH, FAULTED_GRAPH, MANIFEST, PLAN, Manifest
from hwfault.proof.outputs import Outputs
from hwfault.proof.report import BundleReport, RunRecord, SiteRecord
from hwfault.proof.sides import Differing, Excuses, Mask, Side, differing, unstruck_differing
from hwfault.proof.storage import Bundle
from hwfault.proof.tally import NO_WORDS, Tally, held_words, with_faults

Array = NDArray[Any]
Which = Literal["clean", "faulty", "both"]


def check(
    bundle: Bundle,
    *,
    seeds: Sequence[int] | None = None,
    which: Which = "both",
    graph: ModelProto | None = None,
    runner: Runner | None = None,
    engine: str | None = None,
    progress: Callable[[], object] = lambda: None,
) -> BundleReport:
    """Runs the bundle's samples clean and under its seeds, and compares all that is seen with what was recorded.

    Without a `runner` the bundle's graphs run in onnxruntime and every site is compared. A `graph`, as transformed from
    one of them, takes the place of the clean or, where it carries faults, of the faulted one, and has only its runs. A
    runner is called once a batch with the graph's inputs by name (`input`; `hwfault_seed` and `hwfault_first_sample`,
    int64, where faults are meant) and answers with one array, the outputs, or arrays by name (hwfault.proof.answer).
    `engine` is its name in the report. `progress` is called after each run. `seeds` are some of the bundle's (None:
    all).
    Raises FileError for a record that is not whole, GraphError and PlanError where a graph is not that of the record,
    HwfaultError for seeds that were not recorded and for what a runner raises or answers wrongly.
    """
    manifest = bundle.manifest
    chosen = runs_of(bundle, seeds, which, graph)
    inputs, clean = Inputs(bundle), bundle.tensors(CLEAN)
    plan = _plan(bundle) if manifest.seeds else None
    engines: dict[bool, tuple[Engine, list[SiteTensor]]] = {}
    runs = []
    for seed in chosen:
        expected = Expected(bundle, clean, seed)
        own = None if seed is None else plan
        if runner is not None:
            runs.append(_by_runner(runner, inputs, expected, seed, own))
        else:
            if (seed is None) not in engines:
                engines[seed is None] = _engine(bundle, own, graph)
            runs.append(_by_graph(*engines[seed is None], inputs, expected, seed, own))
        progress()
    return BundleReport(
        bundle_sha256=bundle.digest,
        plan_sha256=manifest.plan_sha256,
        engine=engine or engine_name(),
        versions={"hwfault": __version__, "onnxruntime": onnxruntime.__version__},
        recorded_with=manifest.versions,
        samples=manifest.samples,
        runs=tuple(runs),
        notes=() if plan is None else plan.notes or (),
    )


def runs_of(
    bundle: Bundle, seeds: Sequence[int] | None = None, which: Which = "both", graph: ModelProto | None = None
) -> list[int | None]:
    """The seeds of the runs that `check` makes of the same arguments, None for the clean one; raises HwfaultError."""
    if graph is not None:
        which = "faulty" if fault_nodes(graph) else "clean"
    recorded = bundle.manifest.seeds
    if unknown := [seed for seed in seeds or () if seed not in recorded]:
        raise HwfaultError(
            f"{bundle.path}: nothing was recorded under seed {unknown[0]}; recorded are {list(recorded) or 'none'}"
        )
    wanted = recorded if seeds is None else seeds
    chosen: list[int | None] = [None] if which != "faulty" else []
    chosen += wanted if which != "clean" else []
    if not chosen:
        raise HwfaultError(f"{bundle.path}: holds no faulty run, expected one that was written with faults")
    return chosen


def _plan(bundle: Bundle) -> FaultPlan:
    plan = FaultPlan.from_json(bundle.read(PLAN), f"{bundle.path}: {PLAN}")
    if plan.digest != bundle.manifest.plan_sha256:
        raise FileError(f"{bundle.path}: {PLAN} is not the plan that the manifest names; get the bundle anew")
    _check_version(bundle, PLAN, spec_of(plan.stream))
    return plan


def _check_version(bundle: Bundle, name: str, needed: str | None) -> None:
    """Raises FileError where a file of a bundle needs a newer fault stream than the manifest says."""
    if (bundle.manifest.spec, needed) == (OLD, NEW):
        raise FileError(
            f"{bundle.path}: {MANIFEST} says {OLD!r}, but {name} needs {NEW!r}; it was changed after the export, or "
            "written by a version that did not know what is new: export the bundle anew"
        )


def bundled_graph(bundle: Bundle, name: str) -> ModelProto:
    """A graph of a bundle; raises GraphError for one that is not whole, or has parts in files outside."""
    with tempfile.TemporaryDirectory() as folder:  # where no other file lies that the graph could refer to
        path = Path(folder) / name
        path.write_bytes(bundle.read(name))
        try:
            return load_model(path)
        except GraphError as error:
            raise GraphError(str(error).replace(str(path), f"{bundle.path}: {name}")) from None


def _engine(bundle: Bundle, plan: FaultPlan | None, given: ModelProto | None) -> tuple[Engine, list[SiteTensor]]:
    name = CLEAN_GRAPH if plan is None else FAULTED_GRAPH
    graph = bundled_graph(bundle, name) if given is None else given
    _check_version(bundle, name, check_version(graph))
    if plan is not None and plan_of(graph).digest != plan.digest:
        raise PlanError(f"{bundle.path}: the faulted graph carries another plan than {PLAN}; export the bundle anew")
    found = places(graph, bundle.manifest, plan)
    return Engine(graph, found), found


def _batches(manifest: Manifest) -> list[slice]:
    return [
        slice(i, min(i + manifest.batch_size, manifest.samples))
        for i in range(0, manifest.samples, manifest.batch_size)
    ]


def _by_graph(
    engine: Engine,
    found: list[SiteTensor],
    inputs: Inputs,
    expected: Expected,
    seed: int | None,
    plan: FaultPlan | None,
) -> RunRecord:
    """One run in onnxruntime."""
    tallies = {place.site.name: _tally(place.site, plan) for place in found}
    outputs = Outputs(expected, inputs.labels, to_the_bit=True)
    for number, batch in enumerate(_batches(expected.manifest)):
        output, observed, tensors = engine.run(inputs.values[batch], seed, batch.start)
        excuses = Excuses()
        for place in found:
            rows = batch if place.site.batched else slice(number, number + 1)
            excused = excuses.of(place.site, batch.stop - batch.start)
            ours, theirs, differ = _at_place(place, expected, tensors, rows, (seed or 0, batch.start), excused)
            excuses.note(place.site, differ)
            tallies[place.site.name].add(differ, ours, theirs, place.call, rows.start, batch.start)
        outputs.add(output, batch, excuses.everywhere(batch.stop - batch.start))
        outputs.observed(output, observed)
    return _finished([tally.record() for tally in tallies.values()], tallies, outputs, expected, plan)


def _at_place(
    place: SiteTensor,
    expected: Expected,
    tensors: dict[str, Array],
    rows: slice,
    draw: tuple[int, int],
    excused: Mask,
) -> tuple[Side, Side, Differing]:
    """What was recorded and what was found at one run of a site in one batch, and where they differ.

    `draw` is the seed and the number of the batch's first sample; `excused` as for `differing`.
    """
    values = number_words(tensors[place.tensor], place.layout)
    ours = expected.side(place.site, place.call, rows, values.shape)
    for mine, recorded in zip(place.grid, expected.grid(place.site, place.call), strict=True):
        if not np.array_equal(mine.ravel(), recorded.ravel()):
            raise PlanError(
                f"the graph has another scale or zero point at the site {place.site.name!r} than was recorded; "
                "expected the graph of the bundle's network"
            )
    if place.watched is None:
        theirs = Side(place.site, [values, values, *expected.grid(place.site, place.call)])
        return ours, theirs, unstruck_differing(ours, theirs)
    theirs = Side(place.site, [*place.watched.values(tensors), *place.grid])
    return ours, theirs, differing(place.watched, ours, theirs, tensors, *draw, excused)


def _by_runner(
    runner: Runner, inputs: Inputs, expected: Expected, seed: int | None, plan: FaultPlan | None
) -> RunRecord:
    """One run of another engine: its outputs, and the sites that it tells of."""
    tallies: dict[str, Tally] = {}
    outputs = Outputs(expected, inputs.labels, to_the_bit=False)
    batches = _batches(expected.manifest)
    for number, batch in enumerate(batches):
        answer, excuses = ask(runner, inputs.values[batch], seed, batch.start), Excuses()
        for told in site_answers(answer, expected, batch, number):
            nothing = np.zeros(told.differs.shape, bool)
            struck = told.recorded.before != told.recorded.after
            differ = Differing(told.differs, nothing, struck, struck, told.strange, told.values)
            excuses.note(told.site, differ)
            if told.site.name not in tallies:
                tallies[told.site.name] = _tally(told.site, plan, sees_before=False)
            tally = tallies[told.site.name]
            row = batch.start if told.site.batched else number
            tally.add(differ, told.recorded, told.found, told.call, row, batch.start)
        outputs.add_answer(answer, batch, excuses.everywhere(batch.stop - batch.start))
    order = {entry.site.name: i for i, entry in enumerate(expected.manifest.sites)}
    calls = {entry.site.name: entry.calls for entry in expected.manifest.sites}
    rows = {True: expected.manifest.samples, False: len(batches)}
    records = [
        tally.record(calls[name] * rows[tally.site.batched] * tally.width)
        for name, tally in sorted(tallies.items(), key=lambda entry: order[entry[0]])
    ]
    return _finished(records, tallies, outputs, expected, plan)


def _tally(site: Site, plan: FaultPlan | None, *, sees_before: bool = True) -> Tally:
    """The empty tally of a site."""
    held = held_words(plan, site.name) if plan is not None and site.name in plan.names else NO_WORDS
    return Tally(site, held, sees_before=sees_before)


def _finished(
    sites: Sequence[SiteRecord],
    tallies: Mapping[str, Tally],
    outputs: Outputs,
    expected: Expected,
    plan: FaultPlan | None,
) -> RunRecord:
    """The record of a run; the first difference at a struck site has the faults around it."""
    seed = expected.seed
    first = next((site.first for site in sites if site.first is not None), outputs.first)
    if plan is not None and seed is not None and first is not None and first.site in plan.names:
        tally = tallies[first.site]
        first = with_faults(first, plan, seed, tally.first_sample, tally.width)
    recorded = len(expected.sites)
    return RunRecord(seed=seed, sites=tuple(sites), sites_recorded=recorded, first=first, **outputs.counts)
