"""A plan that says one thing and applies another is told so where it is read."""

import json

import pytest

from hwfault.campaigns.points import only_bit, only_site
from hwfault.laws.models import BitFlips, BypassedElements, Clusters, LateBits, MapFaults, ProfileFaults, WordFaults
from hwfault.plan.agreement import disagreements
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap

ARRAY = {"kind": "weight_stationary", "rows": 16, "columns": 8}
SITES = [
    Site(name="w", kind="weight", bit_width=4, signed=True, shape=(8, 12)),
    Site(name="a", kind="activation", bit_width=8, signed=False, shape=(8,)),
    Site(name="s.accumulator", kind="accumulator", bit_width=16, signed=True, shape=(8,), weights=(8, 12)),
]
FAULTS = [
    BitFlips(probability=0.01, sites=["w", "a"]),
    BitFlips(p01=[0.1, 0.2, 0.3, 0.4], p10=0.1, sites="w"),
    WordFaults(probability=0.1, effect="msb"),
    WordFaults(probability=0.2),
    Clusters(probability=0.1, sizes=(0.5, 0.5), axis="word"),
    LateBits(probability=0.1, bits=3),
    BypassedElements(elements=[1, 2], mapping=ARRAY),
    ProfileFaults(profile="uniform-flips", at={"ber": 0.01}),
]


@pytest.mark.parametrize("factors", [None, (0.5, 1, 0.25, 0, 1, 0.75, 1, 0.5)])
def test_plans_apply_what_they_say(factors):
    plan = resolve(SITES, FAULTS, factors=factors)
    assert list(disagreements(plan)) == []
    assert list(disagreements(only_site(plan, "w"))) == []


CHANGES = {
    "a probability": (0, {"probability": 0.5}),
    "one bit's": (1, {"p01": [0.1, 0.2, 0.3, 0.1]}),
    "a mask": (2, {"effect": "lsb"}),
    "an effect": (3, {"effect": 3}),
    "sizes": (4, {"sizes": [0.9, 0.1]}),
    "an axis": (4, {"axis": "bit"}),
    "late bits": (5, {"bits": 4}),
    "more late bits than there are": (5, {"bits": 20}),
    "elements": (6, {"elements": [1, 3]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_record_is_told(change, caplog):
    k, changed = CHANGES[change]
    data = json.loads(resolve(SITES, FAULTS).to_json())
    data["faults"][k] |= changed
    read = FaultPlan.from_json(json.dumps(data))
    (told,) = disagreements(read)
    assert told.startswith(f"fault {k} of the plan, ")
    assert told in caplog.text


def test_another_factor_is_told():
    plan = resolve(SITES, FAULTS[:1], factors=[0.5])
    (told,) = disagreements(plan.model_copy(update={"factors": (0.25,)}))
    assert "fault 0" in told
    assert list(disagreements(plan.model_copy(update={"factors": None})))


def test_a_part_of_a_fault_is_told_as_one():
    plan = only_bit(resolve(SITES[:2], FAULTS[:1]), 1)
    (told,) = disagreements(plan)
    assert "or are a part of the fault's" in told


def test_numbers_in_files_are_not_compared(tmp_path):
    path = tmp_path / "m.safetensors"
    FaultMap.from_cells(100, 32, [1], [2], [0]).save(path)
    plan = resolve(SITES, [MapFaults(file=str(path)), FAULTS[-1]])
    path.unlink()
    assert list(disagreements(plan)) == []
