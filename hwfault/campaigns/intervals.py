"""What trials under fault seeds tell of a mean: Student's interval where there is enough to see, else a bound."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal, NamedTuple

LEAST_TRIALS, LEAST_OTHERS = 20, 10
"""Before so many trials, so many of which differ from the commonest one, there is no Student's interval."""
CONFIDENCE = 0.95

Basis = Literal["t", "bound", "same"]

COVERS = "the mean over fault seeds on these samples; other samples are not covered"
MEANING: dict[Basis, str] = {
    "t": f"Student's t; at least {LEAST_TRIALS} trials, of which {LEAST_OTHERS} differ from the commonest outcome",
    "bound": (
        "too few trials differ from the commonest outcome: no larger share of fault seeds does so than Clopper and "
        "Pearson allow, and such a trial may come to anything"
    ),
    "same": "every seed has the same faults, so that nothing varies",
}


class Interval(NamedTuple):
    """A 95 % interval of a mean over fault seeds, and how it was found; "same" has no interval."""

    by: Basis
    ends: tuple[float, float] | None


def mean_interval(values: Sequence[float], least: float, most: float) -> Interval:
    """The 95 % interval of the mean of values within [least, most], one for each fault seed.

    Student's t, cut to the range, where at least 20 values are given and 10 of them differ from the commonest: faults
    that seldom matter make a t interval too narrow, and one without any width where they did not matter at all. With
    fewer a bound that holds for any distribution: if a share of seeds of at most u (Clopper and Pearson, one-sided)
    has another value, the mean is at most u of the way from the commonest value to either end of the range. One value
    tells nothing.
    """
    if len(values) == 1:
        return Interval("bound", (least, most))
    usual, many = Counter(values).most_common(1)[0]
    others = len(values) - many
    if len(values) >= LEAST_TRIALS and others >= LEAST_OTHERS:
        mean = fmean(values)
        half = _half(values)
        return Interval("t", (max(least, mean - half), min(most, mean + half)))
    # at worst all of that share lie at one end of the range
    share = share_at_most(others, len(values))
    low = usual - share * (usual - least)
    high = usual + share * (most - usual)
    return Interval("bound", (low, high))


def share_at_most(events: int, trials: int) -> float:
    """The 95 % upper bound (one-sided, Clopper and Pearson) on the share of seeds with an event, of `trials` seen.

    The number that scipy.stats.binomtest(events, trials, alternative="less") gives as an exact interval's upper end.
    """
    from scipy.special import betaincinv  # slow to import, and only needed here

    if events == trials:
        return 1.0
    return float(betaincinv(events + 1, trials - events, CONFIDENCE))


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for one value."""
    if len(values) == 1:
        return None
    return stdev(values)  # in exact fractions: that of equal values is 0


def _half(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean of two values or more."""
    from scipy.special import stdtrit  # slow to import, and only needed here

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * stdev(values) / math.sqrt(len(values))
