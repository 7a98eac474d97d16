"""What people are told of processes is what their integers say."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.laws.models import AccumulatorFormat, BitFlips, Clusters, LateBits, MapFaults, WordFaults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from hwfault.program.telling import tell_all, tell_cells, tell_probability
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.protection_scheme import Protection

WEIGHT = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(8, 12))
OTHER = WEIGHT.model_copy(update={"name": "v"})
SUMS = Site(name="s.accumulator", kind="accumulator", bit_width=16, signed=True, shape=(8,), weights=(8, 12))


def told(*faults, sites=(WEIGHT, OTHER), **rest):
    """What the plan says that each fault applies."""
    lines = str(resolve(sites, faults, **rest)).splitlines()
    return [line.split(": ", 2)[2] for line in lines if line.startswith("  fault")]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (BitFlips(probability=0.01), "bit errors with probability 0.01, at 2 sites"),
        (BitFlips(p01=0.02), "bit errors with probability 0.02 where 0 is stored and 0 where 1 is, at 2 sites"),
        (BitFlips(probability=[0, 0.1, 0, 1], sites="w"), "bit errors by bit, lowest first: 0; 0.1; 0; 1, at 1 site"),
        (WordFaults(probability=0.1, effect="msb"), "words XORed with 0x8 with probability 0.1, at 2 sites"),
        (WordFaults(probability=1e-9), "words replaced by another code with probability 1e-09, at 2 sites"),
        (
            Clusters(probability=0.1, sizes=(0.5, 0.25, 0.25), axis="bit"),
            "clusters of flips along bits (sizes 1: 0.5, 2: 0.25, 3: 0.25) with probability 0.1, at 2 sites",
        ),
    ],
)
def test_what_the_stream_draws(fault, words):
    assert told(fault) == [words]


def test_late_bits_and_how_layers_are_added_up():
    late, width = told(LateBits(probability=0.1, bits=3), AccumulatorFormat(width=20), sites=[SUMS])
    assert late == "late bits 0xe0000 with probability 0.1, at 1 site"
    assert width == "no process of its own, see how layers are added up"
    plan = resolve([SUMS], [AccumulatorFormat(width=20, overflow="saturate")])
    assert "added up on an array: float32, sums saturate" in str(plan)


def test_factors_are_in_the_numbers():
    assert told(BitFlips(probability=0.1), factors=[0.25]) == ["bit errors with probability 0.025, at 2 sites"]


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "map.safetensors"
    FaultMap.from_cells(100, 32, [1, 2, 3, 20], [0, 0, 0, 0], [0, 1, 2, 2]).save(path)
    return str(path)


def test_the_cells_of_a_map(device):
    (words,) = told(MapFaults(file=device))
    assert words == "faulty cells: 4 (1 flip, 1 stuck at 0, 2 stuck at 1), at 2 sites"
    (words,) = told(MapFaults(file=device, p_active=0.25, refresh="power_cycle"))
    assert words.startswith("faulty cells that show with probability 0.25 in each power cycle: 4 (")
    (words,) = told(MapFaults(file=device, protection=Protection(kind="secded", data_bits=16, on_detected="due")))
    assert words.startswith(
        "faulty cells in memory words that secded protects (16 data bits, as read where an error is detected): "
    )


def test_a_plan_is_told_by_what_it_applies_whatever_its_record_says():
    data = json.loads(resolve([WEIGHT], [BitFlips(probability=0.01)]).to_json())
    data["faults"][0]["probability"] = 0.5
    text = str(FaultPlan.from_json(json.dumps(data)))
    assert "with probability 0.01" in text
    assert "0.5" not in text


def test_few_different_things_are_told_and_the_rest_counted():
    assert tell_all([("a", None), ("b", None), ("a", None)]) == "a, at 2 sites; b, at 1 site"
    assert tell_all([(word, None) for word in "abcde"]).endswith("c, at 1 site; with other numbers at 2 sites")
    assert tell_all([("a", (1, 0, 0)), ("a", (1, 0, 2000))]) == "a: 2,002 (2 flip, 2,000 stuck at 1), at 2 sites"
    assert tell_cells((0, 0, 0)) == "0 (0 flip, 0 stuck at 0, 0 stuck at 1)"


@given(st.floats(1e-8, 0.999))
def test_the_probability_that_is_told_is_the_one_that_was_given(p):
    (words,) = told(BitFlips(probability=p))
    said = float(re.search(r"probability (\S+),", words).group(1))
    assert np.isclose(said, p, rtol=1e-3)
    assert tell_probability(said) in words
