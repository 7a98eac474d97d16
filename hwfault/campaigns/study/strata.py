"""Strata of a fault space, site by bit: which stratum, cell and sample each trial strikes, from its key alone.

The trials of a task are in one order, whose first n are divided among the strata as n trials are to be: two for each,
one stratum after the other, twice; then always the stratum with the largest weight / (2 * its trials + 1), the first of
equals (Sainte-Lague). So what fewer trials have is part of what more have, and no limit of trials changes the order.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.statistics.allocation import LEAST_TRIALS
from hwfault.campaigns.study.space import FaultSpace, draw_number
from hwfault.errors import FileError, HwfaultError

Numbers = NDArray[np.int64]

WEIGHT_BITS = 20
"""The largest weight is 2^20."""
_STEPS = 2
"""Weights are rounded to so many steps for a factor of two: a machine that rounds a score otherwise has the same."""
_MOST_BITS = 32
_FIRST_LOOK = 8
"""At the first look there are so many trials for each stratum in the mean, as fewer show next to nothing."""
_DEFENCE = 0.1
"""The part of the trials that goes by size alone, so that no stratum is left to a score that is wrong."""


class Strata(NamedTuple):
    """Strata of a space whose sites end at the cells `ends` and have words of `widths` bits; of `samples` each.

    Stratum number i is a bit of a site, by sites and then bits from the lowest. `weights` say how many trials each is
    to have, beside the others; the key of the first trial is `first`.
    """

    ends: tuple[int, ...]
    widths: tuple[int, ...]
    weights: tuple[int, ...]
    samples: int
    first: int

    @property
    def sizes(self) -> Numbers:
        """How many pairs of a cell and a sample each stratum has."""
        cells = np.diff([0, *self.ends])
        words = cells // np.array(self.widths)
        return np.repeat(words, self.widths).astype(np.int64) * self.samples

    @property
    def first_look(self) -> int:
        """After how many trials one looks first."""
        return _FIRST_LOOK * len(self.weights)

    def of_keys(self, keys: Sequence[int] | NDArray[np.uint64]) -> Numbers:
        """The stratum of each trial; raises HwfaultError for a key before the first."""
        found = np.asarray(keys, np.uint64)
        if not found.size:
            return np.zeros(0, np.int64)
        if found.min() < self.first:
            raise HwfaultError(f"trial {found.min()}, expected {self.first} or a later one")
        places = (found - np.uint64(self.first)).astype(np.int64)
        return _order(self.weights, _rounded_up(int(places.max()) + 1))[places]

    def pair(self, key: int) -> tuple[int, int]:
        """The cell and the sample of a trial, drawn with replacement and uniformly from its stratum."""
        stratum = int(self.of_keys([key])[0])
        ends = np.cumsum(self.widths)
        site = int(np.searchsorted(ends, stratum, side="right"))
        bit = stratum - int(ends[site] - self.widths[site])
        before = self.ends[site - 1] if site else 0
        words = (self.ends[site] - before) // self.widths[site]
        sample, word = divmod(draw_number(key, "flip#stratum", words * self.samples), words)
        return before + word * self.widths[site] + bit, sample

    @classmethod
    def kept(cls, identity: Any, ends: Sequence[int], widths: Sequence[int], source: str) -> "Strata":
        """Those that a task's identity tells; raises FileError for a damaged one."""
        try:
            faults = identity["faults"]
            weights = tuple(int(weight) for weight in faults["weights"])
            found = cls(tuple(ends), tuple(widths), weights, int(identity["subject"]["samples"]), int(faults["first"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{source}: the strata of a task cannot be read ({error!r}); the file is damaged") from None
        right = len(weights) == sum(widths) and min(weights) >= 1 and max(weights) <= 1 << WEIGHT_BITS
        if not right or found.samples < 1 or found.first < 0:
            raise FileError(f"{source}: the strata of a task are none; the file is damaged")
        return found


def weigh_strata(sizes: Numbers, scores: NDArray[np.float64]) -> tuple[int, ...]:
    """Weights in proportion to size times the square root of a score, which is the rate of events expected there.

    That is Neyman's allocation for rare events. A tenth goes by size alone. Raises HwfaultError for scores that are
    negative, not finite or all 0.
    """
    if not np.isfinite(scores).all() or scores.min() < 0 or not scores.max() > 0:
        raise HwfaultError("the scores are negative, no numbers or all 0, expected some of harm")
    shares = sizes / sizes.sum()
    keen = shares * np.sqrt(scores / scores.max())
    wanted = (1 - _DEFENCE) * keen / keen.sum() + _DEFENCE * shares
    steps = np.round(_STEPS * np.log2(wanted / wanted.max()))
    weights = np.round(2.0 ** (WEIGHT_BITS + steps / _STEPS))
    return tuple(max(1, int(weight)) for weight in weights)


def strata_of(space: FaultSpace, scores: NDArray[np.float64], samples: int, first: int) -> Strata:
    """The strata of a space, with a score for each; raises HwfaultError as `weigh_strata`."""
    widths = tuple(site.bit_width for site in space.sites)
    bare = Strata(space.ends, widths, (1,) * sum(widths), samples, first)
    return bare._replace(weights=weigh_strata(bare.sizes, scores))


def least_trials(space: FaultSpace) -> int:
    """How many trials show something of each stratum."""
    return LEAST_TRIALS * sum(site.bit_width for site in space.sites)


_ORDERS: dict[tuple[int, ...], Numbers] = {}
"""The longest order of each list of weights that was asked for last."""
_KEPT_ORDERS = 16


def _rounded_up(trials: int) -> int:
    """A number of trials for which an order is made, so that one that grows is seldom made anew."""
    return 1 << max(10, (trials - 1).bit_length())


def _order(weights: tuple[int, ...], trials: int) -> Numbers:
    """The strata of the first trials, at least so many."""
    found = _ORDERS.get(weights)
    if found is None or len(found) < trials:
        if len(_ORDERS) >= _KEPT_ORDERS:
            del _ORDERS[next(iter(_ORDERS))]
        found = _ORDERS[weights] = order_strata(weights, trials)
    return found


def order_strata(weights: Sequence[int], trials: int) -> Numbers:
    """The stratum of each of the first trials; the order of fewer is where that of more begins."""
    count = len(weights)
    begin = np.tile(np.arange(count), LEAST_TRIALS)
    rest = trials - len(begin)
    if rest <= 0:
        return begin[:trials]
    # with the last quotient q each has at least weight / 2q - 1/2 trials, and at most weight / 2q + 1/2
    whole = sum(weights)
    most = [math.ceil(weight * (trials + count) / whole) + 1 for weight in weights]
    stratum = np.repeat(np.arange(count), most)
    number = np.concatenate([np.arange(LEAST_TRIALS, LEAST_TRIALS + each) for each in most])
    quotients = np.array(weights, np.float64)[stratum] / (2 * number + 1)
    chosen = np.lexsort((stratum, -quotients))[:rest]
    return np.concatenate([begin, stratum[chosen]])
