"""What strikes a site, as the plan keeps it: the site, its processes, and for accumulators how layers are added up."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hwfault.program.clipped import ClipProcess
from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.periods import Refresh
from hwfault.program.sampled import SampledProcess
from hwfault.program.sites import Site, SiteList
from hwfault.program.steps import ClipStep, MapStep, ProtectedStep, Step, StreamStep, in_steps, step_of
from hwfault.program.streamed import Process
from hwfault.program.telling import tell_number
from hwfault.records import Record
from hwfault.stream.tables import Table

__all__ = [
    "AnyProcess",
    "ArrayPlan",
    "ClipProcess",
    "ClipStep",
    "MapProcess",
    "MapStep",
    "Process",
    "ProtectedProcess",
    "ProtectedStep",
    "Refresh",
    "SampledProcess",
    "Site",
    "SiteList",
    "SitePlan",
    "Step",
    "StreamStep",
]

AnyProcess = Annotated[
    Process | MapProcess | SampledProcess | ProtectedProcess | ClipProcess, Field(discriminator="kind")
]


class ArrayPlan(Record):
    """How one layer is added up; see hwfault.stream.array.Array. The width is the site's bit width."""

    arithmetic: Literal["float32", "float64"] = "float32"
    overflow: Literal["wrap", "saturate"] = "wrap"
    step: Annotated[int, Field(ge=1)] = 1
    pass_steps: Annotated[int, Field(ge=0)] = 0
    order: tuple[Annotated[int, Field(ge=0)], ...] = ()
    events: tuple[tuple[int, int, int, int, int, int, int, int], ...] = ()

    @property
    def told(self) -> str:
        """How it is added up, in words for people."""
        stuck = f", {tell_number(len(self.events), 'faulty element')}" if self.events else ""
        return f"added up on an array: {self.arithmetic}, sums {self.overflow}{stuck}"


class SitePlan(Record):
    """A site and the processes that strike it, in order; for an accumulator also how its layer is added up."""

    site: Site
    processes: tuple[AnyProcess, ...]
    array: ArrayPlan | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for process in self.processes:
            process.check(self.site)
        return self

    def steps(self, tables: Sequence[Table]) -> tuple[Step, ...]:
        """The processes as engines take them: neighbours of one kind in one step."""
        return tuple(step_of(group, tables, self.site.bit_width) for group in in_steps(self.processes))

    def program(self, tables: Sequence[Table]) -> tuple[int, ...]:
        """The fault program of all that the stream draws on the site's own words (see hwfault.stream.reference)."""
        drawn = [process for process in self.processes if process.mechanism == "stream"]
        return tuple(number for process in drawn for number in process.program(tables))

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """Whether which words the stream's processes make faulty depends on the codes stored before."""
        return any(step.reads_stored for step in self.steps(tables) if isinstance(step, StreamStep))

    @property
    def changes_with_batches(self) -> bool:
        """Whether its faults may differ from batch to batch of one seed."""
        return self.site.batched or any(p.changes_with(False) in ("sample", "batch") for p in self.processes)
