"""What tells a task from another."""

import pytest

from hwfault.campaigns.points import Point
from hwfault.campaigns.study.records import Stop
from hwfault.campaigns.study.tasks import Task
from hwfault.laws.models import BitFlips, ProfileFaults, StuckElement


def told(fault):
    return Task("q", Stop(), point=Point.of((fault,))).faults()


@pytest.mark.parametrize(
    "make",
    [
        lambda mapping: StuckElement(element=(0, 0), bit=3, value=1, mapping=mapping),
        lambda mapping: ProfileFaults(profile="bram28-kintex7-kc705b-undervolt", mapping=mapping),
    ],
)
def test_arrays_of_one_size_and_two_kinds_are_two_tasks(make):
    stationary = [{"kind": f"{what}_stationary", "rows": 4, "columns": 4} for what in ("weight", "output")]
    weight, output = (told(make(mapping)) for mapping in stationary)
    assert weight != output
    assert weight["models"][0]["mapping"] == stationary[0]


def test_faults_without_mapping_are_told_as_they_were():
    assert told(BitFlips(probability=0.1, sites={"kind": "weight"})) == {
        "models": [{"probability": 0.1, "sites": [{"kind": "weight"}]}]
    }
