"""Cells of a heat map and places of a ranking: intervals that are all true at once, and ties where they overlap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hwfault.campaigns.statistics.estimates import Array, Claim, Estimate, check_confidence, check_counts
from hwfault.campaigns.statistics.proportions import CONFIDENCE, estimate_rate
from hwfault.errors import HwfaultError


class Place(NamedTuple):
    """The ranks that one number may have, `first` to `last`, the largest number having rank 1.

    `tied` holds the places in the given order of the others that are not told apart from it.
    """

    first: int
    last: int
    tied: tuple[int, ...]


def estimate_cells(
    events: Sequence[int] | Array,
    trials: Sequence[int] | Array,
    confidence: float = CONFIDENCE,
    *,
    sequential: bool,
    claim: Claim = "these",
) -> tuple[Estimate, ...]:
    """The rate of each cell, with intervals that are all true at once (Bonferroni): each has a part of the error.

    `sequential` as in `estimate_rate`. Raises HwfaultError for no cells, a cell without trials, or impossible counts.
    """
    check_confidence(confidence)
    k, n = np.asarray(events, np.float64), np.asarray(trials, np.float64)
    if k.ndim != 1 or k.shape != n.shape or not k.size:
        raise HwfaultError(f"given {k.size} numbers of events and {n.size} of trials, expected one of each for a cell")
    check_counts(k, n)
    each = 1 - (1 - confidence) / k.size
    cells = []
    for cell_events, cell_trials in zip(k.tolist(), n.tolist(), strict=True):
        cell = estimate_rate(cell_events, cell_trials, each, sequential=sequential, claim=claim)
        # what is promised is that of all of them
        cells.append(cell._replace(confidence=confidence, of=f"the rate, one of {k.size} at once"))
    return tuple(cells)


def rank_estimates(estimates: Sequence[Estimate]) -> tuple[Place, ...]:
    """The place of each number, in the order given; with intervals true at once, all places are true at once.

    Two numbers are tied where their intervals overlap, or where both are exact and equal. Raises HwfaultError for none.
    """
    if not estimates:
        raise HwfaultError("given nothing to rank, expected one number at least")
    lows = np.array([one.value if one.ends is None else one.ends[0] for one in estimates])
    highs = np.array([one.value if one.ends is None else one.ends[1] for one in estimates])
    places = []
    for number, (low, high) in enumerate(zip(lows, highs, strict=True)):
        above, below = lows > high, highs < low
        tied = np.flatnonzero(~above & ~below)
        others = tuple(int(other) for other in tied if other != number)
        places.append(Place(1 + int(above.sum()), len(estimates) - int(below.sum()), others))
    return tuple(places)
