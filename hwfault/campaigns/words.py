"""Numbers of trials as people read them: shares, percentage points, and intervals that never look like certainty."""

from collections.abc import Sequence

from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.statistics.means import Interval

_MOST_DECIMALS = 12


def cell(estimate: Estimate | None) -> str:
    """A rate with its interval; an interval is never told as wider or narrower than it is."""
    if estimate is None:
        return "-"
    if estimate.ends is None:
        return f"{estimate.value:.4g} exact"
    low, high = estimate.ends
    return f"{estimate.value:.3g} ({low:.3g} to {high:.3g})"


def percent(value: float | None) -> str:
    """A share as people read it; "-" for none."""
    return "-" if value is None else f"{value:.2%}"


def points(value: float | None, *, signed: bool = False) -> str:
    """A difference of shares in percentage points, without their name; "-" for none."""
    if value is None:
        return "-"
    text = f"{100 * value:+.2f}"
    if float(text) == 0:
        text = text.replace("-", "+")  # what rounds to nothing is no loss
    return text if signed else text.removeprefix("+")


def decimals(values: Sequence[float], least: int = 2) -> int:
    """How many decimals of a percentage tell the different ones among some shares apart, `least` or more."""
    different = set(values)
    for n in range(least, _MOST_DECIMALS):
        texts = {f"{value:.{n}%}" for value in different}
        if len(texts) == len(different):
            return n
    return _MOST_DECIMALS


def accuracy(mean: float, interval: Interval, least: int = 2) -> str:
    """A mean with its interval in one cell: ± for Student's t, both ends for a bound, alone where nothing varies.

    Both ends, too, for an interval that was cut to the range of accuracies, whose middle is not the mean.
    """
    if interval.ends is None:
        return f"{mean:.{least}%}"
    low, high = interval.ends
    n = decimals((low, mean, high), least)
    if interval.by == "t" and low > 0 and high < 1:
        half = (high - low) / 2
        n = max(n, _decimals_above_zero(100 * half, least))
        return f"{mean:.{n}%} ±{100 * half:.{n}f}"
    return f"{mean:.{n}%} ({low:.{n}%} to {high:.{n}%})"


def _decimals_above_zero(value: float, least: int) -> int:
    """How many decimals show that a value is not 0, `least` where none does: ±0.00 would look like certainty."""
    for n in range(least, _MOST_DECIMALS):
        if float(f"{value:.{n}f}") > 0:
            return n
    return least


def difference(mean: float, interval: Interval) -> str:
    """A difference in percentage points with its interval in one cell."""
    if interval.ends is None:
        return points(mean, signed=True)
    low, high = interval.ends
    n = decimals((low, high, mean))
    bound = "bound " if interval.by == "bound" else ""
    return f"{100 * mean:+.{n}f} ({bound}{100 * low:+.{n}f} to {100 * high:+.{n}f})"
