"""Plans that name the faulty cells: nothing is drawn, and what differs from trial to trial are rows of maps."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.engines.engine import Numbers
from hwfault.plan.fault_plan import FaultPlan, needs_stream
from hwfault.program.permanent import permanent_cells, without_cells
from hwfault.program.processes import SitePlan
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.tables import SAMPLED_WORDS

Cells = Mapping[str, FaultMap]
"""What a trial strikes in every sample, by the names of the sites."""

Rows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""The rows of a map as a graph takes them: words, and_masks, xor_masks."""


def cells_of(plan: FaultPlan) -> Cells | None:
    """The cells of a plan that strikes with permanent maps alone, none of them at an accumulator; None for others."""
    found = {}
    for entry in plan.sites:
        steps = plan.steps(entry.site.name)
        if entry.site.kind == "accumulator" or entry.array is not None or len(steps) != 1:
            return None
        cells = permanent_cells(steps[0])
        if cells is None or entry.site.words is None or entry.site.words >= SAMPLED_WORDS:
            return None
        found[entry.site.name] = cells
    return found or None


def plan_of_sites(entries: Iterable[SitePlan], like: FaultPlan, *, by_sample: bool) -> FaultPlan:
    """A plan of empty maps at the sites of some entries; `by_sample`: those of activations are of single samples.

    Their numbers are those of trials then, so that a batch may hold samples of several.
    """
    struck = [entry.model_copy(update={"processes": (without_cells(entry, by_sample=by_sample),)}) for entry in entries]
    stream = needs_stream(entry.site for entry in struck)
    return FaultPlan(faults=like.faults, sites=tuple(struck), tables=(), stream=stream)


def rows_of_trials(trials: Sequence[Cells], site: str) -> Rows:
    """The rows of a site's map of single samples, which are numbered as the trials are."""
    rows: list[Rows] = []
    for number, cells in enumerate(trials):
        if site in cells:
            rows.append(rows_of(cells[site], number))
    if not rows:
        return rows_of(None)
    word, and_mask, xor_mask = (np.concatenate(column) for column in zip(*rows, strict=True))
    return word, and_mask, xor_mask


def rows_of(cells: FaultMap | None, number: int = 0) -> Rows:
    """The rows of a map, as those of the sample of that number."""
    if cells is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    word: Numbers = cells.word.astype(np.int64) + number * SAMPLED_WORDS
    return word, cells.and_mask.astype(np.int64), cells.xor_mask.astype(np.int64)
