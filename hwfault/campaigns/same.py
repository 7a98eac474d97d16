"""Whether all trials of a point have the very same faults, whatever their seeds."""

from collections.abc import Sequence

from hwfault.laws.models import FaultModel, ProfileFaults
from hwfault.plan.fault_plan import FaultPlan
from hwfault.profiles.profile import Profile
from hwfault.program.processes import AnyProcess, MapProcess, ProtectedProcess
from hwfault.stream.tables import ALWAYS, Table


def draws_devices(faults: Sequence[FaultModel]) -> bool:
    """Whether devices differ under the faults: some have faults of a device at a rate above 0."""
    return any(_differs(fault) for fault in faults if isinstance(fault, ProfileFaults))


def _differs(fault: ProfileFaults) -> bool:
    profile = Profile.load(fault.profile)
    return profile.persistence.kind != "transient" and profile.resolve_rate(fault.at).cells * fault.share > 0


def varies(plan: FaultPlan) -> bool:
    """Whether the seed has a say in the faults of a plan: anything is drawn by it."""
    return any(_varies(process, plan.tables) for entry in plan.sites for process in entry.processes)


def _varies(process: AnyProcess, tables: Sequence[Table]) -> bool:
    if process.never(tables):
        return False
    if isinstance(process, ProtectedProcess):
        return bool(process.tables) or process.threshold < ALWAYS
    return not isinstance(process, MapProcess) or not process.permanent
