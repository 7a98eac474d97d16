"""Rates and intervals as a page tells them: with as many digits as tell the number from its interval's ends."""

from collections.abc import Iterable

import numpy as np

from hwfault.campaigns.statistics.estimates import Estimate

_LEAST_DIGITS, _MOST_DIGITS = 3, 15
SPACE = "\u00a0"
"""Does not end a line: a number stays beside its sign."""
_SMALL = 1e-8
"""Below it a percentage has too many noughts to read."""


def share(value: float, digits: int = _LEAST_DIGITS) -> str:
    """A rate as a percentage, whatever its size, so that the numbers of a page have one unit."""
    if value != 0 and abs(value) < _SMALL:
        number = f"{100 * value:.{digits}g}"
    else:
        number = np.format_float_positional(100 * value, precision=digits, fractional=False, trim="-")
    return f"{number}{SPACE}%"


def interval(estimate: Estimate) -> str:
    """The ends of an interval, which never look as if they were one; "exact" where there is none."""
    if estimate.ends is None:
        return "exact"
    low, high = _apart((estimate.ends[0], estimate.value, estimate.ends[1]))[::2]
    return f"{low} to {high}"


def told(estimate: Estimate) -> str:
    """A rate with its interval; of an exact one, of how many possible faults it is."""
    if estimate.ends is None:
        return f"{share(estimate.value)} ({estimate.covers})"
    low, middle, high = _apart((estimate.ends[0], estimate.value, estimate.ends[1]))
    return f"{middle} ({low} to {high})"


def at_most(estimate: Estimate) -> str:
    """The upper end of an interval."""
    return share(estimate.value if estimate.ends is None else estimate.ends[1])


def confidence(estimate: Estimate) -> str:
    """With which confidence, and of what: "95 % interval; these images, new fault seeds"."""
    if estimate.confidence is None:
        return estimate.covers
    # a reader who sees a wide interval is told that more trials, and not other faults, make it narrow
    bound = ", a bound, as too few trials differ" if estimate.by == "bound" else ""
    return f"{100 * estimate.confidence:g}{SPACE}% interval{bound}; {estimate.covers}"


def number_of(count: int, thing: str) -> str:
    """A number of things: 1 trial, 2,000 trials."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _apart(values: tuple[float, float, float]) -> list[str]:
    """The values with so many digits that different ones look different."""
    texts = [share(value) for value in values]
    for digits in range(_LEAST_DIGITS, _MOST_DIGITS + 1):
        texts = [share(value, digits) for value in values]
        if len(set(texts)) == _count(values):
            break
    return texts


def _count(values: Iterable[float]) -> int:
    return len(set(values))
