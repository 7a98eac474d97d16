"""Checking a bundle: its graphs in onnxruntime, or another engine, against what PyTorch recorded; without PyTorch."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import onnxruntime
from onnx import ModelProto

from hwfault import __version__
from hwfault.errors import FileError, GraphError, HwfaultError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.read.versions import NEW, OLD, check_version
from hwfault.graph.run.session import load_model
from hwfault.plan.expected import expected_faults
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.proof.answer import Runner, ask
from hwfault.proof.compare import Comparison
from hwfault.proof.engine import Engine, engine_name
from hwfault.proof.expected import Expected, Inputs
from hwfault.proof.manifest import CLEAN, CLEAN_GRAPH, FAULTED_GRAPH, INPUTS, MANIFEST, PLAN
from hwfault.proof.places import find_tensors, match_recorded
from hwfault.proof.report import ReplayReport, RunRecord
from hwfault.proof.storage import Bundle

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
) -> ReplayReport:
    """Runs the bundle's samples clean and under its seeds, and compares all that is seen with what was recorded.

    Without a `runner` the bundle's graphs run in onnxruntime and every site is compared. A `graph`, as transformed from
    one of them, takes the place of the clean or, where it carries faults, of the faulted one, and has only its runs. A
    runner is called once a batch with the graph's inputs by name (`input`, or several; `hwfault_seed` and
    `hwfault_first_sample`, int64, where faults are meant) and answers with one array, the outputs, or arrays by name
    (hwfault.proof.answer). `engine` is its name in the report. `progress` is called after each run. `seeds` are some of
    the bundle's (None: all). Raises FileError for a record that is not whole, GraphError and PlanError where a graph is
    not that of the record, HwfaultError for seeds that were not recorded and for what a runner raises or answers
    wrongly.
    """
    manifest = bundle.manifest
    chosen = runs_of(bundle, seeds, which, graph)
    inputs, clean = Inputs(bundle), bundle.tensors(CLEAN)
    plan = _plan(bundle) if manifest.seeds else None
    graphs: dict[bool, _Graph] = {}
    runs = []
    for seed in chosen:
        expected, own = Expected.of_bundle(bundle, clean, seed), None if seed is None else plan
        if runner is not None:
            runs.append(_by_runner(runner, inputs, expected, seed, own))
        else:
            if (seed is None) not in graphs:
                graphs[seed is None] = _Graph(bundle, expected, own, graph)
            runs.append(graphs[seed is None].run(inputs, expected, seed))
        progress()
    return ReplayReport(
        bundle_sha256=bundle.digest,
        plan_sha256=manifest.plan_sha256,
        engine=engine or engine_name(),
        versions=checked_with(),
        recorded_with=manifest.versions,
        samples=manifest.samples,
        runs=tuple(runs),
        network=_network(bundle, graph),
        data=_data(bundle),
        **({} if plan is None else plan_told(plan)),
    )


def plan_told(plan: FaultPlan) -> dict[str, Any]:
    """What a report says of a plan: its notes, its faults and how many of them to expect."""
    factors = plan.factors or (1.0,) * len(plan.faults)
    faults = []
    for fault, factor in zip(plan.faults, factors, strict=True):
        times = "" if factor == 1 else f", {factor:g} times its probability"
        faults.append(f"{fault.describe()}{times}")
    return {"notes": plan.notes or (), "faults": tuple(faults), "rate": str(expected_faults(plan))}


def _network(bundle: Bundle, graph: ModelProto | None) -> str:
    """The bundle's graph, or what takes its place."""
    own = f"{CLEAN_GRAPH} of the bundle (SHA-256 {bundle.manifest.files[CLEAN_GRAPH].sha256})"
    return own if graph is None else f"a graph given in the place of one made from {own}"


def _data(bundle: Bundle) -> str:
    digest = bundle.manifest.files[INPUTS].sha256
    return f"{bundle.manifest.samples:,} samples in {INPUTS} of the bundle (SHA-256 {digest})"


def checked_with() -> dict[str, str]:
    """What checks here, and its versions."""
    return {"hwfault": __version__, "onnxruntime": onnxruntime.__version__}


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


class _Graph:
    """A graph of a bundle, or the `given` one in its place, in onnxruntime."""

    def __init__(self, bundle: Bundle, expected: Expected, plan: FaultPlan | None, given: ModelProto | None) -> None:
        name = CLEAN_GRAPH if plan is None else FAULTED_GRAPH
        graph = bundled_graph(bundle, name) if given is None else given
        _check_version(bundle, name, check_version(graph))
        if plan is not None and plan_of(graph).digest != plan.digest:
            raise PlanError(
                f"{bundle.path}: the faulted graph carries another plan than {PLAN}; export the bundle anew"
            )
        self._plan = plan
        self._found = match_recorded(find_tensors(graph, plan), expected.sites, plan)
        self._engine = Engine(graph, self._found)

    def run(self, inputs: Inputs, expected: Expected, seed: int | None) -> RunRecord:
        """One run of it."""
        comparison = Comparison(seed, self._plan, seen_through=True)
        for batch in expected.batches:
            answer = self._engine.run(inputs.rows(batch.samples), seed, batch.first_sample, self._found)
            comparison.add_graph(expected, batch, self._found, answer, inputs.labels)
        return comparison.record(len(expected.sites))


def _by_runner(
    runner: Runner, inputs: Inputs, expected: Expected, seed: int | None, plan: FaultPlan | None
) -> RunRecord:
    """One run of another engine."""
    comparison = Comparison(seed, plan, seen_through=False)
    for batch in expected.batches:
        answer = ask(runner, inputs.rows(batch.samples), seed, batch.first_sample)
        comparison.add_answer(expected, batch, answer, inputs.labels)
    # sites in the order in which they were recorded, each with all that was
    rows = {True: expected.facts.samples, False: len(expected.batches)}
    words = {entry.site.name: entry.calls * rows[entry.site.batched] for entry in expected.sites}
    return comparison.record(len(words), order=list(words), words=words)
