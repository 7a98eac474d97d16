"""How far an interval reaches where what it is of cannot be symmetric: near the end of what is possible."""

import math

_LARGEST_EXPONENT = 300.0
"""Odds that reach so far, times e to it, reach everything."""


def reach_on_both_scales(mean: float, half: float, least: float, most: float) -> tuple[float, float]:
    """The ends of an interval of half width `half` on the scale of a mean or of its log-odds, the outer of each two.

    The log-odds are those of the distances to `least` and `most`, between which the ends are kept; half a width on
    their scale follows from their derivative at the mean. A few seeds or images are often responsible for most of a
    small rate: where they are missing both mean and spread are too small, and an interval as long on both sides misses
    the truth from below. Far from both ends, or where `half` is small, the two scales agree.
    """
    low, high = max(least, mean - half), min(most, mean + half)
    below, above = mean - least, most - mean
    if below <= 0 or above <= 0:
        return low, high
    exponent = half * (most - least) / (below * above)
    factor = math.exp(min(exponent, _LARGEST_EXPONENT))
    odds = below / above
    share_low, share_high = odds / factor / (1 + odds / factor), odds * factor / (1 + odds * factor)
    span = most - least
    return max(least, min(low, least + span * share_low)), min(most, max(high, least + span * share_high))
