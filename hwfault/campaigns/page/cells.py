"""Single flips by site and bit: what each cell of the heat map and each site of the ranking came to."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.figures import Trials
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.statistics.ranking import Place, rank_estimates
from hwfault.campaigns.statistics.strata import estimate_drawn_strata
from hwfault.campaigns.study.kept_space import KeptSpace
from hwfault.campaigns.study.space import FaultSpace, draw_pair
from hwfault.campaigns.study.strata import Strata
from hwfault.campaigns.study.tasks import Draw

Counts = NDArray[np.int64]


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
    looks: int | None = None
    """How many looks there are at trials of strata; None for others, which are uniform over the bits."""


def flips_of(
    space: KeptSpace, draw: Draw, seen: Trials, samples: int, strata: Strata | None = None, looks: int = 1
) -> Flips:
    """The single flips of a task that are all tried, or drawn (from `strata`, at which one looks so often).

    `samples` are those of the study.
    """
    events = seen.wrong.sum(1, dtype=np.int64)
    if draw == "all":
        return Flips(space, seen.keys.astype(np.int64), None, events, samples, seen.number == space.size)
    if strata is not None:
        pairs = [strata.pair(key) for key in seen.keys.tolist()]
    else:
        drawing = FaultSpace((), space.ends)
        pairs = [draw_pair(drawing, samples, key) for key in seen.keys.tolist()]
    cells = np.array([cell for cell, _ in pairs], np.int64)
    chosen = np.array([sample for _, sample in pairs], np.int64)
    return Flips(space, cells, chosen, events, 1, False, None if strata is None else looks)


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
    """The sites, the most vulnerable first, with ties; and those that no trial struck.

    Of a census that was cut, ends are those with the flips that were not tried at their best and worst, and a site of
    which none was tried may have any rank.
    """
    space = flips.space
    site, _, _ = space.places(flips.cells)
    count = len(space.names)
    trials = np.bincount(site, minlength=count) * flips.tried
    events = np.bincount(site, weights=flips.events, minlength=count).astype(np.int64)
    found = _rates(events, trials, flips, confidence, count)
    if flips.looks is not None:
        found = _rates_of_strata(flips, 1 - (1 - confidence) / (count * flips.looks), confidence)
    if flips.samples is None and not flips.whole:
        return _rank_parts(flips, events, trials)
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


def _rank_parts(flips: Flips, events: Counts, trials: Counts) -> tuple[list[Ranked], list[str]]:
    """The sites of a census that was cut: each with the flips that were not tried at their best and worst."""
    space = flips.space
    rates: list[Estimate] = []
    for place, (number, tried) in enumerate(zip(events.tolist(), trials.tolist(), strict=True)):
        total = space.bits[place] * flips.tried
        value = number / max(1, tried)
        if tried == total:
            rates.append(exact_estimate(value, space.bits[place]))
            continue
        covers = f"{tried // flips.tried:,} of {space.bits[place]:,} flips tried"
        ends = (number / total, (number + total - tried) / total)
        rates.append(Estimate(value, ends, None, "bound", covers))
    ranked, missed = [], []
    for place, (rate, rank) in enumerate(zip(rates, rank_estimates(rates), strict=True)):
        name = space.names[place]
        if not trials[place]:
            missed.append(name)
            continue
        ranked.append(Ranked(name, space.bits[place], rate, rank, tuple(space.names[other] for other in rank.tied)))
    ranked.sort(key=lambda one: (one.place.first, -one.rate.value))
    return ranked, missed


def _rates_of_strata(flips: Flips, each: float, confidence: float) -> list[Estimate | None]:
    """The rate of each site, whose bits have different numbers of trials; each interval with the confidence `each`."""
    space = flips.space
    site, _, bit = space.places(flips.cells)
    found: list[Estimate | None] = []
    for place, width in enumerate(space.widths):
        mine = site == place
        trials = np.bincount(bit[mine], minlength=width)
        events = np.bincount(bit[mine], weights=flips.events[mine], minlength=width)
        if not trials.any():
            found.append(None)
            continue
        rate = estimate_drawn_strata(events, trials, np.ones(width), each)
        found.append(rate._replace(confidence=confidence))
    return found


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


def several_expected(mean: float) -> float:
    """The probability of two or more faults where so many are expected, and one has nothing to do with another."""
    return float(-math.expm1(-mean) - mean * math.exp(-mean))


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
