"""What is true of every law: its row in the table, its words, its example."""

import typing

import pytest

from hwfault.laws.models import LAWS, FaultList, FaultModel
from hwfault.yaml12 import load_yaml

UNION = typing.get_args(typing.get_args(FaultModel)[0])


def test_the_table_has_a_row_for_each_fault_model():
    assert {law.record for law in LAWS.values()} == set(UNION)
    assert [law.record.model_fields["model"].default for law in LAWS.values()] == list(LAWS)


@pytest.mark.parametrize("name", LAWS)
def test_its_example_is_read_as_its_record(name):
    (fault,) = FaultList.parse({"faults": [load_yaml(LAWS[name].example)]}, "the example").faults
    assert type(fault) is LAWS[name].record


@pytest.mark.parametrize("name", LAWS)
def test_it_is_read_again_as_it_is_written(name):
    """Also where a part of it is one of several records, of which its kind says which."""
    (fault,) = FaultList.parse({"faults": [load_yaml(LAWS[name].example)]}, "the example").faults
    assert FaultList.parse({"faults": [fault.to_data()]}, "again").faults == (fault,)


@pytest.mark.parametrize("name", LAWS)
def test_its_words_name_what_was_given(name):
    given = load_yaml(LAWS[name].example)
    (fault,) = FaultList.parse({"faults": [given]}, "the example").faults
    told = fault.describe()
    assert told.startswith(f"{name} ")
    assert all(f"{key}=" in told for key in given if key not in ("model", "sites", "at"))
    assert all(f"{axis} {value}" in told for axis, value in given.get("at", {}).items())
    assert "{" not in told
    assert " on " in told


@pytest.mark.parametrize("name", LAWS)
def test_its_help_is_one_sentence(name):
    assert LAWS[name].help.endswith(".")
    assert "\n" not in LAWS[name].help


def test_a_digest_is_not_among_the_words():
    (fault,) = FaultList.parse({"faults": [load_yaml(LAWS["map"].example) | {"digest": "0" * 64}]}, "x").faults
    assert "digest" not in fault.describe()
