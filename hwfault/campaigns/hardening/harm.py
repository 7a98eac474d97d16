"""The harm that single flips do, by site and bit: counted in a census, or among drawn pairs of a flip and a sample."""

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
    def bits(self) -> int:
        """How many bits the sites store, in each of which one flip is a fault."""
        return sum(site.bits for site in self.sites)

    @property
    def tried(self) -> int:
        """How many pairs of a flip and a sample were seen."""
        return sum(sum(site.tried) for site in self.sites)

    @property
    def wrong(self) -> int:
        """How many of them were silently wrong."""
        return sum(sum(site.wrong) for site in self.sites)

    def rate(self, wrong: int) -> Estimate:
        """The rate of silent wrong answers for one flip of the plain bits, where so many of what was tried are wrong.

        Exact for a census; for drawn pairs with the interval of a confidence sequence. A plan that was chosen by the
        same pairs is told too well by them: see `most_wrong`.
        """
        if self.whole:
            return exact_estimate(wrong / self.tried, self.bits)
        return estimate_rate(wrong, self.tried, self.confidence, sequential=True)


def read_harm(database: Database, task: KeptTask) -> Harm:
    """The harm that a task of single flips has counted; raises HwfaultError for others, and for a census half done."""
    seen = task.seen(database)
    if task.draw == "seeds":
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
