"""The steps in which engines strike a site: its processes, neighbours of one kind together."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hwfault.codes import Representation
from hwfault.program.clipped import ClipProcess
from hwfault.program.kinds import KINDS, Mechanism, kinds_in, reads_other_words
from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.sampled import SampledProcess
from hwfault.program.striking import StrikingProcess
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.reference import processes
from hwfault.stream.tables import Table


class StreamStep(NamedTuple):
    """Processes that the stream draws, as one fault program."""

    program: tuple[int, ...]
    bit_width: int
    reads_stored: bool
    representation: Representation

    @property
    def mechanism(self) -> Mechanism:
        return "stream"

    @property
    def reads_others(self) -> bool:
        """Whether what becomes of a word depends on other words."""
        return reads_other_words(self.program)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """The channels, and the words of each, of the layers whose results are late."""
        bodies = [body for _, _, body in processes(self.program)]
        found = []
        for kind, body in zip(kinds_in(self.program), bodies, strict=True):
            if "channels" in kind.names:
                own = dict(zip((operand.name for operand in kind.per_process), body, strict=False))
                found.append((own["channels"], own["inner"]))
        return found


class MapStep(NamedTuple):
    """A fault map, or one of single samples."""

    process: MapProcess | SampledProcess

    @property
    def mechanism(self) -> Mechanism:
        return "map"

    @property
    def representation(self) -> Representation:
        return self.process.stored_as

    def active(self, seed: int, period: int) -> FaultMap:
        """The cells that show their fault in a period, or in the sample of that number."""
        return self.process.active(seed, period)


class ProtectedStep(NamedTuple):
    """Faults in a protected memory, and what its decoder lets through."""

    process: ProtectedProcess
    program: tuple[int, ...]
    bit_width: int

    @property
    def mechanism(self) -> Mechanism:
        return "protected"

    @property
    def representation(self) -> Representation:
        return self.process.stored_as


class ClipStep(NamedTuple):
    """A range within which integers are kept."""

    process: ClipProcess

    @property
    def mechanism(self) -> Mechanism:
        return "clip"

    @property
    def representation(self) -> Representation:
        return self.process.stored_as


Step = StreamStep | MapStep | ProtectedStep | ClipStep


def makes_faults(step: Step) -> bool:
    """Whether what a step changes is a fault."""
    return not any(kind.repairs for kind in KINDS if kind.mechanism == step.mechanism)


def in_steps(processes: Sequence[Any]) -> list[list[Any]]:
    """The processes of a site in the groups that strike together, in their order."""
    groups: list[list[Any]] = []
    for process in processes:
        if groups and _strike_together(groups[-1][-1], process):
            groups[-1].append(process)
        else:
            groups.append([process])
    return groups


def _strike_together(first: StrikingProcess, second: StrikingProcess) -> bool:
    alike = (first.mechanism, first.stored_as) == (second.mechanism, second.stored_as)
    return alike and first.joins and second.joins


def step_of(group: Sequence[Any], tables: Sequence[Table], bit_width: int) -> Step:
    """The step of the processes that strike together."""
    return _MAKERS[group[0].mechanism](group, tables, bit_width)


def _stream(group: Sequence[Any], tables: Sequence[Table], bit_width: int) -> Step:
    program = tuple(number for process in group for number in process.program(tables))
    reads = any(process.reads_stored(tables) for process in group)
    if len(group) > 1:  # what leads to another code may lead back to the first one behind another process
        reads = reads or any(process.row.leads_back for process in group)
    return StreamStep(program, bit_width, reads, group[0].stored_as)


def _map(group: Sequence[Any], tables: Sequence[Table], bit_width: int) -> Step:
    if len(group) == 1:
        return MapStep(group[0])
    rows: FaultMap = group[0].map
    for process in group[1:]:
        rows = rows.then(process.map)
    return MapStep(group[0].model_copy(update={"map": rows}))


def _protected(group: Sequence[Any], tables: Sequence[Table], bit_width: int) -> Step:
    (process,) = group
    return ProtectedStep(process, process.program(tables), bit_width)


def _clip(group: Sequence[Any], tables: Sequence[Table], bit_width: int) -> Step:
    (process,) = group
    return ClipStep(process)


_MAKERS: dict[Mechanism, Callable[[Sequence[Any], Sequence[Table], int], Step]] = {
    "stream": _stream,
    "map": _map,
    "protected": _protected,
    "clip": _clip,
}
