"""Sites + fault models -> the fault plan: which process strikes which site, in tables and integers only."""

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hwfault.datapath import ArrayPlan
from hwfault.errors import FileError, ModelError, PlanError, nearest
from hwfault.files import write_atomically
from hwfault.profiles.models import BitFlips, Clusters, FaultModel, Select, SiteKind, WordFaults, per_bit
from hwfault.profiles.records import Record
from hwfault.stream.tables import ACCEPT_ALL, Table, accepts, encode_table, site_number, size_table

KINDS = ("bit", "cluster", "mask", "random")
_LARGEST_PLAN = 1 << 28

Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]
Accept = Annotated[int, Field(ge=0, le=ACCEPT_ALL)]


class Site(Record):
    """A named place where a tensor of quantized integers lives; `shape` is None as long as it is not known.

    An accumulator has more: `worst_case` (the bits that its largest sum needs), `weights` (the shape of its layer's),
    and `source`, the site whose integers feed the layer (None: they come with a scale of their own).
    """

    name: str
    kind: SiteKind
    bit_width: Annotated[int, Field(ge=1, le=32)]
    signed: bool
    layer: str = ""
    shape: tuple[int, ...] | None = None
    source: str | None = None
    weights: tuple[int, ...] | None = None
    worst_case: int | None = None

    @property
    def batched(self) -> bool:
        """Whether axis 0 is the batch, each element a sample of its own; parameters are one sample as a whole."""
        return self.kind in ("activation", "input", "accumulator")


class SiteList(list[Site]):
    """Sites, and `obstacles`: why the accumulators of other layers are none, by the name that they would have."""

    def __init__(self, sites: Iterable[Site], obstacles: Mapping[str, str] | None = None) -> None:
        super().__init__(sites)
        self.obstacles = dict(obstacles or {})


class Process(Record):
    """One process of a fault model on one site, as integers; `tables` are indices into the plan's, one a plane."""

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["bit", "cluster", "mask", "random"]
    tables: tuple[int, ...]
    accept01: tuple[Accept, ...] = ()
    accept10: tuple[Accept, ...] = ()
    axis: Literal["bit", "word"] | None = None
    sizes: tuple[Accept, ...] = ()
    mask: Uint32 | None = None


class SitePlan(Record):
    """A site and the processes that strike it, in order; for an accumulator also how its layer is added up."""

    site: Site
    processes: tuple[Process, ...]
    array: ArrayPlan | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for process in self.processes:
            _check_process(process, self.site)
        return self

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """Whether which words become faulty depends on the codes stored before.

        So it is for a bit process that does not accept every hit, and for `random` beside another process, which may
        lead back to the first code.
        """
        if len(self.processes) > 1 and any(p.kind == "random" for p in self.processes):
            return True
        planes = [plane for p in self.processes for plane in zip(p.accept01, p.accept10, p.tables, strict=False)]
        return any(tables[i] != (0,) and {a01, a10} != {ACCEPT_ALL} for a01, a10, i in planes)


class FaultPlan(Record):
    """Everything that engines need to know: for each site its processes, for the plan its count tables.

    `faults` are the fault models it was made from, kept to be read; the integers are what is applied.
    """

    format: Literal["hwfault-plan/1"] = "hwfault-plan/1"
    faults: tuple[FaultModel, ...]
    sites: tuple[SitePlan, ...]
    tables: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for table in self.tables:
            _check_table(table)
        _check_numbers(self.sites)
        indices = {i for s in self.sites for p in s.processes for i in p.tables}
        if absent := indices - set(range(len(self.tables))):
            raise ValueError(f"a process names table {min(absent)} of {len(self.tables)} (counted from 0)")
        return self

    @cached_property
    def _by_name(self) -> dict[str, SitePlan]:
        return {entry.site.name: entry for entry in self.sites}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def at(self, name: str) -> SitePlan:
        """The plan of one site; raises PlanError if the plan has none of this name."""
        if name not in self._by_name:
            raise PlanError(f"the plan has no site {name!r}: {nearest(name, self.names)}")
        return self._by_name[name]

    def program(self, name: str) -> tuple[int, ...]:
        """The fault program of a site, as kernels and graphs take it (see hwfault.stream.reference)."""
        out: list[int] = []
        for process in self.at(name).processes:
            body = self._body(process)
            out += [KINDS.index(process.kind), process.site_number, len(body), *body]
        return tuple(out)

    def _body(self, process: Process) -> list[int]:
        tables = [self.tables[i] for i in process.tables]
        if process.kind == "bit":
            rows = zip(process.accept01, process.accept10, tables, strict=True)
            return [x for accept01, accept10, table in rows for x in (accept01, accept10, *table)]
        flat = [x for table in tables for x in table]
        if process.kind == "cluster":
            return [int(process.axis == "word"), len(process.sizes), *process.sizes, *flat]
        return flat if process.mask is None else [process.mask, *flat]

    def check_fits(self, sites: Iterable[Site], where: str) -> None:
        """Raises PlanError unless every planned site is among `sites` with the same width, signedness and kind."""
        found = {site.name: site for site in sites}
        for entry in self.sites:
            _check_site(entry.site, found, where)

    def to_json(self) -> str:
        """The plan as JSON text, a line for each site and table; `from_json` reads it back."""
        data = self.model_dump(mode="json", exclude_none=True)
        blocks = [f"{json.dumps(key)}: {_json_block(value)}" for key, value in data.items()]
        return "{\n" + ",\n".join(blocks) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the plan") -> Self:
        """The plan that `to_json` wrote; raises PlanError for anything else."""
        try:
            return cls.parse(json.loads(text), f"{source}: not a fault plan")
        except ModelError as error:
            raise PlanError(str(error)) from None
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{source}: not a fault plan: {error}") from None

    def save(self, path: Path | str) -> None:
        """Writes the plan as JSON, atomically."""
        write_atomically(path, self.to_json().encode())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The plan in a JSON file; raises FileError or PlanError."""
        try:
            if Path(path).stat().st_size > _LARGEST_PLAN:
                raise FileError(f"{path}: larger than {_LARGEST_PLAN} bytes, expected a fault plan")
            return cls.from_json(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror}); expected a fault plan") from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's JSON, in hexadecimal."""
        return sha256(self.to_json().encode()).hexdigest()

    def __str__(self) -> str:
        lines = [f"fault plan {self.digest[:12]}: {len(self.sites)} sites, {len(self.faults)} faults"]
        lines += [f"  fault {k}: {_describe(fault)}" for k, fault in enumerate(self.faults)]
        width = max((len(name) for name in self.names), default=0)
        for entry in self.sites:
            site = entry.site
            sign = "signed" if site.signed else "unsigned"
            which = ", ".join(f"fault {p.fault} ({p.kind})" for p in entry.processes)
            lines.append(f"  {site.name:<{width}}  {site.kind:<10}  {site.bit_width:>2} bit {sign:<8}  {which}")
        return "\n".join(lines)


def resolve(sites: Sequence[Site], faults: Sequence[BitFlips | WordFaults | Clusters]) -> FaultPlan:
    """The plan of `faults` on those of `sites` that they select, in the sites' order.

    Raises ModelError for a selector that matches no site, a process wider than a word, or a probability that
    cannot be drawn, and PlanError when two processes hash to one number.
    """
    for fault in faults:
        _check_selectors(sites, fault)
    tables: dict[Table, int] = {}
    planned = []
    for site in sites:
        chosen = [(k, f) for k, f in enumerate(faults) if any(s.matches(site) for s in f.sites)]
        processes = tuple(_process(site, k, fault, tables) for k, fault in chosen)
        if processes:
            planned.append(SitePlan(site=site, processes=processes))
    try:
        return FaultPlan(faults=tuple(faults), sites=tuple(planned), tables=tuple(tables))
    except ModelError as error:
        raise PlanError(f"the faults make no plan: {error}") from None


def _process(site: Site, k: int, fault: FaultModel, tables: dict[Table, int]) -> Process:
    def table(h: float) -> int:
        return tables.setdefault(encode_table(h), len(tables))

    try:
        numbers = _integers(site.bit_width, fault)
        indices = tuple(table(h) for h in numbers.pop("rates"))
    except ModelError as error:
        raise ModelError(f"fault {k} at site {site.name!r}: {error}") from None
    return Process(fault=k, site_number=site_number(site.name, k), tables=indices, **numbers)


def _integers(bits: int, fault: FaultModel) -> dict[str, Any]:
    if isinstance(fault, BitFlips):
        planes = [accepts(p01, p10) for p01, p10 in fault.directions(bits)]
        rates, accept01, accept10 = zip(*planes, strict=True)
        return {"kind": "bit", "rates": rates, "accept01": accept01, "accept10": accept10}
    if isinstance(fault, Clusters):
        rates = per_bit(fault.probability, bits)
        return {"kind": "cluster", "rates": rates, "axis": fault.axis, "sizes": size_table(fault.sizes)}
    mask = fault.mask(bits)
    return {"kind": "random" if mask is None else "mask", "rates": (fault.probability,), "mask": mask}


def _check_selectors(sites: Sequence[Site], fault: FaultModel) -> None:
    for selector in fault.sites:
        if not any(selector.matches(site) for site in sites):
            raise ModelError(f"no site matches the selector {str(selector)!r}: {_why_none(sites, selector)}")


def _why_none(sites: Sequence[Site], selector: Select) -> str:
    """What a selector that matches nothing may have meant."""
    meant = selector.kind == "accumulator" or selector.name.endswith("accumulator")
    if not meant or any(site.kind == "accumulator" and fnmatchcase(site.name, selector.name) for site in sites):
        return nearest(selector.name, [site.name for site in sites])
    obstacles = getattr(sites, "obstacles", {})
    found = [f"{name}: {text}" for name, text in obstacles.items() if fnmatchcase(name, selector.name)]
    if found:
        return "; ".join(found)
    if any(site.kind == "accumulator" for site in sites):
        return nearest(selector.name, [site.name for site in sites if site.kind == "accumulator"])
    return (
        "accumulators are known once an example batch has run; list the sites with one, "
        "as resolve(sites(model, example), faults) does"
    )


def _check_numbers(sites: Sequence[SitePlan]) -> None:
    keys: set[int] = set()
    names: set[str] = set()
    for entry in sites:
        name = entry.site.name
        if name in names:
            raise ValueError(f"the site {name!r} is listed twice, expected one entry for each site")
        names.add(name)
        for process in entry.processes:
            key = f"{name}#{process.fault}"
            number = process.site_number
            if number in keys or site_number(name, process.fault) != number:
                raise ValueError(f"the number {number} of {key} is not its own alone; rename the site")
            keys.add(number)


def _check_process(process: Process, site: Site) -> None:
    planes = site.bit_width if process.kind in ("bit", "cluster") else 1
    accepted = planes if process.kind == "bit" else 0
    lengths = (len(process.tables), len(process.accept01), len(process.accept10))
    if lengths != (planes, accepted, accepted):
        raise ValueError(
            f"site {site.name!r}: a {process.kind} process on {site.bit_width} bits needs {planes} tables and "
            f"{accepted} accepts each way, found {lengths}"
        )
    if process.sizes and process.kind != "cluster":
        raise ValueError(f"site {site.name!r}: a {process.kind} process has cluster sizes it should not")
    given = {"cluster": process.axis, "mask": process.mask}
    if any((process.kind == kind) != (value is not None) for kind, value in given.items()):
        raise ValueError(f"site {site.name!r}: a {process.kind} process lacks its axis or mask, or has one too many")
    if process.mask is not None and not 0 < process.mask < 1 << site.bit_width:
        raise ValueError(f"site {site.name!r}: mask {process.mask:#x} does not fit {site.bit_width} bits")
    if list(process.sizes) != sorted(process.sizes):
        raise ValueError(f"site {site.name!r}: the cluster sizes' thresholds do not ascend")


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


def _describe(fault: FaultModel) -> str:
    fields = fault.model_dump(exclude={"sites", "model"}, exclude_none=True)
    where = ", ".join(map(str, fault.sites))
    return f"{fault.model} " + " ".join(f"{k}={v}" for k, v in fields.items()) + f" on {where}"


def _json_block(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in value) + "\n]"
