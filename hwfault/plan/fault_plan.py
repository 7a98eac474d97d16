"""Sites + fault models -> the fault plan: which process strikes which site, in tables and integers only."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hwfault.errors import ModelError, PlanError, nearest
from hwfault.files import write_atomically
from hwfault.inputs import read_regular
from hwfault.laws.accumulation import accumulation_of, with_widths
from hwfault.laws.bound import AccumulationPart, Bound, CountTables, Target
from hwfault.laws.files import Files, changed_files
from hwfault.laws.late import check_late
from hwfault.laws.models import FaultModel, bind, lower
from hwfault.laws.obstacles import selected_obstacles, tell_obstacles
from hwfault.laws.selection import places_of
from hwfault.notices import tell_once
from hwfault.plan.agreement import disagreements
from hwfault.plan.expected import expected_faults
from hwfault.program.accumulators import check_exact
from hwfault.program.processes import AnyProcess, Site, SitePlan, Step
from hwfault.program.selectors import names_of
from hwfault.program.telling import tell_all
from hwfault.records import Record
from hwfault.stream.check import check_seed
from hwfault.stream.tables import check_probability, site_number

_LARGEST_PLAN = 1 << 28


class FaultPlan(Record):
    """Everything that engines need to know: for each site its processes, for the plan its count tables.

    `faults` are the fault models it was made from, and `factors` those on their probabilities (None: all are 1), kept
    to be read; the integers are what is applied.
    """

    format: Literal["hwfault-plan/1"] = "hwfault-plan/1"
    faults: tuple[FaultModel, ...]
    factors: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    device: int | None = None
    """The device that faults were drawn for, where they belong to one."""
    stream: Literal["1.1"] | None = None
    """The version of the fault stream that its sites need; None: version 1 is enough."""
    sites: tuple[SitePlan, ...]
    tables: tuple[tuple[int, ...], ...]
    notes: Annotated[tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=100)] | None = None
    """What must be said wherever the plan is used: patterns of profiles drawn where they were not measured, and what
    the faults select and is no site."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for table in self.tables:
            _check_table(table)
        for entry in self.sites:
            check_late(entry, self.faults)
        indices = {i for entry in self.sites for process in entry.processes for i in process.used_tables}
        if absent := indices - set(range(len(self.tables))):
            raise ValueError(f"a process names table {min(absent)} of {len(self.tables)} (counted from 0)")
        _check_numbers(self.sites, self.tables)
        if self.stream is None and needs_stream(entry.site for entry in self.sites) is not None:
            raise ValueError('its sites need version 1.1 of the fault stream, expected stream: "1.1"')
        if self.factors is not None and len(self.factors) != len(self.faults):
            raise ValueError(f"{len(self.factors)} factors for {len(self.faults)} faults, expected one for each")
        return self

    @cached_property
    def _by_name(self) -> dict[str, SitePlan]:
        return {entry.site.name: entry for entry in self.sites}

    @cached_property
    def _by_alias(self) -> dict[str, SitePlan]:
        return {alias: entry for entry in self.sites for alias in entry.site.aliases or ()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def at(self, name: str) -> SitePlan:
        """The plan of one site, by its name or an alias; raises PlanError if the plan has none of this name."""
        entry = self._by_name.get(name) or self._by_alias.get(name)
        if entry is None:
            raise PlanError(f"the plan has no site {name!r}: {nearest(name, [*self.names, *self._by_alias])}")
        return entry

    def steps(self, name: str) -> tuple[Step, ...]:
        """What engines do at a site, one after the other."""
        return self.at(name).steps(self.tables)

    def idle(self, name: str) -> bool:
        """Whether nothing that strikes a site can ever change a word, as all its probabilities are 0."""
        return all(process.never(self.tables) for process in self.at(name).processes)

    def program(self, name: str) -> tuple[int, ...]:
        """The fault program of all that the stream draws at a site (see hwfault.stream.reference)."""
        return self.at(name).program(self.tables)

    def check_fits(self, sites: Iterable[Site], where: str) -> None:
        """Raises PlanError unless every planned site is among `sites` with the same width, signedness and kind."""
        obstacles = getattr(sites, "obstacles", {})
        found = {site.name: site for site in sites}
        for entry in self.sites:
            if entry.site.name in obstacles and entry.site.name not in found:
                why = obstacles[entry.site.name]
                raise PlanError(f"the plan strikes the site {entry.site.name!r}, which is none in {where}: {why}")
            _check_site(entry.site, found, where)

    def check_batch_axes(self, sites: Iterable[Site], where: str) -> None:
        """Raises PlanError unless the samples of every planned site lie as those of the same among `sites` do."""
        found = {site.name: site for site in sites}
        for entry in self.sites:
            site, other = entry.site, found.get(entry.site.name)
            if other is not None and site.batched and site.batch != other.batch:
                raise PlanError(
                    f"the plan takes the samples of {site.name!r} to lie otherwise ({site.batch_axis}) than {where} "
                    f"has them ({other.batch_axis}); resolve the faults again, with sites(model, example)"
                )

    def to_json(self) -> str:
        """The plan as JSON text, a line for each site and table; `from_json` reads it back."""
        data = self.model_dump(mode="json", exclude_none=True)
        blocks = [f"{json.dumps(key)}: {_json_block(value)}" for key, value in data.items()]
        return "{\n" + ",\n".join(blocks) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the plan") -> Self:
        """The plan that `to_json` wrote; raises PlanError for anything else."""
        try:
            plan = cls.parse(json.loads(text), f"{source}: not a fault plan")
        except ModelError as error:
            raise PlanError(str(error)) from None
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{source}: not a fault plan: {error}") from None
        tell_once(plan.notes or ())
        named = [fault.named_file() for fault in plan.faults]
        tell_once(changed_files(file for file in named if file is not None))
        tell_once(disagreements(plan))
        return plan

    def save(self, path: Path | str) -> None:
        """Writes the plan as JSON, atomically."""
        write_atomically(path, self.to_json().encode())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The plan in a JSON file; raises FileError or PlanError."""
        return cls.from_json(read_regular(path, _LARGEST_PLAN, "a fault plan"), str(path))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's JSON, in hexadecimal."""
        return sha256(self.to_json().encode()).hexdigest()

    def __str__(self) -> str:
        lines = [f"fault plan {self.digest[:12]}: {len(self.sites)} sites, {len(self.faults)} faults"]
        factors = self.factors or (1.0,) * len(self.faults)
        for k, (fault, factor) in enumerate(zip(self.faults, factors, strict=True)):
            times = "" if factor == 1 else f", {factor:g} times its probability"
            lines.append(f"  fault {k}: {_title(fault)}{times}: {self._applied(k)}")
        lines += [f"  note: {note}" for note in self.notes or ()]

        width = max((len(name) for name in self.names), default=0)
        for entry in self.sites:
            site = entry.site
            sign = "signed" if site.signed else "unsigned"
            struck = [f"fault {process.fault} ({process.kind})" for process in entry.processes]
            if entry.array is not None:
                struck.append(entry.array.told)
            size = f"{site.bit_width:>2} bit {sign:<8}"
            lines.append(f"  {site.name:<{width}}  {site.kind:<10}  {size}  {', '.join(struck)}")
        if self.sites:
            lines.append(f"  {expected_faults(self)}")
        return "\n".join(lines)

    def _applied(self, number: int) -> str:
        """What a fault does, as its tables, masks and cells say, whatever its record does."""
        own = [process for entry in self.sites for process in entry.processes if process.fault == number]
        if own:
            return tell_all((process.describe(self.tables), process.cell_kinds) for process in own)
        arrays = any(entry.array is not None for entry in self.sites)
        return "no process of its own" + (", see how layers are added up" if arrays else "")


def _title(fault: FaultModel) -> str:
    """A fault's law, and the file that it names."""
    named = {key: value for key in ("profile", "file") if (value := getattr(fault, key, None)) is not None}
    return " ".join([fault.model, *(f"{key}={value}" for key, value in named.items())])


def resolve(
    sites: Sequence[Site],
    faults: Sequence[FaultModel],
    *,
    device: int = 0,
    factors: Sequence[float] | None = None,
    files: Files | None = None,
) -> FaultPlan:
    """The plan of `faults` on those of `sites` that they select, in the sites' order.

    `device` is the number of the device that permanent and intermittent faults of profiles are drawn for. Where a
    profile's pattern is drawn at an operating point at which it does not hold, the plan has a note of it, which is also
    logged, once, as a warning of the logger "hwfault". `factors`
    (0 to 1, one for each fault) scale the faults' probabilities. A fault at 0 is left out, also one that has no
    probability, and with it the sites that nothing else strikes; the others keep their numbers, and so their draws.
    What the faults select among the list's `obstacles` stays without faults, which a note and the logger "hwfault" say.
    The profiles and maps that the faults name are read once, or taken as `files` has read them.

    Raises ModelError for a selector that matches no site, a process wider than a word, a probability that cannot be
    drawn, or a factor between 0 and 1 on a fault without a probability, PlanError when two processes hash to one
    number, and FileError for a file that cannot be read.
    """
    check_seed(device)
    # every fault is read and finds its sites, also one that its factor leaves out
    bound = bind(faults, files)
    places = [places_of(one, sites) for one in bound]
    active = dict(_scaled(bound, factors))
    without = selected_obstacles(sites, active.values())

    # accumulators first get the width that the faults declare, which others then strike
    wide = with_widths(sites, [(one, places[k]) for k, one in active.items()])
    draft = _Draft(wide, device)
    for k, one in active.items():
        draft.add(k, one, places[k])

    tell_once(draft.notes)
    said: dict[str, Any] = {"faults": tuple(one.named for one in bound)}
    if any(one.by_specimen for one in bound):
        said["device"] = device
    if notes := (*draft.notes, *tell_obstacles(without)):
        said["notes"] = notes
    if factors is not None and any(factor != 1 for factor in factors):
        said["factors"] = tuple(factors)
    planned = draft.planned()
    said["stream"] = needs_stream(entry.site for entry in planned) or _newest(planned)
    try:
        return FaultPlan(sites=planned, tables=draft.tables.tables, **said)
    except ModelError as error:
        raise PlanError(f"the faults make no plan: {error}") from None


class _Draft:
    """A plan to which one fault after the other adds what it becomes."""

    def __init__(self, sites: Sequence[Site], specimen: int) -> None:
        self.tables = CountTables()
        self._sites, self._specimen = sites, specimen
        self._processes: list[list[AnyProcess]] = [[] for _ in sites]
        self._parts: list[list[AccumulationPart]] = [[] for _ in sites]
        self._notes: dict[str, None] = {}

    def add(self, number: int, bound: Bound[Any], places: Sequence[int]) -> None:
        """Adds a fault at the sites of these places in the list."""
        target = Target(number, [self._sites[place] for place in places], self._specimen, self.tables)
        lowered = lower(bound, target)
        for i, place in enumerate(places):
            self._processes[place] += lowered.processes_at(i)
        if lowered.parts:
            for place, part in zip(places, lowered.parts, strict=True):
                self._parts[place].append(part)
        self._notes |= dict.fromkeys(lowered.notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said of the faults, each note once."""
        return tuple(self._notes)

    def planned(self) -> tuple[SitePlan, ...]:
        """The sites that anything strikes; raises ModelError where faults do not go together at one of them."""
        found = []
        for site, processes, parts in zip(self._sites, self._processes, self._parts, strict=True):
            array = accumulation_of(site, parts)
            if processes or array is not None:
                check_exact(site, array)
                found.append(SitePlan(site=site, processes=tuple(processes), array=array))
        return tuple(found)


def needs_stream(sites: Iterable[Site]) -> Literal["1.1"] | None:
    """The version of the fault stream that sites need; None: version 1 is enough."""
    needed = any(site.batch is not None or site.runs is not None or site.aliases is not None for site in sites)
    return "1.1" if needed else None


def _newest(entries: Sequence[SitePlan]) -> Literal["1.1"] | None:
    """The version of the fault stream that brought the newest of what strikes; None: the first has all of it."""
    return next((process.row.stream for entry in entries for process in entry.processes if process.row.stream), None)


def spec_of(stream: Literal["1.1"] | None) -> Literal["fault-stream v1", "fault-stream v1.1"]:
    """The specification that graphs and bundles name, for the version that they need."""
    return "fault-stream v1" if stream is None else "fault-stream v1.1"


def _scaled(bound: Sequence[Bound[Any]], factors: Sequence[float] | None) -> Iterator[tuple[int, Bound[Any]]]:
    """(number, fault at its factor) of each fault that is not left out."""
    if factors is None:
        yield from enumerate(bound)
        return
    if len(factors) != len(bound):
        raise ModelError(f"{len(factors)} factors for {len(bound)} faults, expected one for each")
    for k, (one, factor) in enumerate(zip(bound, factors, strict=True)):
        check_probability(factor, f"the factor of fault {k}")
        if 0 < factor < 1 and not one.fault.scalable:
            raise ModelError(
                f"the factor {factor:g} on fault {k}, a {one.fault.model!r} without a probability to scale; expected 0 "
                "or 1"
            )
        if factor > 0:
            yield k, one.scaled(factor) if factor < 1 else one


def _check_numbers(sites: Sequence[SitePlan], tables: Sequence[tuple[int, ...]]) -> None:
    names = [name for entry in sites for name in names_of(entry.site)]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"the site {twice!r} is listed twice, expected one entry for each site")
    keys: dict[int, str] = {}
    drawn: set[int] = set()
    for entry in sites:
        for process in entry.processes:
            key = f"{entry.site.name}#{process.fault}"
            number = process.site_number
            alone = keys.setdefault(number, key) == key and site_number(entry.site.name, process.fault) == number
            # of several processes that a fault has at a site the stream draws one at most
            if process.varies(tables):
                alone = alone and number not in drawn
                drawn.add(number)
            if not alone:
                raise ValueError(f"the number {number} of {key} is not its own alone; rename the site")


def _check_table(table: tuple[int, ...]) -> None:
    thresholds = list(table[1:])
    if not table or (table != (-1,) and table[0] != len(thresholds)):
        raise ValueError(f"a count table says {table[:1]} before {len(thresholds)} thresholds, expected their number")
    if thresholds != sorted(thresholds) or not all(0 <= t <= 1 << 32 for t in thresholds):
        raise ValueError("the thresholds of a count table must ascend within 0 to 2^32")


def _check_site(site: Site, found: dict[str, Site], where: str) -> None:
    if site.name not in found:
        raise PlanError(
            f"the plan strikes the site {site.name!r}, which {where} does not have: {nearest(site.name, found)}"
        )
    other = found[site.name]
    mine, theirs = ((s.worst_case or s.bit_width, s.signed, s.batched) for s in (site, other))
    if mine != theirs:
        raise PlanError(
            f"the plan was made for {site.name!r} with (bit width, signed, batched) = {mine}, but {where} has "
            f"{theirs} there; resolve the faults against this one again"
        )


def _json_block(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in value) + "\n]"
