"""The harm that single flips do, by site and bit: counted in a census, or among drawn pairs of a flip and a sample."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.database import Database
from hwfault.campaigns.figures import Trials
from hwfault.campaigns.kept import KeptTask
from hwfault.campaigns.page.cells import flips_of
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.study.kept_space import KeptSpace
from hwfault.campaigns.study.tasks import has_single_flips
from hwfault.errors import HwfaultError

Counts = NDArray[np.int64]


class SiteHarm(NamedTuple):
    """One site of `words` words of `width` bits: what was counted for each bit of its word, lowest first.

    `tried` pairs of a flip and a sample were seen; `wrong` of them were silently wrong, `due` detected, and `lost` more
    answers were right in the golden run than under the flip (None: not known).
    """

    name: str
    words: int
    width: int
    tried: tuple[int, ...]
    wrong: tuple[int, ...]
    due: tuple[int, ...]
    lost: tuple[int, ...] | None = None
    weight: float = 1.0
    """How often a bit of the site flips beside the mean bit of all sites."""

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
        """How many pairs of a flip and a sample were seen."""
        return sum(sum(site.tried) for site in self.sites)

    @property
    def wrong(self) -> float:
        """How many of them were silently wrong, each counted with its site's weight."""
        return sum(site.weight * sum(site.wrong) for site in self.sites)

    def rate(self, wrong: Sequence[float]) -> Estimate:
        """The rate of silent wrong answers for one flip of the plain bits, where so many at each site are wrong.

        Exact for a census; for drawn pairs with the interval of a confidence sequence, where sites have weights with
        one of each (Bonferroni). A plan that was chosen by the same pairs is told too well by them: see `most_wrong`.
        """
        if self.whole:
            return exact_estimate(sum(wrong) / self.tried, self.bits)
        if not self.weighted:
            return estimate_rate(int(sum(wrong)), self.tried, self.confidence, sequential=True)
        return self._rate_of_strata(wrong)

    def _rate_of_strata(self, wrong: Sequence[float]) -> Estimate:
        """The sum over sites of the share of flips there, by bits and weights, times the rate of one."""
        each = 1 - (1 - self.confidence) / len(self.sites)
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
    if task.draw == "strata":
        raise HwfaultError(
            f"{task.name}: its flips are drawn from strata in other numbers than the bits that there are, and are not "
            "read here; expected a census (exhaustive: always) or uniform trials (goal: bound)"
        )
    if seen is None:
        raise HwfaultError(f"{task.name}: was not looked at yet; `hwfault campaign resume` goes on")
    space = KeptSpace.of(task.stored.identity, str(database.path))
    golden = database.golden(task.stored)
    right = None
    if golden is not None and "correct" in task.stored.masks:
        right = golden[task.stored.masks.index("correct")]
    return harm_of(task, space, seen, right)


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
    if right is not None and seen.correct is not None and task.draw == "all":
        lost = int(right.sum()) - seen.correct.sum(1, dtype=np.int64)
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
        found.append(SiteHarm(name, words, width, tried, counted(flips.events), due, lost_there))
    return Harm(task.question, tuple(found), flips.whole, task.stop.confidence)


def _samples_of(task: KeptTask) -> int:
    """How many samples pairs were drawn from."""
    subject = task.stored.identity.get("subject", {})
    return int(subject.get("samples", 1))
