"""The harm that single flips do, by site and bit: counted in a census, or among drawn pairs of a flip and a sample."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.by_class import kept_labels
from hwfault.campaigns.database import Database
from hwfault.campaigns.figures import Trials
from hwfault.campaigns.kept import KeptTask
from hwfault.campaigns.page.cells import flips_of
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.statistics.strata import estimate_part_of_strata
from hwfault.campaigns.study.kept_space import KeptSpace
from hwfault.campaigns.study.tasks import has_one_sample, has_single_flips
from hwfault.errors import HwfaultError

Counts = NDArray[np.int64]


class Drawn(NamedTuple):
    """The trials of one stratum, a bit of a site: silently wrong, detected, and all; right answers lost and won.

    The last two are 0 where they are not known.
    """

    wrong: int
    due: int
    trials: int
    spoiled: int = 0
    mended: int = 0


class SiteHarm(NamedTuple):
    """One site of `words` words of `width` bits: what was counted for each bit of its word, lowest first.

    `tried` pairs of a flip and a sample were seen; `wrong` of them were silently wrong, `due` detected, and `lost` more
    answers were right in the golden run than under the flip (None: not known).
    """

    name: str
    words: int
    width: int
    tried: tuple[int, ...]
    wrong: tuple[float, ...]
    due: tuple[float, ...]
    lost: tuple[float, ...] | None = None
    weight: float = 1.0
    """How often a bit of the site flips beside the mean bit of all sites."""
    drawn: tuple[Drawn, ...] | None = None
    """Of flips from strata: the trials of each bit. `tried` are then its words, of which so many are expected to be
    `wrong`, `due` and `lost`."""
    spoiled: tuple[float, ...] | None = None
    """Of drawn flips: the golden run's right answers that were wrong under them (None: not known, or a census)."""
    mended: tuple[float, ...] | None = None
    """Likewise its wrong answers that were right under them; `lost` are the spoiled ones less these."""

    @property
    def bits(self) -> int:
        """How many bits the site stores."""
        return self.words * self.width


class Harm(NamedTuple):
    """The harm of all sites of a question's fault space; `whole` says that every flip was tried on every sample."""

    question: str
    sites: tuple[SiteHarm, ...]
    whole: bool
    confidence: float
    each_look: float | None = None
    """Of flips from strata: the confidence of one look, of all that may be taken."""

    @property
    def stratified(self) -> bool:
        """Whether the flips were drawn from strata, in other numbers than the bits that there are."""
        return self.each_look is not None

    @property
    def trials(self) -> int:
        """How many pairs of a flip and a sample were run."""
        return sum(one.trials for site in self.sites for one in site.drawn or ()) if self.stratified else self.tried

    @property
    def weighted(self) -> bool:
        """Whether the bits of some sites flip more often than those of others."""
        return any(site.weight != 1 for site in self.sites)

    @property
    def bits(self) -> int:
        """How many bits the sites store, in each of which one flip is a fault."""
        return sum(site.bits for site in self.sites)

    @property
    def tried(self) -> int:
        """How many pairs of a flip and a sample were seen; of flips from strata the bits that they speak for."""
        return sum(sum(site.tried) for site in self.sites)

    @property
    def wrong(self) -> float:
        """How many of them were silently wrong, each counted with its site's weight."""
        return sum(site.weight * sum(site.wrong) for site in self.sites)

    def rate(self, wrong: Sequence[float], bits: Sequence[int] | None = None) -> Estimate:
        """The rate of silent wrong answers for one flip of the plain bits, where so many at each site are wrong.

        Those are of the lowest `bits` of each site's words (None: of all). Exact for a census; for drawn pairs with the
        interval of a confidence sequence, where sites have weights with one of each (Bonferroni); for flips from strata
        with the gamma interval of the weighted sum of those that are left. A plan that was chosen by the same pairs is
        told too well by them: see `limits_of`.
        """
        if self.whole:
            return exact_estimate(sum(wrong) / self.tried, self.bits)
        return self._rate_of_drawn("wrong", wrong, bits, self.of_one_look)

    @property
    def of_one_look(self) -> float:
        """The confidence that an interval has now, so that those of all looks that may be taken hold together."""
        return self.confidence if self.each_look is None else self.each_look

    def lost_ends(self, bits: Sequence[int] | None = None) -> tuple[float, float] | None:
        """The interval of the share of right answers that one drawn flip costs, of the lowest `bits` of sites' words.

        That of the spoiled answers less that of the mended ones, each with half of the error. None for a census, which
        is exact, and where it is not known.
        """
        if not self._knows_answers:
            return None
        left = [site.width for site in self.sites] if bits is None else bits
        spoiled = [site.weight * sum((site.spoiled or ())[:n]) for site, n in zip(self.sites, left, strict=True)]
        mended = [site.weight * sum((site.mended or ())[:n]) for site, n in zip(self.sites, left, strict=True)]
        half = half_of_error(self.of_one_look)
        return _less(
            self._rate_of_drawn("spoiled", spoiled, left, half), self._rate_of_drawn("mended", mended, left, half)
        )

    @property
    def _knows_answers(self) -> bool:
        """Whether drawn flips tell which right answers they cost."""
        return not self.whole and all(site.spoiled is not None for site in self.sites)

    def _rate_of_drawn(
        self, event: str, counts: Sequence[float], bits: Sequence[int] | None, confidence: float
    ) -> Estimate:
        """The rate of an event for one flip, of which so many were seen at each site; strata know their own numbers."""
        if self.each_look is not None:
            return self._rate_of_shares(event, self.shares(bits), confidence)
        if not self.weighted:
            return estimate_rate(int(sum(counts)), self.tried, confidence, sequential=True)
        return self._rate_of_sites(counts, confidence)

    def _rate_of_sites(self, wrong: Sequence[float], confidence: float) -> Estimate:
        """The sum over sites of the share of flips there, by bits and weights, times the rate of one."""
        each = 1 - (1 - confidence) / len(self.sites)
        value = low = high = 0.0
        for site, count in zip(self.sites, wrong, strict=True):
            share = site.weight * site.bits / self.bits
            tried = sum(site.tried)
            if not share:
                continue
            if not tried:
                high += share  # nobody knows
                continue
            found = estimate_rate(round(count / site.weight), tried, each, sequential=True)
            ends = found.ends or (found.value, found.value)
            value += share * found.value
            low += share * ends[0]
            high += share * ends[1]
        covers = "drawn pairs of one flip and one sample, all sites at once"
        return Estimate(value, (low, min(high, 1.0)), self.confidence, "sequence", covers)

    def shares(self, bits: Sequence[int] | None = None) -> list[float]:
        """What a flip of each bit counts for, site by site; 0 above the lowest `bits` of its words (None: all)."""
        found: list[float] = []
        for place, site in enumerate(self.sites):
            left = site.width if bits is None else bits[place]
            share = site.weight * site.words / self.bits
            found += [share] * left + [0.0] * (site.width - left)
        return found

    def removed_ends(self, left: Mapping[str, int]) -> tuple[float, float] | None:
        """The interval of the rate that a measure removes which leaves so many lowest bits of sites as they were.

        None where no strata tell one.
        """
        if self.each_look is None:
            return None
        return self._rate_of_shares("wrong", self._shares_gone(left), self.each_look).ends

    def regained_ends(self, left: Mapping[str, int]) -> tuple[float, float] | None:
        """Likewise of the share of right answers that is regained, where that is known."""
        if self.each_look is None or not self._knows_answers:
            return None
        gone, half = self._shares_gone(left), half_of_error(self.each_look)
        return _less(self._rate_of_shares("spoiled", gone, half), self._rate_of_shares("mended", gone, half))

    def _shares_gone(self, left: Mapping[str, int]) -> list[float]:
        """What a flip of each bit counts for that is above the lowest so many bits of its site, 0 below."""
        bits = [left.get(site.name, site.width) for site in self.sites]
        return [whole - rest for whole, rest in zip(self.shares(), self.shares(bits), strict=True)]

    def _rate_of_shares(self, event: str, shares: Sequence[float], confidence: float) -> Estimate:
        """The weighted sum over the strata whose flips count."""
        drawn = [one for site in self.sites for one in site.drawn or ()]
        events, trials = [getattr(one, event) for one in drawn], [one.trials for one in drawn]
        found = estimate_part_of_strata(events, trials, shares, confidence)
        return found if found.ends is None else found._replace(confidence=self.confidence)

    def with_rates(self, rates: Mapping[str, float]) -> tuple["Harm", float]:
        """The same where each site's bits flip with a probability of their own, and the mean one of all bits.

        Sites that are not named never flip. Raises HwfaultError where none of them ever flips.
        """
        mean = sum(rates.get(site.name, 0.0) * site.bits for site in self.sites) / self.bits
        if not mean > 0:
            raise HwfaultError(
                f"{self.question}: no bit of its sites ever flips at these rates, which are those of "
                f"{', '.join(sorted(rates)) or 'no site'}; expected the faults of a question that strike them"
            )
        sites = [site._replace(weight=rates.get(site.name, 0.0) / mean) for site in self.sites]
        return self._replace(sites=tuple(sites)), mean


def read_harm(database: Database, task: KeptTask) -> Harm:
    """The harm that a task of single flips has counted; raises HwfaultError for others, and for a census half done."""
    seen = task.seen(database)
    if not has_single_flips(task.draw):
        raise HwfaultError(f"{task.name}: has no single flips; expected a question with `flips: single`")
    if seen is None:
        raise HwfaultError(f"{task.name}: was not looked at yet; `hwfault campaign resume` goes on")
    space = KeptSpace.of(task.stored.identity, str(database.path))
    if has_one_sample(task.draw):
        labels = kept_labels(database)
        known = None if labels is None else labels.right
        if task.strata is not None:
            return harm_of_strata(task, space, seen, known)
        return harm_of(task, space, seen, known)
    golden = database.golden(task.stored)
    right = None
    if golden is not None and "correct" in task.stored.masks:
        right = golden[task.stored.masks.index("correct")]
    return harm_of(task, space, seen, right)


def _less(one: Estimate, other: Estimate) -> tuple[float, float]:
    """The interval of a difference, which holds where both do."""
    low, high = one.ends or (one.value, one.value)
    other_low, other_high = other.ends or (other.value, other.value)
    return low - other_high, high - other_low


def half_of_error(confidence: float) -> float:
    """The confidence of each of two intervals that hold together with one of `confidence`."""
    return 1 - (1 - confidence) / 2


def harm_of(task: KeptTask, space: KeptSpace, seen: Trials, right: NDArray[np.bool_] | None) -> Harm:
    """The harm of trials by site and bit; `right` (samples,) are the golden run's right answers, if they are known."""
    samples = seen.wrong.shape[1] if task.draw == "all" else _samples_of(task)
    flips = flips_of(space, task.draw, seen, samples)
    if task.draw == "all" and not flips.whole:
        raise HwfaultError(
            f"{task.name}: {seen.number:,} of {space.size:,} flips have an answer; a census half done speaks for no "
            "site, `hwfault campaign resume` goes on"
        )
    site, _, bit = space.places(flips.cells)
    lost = None
    turned = None
    if task.draw == "all" and right is not None and seen.correct is not None:
        lost = int(right.sum()) - seen.correct.sum(1, dtype=np.int64)
    elif flips.samples is not None:
        turned = _turned(seen, right, flips.samples)
    found = []
    for place, name in enumerate(space.names):
        mine = site == place
        width = space.widths[place]
        words = space.bits[place] // width

        def counted(each: Counts, mine: NDArray[np.bool_] = mine, width: int = width) -> tuple[int, ...]:
            sums = np.bincount(bit[mine], weights=each[mine], minlength=width)
            return tuple(sums.astype(np.int64).tolist())

        tried = counted(np.full(len(site), flips.tried, np.int64))
        due = counted(seen.due.sum(1, dtype=np.int64))
        lost_there = None if lost is None else counted(lost)
        here = SiteHarm(name, words, width, tried, counted(flips.events), due, lost_there)
        if turned is not None:
            here = _with_turned(here, counted(turned[0]), counted(turned[1]))
        found.append(here)
    return Harm(task.question, tuple(found), flips.whole, task.stop.confidence)


def _turned(seen: Trials, right: NDArray[np.bool_] | None, samples: Counts) -> tuple[Counts, Counts] | None:
    """Of each trial on one of the samples: whether it lost the golden run's right answer, and whether it won one.

    None where it is not known which answers are right.
    """
    if right is None or seen.correct is None:
        return None
    before, now = right[samples], seen.correct[:, 0]
    return (before & ~now).astype(np.int64), (~before & now).astype(np.int64)


def _with_turned(site: SiteHarm, spoiled: Sequence[float], mended: Sequence[float]) -> SiteHarm:
    lost = tuple(one - other for one, other in zip(spoiled, mended, strict=True))
    return site._replace(lost=lost, spoiled=tuple(spoiled), mended=tuple(mended))


def harm_of_strata(task: KeptTask, space: KeptSpace, seen: Trials, right: NDArray[np.bool_] | None) -> Harm:
    """The harm that flips from strata show, site by bit; raises HwfaultError where a stratum has no trial yet.

    `right` (samples,) are the golden run's right answers, if they are known.
    """
    assert task.strata is not None
    stratum = task.strata.of_keys(seen.keys)
    count = len(task.strata.weights)
    samples = np.array([task.strata.pair(key)[1] for key in seen.keys.tolist()], np.int64)
    turned = _turned(seen, right, samples)
    columns: list[NDArray[Any]] = [seen.wrong[:, 0], seen.due[:, 0], *(turned or ())]
    numbers = [np.bincount(stratum, weights=of, minlength=count).astype(np.int64).tolist() for of in columns]
    trials = np.bincount(stratum, minlength=count)
    if not trials.all():
        raise HwfaultError(
            f"{task.name}: {int((trials == 0).sum())} of {count} strata, site by bit, have no trial with an answer, so "
            "that nobody knows what flips do there; `hwfault campaign resume` goes on, or raise max_trials"
        )
    looks = Looks.plan(task.stop.max_trials, task.stop.confidence, task.strata.first_look)
    drawn = []
    for wrong, due, n, *answers in zip(numbers[0], numbers[1], trials.tolist(), *numbers[2:], strict=True):
        drawn.append(Drawn(wrong, due, n, *answers))
    sites = strata_of_sites(space.names, space.bits, space.widths, drawn, with_answers=turned is not None)
    return Harm(task.question, sites, whole=False, confidence=task.stop.confidence, each_look=1 - looks.alpha)


def strata_of_sites(
    names: Sequence[str],
    bits: Sequence[int],
    widths: Sequence[int],
    drawn: Sequence[Drawn],
    *,
    with_answers: bool = False,
) -> tuple[SiteHarm, ...]:
    """Sites of so many bits, by the trials of each bit of their words, site by site: unbiased numbers of its flips.

    `with_answers` says that it is known which right answers were lost and won.
    """
    found = []
    begin = 0
    for name, count, width in zip(names, bits, widths, strict=True):
        words = count // width
        mine = tuple(drawn[begin : begin + width])
        wrong = tuple(words * one.wrong / one.trials for one in mine)
        due = tuple(words * one.due / one.trials for one in mine)
        site = SiteHarm(name, words, width, (words,) * width, wrong, due, drawn=mine)
        if with_answers:
            spoiled = [words * one.spoiled / one.trials for one in mine]
            site = _with_turned(site, spoiled, [words * one.mended / one.trials for one in mine])
        found.append(site)
        begin += width
    return tuple(found)


def _samples_of(task: KeptTask) -> int:
    """How many samples pairs were drawn from."""
    subject = task.stored.identity.get("subject", {})
    return int(subject.get("samples", 1))
