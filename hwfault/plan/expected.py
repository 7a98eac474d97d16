"""How many faults a plan is expected to make: from its tables, thresholds and maps, which engines use as they are."""

import math
from typing import NamedTuple, Protocol

from hwfault.program.means import Mean, add_means, exactly, hit_probability
from hwfault.program.processes import SitePlan
from hwfault.stream.tables import Table

__all__ = ["Expected", "Planned", "Range", "expected_faults", "hit_probability"]


class Planned(Protocol):
    """What is counted of a fault plan."""

    @property
    def sites(self) -> tuple[SitePlan, ...]: ...
    @property
    def tables(self) -> tuple[Table, ...]: ...
    def at(self, name: str) -> SitePlan: ...
    def idle(self, name: str) -> bool: ...


class Range(NamedTuple):
    """A number of faults, from the least to the most that the codes stored there can make of the hits."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.high == 0:
            return "no"
        return f"{self.high:.3g}" if math.isclose(self.low, self.high) else f"{self.low:.3g} to {self.high:.3g}"


class Expected(NamedTuple):
    """The mean number of faults over seeds: `once` in a trial (parameters, permanent cells), and in `each` sample.

    A fault is what `hwfault faults` lists: a bit or word that is hit and reads another value; a cluster, a faulty cell
    of a map, a cell of a protected memory before its decoder, or a faulty processing element counts as one. `unknown`
    are sites whose number of words is not known, which are left out of both numbers; `idle` ones can never be struck.
    """

    once: Range
    each: Range
    unknown: tuple[str, ...]
    idle: tuple[str, ...]
    sites: int

    @property
    def nothing(self) -> bool:
        """Whether no fault can ever strike."""
        return self.sites == len(self.idle)

    def in_trial(self, samples: int) -> Range:
        """The faults in a trial of so many samples."""
        return Range(*(once + samples * each for once, each in zip(self.once, self.each, strict=True)))

    def __str__(self) -> str:
        if self.nothing:
            return f"no fault can strike any of {self.sites} sites: every rate is 0"
        in_each = self.each if self.each.high else "none"
        text = f"expected in a trial: {self.once} faults, and {in_each} in each sample"
        if self.unknown:
            text += f" (without {len(self.unknown)} sites whose words are not known: {self.unknown[0]!r} ...)"
        return text + (f"; {len(self.idle)} of {self.sites} sites cannot be struck" if self.idle else "")

    def to_data(self) -> dict[str, object]:
        """The numbers as JSON: `in_a_trial` and `in_each_sample`, each [least, most]."""
        return {
            "in_a_trial": list(self.once),
            "in_each_sample": list(self.each),
            "sites_of_unknown_size": list(self.unknown),
            "sites_never_struck": list(self.idle),
        }


def expected_faults(plan: Planned, site: str | None = None) -> Expected:
    """The faults that a plan makes on average, over all seeds, at all of its sites or at one."""
    once: list[Mean] = []
    each: list[Mean] = []
    unknown: list[str] = []
    entries = plan.sites if site is None else (plan.at(site),)
    for entry in entries:
        if entry.array is not None:
            once.append(exactly(len(entry.array.events)))
        for process in entry.processes:
            found = process.mean(entry.site, plan.tables)
            if found is None:
                unknown.append(entry.site.name)
            elif process.in_each_sample(entry.site.batched):
                each.append(found)
            else:
                once.append(found)
    idle = tuple(entry.site.name for entry in entries if _idle(plan, entry))
    return Expected(_range(add_means(once)), _range(add_means(each)), tuple(dict.fromkeys(unknown)), idle, len(entries))


def _idle(plan: Planned, entry: SitePlan) -> bool:
    return entry.array is None and plan.idle(entry.site.name)


def _range(mean: Mean) -> Range:
    return Range(mean.low, mean.high)
