"""The record of a protection and the laws of its outcomes: exact facts, and enumeration of small words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import ModelError
from hwfault.stream.protection_scheme import Protection, majority_error, word_errors
from tests.helpers.stream.protection_oracle import read

KINDS = ("parity", "secded", "tmr")


def test_the_facts_of_secded_72_64():
    """P(1), P(2) and P(3 or more) wrong cells of 72, as published to four digits."""
    assert Protection(kind="secded").check_bits == 8
    found = [float(f"{p:.4g}") for p in (*word_errors(1e-3, 72), *word_errors(1e-4, 72))]
    assert found == [6.706e-2, 2.383e-3, 5.664e-5, 7.149e-3, 2.538e-5, 5.933e-8]


def test_the_fact_of_tmr():
    assert float(f"{majority_error(1e-3):.4g}") == 2.998e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.0, 1e-6, 0.03, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("data_bits", [1, 2, 4])
def test_outcomes_by_enumeration(kind, data_bits, p):
    """Every pattern of wrong cells of a word of zeros, weighted with its probability."""
    protection = Protection(kind=kind, data_bits=data_bits)
    n = data_bits + protection.check_bits
    sums = {"corrected": [], "detected": [], "miscorrected": []}
    for pattern in range(1, 1 << n):
        cells = [pattern >> c & 1 for c in range(n)]
        data, verdict = read(cells, data_bits, kind)
        name = verdict if verdict == "detected" else "miscorrected" if any(data) else verdict
        sums[name].append(p ** sum(cells) * (1 - p) ** (n - sum(cells)))
    for name, terms in sums.items():
        assert getattr(protection.outcomes(p), name) == pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-300), name


@given(st.sampled_from(KINDS), st.integers(1, 64), st.floats(0, 1))
def test_outcomes_are_shares(kind, data_bits, p):
    outcomes = Protection(kind=kind, data_bits=data_bits).outcomes(p)
    n = data_bits + Protection(kind=kind, data_bits=data_bits).check_bits
    assert all(-1e-15 <= share <= 1 + 1e-12 for share in outcomes)
    some = sum(outcomes)
    assert some == pytest.approx(1 - (1 - p) ** n, abs=1e-12)


def test_small_probabilities_keep_their_digits():
    p = 1e-12
    assert Protection(kind="secded").outcomes(p).detected == pytest.approx(math.comb(72, 2) * p * p, rel=1e-9)
    assert Protection(kind="tmr").outcomes(p).corrected == pytest.approx(192 * p, rel=1e-9)
    assert Protection(kind="tmr").outcomes(p).miscorrected == pytest.approx(64 * 3 * p * p, rel=1e-9)
    assert Protection(kind="parity").outcomes(p).miscorrected == pytest.approx(math.comb(65, 2) * p * p, rel=1e-9)


@pytest.mark.parametrize(("cells", "expected"), [(1, (0.5, 0, 0)), (2, (0.5, 0.25, 0)), (3, (0.375, 0.375, 0.125))])
def test_words_of_few_cells(cells, expected):
    assert word_errors(0.5, cells) == expected


def test_the_record():
    protection = Protection(kind="tmr", data_bits=16, on_detected="due")
    memory = protection.memory(8)
    assert (memory.kind, memory.data_bits, memory.slot, memory.due) == ("tmr", 16, 8, True)
    assert not Protection(kind="secded").memory(4).due
    assert Protection(kind="secded").data_bits == 64


@pytest.mark.parametrize(
    ("given_keys", "text"),
    [
        ({"kind": "hamming"}, "kind: .*'parity', 'secded' or 'tmr'"),
        ({"kind": "secded", "data_bits": 65}, "data_bits: .*less than or equal to 64"),
        ({"kind": "secded", "data_bits": 0}, "data_bits: .*greater than or equal to 1"),
        ({"kind": "secded", "data_bits": 8.5}, "data_bits: .*valid integer"),
        ({"kind": "secded", "data_bits": True}, "data_bits: .*valid integer"),
        ({"kind": "secded", "on_detected": "stop"}, "on_detected: .*'zero' or 'due'"),
        ({"kind": "secded", "databits": 8}, "unknown key 'databits': did you mean 'data_bits'"),
    ],
)
def test_records_that_are_wrong(given_keys, text):
    with pytest.raises(ModelError, match=text):
        Protection(**given_keys)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_probabilities_that_are_none(p):
    for attempt in (Protection(kind="secded").outcomes, majority_error, lambda q: word_errors(q, 72)):
        with pytest.raises(ModelError, match="expected a number in"):
            attempt(p)
