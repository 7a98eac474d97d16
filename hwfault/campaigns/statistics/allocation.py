"""How many trials each stratum gets: fixed before the first trial, so that the estimate is not biased."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.statistics.estimates import Array, check_values
from hwfault.errors import HwfaultError

Goal = Literal["bound", "estimate"]
"""A guarantee from above, by trials in proportion to the faults; or a narrow interval, by where harm is expected."""

LEAST_TRIALS = 2
"""Of each stratum, so that each shows something of its own; one of fewer faults is tried whole."""
_NOTHING = 1e-100
"""A score so much smaller than the largest is none."""
_HALVINGS = 200
_ROUNDING = 1e-6


class Allocation(NamedTuple):
    """The number of trials of each stratum, and whether that is every fault of it."""

    trials: tuple[int, ...]
    exhaustive: tuple[bool, ...]
    goal: Goal


def allocate_trials(
    sizes: Sequence[int], trials: int, goal: Goal = "bound", scores: Sequence[float] | None = None
) -> Allocation:
    """How `trials` are divided among strata of `sizes` faults; the numbers add up to them.

    For the goal "bound" in proportion to the sizes: a bound is decided by the heaviest trial. For "estimate" in
    proportion to size times score (Neyman), where a score, fixed beforehand, says how much the outcome is expected to
    vary within the stratum: the square root of the rate expected by first order. Each stratum gets 2 at least and no
    more than it has faults; the rest goes to the others. With as many trials as faults, or more, all are tried. Raises
    HwfaultError for empty strata, fewer trials than 2 for each, or scores that are negative, not finite, or all 0.
    """
    most = _check_sizes(sizes)
    least = np.minimum(LEAST_TRIALS, most)
    wanted = _weigh(most, goal, scores)
    if trials >= most.sum():
        return _allocated(most, most, goal)
    if trials < least.sum():
        raise HwfaultError(
            f"given {trials} trials for {len(most)} strata, expected at least {least.sum()}: "
            f"{LEAST_TRIALS} for each, or all of its faults"
        )
    return _allocated(_round(_fill(wanted, least, most, trials), most, trials), most, goal)


def _check_sizes(sizes: Sequence[int]) -> NDArray[np.int64]:
    """The sizes; raises HwfaultError where there is none, or one below 1."""
    most = np.asarray(sizes, np.int64)
    if not most.size or most.min() < 1:
        raise HwfaultError(f"given strata of {list(sizes)} faults, expected at least one stratum, none of them empty")
    return most


def _weigh(most: NDArray[np.int64], goal: Goal, scores: Sequence[float] | None) -> Array:
    """What the trials are to be proportional to."""
    if goal == "bound":
        return most.astype(np.float64)
    if scores is None or len(scores) != len(most):
        raise HwfaultError(
            f"the goal 'estimate' is given {0 if scores is None else len(scores)} scores for {len(most)} strata, "
            "expected one for each"
        )
    given = check_values(scores)
    if given.min() < 0 or given.max() == 0:
        raise HwfaultError(
            f"the scores lie between {given.min():g} and {given.max():g}, expected none below 0 and one above: "
            "where nothing is expected anywhere use the goal 'bound'"
        )
    relative = given / given.max()
    weights: Array = most.astype(np.float64) * np.where(relative < _NOTHING, 0.0, relative)
    return weights


def _fill(wanted: Array, least: NDArray[np.int64], most: NDArray[np.int64], trials: int) -> Array:
    """The shares proportional to what is wanted, between least and most, that add up to the trials (not yet whole)."""
    keen = wanted > 0
    if most[keen].sum() + least[~keen].sum() < trials:
        # all that want any are full, and what is left over goes to the others by their size
        least = np.where(keen, most, least)
        wanted = np.where(keen, 0.0, most.astype(np.float64))
        keen = wanted > 0

    # between the factor that lifts none above its least, and the one that fills all
    low = float((least[keen] / wanted[keen]).min())
    high = float((most[keen] / wanted[keen]).max())
    for _ in range(_HALVINGS):
        middle = math.sqrt(low) * math.sqrt(high)  # scores may differ by many orders
        if np.clip(middle * wanted, least, most).sum() < trials:
            low = middle
        else:
            high = middle
    shares: Array = np.clip(high * wanted, least, most)
    return shares


def _round(shares: Array, most: NDArray[np.int64], trials: int) -> NDArray[np.int64]:
    """Whole numbers adding up to the trials; those with the largest remainders are rounded up, the first of equals."""
    whole = np.floor(shares + _ROUNDING).astype(np.int64)
    missing = trials - int(whole.sum())
    order = np.argsort(np.where(whole < most, whole - shares, np.inf), kind="stable")
    whole[order[:missing]] += 1
    return whole


def _allocated(numbers: NDArray[np.int64], most: NDArray[np.int64], goal: Goal) -> Allocation:
    return Allocation(tuple(numbers.tolist()), tuple((numbers == most).tolist()), goal)
