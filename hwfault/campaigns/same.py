"""Whether all trials of a point have the very same faults, whatever their seeds."""

from hwfault.plan.fault_plan import FaultPlan


def varies(plan: FaultPlan) -> bool:
    """Whether the seed has a say in the faults of a plan: anything is drawn by it."""
    return any(process.varies(plan.tables) for entry in plan.sites for process in entry.processes)
