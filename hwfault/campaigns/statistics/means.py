"""What trials under fault seeds tell of a mean: Student's interval where there is enough to see, else a bound."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from hwfault.campaigns.statistics.estimates import COVERS, Array, Claim, Estimate, Method, check_range, check_values
from hwfault.campaigns.statistics.looks import LEAST_TRIALS, Looks
from hwfault.campaigns.statistics.proportions import CONFIDENCE, share_at_most
from hwfault.campaigns.statistics.scales import reach_on_both_scales
from hwfault.errors import HwfaultError

LEAST_OTHERS = 10
"""With fewer trials that differ from the commonest one there is no Student's interval."""

Basis = Literal["t", "bound", "same"]

MEAN_COVERS = "the mean over fault seeds on these samples; other samples are not covered"
MEANING: dict[Basis, str] = {
    "t": f"Student's t; at least {LEAST_TRIALS} trials, of which {LEAST_OTHERS} differ from the commonest outcome",
    "bound": (
        "too few trials differ from the commonest outcome: no larger share of fault seeds does so than Clopper and "
        "Pearson allow, and such a trial may come to anything"
    ),
    "same": "every seed has the same faults, so that nothing varies",
}


class Interval(NamedTuple):
    """An interval of a mean over fault seeds, and how it was found; "same" has no interval."""

    by: Basis
    ends: tuple[float, float] | None


def mean_interval(values: Sequence[float], least: float, most: float, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the mean of values within [least, most], one for each fault seed.

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
        half = _half(values, confidence)
        return Interval("t", (max(least, mean - half), min(most, mean + half)))
    # at worst all of that share lie at one end of the range
    share = share_at_most(others, len(values), confidence)
    low = usual - share * (usual - least)
    high = usual + share * (most - usual)
    return Interval("bound", (low, high))


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for one value."""
    if len(values) == 1:
        return None
    return stdev(values)  # in exact fractions: that of equal values is 0


def _half(values: Sequence[float], confidence: float) -> float:
    """Half of Student's interval of the mean of two values or more."""
    from scipy.special import stdtrit  # slow to import, and only needed here

    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    return quantile * stdev(values) / math.sqrt(len(values))


def estimate_mean(
    values: Sequence[float] | Array,
    looks: Looks,
    least: float = 0.0,
    most: float = 1.0,
    *,
    claim: Claim = "these",
    of: str = "the mean",
) -> Estimate:
    """The mean of one number a trial, each over many images, with the interval of one look (`mean_interval`).

    The interval is true at all looks at once with the confidence of `looks`; Student's is taken as far as it reaches on
    either of two scales (`reach_on_both_scales`). Before 20 trials it is a bound. Where 0 is the least that a trial can
    come to and fewer than 10 trials have more, it ends at the largest share of trials that may have more, times `most`.
    Raises HwfaultError for values that are not finite, lie outside of the range, or are more than the looks were
    planned for.
    """
    numbers = check_values(values)
    check_range(numbers, least, most)
    if len(numbers) > looks.max_trials:
        raise HwfaultError(f"given {len(numbers)} trials, but the looks were planned for {looks.max_trials} at most")
    trials, mean = numbers.tolist(), float(numbers.mean())
    by, ends = mean_interval(trials, least, most, 1 - looks.alpha)
    method: Method = "bound"
    if by == "t":
        method, ends = "t", reach_on_both_scales(mean, _half(trials, 1 - looks.alpha), least, most)
    return Estimate(mean, ends, looks.confidence, method, COVERS[claim], of)


def estimate_difference(
    values: Sequence[float] | Array,
    others: Sequence[float] | Array,
    looks: Looks,
    least: float = 0.0,
    most: float = 1.0,
) -> Estimate:
    """How much larger the mean of values is than that of others under the same fault seeds, pair by pair.

    Values and others lie within [least, most]. Raises HwfaultError for unequal numbers of them, and as `estimate_mean`.
    """
    first, second = check_values(values), check_values(others)
    if len(first) != len(second):
        raise HwfaultError(f"given {len(first)} and {len(second)} trials, expected pairs under the same fault seeds")
    for numbers in (first, second):
        check_range(numbers, least, most)
    widest = most - least
    return estimate_mean(first - second, looks, -widest, widest, of="the mean difference by seed")
