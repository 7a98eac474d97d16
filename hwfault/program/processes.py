"""What strikes a site: processes as the plan keeps them, in integers, and the steps that engines take."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator, model_validator

from hwfault.codes import CodeFormat, Codes, Representation, encode, faulty_values
from hwfault.program.batch_axes import PLAIN, BatchAxis, arrange, grid_shape, restore
from hwfault.program.mapped import (
    Accept,
    MapProcess,
    MapStep,
    ProtectedProcess,
    ProtectedStep,
    Refresh,
    Samples,
    Uint32,
)
from hwfault.program.selectors import SiteKind
from hwfault.records import Record
from hwfault.stream import native
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.reference import processes
from hwfault.stream.tables import ACCEPT_ALL, Table

__all__ = [
    "MapProcess",
    "MapStep",
    "Process",
    "ProtectedProcess",
    "ProtectedStep",
    "Refresh",
    "Site",
    "SitePlan",
    "Step",
]

KINDS = ("bit", "cluster", "mask", "random", "late")
_RANDOM = KINDS.index("random")

Length = Annotated[int, Field(ge=1, le=1 << 31)]
Values = NDArray[np.floating]


class Site(Record):
    """A named place where a tensor of quantized integers lives; `shape` is None as long as it is not known.

    `shape` is that of one sample. `batch` says where the samples of a batch lie; None: along axis 0, one row for each.

    An accumulator has more: `worst_case` (the bits that its largest sum needs), `weights` (the shape of its layer's),
    and `source`, the site whose integers feed the layer (None: they come with a scale of their own).

    `runs` says how many times the quantizer or layer of an activation, input or accumulator runs in one forward of the
    example, which are as many sites: `q`, `q#1`, ... (hwfault.program.names). None is once, or, as long as there is no
    shape, not known. `aliases` are the names under which other layers read the same words of a parameter.
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
    batch: BatchAxis | None = None
    runs: Annotated[int, Field(ge=2, le=1 << 16)] | None = None
    aliases: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @field_validator("batch")
    @classmethod
    def _unsaid(cls, batch: BatchAxis | None) -> BatchAxis | None:
        return None if batch is None or batch.plain else batch

    @model_validator(mode="after")
    def _has_the_axis(self) -> Self:
        if self.batch is None:
            return self
        if not self.batched:
            raise ValueError(f"site {self.name!r}: a {self.kind} has no batch axis, expected none")
        if self.shape is not None and not _fits(self.batch, self.shape):
            raise ValueError(f"site {self.name!r}: a sample of the shape {list(self.shape)} has not {self.batch}")
        return self

    @property
    def batch_axis(self) -> BatchAxis:
        """Where the samples of a batch lie, said or not."""
        return self.batch or PLAIN

    @property
    def batched(self) -> bool:
        """Whether it holds a batch, each element a sample of its own; parameters are one sample as a whole."""
        return self.kind in ("activation", "input", "accumulator")

    @property
    def words(self) -> int | None:
        """How many words a sample has, None as long as the shape is not known."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def known_runs(self) -> int | None:
        """How many times its quantizer or layer runs in one forward; None as long as no example has shown it."""
        return self.runs or (None if self.shape is None else 1)


def _fits(batch: BatchAxis, shape: tuple[int, ...]) -> bool:
    """Whether a sample's shape has the rows that the batch axis says."""
    if batch.rows == 1:
        return batch.axis <= len(shape)
    return batch.axis < len(shape) and shape[batch.axis] == batch.rows


class SiteList(list[Site]):
    """Sites, and `obstacles`: why other quantizers and accumulators are none, by the name that they would have.

    `notes` say, by the name of a site, what is worth knowing of it, as why one parameter is two memories.
    """

    def __init__(
        self,
        sites: Iterable[Site],
        obstacles: Mapping[str, str] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sites)
        self.obstacles = dict(obstacles or {})
        self.notes = dict(notes or {})


class ArrayPlan(Record):
    """How one layer is added up; see hwfault.stream.array.Array. The width is the site's bit width."""

    arithmetic: Literal["float32", "float64"] = "float32"
    overflow: Literal["wrap", "saturate"] = "wrap"
    step: Annotated[int, Field(ge=1)] = 1
    pass_steps: Annotated[int, Field(ge=0)] = 0
    order: tuple[Annotated[int, Field(ge=0)], ...] = ()
    events: tuple[tuple[int, int, int, int, int, int, int, int], ...] = ()


class Process(Record):
    """One process that the stream draws at one site, as integers; `tables` are indices into the plan's, one a plane."""

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["bit", "cluster", "mask", "random", "late"]
    tables: tuple[int, ...]
    accept01: tuple[Accept, ...] = ()
    accept10: tuple[Accept, ...] = ()
    axis: Literal["bit", "word"] | None = None
    sizes: tuple[Accept, ...] = ()
    mask: Uint32 | None = None
    elements: tuple[Length, Length, Length, Length] | None = None
    """For late bits: columns and rows of the array, the layer's channels, and the words of one of them."""
    representation: Representation | None = None

    def never(self, tables: Sequence[Table]) -> bool:
        """Whether nothing is ever drawn."""
        return all(tables[i] == (0,) for i in self.tables)

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
        return [*(() if self.mask is None else (self.mask,)), *(self.elements or ()), *flat]

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """Whether the process does not accept every hit, or reads other words, so that the codes stored decide."""
        if self.kind == "late":
            return True
        planes = zip(self.accept01, self.accept10, self.tables, strict=False)
        return any(tables[i] != (0,) and {a01, a10} != {ACCEPT_ALL} for a01, a10, i in planes)


AnyProcess = Annotated[Process | MapProcess | ProtectedProcess, Field(discriminator="kind")]


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


Step = StreamStep | MapStep | ProtectedStep


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
    batch: BatchAxis | None = None,
) -> Values:
    """The values after a step, in NumPy, as every engine computes them; words that it leaves alone keep their bits,
    and so does what is not finite.

    `fmt` says how integers are stored but for the step's own representation. `samples` (samples,) are the numbers of
    the samples where these are `batched`, along axis 0 unless `batch` says otherwise; a parameter has a single one,
    which says when.
    """
    if batch is not None:
        arranged = arrange(values, batch)
        scale, zero_point = (_along(t, values, batch, w) for t, w in ((scale, "scale"), (zero_point, "zero point")))
        faulty = strike_values(step, arranged, scale, zero_point, fmt, seed=seed, samples=samples, batched=batched)
        return restore(faulty, values.shape, batch)
    fmt = replace(fmt, representation=step.representation)
    codes = encode(values, scale, zero_point, fmt)
    struck = step.struck(codes.reshape(len(samples), -1), seed, samples, batched).reshape(codes.shape)
    return faulty_values(values, codes, struck, scale, zero_point, fmt)


def _along(given: ArrayLike, values: Values, batch: BatchAxis, what: str) -> ArrayLike:
    """A scale or zero point along values whose samples are brought in front."""
    numbers = np.asarray(given)
    return numbers if numbers.size == 1 else numbers.reshape(grid_shape(numbers.shape, values.shape, batch, what))


class SitePlan(Record):
    """A site and the processes that strike it, in order; for an accumulator also how its layer is added up."""

    site: Site
    processes: tuple[AnyProcess, ...]
    array: ArrayPlan | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for process in self.processes:
            if isinstance(process, MapProcess):
                _check_map(process.map, self.site)
            elif isinstance(process, Process):
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


def _step(process: Process | MapProcess | ProtectedProcess, tables: Sequence[Table], bit_width: int) -> Step:
    if isinstance(process, MapProcess):
        return MapStep(process)
    if isinstance(process, ProtectedProcess):
        return ProtectedStep(process, process.program(tables), bit_width)
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
    given = [(process.axis, ("cluster",)), (process.mask, ("mask", "late")), (process.elements, ("late",))]
    if any((value is not None) != (process.kind in kinds) for value, kinds in given):
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
