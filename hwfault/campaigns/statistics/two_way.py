"""Rates claimed of new images too: fault seeds and images both vary, and each has its part in the variance."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.statistics.estimates import (
    COVERS,
    Array,
    Estimate,
    check_confidence,
    check_range,
    check_values,
)
from hwfault.campaigns.statistics.looks import LEAST_TRIALS, Looks
from hwfault.campaigns.statistics.scales import reach_on_both_scales
from hwfault.errors import HwfaultError

LEAST_WITH_EVENTS = 10
"""Of fewer images, or seeds, with an event no interval is promised."""
_HALVINGS = 64


class Sums(NamedTuple):
    """What a table of results (fault seeds x images) comes to; all that its mean and its variance need.

    `by_seed` and `by_image` are the sums of its rows and columns, `squares` the sum of all squares. Results lie between
    0 and `largest`. `with_events` counts the seeds and the images that have a result above 0, `with_less` those that
    have one below `largest`, each as (seeds, images).
    """

    by_seed: Array
    by_image: Array
    squares: float
    with_events: tuple[int, int]
    with_less: tuple[int, int]
    largest: float = 1.0

    @classmethod
    def of(cls, results: NDArray[Any], largest: float = 1.0) -> "Sums":
        """The sums of results between 0 and `largest`, one row a fault seed, one column an image.

        Raises HwfaultError unless it is a table of finite numbers in that range with two rows and columns at least.
        """
        if results.ndim != 2 or min(results.shape) < 2:
            raise HwfaultError(f"results of shape {results.shape}, expected (seeds, images), two of each at least")
        if results.dtype == np.bool_:
            squares = float(np.count_nonzero(results))  # without a copy eight times as large
        else:
            numbers = check_values(results.astype(np.float64))
            check_range(numbers, 0.0, largest)
            squares = float(np.square(numbers).sum())
        return cls(
            by_seed=results.sum(1, dtype=np.float64),
            by_image=results.sum(0, dtype=np.float64),
            squares=squares,
            with_events=_count_lines(results != 0),
            with_less=_count_lines(results < largest),
            largest=largest,
        )

    @property
    def seeds(self) -> int:
        return len(self.by_seed)

    @property
    def images(self) -> int:
        return len(self.by_image)

    @property
    def mean(self) -> float:
        return float(self.by_seed.sum()) / (self.seeds * self.images)

    @property
    def enough(self) -> bool:
        """Whether an interval is promised: 20 seeds, and 10 seeds and 10 images that have events, and less than all.

        Never where all results are the same, as nothing is seen to vary then.
        """
        if self.seeds < LEAST_TRIALS or min(*self.with_events, *self.with_less) < LEAST_WITH_EVENTS:
            return False
        return split_variance(self).whole > 0


class Parts(NamedTuple):
    """The variance of the mean of a table, by where it comes from.

    `seeds` and `images` are the variances of the means of its rows and of its columns, over their number; either holds
    that of single cells, `cells`, which is therefore taken off once.
    """

    seeds: float
    images: float
    cells: float

    @property
    def whole(self) -> float:
        """The variance of the mean, never less than what either factor shows alone."""
        return max(self.seeds + self.images - self.cells, self.seeds, self.images)

    @property
    def images_alone(self) -> float:
        """What the choice of the images adds, and what more seeds therefore leave as it is."""
        return max(self.images - self.cells, 0.0)


def split_variance(sums: Sums) -> Parts:
    """The parts of the variance of a table's mean, seeds and images both random (two-way, one result a cell).

    Searle, Casella and McCulloch, Variance Components (1992), chapter 4.
    """
    seeds, images = sums.seeds, sums.images
    rows, columns = sums.by_seed / images, sums.by_image / seeds
    # what is left of the squares after rows, columns and the mean
    left = sums.squares - images * np.square(rows).sum() - seeds * np.square(columns).sum()
    left += seeds * images * sums.mean**2
    of_a_cell = max(float(left), 0.0) / ((seeds - 1) * (images - 1))
    return Parts(
        seeds=float(rows.var(ddof=1)) / seeds,
        images=float(columns.var(ddof=1)) / images,
        cells=of_a_cell / (seeds * images),
    )


def estimate_population(sums: Sums, looks: Looks) -> Estimate:
    """The mean over new fault seeds and new images, with the interval of one look at a number of seeds.

    Student's t with min(seeds, images) - 1 degrees of freedom on the whole variance, true at all looks at once, as far
    as it reaches on either of two scales (`reach_on_both_scales`). Where fewer than 10 images or 10 seeds have events,
    or before 20 seeds, it is a bound: Hoeffding's, for the mean over all pairs as for min(seeds, images) independent
    pairs. Raises HwfaultError for more seeds than were planned for.
    """
    if sums.seeds > looks.max_trials:
        raise HwfaultError(f"given {sums.seeds} seeds, but the looks were planned for {looks.max_trials} at most")
    covers = COVERS["population"]
    if not sums.enough:
        of = "the mean over pairs of a new fault seed and a new image"
        return Estimate(sums.mean, _bound_population(sums, looks), looks.confidence, "two-way bound", covers, of)
    half = _quantile(min(sums.seeds, sums.images), 1 - looks.alpha) * math.sqrt(split_variance(sums).whole)
    ends = reach_on_both_scales(sums.mean, half, 0.0, sums.largest)
    return Estimate(sums.mean, ends, looks.confidence, "two-way", covers, "the mean")


def _bound_population(sums: Sums, looks: Looks) -> tuple[float, float]:
    """The ends of a bound: from above where events are few, from below where all but few have one, else both."""
    pairs = min(sums.seeds, sums.images)
    share = min(sums.mean / sums.largest, 1.0)  # a sum of many may be rounded up
    few_events = min(sums.with_events) < LEAST_WITH_EVENTS
    few_others = min(sums.with_less) < LEAST_WITH_EVENTS
    if few_events and not few_others:
        return 0.0, sums.largest * bound_mean(share, pairs, 1 - looks.alpha)
    if few_others and not few_events:
        return sums.largest * (1 - bound_mean(1 - share, pairs, 1 - looks.alpha)), sums.largest
    high = bound_mean(share, pairs, 1 - looks.alpha / 2)
    low = 1 - bound_mean(1 - share, pairs, 1 - looks.alpha / 2)
    return sums.largest * low, sums.largest * high


def half_width_by_images(sums: Sums, looks: Looks) -> float:
    """Half of the interval that is left on these images however many seeds follow."""
    return _quantile(sums.images, 1 - looks.alpha) * math.sqrt(split_variance(sums).images_alone)


def count_images_needed(sums: Sums, looks: Looks, half_width: float) -> int:
    """About how many images would make their own part of the interval as narrow as `half_width`; never less than now.

    Their part of the variance falls with their number. Raises HwfaultError unless half_width is more than 0.
    """
    if not half_width > 0:
        raise HwfaultError(f"an interval of half width {half_width} is the goal, expected more than 0")
    factor = (half_width_by_images(sums, looks) / half_width) ** 2
    return max(sums.images, math.ceil(sums.images * factor))


def bound_mean(mean: float, number: int, confidence: float) -> float:
    """The largest expectation in [0, 1] that a mean of `number` independent values in [0, 1] may have.

    From Hoeffding's (1963) theorem 1, exp(-number * relative entropy), which section 5 there extends to means over all
    pairs of two samples with the smaller one's size as number. Without events it is Clopper and Pearson's bound.
    """
    from scipy.special import rel_entr  # slow to import, and only needed here

    check_confidence(confidence)
    check_range(check_values([mean]), 0.0, 1.0)
    if mean >= 1:
        return 1.0
    limit = -math.log1p(-confidence) / number
    possible, ruled_out = mean, 1.0
    for _ in range(_HALVINGS):
        middle = (possible + ruled_out) / 2
        entropy = rel_entr(mean, middle) + rel_entr(1 - mean, 1 - middle)
        if entropy < limit:
            possible = middle
        else:
            ruled_out = middle
    return ruled_out


def _count_lines(marked: NDArray[np.bool_]) -> tuple[int, int]:
    """How many rows and how many columns have a mark."""
    return int(np.count_nonzero(marked.any(1))), int(np.count_nonzero(marked.any(0)))


def _quantile(number: int, confidence: float) -> float:
    """Student's quantile for a two-sided interval from `number` means."""
    from scipy.special import stdtrit  # slow to import, and only needed here

    return float(stdtrit(number - 1, (1 + confidence) / 2))
