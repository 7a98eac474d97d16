"""Single flips by site and bit: what each cell of the heat map and each site of the ranking came to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.database import Identity
from hwfault.campaigns.figures import Trials
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.statistics.ranking import Place, rank_estimates
from hwfault.campaigns.study.space import FaultSpace, draw_pair
from hwfault.campaigns.study.tasks import Draw
from hwfault.errors import FileError

Counts = NDArray[np.int64]
_MOST_BITS = 32


class KeptSpace(NamedTuple):
    """The fault space as a task's identity keeps it: (name, words, bit_width) of each site, and where each ends."""

    names: tuple[str, ...]
    widths: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, identity: Identity, source: str) -> "KeptSpace":
        """That of a task; raises FileError where its identity has none."""
        try:
            rows = identity["faults"]["sites"]
            names = tuple(str(name) for name, _, _ in rows)
            words = [int(number) for _, number, _ in rows]
            widths = tuple(int(width) for _, _, width in rows)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{source}: the sites of a task cannot be read ({error!r}); the file is damaged") from None
        sizes = np.array(words, np.int64) * np.array(widths, np.int64)
        if not names or sizes.min() < 0 or not sizes.sum() or max(widths) > _MOST_BITS:
            raise FileError(f"{source}: the sites of a task hold no bits; the file is damaged")
        return cls(names, widths, tuple(np.cumsum(sizes).tolist()))

    @property
    def size(self) -> int:
        """How many bits one sample sees."""
        return self.ends[-1]

    @property
    def bits(self) -> list[int]:
        """How many of them each site has."""
        sizes: list[int] = np.diff([0, *self.ends]).tolist()
        return sizes

    def places(self, cells: Counts) -> tuple[Counts, Counts, Counts]:
        """The site, the word and the bit of each cell, by number."""
        ends = np.array(self.ends, np.int64)
        site = np.searchsorted(ends, cells, side="right")
        inside = cells - np.array([0, *self.ends[:-1]], np.int64)[site]
        word, bit = np.divmod(inside, np.array(self.widths, np.int64)[site])
        return site.astype(np.int64), word, bit


class Flips(NamedTuple):
    """The trials of single flips: the cell that each struck, the sample it was seen on (None: on all), its events.

    `tried` is on how many samples each was seen; `whole` says that every cell was tried on every sample.
    """

    space: KeptSpace
    cells: Counts
    samples: Counts | None
    events: Counts
    tried: int
    whole: bool


def flips_of(space: KeptSpace, draw: Draw, seen: Trials, samples: int) -> Flips:
    """The single flips of a task with the draw "pairs" or "all", of so many samples."""
    events = seen.wrong.sum(1, dtype=np.int64)
    if draw == "all":
        return Flips(space, seen.keys.astype(np.int64), None, events, samples, seen.number == space.size)
    drawing = FaultSpace((), space.ends)
    pairs = [draw_pair(drawing, samples, key) for key in seen.keys.tolist()]
    cells = np.array([cell for cell, _ in pairs], np.int64)
    chosen = np.array([sample for _, sample in pairs], np.int64)
    return Flips(space, cells, chosen, events, 1, False)


class HeatMap(NamedTuple):
    """The rate of each site (row) and bit (column, the highest first); None where there is no such bit or no trial."""

    names: tuple[str, ...]
    bits: tuple[int, ...]
    cells: tuple[tuple[Estimate | None, ...], ...]

    @property
    def largest(self) -> float:
        """The largest rate; 0 where nothing was seen."""
        return max((cell.value for row in self.cells for cell in row if cell is not None), default=0.0)


def heat_map(flips: Flips, confidence: float) -> HeatMap:
    """Site x bit, all cells true at once (Bonferroni over all cells that the space has)."""
    space = flips.space
    site, _, bit = space.places(flips.cells)
    shape = (len(space.names), max(space.widths))
    trials = np.zeros(shape, np.int64)
    events = np.zeros(shape, np.int64)
    np.add.at(trials, (site, bit), flips.tried)
    np.add.at(events, (site, bit), flips.events)
    there = sum(space.widths)
    found = _rates(events.ravel(), trials.ravel(), flips, confidence, there)
    columns = tuple(reversed(range(shape[1])))
    rows = []
    for place in range(shape[0]):
        rows.append(tuple(found[place * shape[1] + column] for column in columns))
    return HeatMap(space.names, columns, tuple(rows))


class Ranked(NamedTuple):
    """A site in the ranking: its number of bits, its rate of wrong answers for a flip, and the ranks it may have."""

    name: str
    bits: int
    rate: Estimate
    place: Place
    tied: tuple[str, ...]


def rank_sites(flips: Flips, confidence: float) -> tuple[list[Ranked], list[str]]:
    """The sites, the most vulnerable first, with ties; and those that no trial struck."""
    space = flips.space
    site, _, _ = space.places(flips.cells)
    count = len(space.names)
    trials = np.bincount(site, minlength=count) * flips.tried
    events = np.bincount(site, weights=flips.events, minlength=count).astype(np.int64)
    found = _rates(events, trials, flips, confidence, count)
    struck: list[int] = []
    rates: list[Estimate] = []
    for place, rate in enumerate(found):
        if rate is not None:
            struck.append(place)
            rates.append(rate)
    ranked = []
    for place, rate, rank in zip(struck, rates, rank_estimates(rates), strict=True):
        tied = tuple(space.names[struck[other]] for other in rank.tied)
        ranked.append(Ranked(space.names[place], space.bits[place], rate, rank, tied))
    ranked.sort(key=lambda one: (one.place.first, -one.rate.value))
    missed = [name for place, name in enumerate(space.names) if place not in struck]
    return ranked, missed


def _rates(events: Counts, trials: Counts, flips: Flips, confidence: float, at_once: int) -> list[Estimate | None]:
    """The rate of each group of cells; `at_once` intervals are true at once. None where nothing was tried."""
    each = 1 - (1 - confidence) / at_once
    found: list[Estimate | None] = []
    for number, tried in zip(events.tolist(), trials.tolist(), strict=True):
        if not tried:
            found.append(None)
        elif flips.samples is None:
            # every one of these was tried: nothing is estimated
            rate = exact_estimate(number / tried, tried)
            found.append(rate)
        else:
            rate = estimate_rate(number, tried, each, sequential=True)
            found.append(rate._replace(confidence=confidence, of=f"the rate, one of {at_once} at once"))
    return found


def several_faults(bits: int, rate: float) -> float:
    """The probability that two or more of `bits` bits are flipped, each with probability `rate`."""
    from scipy.stats import binom

    return float(binom.sf(1, bits, rate))


def rate_of_several(bits: int, probability: float) -> float:
    """The rate at which two or more faults have that probability; 1 where they never do."""
    from scipy.optimize import brentq

    if bits < 2:
        return 1.0
    return float(brentq(lambda rate: several_faults(bits, rate) - probability, 0.0, 1.0, xtol=1e-15))


def names_told(names: Sequence[str], most: int = 3) -> str:
    """Some names, and how many more there are."""
    told = ", ".join(names[:most])
    return told if len(names) <= most else f"{told} and {len(names) - most} more"
