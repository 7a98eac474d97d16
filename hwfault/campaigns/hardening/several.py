"""Several flips in one memory word: what a decoder does not correct, which single flips do not show, sampled.

A trial is one protected word of the measure's sites, drawn uniformly among all (where sites have rates of their own as
often as such words occur), so many different cells of it, check bits among them, and one sample, drawn uniformly too.
Codes are linear, so that which data bits are read wrong does not depend on the data: the network runs with these flips.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.engines.engine import Trial
from hwfault.campaigns.figures import counted_outcome
from hwfault.campaigns.hardening.harm import Harm, SiteHarm
from hwfault.campaigns.hardening.measures import Measure
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.study.space import FaultSpace, draw_cells
from hwfault.laws.cell_table import Cell
from hwfault.laws.cells import CellFaults
from hwfault.plan.fault_plan import resolve
from hwfault.stream import site_number
from hwfault.stream.protection import DETECTED, Memory, read
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.reference import stream_words

_LEAST = 2
_SILENT = {"secded": 3}
"""The fewest flips of a word that a decoder may take for a right word, where that is more than two."""
_OF_WRONG = "wrong answers, detected or not, where a word has so many flips"
_OF_SILENT = "silent wrong answers where a word has so many flips"


class Several(NamedTuple):
    """So many `flips` in one memory word of a measure on some sites: how likely, and what they do.

    `probability` is that of such a word in a sample, `detected` the share of the trials whose decoder said so, `wrong`
    the share of other answers, of detected words as read, `silent` that of words which were not detected. `sdc` is the
    rate of silent wrong answers that all words with so many flips and more make at the rate of the bits. `sites` are
    those that the measure is on.
    """

    measure: str
    on: str
    flips: int
    probability: float
    trials: int
    detected: float
    wrong: Estimate
    silent: Estimate
    sdc: Estimate
    sites: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """As JSON tells it."""
        return {key: value._asdict() if isinstance(value, Estimate) else value for key, value in self._asdict().items()}


class _Memories(NamedTuple):
    """The memories of a measure: of each site its words, and how likely one has so many flips, and more."""

    sites: tuple[SiteHarm, ...]
    memory: tuple[Memory, ...]
    words: NDArray[np.int64]
    exactly: NDArray[np.float64]
    beyond: NDArray[np.float64]


def memories_of(
    protection: Protection, sites: Sequence[SiteHarm], rate: float | Mapping[str, float], flips: int
) -> _Memories:
    """The memories of sites under one protection, with so many flips in a word."""
    memory = tuple(protection.memory(site.width) for site in sites)
    words = np.array([one.words(site.words) for one, site in zip(memory, sites, strict=True)], np.int64)
    exactly, beyond = [], []
    for one, site in zip(memory, sites, strict=True):
        own = rate.get(site.name, 0.0) if isinstance(rate, Mapping) else rate
        pmf = [_binomial(one.cells, k, own) for k in range(flips, one.cells + 1)]
        exactly.append(pmf[0] if pmf else 0.0)
        beyond.append(math.fsum(pmf[1:]))
    return _Memories(tuple(sites), memory, words, np.array(exactly), np.array(beyond))


def _binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


class Probabilities(NamedTuple):
    """Of words in a sample: that any has so many flips, that one alone has and no other has more, that any has more."""

    any_exactly: float
    one_alone: float
    any_at_all: float


def probabilities(memories: _Memories) -> Probabilities:
    """How likely words with so many flips are, words being struck independently."""
    none_at_all = float((memories.words * np.log1p(-(memories.exactly + memories.beyond))).sum())
    none_exactly = float((memories.words * np.log1p(-memories.exactly)).sum())
    odds = memories.words * memories.exactly / (1 - memories.exactly - memories.beyond)
    alone = math.exp(none_at_all) * float(odds.sum())
    return Probabilities(-math.expm1(none_exactly), alone, -math.expm1(none_at_all))


def total_rate(of: Probabilities, share: Estimate) -> Estimate:
    """The rate that words with so many flips and more add, from the share of wrong answers of one such word alone.

    What several of them, or more flips, do is not known: it may be nothing or all, which widens the interval.
    """
    low, high = share.ends or (share.value, share.value)
    rest = max(of.any_at_all - of.one_alone, 0.0)
    ends = of.one_alone * low, min(1.0, of.one_alone * high + rest)
    covers = "new words and samples; several such words at once at their best and worst"
    return Estimate(of.any_exactly * share.value, ends, share.confidence, share.by, covers, "SDC of a trial")


class Drawn(NamedTuple):
    """One trial: the flips that the decoder lets through, whether it detected the word, and the sample."""

    cells: tuple[Cell, ...]
    detected: bool
    sample: int


def draw_word(memories: _Memories, flips: int, samples: int, seed: int) -> Drawn:
    """The trial of a seed."""
    weights = memories.words * memories.exactly
    if not weights.sum():  # words in which so many flips cannot occur are as good as each other
        weights = memories.words.astype(float)
    place = int(np.searchsorted(np.cumsum(weights) / weights.sum(), _unit(seed), side="right"))
    place = min(place, len(memories.words) - 1)
    site, memory = memories.sites[place], memories.memory[place]
    pairs = FaultSpace((), (int(memories.words[place]) * samples,))
    (pair,) = draw_cells(pairs, 1, seed)
    word, sample = divmod(pair, samples)
    struck = draw_cells(FaultSpace((), (memory.cells,)), min(flips, memory.cells), seed)
    cells, detected = decoded(memory, site, word, struck)
    return Drawn(cells, detected, sample)


def _unit(seed: int) -> float:
    """A number in [0, 1), of a site number of its own."""
    return float(stream_words(seed, site_number("word#site", 0), 0, 0, 0, 1)[0]) / 2.0**32


def decoded(memory: Memory, site: SiteHarm, word: int, struck: Sequence[int]) -> tuple[tuple[Cell, ...], bool]:
    """The bits of a site that are read wrong where these cells of one memory word flip, and whether it is detected.

    What is detected is as it was read, and what lies behind the site's last word holds nothing.
    """
    cells = np.zeros((1, memory.cells), np.uint8)
    cells[0, list(struck)] = 1
    data, verdict = read(memory, cells)
    found = []
    for bit in np.flatnonzero(data[0]).tolist():
        code_word, of_word = divmod(word * memory.data_bits + bit, memory.slot)
        if code_word < site.words and of_word < site.width:
            found.append(Cell(site=site.name, word=code_word, bit=of_word, kind="flip"))
    return tuple(found), bool(verdict[0] == DETECTED)


def sample_several(
    measurement: Measurement,
    harm: Harm,
    measures: Sequence[Measure],
    on: str,
    rate: float | Mapping[str, float],
    trials: int,
) -> list[Several]:
    """What two flips in one word do under one measure with check bits on some sites; under SECDED three as well."""
    protection = measures[0].protection
    assert protection is not None
    named = {site.name: site for site in harm.sites}
    sites = [named[one.site] for one in measures]
    found = []
    for flips in sorted({_LEAST, _SILENT.get(protection.kind, _LEAST)}):
        memories = memories_of(protection, sites, rate, flips)
        detected, wrong, silent = _run(measurement, memories, flips, trials)
        confidence = harm.confidence
        of_silent = estimate_rate(silent, trials, confidence, sequential=False)._replace(of=_OF_SILENT)
        likely = probabilities(memories)
        found.append(
            Several(
                measure=measures[0].name,
                on=on,
                flips=flips,
                probability=likely.any_exactly,
                trials=trials,
                detected=detected / trials,
                wrong=estimate_rate(wrong, trials, confidence, sequential=False)._replace(of=_OF_WRONG),
                silent=of_silent,
                sdc=total_rate(likely, of_silent),
                sites=tuple(site.name for site in sites),
            )
        )
    return found


def _run(measurement: Measurement, memories: _Memories, flips: int, trials: int) -> tuple[int, int, int]:
    """How many of the trials were detected, how many answers were wrong, and how many of these silently."""
    engine, judge = measurement.engine, measurement.judge
    outcome = counted_outcome(measurement.masks)
    detected = wrong = silent = 0
    first = measurement.study.seed
    for seed in range(first, first + trials):
        drawn = draw_word(memories, flips, engine.samples, seed)
        detected += drawn.detected
        if not drawn.cells:
            continue
        plan = resolve(measurement.sites, (CellFaults(cells=drawn.cells),))
        images = np.array([drawn.sample], np.int64)
        (ran,) = engine.run([Trial(plan, 0)], images)
        masks = judge.judge(ran.outputs, images).masks
        is_wrong = bool(masks[outcome][0])
        is_due = drawn.detected or ("due" in masks and bool(masks["due"][0]))
        wrong += is_wrong
        silent += is_wrong and not is_due
    return detected, wrong, silent
