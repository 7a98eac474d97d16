"""Known answers: Random123's for the generator, vectors.json for everything above it, over every engine."""

import numpy as np
import pytest

from hwfault.stream import native, reference
from hwfault.stream.tables import accepts, count_table, site_number
from tests.helpers.stream import oracle
from tests.helpers.stream.programs import VECTORS, vector_process

# Random123, tests/kat_vectors, philox4x32 with 10 rounds (counter, key, output; all hexadecimal)
RANDOM123 = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""
PHILOX = [[int(word, 16) for word in line.split()] for line in RANDOM123.split("\n") if line]
CASES = range(len(VECTORS["cases"]))


def reference_philox(counter, key):
    return reference.philox(np.array(counter, np.uint32), key).tolist()


@pytest.mark.parametrize(
    "philox", [reference_philox, native.philox, oracle.philox], ids=["reference", "native", "oracle"]
)
@pytest.mark.parametrize("answer", PHILOX)
def test_philox_is_random123s(philox, answer):
    counter, key, output = answer[:4], answer[4] + (answer[5] << 32), answer[6:]
    assert list(philox(counter, key)) == output


def test_the_vectors_carry_random123s_answers():
    mine = {(tuple(a[:4]), a[4] + (a[5] << 32), tuple(a[6:])) for a in PHILOX}
    theirs = {(tuple(v["counter"]), int(v["key"]), tuple(v["out"])) for v in VECTORS["philox4x32_10"]}
    assert theirs == mine


@pytest.mark.parametrize("vector", VECTORS["count_tables"], ids=lambda v: f"h={v['h']}")
def test_count_tables(vector):
    assert list(count_table(vector["h"])) == vector["table"]


@pytest.mark.parametrize("vector", VECTORS["accepts"], ids=lambda v: f"p01={v['p01']}-p10={v['p10']}")
def test_accepts(vector):
    assert accepts(vector["p01"], vector["p10"]) == (vector["h"], vector["accept01"], vector["accept10"])


def test_there_are_56_cases_of_four_kinds():
    kinds = [case["kind"] for case in VECTORS["cases"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == dict.fromkeys(("bit", "cluster", "mask", "random"), 14)


@pytest.mark.parametrize("index", CASES)
def test_site_numbers(index):
    case = VECTORS["cases"][index]
    assert site_number(case["site"], case["process"]) == case["site_number"]


@pytest.mark.parametrize("index", CASES)
def test_vectors(engine, index):
    case = VECTORS["cases"][index]
    codes = np.array(case["codes"], np.uint32)
    expected = codes.copy()
    for word, code in case["changed"]:
        expected[word] = code
    given = codes.copy()
    after = engine(codes, vector_process(index).program(), int(case["seed"]), case["sample"], case["bit_width"])
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(codes, given, err_msg="the engine changed its input")


@pytest.mark.parametrize("index", CASES)
def test_vectors_by_the_oracle(index):
    case = VECTORS["cases"][index]
    process, draw = vector_process(index), (int(case["seed"]), case["sample"], case["bit_width"])
    after = oracle.inject_codes(case["codes"], [process], *draw)
    assert [[word, code] for word, code in enumerate(after) if code != case["codes"][word]] == case["changed"]
