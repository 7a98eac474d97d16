"""Whether a plan applies what its faults say: laws whose numbers stand in the record are lowered again and compared."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from hwfault.errors import HwfaultError
from hwfault.laws.bound import CountTables, Lowered, Target
from hwfault.laws.models import FaultModel, bind, lower
from hwfault.program.processes import AnyProcess, SitePlan
from hwfault.stream.tables import Table


class Told(Protocol):
    """What a fault plan says and applies."""

    @property
    def faults(self) -> tuple[FaultModel, ...]: ...
    @property
    def factors(self) -> tuple[float, ...] | None: ...
    @property
    def device(self) -> int | None: ...
    @property
    def sites(self) -> tuple[SitePlan, ...]: ...
    @property
    def tables(self) -> tuple[Table, ...]: ...


def disagreements(plan: Told) -> Iterator[str]:
    """A sentence on each fault of which the plan applies something else than its record says.

    Faults of profiles and maps are left out, as their numbers stand in files, and so is how layers are added up.
    """
    for k, fault in enumerate(plan.faults):
        struck = [entry for entry in plan.sites if any(process.fault == k for process in entry.processes)]
        if fault.named_file() is not None or not struck:
            continue
        factor = 1.0 if plan.factors is None else plan.factors[k]
        target = Target(k, [entry.site for entry in struck], plan.device or 0, CountTables())
        expected = _lowered(fault, factor, target)
        for entry, meant in zip(struck, expected, strict=True):
            applied = [_comparable(process, plan.tables) for process in entry.processes if process.fault == k]
            if applied != meant:
                yield (
                    f"fault {k} of the plan, {fault.describe()[:200]}, is not what it applies at {entry.site.name!r}: "
                    "its numbers were changed, or are a part of the fault's; what strikes is what its tables say"
                )
                break


Comparable = tuple[AnyProcess, list[Table]]


def _lowered(fault: FaultModel, factor: float, target: Target) -> list[list[Comparable]]:
    """What a fault becomes at each of the sites, as `_comparable` has it."""
    try:
        (bound,) = bind([fault])
        lowered = lower(bound.scaled(factor), target)
    except HwfaultError:  # nothing that these sites could have
        lowered = Lowered()
    tables = target.tables.tables
    return [[_comparable(p, tables) for p in lowered.processes_at(i)] for i in range(len(target.sites))]


def _comparable(process: AnyProcess, tables: Sequence[Table]) -> Comparable:
    """A process with the contents of its count tables, whose numbers are another plan's matter."""
    numbers = getattr(process, "tables", ())
    return process.model_copy(update={"tables": ()}) if numbers else process, [tables[i] for i in numbers]
