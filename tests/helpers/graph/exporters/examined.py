"""What is measured of each graph of the set; the tests ask for it one by one, and the page shows all."""

from collections import Counter
from functools import cache
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import SiteList
from tests.helpers.graph.exporters import oracle
from tests.helpers.graph.exporters.case import samples
from tests.helpers.graph.exporters.census import Held, count
from tests.helpers.graph.exporters.flips import Watched
from tests.helpers.graph.exporters.table import CASES, graph
from tests.helpers.graph.exporters.transformations import TRANSFORMATIONS

PROBABILITY = 0.02
SEEDS = range(24)
AGAIN = range(1000, 1096)
SEED = 11


class Struck(NamedTuple):
    """A graph of the set with a plan that strikes all of its sites."""

    clean: ModelProto
    found: SiteList
    plan: FaultPlan
    faulted: ModelProto


@cache
def struck(name: str) -> Struck:
    clean = graph(name)
    found = sites(clean)
    plan = resolve(found, [BitFlips(probability=PROBABILITY)])
    return Struck(clean, found, plan, insert_faults(clean, plan))


class Agreement(NamedTuple):
    """A session without faults against the oracle.

    `rounded` numbers of `of` differ where the oracle rounds a sum otherwise, `fused` outputs of `outputs` once
    onnxruntime fuses layers (None: then it does not load the graph), by at most `largest` of the largest output;
    `unexplained` is what nothing explains.
    """

    rounded: int
    of: int
    fused: int | None
    outputs: int
    largest: float
    unexplained: list[oracle.Difference]


def agreement(name: str) -> Agreement:
    """QONNX against qonnx's executor as a whole, ONNX' own integers node by node."""
    model, x = graph(name), samples(CASES[name].shape, 4)
    (plain,) = run(session(model, threads=1, graph_optimization="none"), x)
    moved, largest = _fused(model, x, plain)
    if is_qonnx(model):
        expected = by_executor(model, x)
        differing = int((plain != expected).sum())
        unexplained = [oracle.Difference("the whole graph", differing, plain.size, False)] if differing else []
        return Agreement(0, plain.size, moved, plain.size, largest, unexplained)
    differences = oracle.compare(model, x)
    rounded = sum(entry.numbers for entry in differences)
    unexplained = [entry for entry in differences if not entry.rounding]
    return Agreement(rounded, oracle.numbers(model, x), moved, plain.size, largest, unexplained)


def _fused(model: ModelProto, x: np.ndarray, plain: np.ndarray) -> tuple[int | None, float]:
    """How many outputs differ once onnxruntime fuses layers, and by how much."""
    try:
        (fused,) = run(session(model, threads=1), x)
    except GraphError:
        return None, 0.0
    return int((plain != fused).sum()), float(np.abs(plain - fused).max() / np.abs(plain).max())


def is_qonnx(model: ModelProto) -> bool:
    return any(node.domain.startswith(("qonnx", "onnx.brevitas")) for node in model.graph.node)


def by_executor(model: ModelProto, x: np.ndarray) -> np.ndarray:
    """qonnx's own executor, on a graph whose batch is of this size and whose numbers are float32."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    kept = {tensor.name for tensor in fixed.graph.initializer}
    for info in (*fixed.graph.input, *fixed.graph.output):
        if info.name not in kept and info.type.tensor_type.shape.dim:
            info.type.tensor_type.shape.dim[0].dim_value = len(x)
    del fixed.graph.value_info[:]
    wrapper = ModelWrapper(fixed).transform(InferShapes())
    (out,) = execute_onnx(wrapper, {model.graph.input[0].name: x}).values()
    return np.asarray(out)


class Completeness(NamedTuple):
    """The tensors that are struck, and what is counted; the number of obstacles, and how many there should be."""

    struck: dict[str, Held]
    counted: dict[str, Held]
    obstacles: int
    expected_obstacles: int
    accumulators: int
    kinds: dict[str, int]


def completeness(name: str) -> Completeness:
    made = struck(name)
    counted = count(made.clean)
    entries = [entry for entry in fault_nodes(made.faulted) if made.plan.at(entry.site).site.kind != "accumulator"]
    first = {}
    for entry in entries:  # a memory that several nodes read is counted once
        first.setdefault(entry.site, entry)
    of_sites = {}
    for site, entry in first.items():
        own = made.plan.at(site).site
        held = Held(not own.batched, own.bit_width, own.signed)
        # constants of 4 bits are held in 8 in the faulted graph
        of_sites[entry.after.removesuffix("_held") if held.bits == 4 else entry.after] = held
    sums = [site for site in made.found if site.kind == "accumulator"]
    kinds = {kind: sum(site.kind == kind for site in made.found) for kind in KINDS}
    expected = len(counted.layers) - len(sums) + len(counted.inside) + len(counted.narrow) + len(counted.unknown)
    return Completeness(of_sites, counted.tensors, len(made.found.obstacles), expected, len(sums), kinds)


KINDS = ("activation", "input", "weight", "bias", "accumulator")


class Rate(NamedTuple):
    """Flips among bits (or changed words among words), and how many standard errors that is from what was asked."""

    flips: int
    of: int
    errors: float
    again: bool = False


def rates(name: str) -> dict[str, Rate]:
    """The measured rate of each site; one that is more than 3 standard errors off is measured again with other seeds.

    Of some 500 sites one or two are expected to be that far off by chance, but not twice.
    """
    watched = Watched(struck(name).faulted)
    found = measure(watched, name, SEEDS)
    off = {site for site, rate in found.items() if abs(rate.errors) > 3}
    if off:
        again = measure(watched, name, AGAIN)
        found |= {site: again[site]._replace(again=True) for site in off}
    return found


def measure(watched: Watched, name: str, seeds: range) -> dict[str, Rate]:
    """Flips among bits, or, where float32 rounds the lowest bits of a word away, words that change among words."""
    x = samples(CASES[name].shape, 4)
    flips: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for seed in seeds:
        seen, _ = watched.run(x, seed)
        for site, words in seen.items():
            rounded = site in watched.rounded
            flips[site] += int(np.count_nonzero(words) if rounded else np.bitwise_count(words).sum())
            places[site] += words.size * (1 if rounded else watched.sites[site].bits)
    found = {}
    for site, total in places.items():
        chance = PROBABILITY
        if site in watched.rounded:
            chance = 1 - (1 - PROBABILITY) ** watched.sites[site].bits
        error = sqrt(total * chance * (1 - chance))
        found[site] = Rate(flips[site], total, (flips[site] - total * chance) / error)
    return found


class Batches(NamedTuple):
    """A batch of 8 against 8 of one: flips that are elsewhere, of how many, and outputs that differ, of how many.

    `differing` counts outputs to the bit, and `unexplained` those that differ by more than the rounding of sums, which
    onnxruntime adds up in another order for one row than for several.
    """

    moved: int
    flips: int
    differing: int
    unexplained: int
    outputs: int


def batches(name: str) -> Batches:
    made = struck(name)
    watched, x = Watched(made.faulted), samples(CASES[name].shape, 8)
    together, outputs = watched.run(x, SEED, first=3)
    alone = [watched.run(x[i : i + 1], SEED, first=3 + i) for i in range(len(x))]
    moved = flips = 0
    for site, words in together.items():
        own = made.plan.at(site.split(" (")[0]).site
        singles = [flipped[site] for flipped, _ in alone]
        if own.batched:
            other = np.concatenate(singles, axis=own.batch_axis.axis)
            moved += int((words != other).sum())
        else:
            moved += sum(int((words != single).sum()) for single in singles)
        flips += int(np.bitwise_count(words).sum())
    differing = unexplained = 0
    for place, out in enumerate(outputs):
        other = np.concatenate([single[place] for _, single in alone])
        differing += int((out != other).sum())
        unexplained += int((np.abs(out - other) > oracle.CLOSE * np.abs(out).max()).sum())
    return Batches(moved, flips, differing, unexplained, sum(out.size for out in outputs))


def stripped(name: str) -> bool:
    """Whether the graph before comes back in every byte."""
    made = struck(name)
    return strip_faults(made.faulted).SerializeToString() == made.clean.SerializeToString()


Outcome = Literal["kept", "nothing to do", "refused", "not possible", "WRONG"]


class Transformed(NamedTuple):
    """What became of the faults of a graph in a transformation, and why."""

    outcome: Outcome
    why: str = ""


def transformed(name: str, transformation: str) -> Transformed:
    """Kept: the plan is read, and the same bits flip. Not possible: the transformation itself fails."""
    made = struck(name)
    try:
        after = TRANSFORMATIONS[transformation](made.faulted)
    except Exception as error:  # of whatever type others raise
        return Transformed("not possible", _first_line(error))
    try:
        plan = plan_of(after)
        session(after, threads=1, graph_optimization="none")
    except HwfaultError as error:
        return Transformed("refused", _first_line(error))
    if plan != made.plan:
        return Transformed("WRONG", "another plan")
    x = samples(CASES[name].shape, 3)
    before_flips, before = Watched(made.faulted).run(x, SEED)
    after_flips, outputs = Watched(after).run(x, SEED)
    if different := _find_different(made.plan, before_flips, after_flips):
        return Transformed("WRONG", f"other bits flip at {different}")
    for one, other in zip(before, outputs, strict=True):
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-4, atol=1e-4 * (np.abs(one).max() + 1)):
            return Transformed("WRONG", "other outputs")
    unchanged = len(after.graph.node) == len(made.faulted.graph.node) and not _rewritten(made.faulted, after)
    return Transformed("nothing to do" if unchanged else "kept")


def _find_different(plan: FaultPlan, before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> str:
    """A site at which other bits flip; words of weights may lie otherwise, but are the same ones."""
    for site in plan.names:
        flips = [_runs_of(site, found) for found in (before, after)]
        if not all(flips):
            if any(flips):
                return site
            continue
        first = flips[0][0]
        if not all(np.array_equal(first, other) for found in flips for other in found):
            return site
    return ""


def _runs_of(site: str, flips: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The flips of a site wherever it is read: those of a parameter may be read in several places, or joined in one."""
    return [words for name, words in flips.items() if name == site or name.startswith(f"{site} (")]


def _rewritten(before: ModelProto, after: ModelProto) -> bool:
    return before.graph.SerializeToString() != after.graph.SerializeToString()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
