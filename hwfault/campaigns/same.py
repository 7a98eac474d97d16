"""Whether all trials of a point have the very same faults, whatever their seeds."""

from collections.abc import Sequence

from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import AnyProcess, MapProcess, ProtectedProcess
from hwfault.stream.tables import ALWAYS, Table


def varies(plan: FaultPlan) -> bool:
    """Whether the seed has a say in the faults of a plan: anything is drawn by it."""
    return any(_varies(process, plan.tables) for entry in plan.sites for process in entry.processes)


def _varies(process: AnyProcess, tables: Sequence[Table]) -> bool:
    if process.never(tables):
        return False
    if isinstance(process, ProtectedProcess):
        return bool(process.tables) or process.threshold < ALWAYS
    return not isinstance(process, MapProcess) or not process.permanent
