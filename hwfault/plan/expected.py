"""How many faults a plan is expected to make: from its tables, thresholds and maps, which engines use as they are."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.processes import AnyProcess, Process, Site, SitePlan
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.tables import ACCEPT_ALL, ALWAYS, BLOCK, Table


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
        text = f"expected in a trial: {self.once} faults, and {self.each} in each sample"
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
    parts: dict[bool, list[Range]] = {True: [], False: []}
    unknown: list[str] = []
    entries = plan.sites if site is None else (plan.at(site),)
    for entry in entries:
        if entry.array is not None:
            parts[True].append(_exactly(len(entry.array.events)))
        for process in entry.processes:
            found = _of_process(process, entry.site, plan.tables)
            if found is None:
                unknown.append(entry.site.name)
            else:
                parts[_happens_once(process, entry.site)].append(found)
    idle = tuple(entry.site.name for entry in entries if _idle(plan, entry))
    return Expected(_sum(parts[True]), _sum(parts[False]), tuple(dict.fromkeys(unknown)), idle, len(entries))


def hit_probability(table: Table) -> float:
    """The probability that a cell is hit, as a count table draws it.

    A block of 1024 cells has N throws with P(N > i) = 1 - T[i] / 2^32, so that a cell stays free with
    exp(-mean / 1024).
    """
    if table == (0,):
        return 0.0
    if table == (-1,):
        return 1.0
    mean = math.fsum(1 - threshold / (1 << 32) for threshold in table[1:])
    return -math.expm1(-mean / BLOCK)


def _idle(plan: Planned, entry: SitePlan) -> bool:
    return entry.array is None and plan.idle(entry.site.name)


def _happens_once(process: AnyProcess, site: Site) -> bool:
    """Whether the faults of a process are the same for all samples of a trial."""
    if not site.batched:
        return True
    cells = isinstance(process, MapProcess) or (isinstance(process, ProtectedProcess) and process.map is not None)
    assert not isinstance(process, Process) or not cells
    return cells and (process.threshold == ALWAYS or process.refresh != "inference")  # type: ignore[union-attr]


def _of_process(process: AnyProcess, site: Site, tables: Sequence[Table]) -> Range | None:
    """The faults of a process in one sample; None where the number of words is needed and not known."""
    if process.never(tables):
        return _exactly(0)
    if not isinstance(process, Process) and process.map is not None:
        return _exactly(_cells(process.map) * process.threshold / ALWAYS)
    if site.words is None:
        return None
    if isinstance(process, ProtectedProcess):
        cells = process.memory.words(site.words) * process.memory.cells
        return _accepted(cells, tables[process.tables[0]], process.accept01, process.accept10)
    assert isinstance(process, Process)
    planes = [tables[i] for i in process.tables]
    if process.kind == "bit":
        accepts = zip(planes, process.accept01, process.accept10, strict=True)
        return _sum([_accepted(site.words, *plane) for plane in accepts])
    hits = math.fsum(site.words * hit_probability(table) for table in planes)
    # a late bit that was the same in the word before changes nothing
    return Range(0 if process.kind == "late" else hits, hits)


def _accepted(cells: int, table: Table, accept01: int, accept10: int) -> Range:
    """The cells that are hit and change: a share of the throws does where 0 is stored, another where 1 is."""
    free = 1 - hit_probability(table)
    shares = sorted(accept / ACCEPT_ALL for accept in (accept01, accept10))
    least, most = (cells * (1 - free**share) for share in shares)
    return Range(least, most)


def _cells(rows: FaultMap) -> int:
    return len(rows.cells()[0])


def _exactly(number: float) -> Range:
    return Range(number, number)


def _sum(ranges: Sequence[Range]) -> Range:
    return Range(math.fsum(r.low for r in ranges), math.fsum(r.high for r in ranges))
