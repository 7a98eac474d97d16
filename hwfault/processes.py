"""What strikes a site: processes as the plan keeps them, in integers, and the steps that engines take."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from hwfault.codes import CodeFormat, Codes, Representation, decode, encode
from hwfault.profiles.faultmap import ALL_ONES, FaultMap
from hwfault.profiles.models import SiteKind
from hwfault.profiles.records import Record
from hwfault.stream import native
from hwfault.stream.reference import activity, processes
from hwfault.stream.tables import ACCEPT_ALL, ALWAYS, Table

KINDS = ("bit", "cluster", "mask", "random")
_RANDOM = KINDS.index("random")

Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]
Refresh = Literal["inference", "batch", "epoch", "power_cycle"]
Samples = NDArray[np.int64]
Values = NDArray[np.floating]
Accept = Annotated[int, Field(ge=0, le=ACCEPT_ALL)]


class Site(Record):
    """A named place where a tensor of quantized integers lives; `shape` is None as long as it is not known."""

    name: str
    kind: SiteKind
    bit_width: Annotated[int, Field(ge=1, le=32)]
    signed: bool
    layer: str = ""
    shape: tuple[int, ...] | None = None

    @property
    def batched(self) -> bool:
        """Whether axis 0 is the batch, each element a sample of its own; parameters are one sample as a whole."""
        return self.kind in ("activation", "input")

    @property
    def words(self) -> int | None:
        """How many words a sample has, None as long as the shape is not known."""
        return None if self.shape is None else math.prod(self.shape)


class Process(Record):
    """One process that the stream draws at one site, as integers; `tables` are indices into the plan's, one a plane."""

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["bit", "cluster", "mask", "random"]
    tables: tuple[int, ...]
    accept01: tuple[Accept, ...] = ()
    accept10: tuple[Accept, ...] = ()
    axis: Literal["bit", "word"] | None = None
    sizes: tuple[Accept, ...] = ()
    mask: Uint32 | None = None
    representation: Representation | None = None

    def program(self, tables: Sequence[Table]) -> tuple[int, ...]:
        """The process as a part of a fault program."""
        body = self._body([tables[i] for i in self.tables])
        return (KINDS.index(self.kind), self.site_number, len(body), *body)

    def _body(self, tables: list[Table]) -> list[int]:
        if self.kind == "bit":
            rows = zip(self.accept01, self.accept10, tables, strict=True)
            return [x for accept01, accept10, table in rows for x in (accept01, accept10, *table)]
        flat = [x for table in tables for x in table]
        if self.kind == "cluster":
            return [int(self.axis == "word"), len(self.sizes), *self.sizes, *flat]
        return flat if self.mask is None else [self.mask, *flat]

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """Whether the process does not accept every hit, so that the code stored decides."""
        planes = zip(self.accept01, self.accept10, self.tables, strict=False)
        return any(tables[i] != (0,) and {a01, a10} != {ACCEPT_ALL} for a01, a10, i in planes)


def _read_map(value: Any) -> FaultMap:
    if isinstance(value, FaultMap):
        return value
    known = {"bit_width", "words", "word", "and_mask", "xor_mask", "provenance"}
    if not isinstance(value, dict) or not known - {"provenance"} <= value.keys() <= known:
        raise ValueError("not a fault map: expected bit_width, words and the lists word, and_mask and xor_mask")
    try:
        word, and_mask, xor_mask = (_integers(value[key]) for key in ("word", "and_mask", "xor_mask"))
        size = int(value["bit_width"]), int(value["words"])
        return FaultMap(*size, word, and_mask, xor_mask, dict(value.get("provenance", {})))
    except (TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"not a fault map: {error}") from None


def _integers(values: Any) -> Any:
    numbers = np.asarray(values, dtype=np.int64)
    if not np.array_equal(numbers, np.asarray(values)):
        raise TypeError("rows that are no integers")
    return numbers


def _write_map(value: FaultMap) -> dict[str, Any]:
    rows = {key: getattr(value, key).tolist() for key in ("word", "and_mask", "xor_mask")}
    return {"bit_width": value.bit_width, "words": value.words, **rows, "provenance": dict(value.provenance)}


class MapProcess(Record):
    """Faulty cells of one site: permanent, or intermittent where `threshold` (of 2^32) is their activity.

    A cell's activity is drawn anew in each period: for each sample ("inference"), by the first sample of a batch
    ("batch"), by the epoch's number ("epoch"), or once for a seed ("power_cycle").
    """

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["map"] = "map"
    map: Annotated[FaultMap, PlainValidator(_read_map), PlainSerializer(_write_map)]
    threshold: Annotated[int, Field(ge=0, le=ALWAYS)] = ALWAYS
    refresh: Refresh = "inference"
    representation: Representation | None = None

    @property
    def permanent(self) -> bool:
        return self.threshold == ALWAYS

    @property
    def reads_stored(self) -> bool:
        """Whether a cell is stuck, so that the code stored decides."""
        return bool(np.any(self.map.and_mask | ~np.uint32((1 << self.map.bit_width) - 1) != ALL_ONES))


AnyProcess = Annotated[Process | MapProcess, Field(discriminator="kind")]


class StreamStep(NamedTuple):
    """Processes that the stream draws, as one fault program."""

    program: tuple[int, ...]
    bit_width: int
    reads_stored: bool
    representation: Representation

    @property
    def changes(self) -> bool:
        """Whether a parameter's faults may differ from batch to batch of one seed."""
        return False

    def struck(self, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
        """The codes (samples, words) after the step; a parameter is sample 0."""
        numbers = samples if batched else np.zeros(1, np.int64)
        return native.inject_codes(codes, program=self.program, seed=seed, samples=numbers, bit_width=self.bit_width)


class MapStep(NamedTuple):
    """A fault map."""

    process: MapProcess

    @property
    def representation(self) -> Representation:
        return self.process.representation or "twos_complement"

    @property
    def changes(self) -> bool:
        """Whether a parameter's faults may differ from batch to batch of one seed."""
        return not self.process.permanent and self.process.refresh in ("inference", "batch")

    def struck(self, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
        """The codes (samples, words) after the step; `samples[0]` is the period of a parameter and of a batch."""
        if self.process.permanent:
            return self.process.map.apply(codes)
        held = self.process.refresh in ("epoch", "power_cycle")
        periods = 0 * samples if held else samples if self.process.refresh == "inference" and batched else samples[:1]
        maps = {int(period): self.active(seed, int(period)) for period in periods}
        rows = [maps[int(period)].apply(row) for row, period in zip(codes, np.resize(periods, len(codes)), strict=True)]
        return np.stack(rows) if rows else codes

    def active(self, seed: int, period: int) -> FaultMap:
        """The cells that show their fault in a period."""
        word, bit, kind = self.process.map.cells()
        drawn = activity(seed=seed, site=self.process.site_number, period=period, word=word, bit=bit)
        on = drawn < self.process.threshold
        return FaultMap.from_cells(
            self.process.map.words, self.process.map.bit_width, word[on], bit[on], kind[on], self.process.map.provenance
        )


Step = StreamStep | MapStep


def strike_values(
    step: Step,
    values: Values,
    scale: ArrayLike,
    zero_point: ArrayLike,
    fmt: CodeFormat,
    *,
    seed: int,
    samples: Samples,
    batched: bool,
) -> Values:
    """The values after a step, in NumPy, as every engine computes them; words that it leaves alone keep their bits.

    `fmt` says how integers are stored but for the step's own representation. `samples` (samples,) are the numbers of
    the elements of axis 0 where these are `batched`; a parameter has a single one, which says when.
    """
    fmt = replace(fmt, representation=step.representation)
    codes = encode(values, scale, zero_point, fmt)
    struck = step.struck(codes.reshape(len(samples), -1), seed, samples, batched).reshape(codes.shape)
    return np.where(struck == codes, values, decode(struck, scale, zero_point, fmt, values.dtype.type))


class SitePlan(Record):
    """A site and the processes that strike it, in order."""

    site: Site
    processes: tuple[AnyProcess, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for process in self.processes:
            if isinstance(process, MapProcess):
                _check_map(process.map, self.site)
            else:
                _check_process(process, self.site)
        return self

    def steps(self, tables: Sequence[Table]) -> tuple[Step, ...]:
        """The processes as engines take them: neighbours of one kind in one step."""
        steps: list[Step] = []
        for process in self.processes:
            step = _step(process, tables, self.site.bit_width)
            joined = _joined(steps[-1], step) if steps else None
            steps[-1:] = [joined] if joined is not None else [*steps[-1:], step]
        return tuple(steps)

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """Whether which words the stream's processes make faulty depends on the codes stored before."""
        return any(step.reads_stored for step in self.steps(tables) if isinstance(step, StreamStep))


def _step(process: Process | MapProcess, tables: Sequence[Table], bit_width: int) -> Step:
    if isinstance(process, MapProcess):
        return MapStep(process)
    reads = process.reads_stored(tables)
    return StreamStep(process.program(tables), bit_width, reads, process.representation or "twos_complement")


def _joined(first: Step, second: Step) -> Step | None:
    """One step for two, None if they cannot be one."""
    if first.representation != second.representation:
        return None
    if isinstance(first, StreamStep) and isinstance(second, StreamStep):
        programs = (first.program, second.program)
        # `random` beside another process may lead back to the first code
        reads = first.reads_stored or second.reads_stored or any(_RANDOM in kinds(p) for p in programs)
        return StreamStep(sum(programs, ()), first.bit_width, reads, first.representation)
    if isinstance(first, MapStep) and isinstance(second, MapStep):
        mine, other = first.process, second.process
        if mine.permanent and other.permanent:
            return MapStep(mine.model_copy(update={"map": mine.map.then(other.map)}))
    return None


def kinds(program: Sequence[int]) -> list[int]:
    """The kinds of the processes of a fault program."""
    return [kind for kind, _, _ in processes(program)]


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


def _check_map(rows: FaultMap, site: Site) -> None:
    words = site.words
    if rows.bit_width != site.bit_width or words not in (None, rows.words):
        raise ValueError(
            f"site {site.name!r}: a fault map of {rows.words} words of {rows.bit_width} bits for {words} words of "
            f"{site.bit_width} bits"
        )
