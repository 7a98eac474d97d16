"""Faults as people give them: one or several, as records, as in YAML, or in a file; or a plan and its file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hwfault.errors import ModelError, describe_kind
from hwfault.laws.models import FaultList, FaultModel, is_fault, named_faults
from hwfault.plan.fault_plan import FaultPlan
from hwfault.records import Record

OneFault = FaultModel | Mapping[str, Any] | str | Path
"""A record, a mapping as in YAML, or what `--faults` names: a YAML file, a profile, `map:FILE`, `cells:FILE`."""

GivenFaults = OneFault | Iterable[OneFault]
GivenPlan = FaultPlan | GivenFaults
"""Faults, a plan, or the JSON file of one."""

_EXPECTED = (
    "expected a fault (BitFlips(probability=0.01)), a mapping as in YAML ({'model': 'bit_flips', 'probability': "
    "0.01}), a YAML file of faults, the name of a profile, or a list of these"
)


def read_faults(given: GivenFaults) -> tuple[FaultModel, ...]:
    """The fault models that are given; raises ModelError for anything else, FileError for an unreadable file."""
    if isinstance(given, FaultPlan):
        raise ModelError("a fault plan was given where faults are wanted; give the faults that it was made of")
    if isinstance(given, str | Path | Mapping | Record):
        return _read_one(given)
    if not isinstance(given, Iterable):
        raise ModelError(f"{describe_kind(given)} was given as faults; {_EXPECTED}")
    return tuple(fault for one in given for fault in _read_one(one))


def read_plan(given: GivenPlan) -> FaultPlan | tuple[FaultModel, ...]:
    """The plan that is given, by itself or as its JSON file, or the fault models; raises what `read_faults` raises."""
    if isinstance(given, FaultPlan):
        return given
    if isinstance(given, str | Path) and str(given).endswith(".json"):
        return FaultPlan.load(given)
    return read_faults(given)


def _read_one(given: Any) -> tuple[FaultModel, ...]:
    if isinstance(given, str | Path):
        return named_faults(str(given))
    if isinstance(given, Mapping):
        return FaultList.parse({"faults": [dict(given)]}, "the faults").faults
    if not is_fault(given):
        raise ModelError(f"{describe_kind(given)} was given as a fault; {_EXPECTED}")
    return (given,)
