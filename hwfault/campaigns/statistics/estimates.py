"""An estimated number with its interval, how that was found and what it covers; and what is no data."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import HwfaultError

Array = NDArray[np.float64]

Claim = Literal["these", "population"]
"""Whether a number is claimed of the images that were used, or of others like them too."""

COVERS: dict[Claim, str] = {"these": "these images, new fault seeds", "population": "new fault seeds, new images too"}

Method = Literal[
    "exact",
    "clopper-pearson",
    "clopper-pearson bound",
    "sequence",
    "sequence bound",
    "t",
    "bound",
    "two-way",
    "two-way bound",
    "gamma",
]

METHODS: dict[Method, str] = {
    "exact": "every fault was tried, so that nothing is estimated",
    "clopper-pearson": "Clopper and Pearson, for a number of trials fixed beforehand",
    "clopper-pearson bound": "Clopper and Pearson, one-sided, for a number of trials fixed beforehand",
    "sequence": "a beta-binomial confidence sequence, which holds at every number of trials at once",
    "sequence bound": "a one-sided beta-binomial confidence sequence, which holds at every number of trials at once",
    "t": "Student's t (also on the log-odds) at doubling numbers of trials, Bonferroni over the looks",
    "bound": "too few trials differ from the commonest one: Clopper and Pearson on how many do, at their worst",
    "two-way": "seeds and images both random: Student's t (also on the log-odds) at doubling numbers, Bonferroni",
    "two-way bound": "too few images or seeds have an event: Hoeffding's bound for pairs of a new seed and a new image",
    "gamma": "Fay and Feuer's gamma interval of a weighted sum",
}


class Estimate(NamedTuple):
    """A number, the ends of its interval, and what these words mean.

    `ends` is None where nothing is estimated (`by` "exact"); the intervals of this room never have no width. One end of
    a bound ("... bound") is the end of what is possible. `of` says what number it is.
    """

    value: float
    ends: tuple[float, float] | None
    confidence: float | None
    by: Method
    covers: str
    of: str = "the rate"

    @property
    def half_width(self) -> float:
        """Half of the interval's width; 0 where the number is exact."""
        if self.ends is None:
            return 0.0
        low, high = self.ends
        return (high - low) / 2


def exact_estimate(value: float, total: int, of: str = "the rate") -> Estimate:
    """What all `total` possible faults came to: exact, without an interval; raises HwfaultError for no faults."""
    if total < 1:
        raise HwfaultError(f"a census of {total} faults, expected at least one: there is nothing to try")
    check_values([value])
    return Estimate(value, None, None, "exact", f"exact, all {total:,}", of)


def check_confidence(confidence: float) -> None:
    """Raises HwfaultError unless a confidence lies between 0 and 1, both excluded."""
    if not 0 < confidence < 1:
        raise HwfaultError(f"the confidence is {confidence!r}, expected a number between 0 and 1 such as 0.95")


def check_counts(events: Array | float, trials: Array | float) -> None:
    """Raises HwfaultError unless there are trials, and no more events than trials."""
    if not np.all(np.greater_equal(trials, 1)) or not np.all(np.isfinite(trials)):
        raise HwfaultError(f"given {trials} trials, expected at least one")
    if not np.all(np.greater_equal(events, 0) & np.less_equal(events, trials)):
        raise HwfaultError(f"given {events} events in {trials} trials, expected between none and as many as trials")


def check_values(values: Sequence[float] | Array) -> Array:
    """The values as an array; raises HwfaultError where there is none, or one that is not a finite number."""
    array = np.asarray(values, np.float64)
    if not array.size:
        raise HwfaultError("given no values, expected one for each trial")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise HwfaultError(f"value {bad[0]} of {array.size} is {array.flat[bad[0]]}, expected finite numbers")
    return array


def check_range(values: Array, least: float, most: float) -> None:
    """Raises HwfaultError unless the range holds more than one number, and all values."""
    if not (math.isfinite(least) and math.isfinite(most) and least < most):
        raise HwfaultError(f"the possible values are {least} to {most}, expected two finite numbers, the smaller first")
    if values.min() < least or values.max() > most:
        raise HwfaultError(
            f"given values from {values.min()} to {values.max()}, expected all within {least} and {most}: "
            "give the range of what a trial can come to"
        )
