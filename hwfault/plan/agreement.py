"""Whether a plan applies what its faults say: laws whose numbers stand in the record are lowered again and compared."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from hwfault.errors import HwfaultError
from hwfault.laws.bound import CountTables, Target
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
        applied = [(entry, process) for entry in plan.sites for process in entry.processes if process.fault == k]
        if fault.named_file() is not None or not applied:
            continue
        factor = 1.0 if plan.factors is None else plan.factors[k]
        sites = [entry.site for entry, _ in applied]
        target = Target(k, sites, plan.device or 0, CountTables())
        expected = _lowered(fault, factor, target)
        for (entry, process), meant in zip(applied, expected, strict=True):
            if _comparable(process, plan.tables) != meant:
                yield (
                    f"fault {k} of the plan, {fault.describe()[:200]}, is not what it applies at {entry.site.name!r}: "
                    "its numbers were changed, or are a part of the fault's; what strikes is what its tables say"
                )
                break


def _lowered(fault: FaultModel, factor: float, target: Target) -> list[Any]:
    """What a fault becomes at the sites, each as `_comparable` has it; None where it becomes nothing."""
    try:
        (bound,) = bind([fault])
        lowered = lower(bound.scaled(factor), target)
    except HwfaultError:  # nothing that these sites could have
        return [None] * len(target.sites)
    found = [_comparable(process, target.tables.tables) for process in lowered.processes]
    return found or [None] * len(target.sites)


def _comparable(process: AnyProcess, tables: Sequence[Table]) -> tuple[AnyProcess, list[Table]]:
    """A process with the contents of its count tables, whose numbers are another plan's matter."""
    numbers = getattr(process, "tables", ())
    return process.model_copy(update={"tables": ()}) if numbers else process, [tables[i] for i in numbers]
