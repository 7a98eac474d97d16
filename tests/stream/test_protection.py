"""Protected memories: known answers, every error pattern, and the equality of all implementations on random cases."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings

from hwfault.errors import HwfaultError, ModelError
from hwfault.stream import native
from hwfault.stream.protection import KINDS, Layout, MapRows, Memory, linear_layout, protect_codes, read, store
from hwfault.stream.tables import site_number
from tests.helpers.stream import protection_oracle as oracle
from tests.helpers.stream.protection_cases import (
    ENGINES,
    VECTORS,
    Case,
    by_native,
    by_oracle,
    by_reference,
    cases,
    flips,
    patterns_case,
    vector_case,
)

WIDTHS = range(1, 65)


@pytest.mark.parametrize("index", range(len(VECTORS["cases"])))
@pytest.mark.parametrize("engine", ENGINES)
def test_known_answers(engine, index):
    v = VECTORS["cases"][index]
    case = vector_case(index)
    expected = case.codes.copy()
    for word, code in v["changed"]:
        expected[word] = code
    given_codes = case.codes.copy()
    after, counts = ENGINES[engine](case)
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(case.codes, given_codes, err_msg="the engine changed its input")
    assert counts in (None, v["counts"])


def test_known_answers_have_everything_in_them():
    found = VECTORS["cases"]
    assert {v["protection"] for v in found} == set(KINDS)
    assert any(v["number"] for v in found)
    assert any(v["activity"][0] < 2**32 and v["word"] for v in found)
    for kind in KINDS:
        counts = np.array([v["counts"] for v in found if v["protection"] == kind]).sum(axis=0)
        assert (counts > 0).tolist() == [kind != "parity", kind != "tmr", True]
    for v in found:
        assert all(site_number(p["site"], p["process"]) == p["site_number"] for p in v["processes"])


def bits_of(text):
    return np.array([list(text)], np.uint8)


@pytest.mark.parametrize("word", VECTORS["words"], ids=lambda w: f"{w['protection']}-{len(w['data'])}")
def test_stored_words(word):
    memory = Memory(word["protection"], len(word["data"]), 1)
    assert memory.cells == len(word["cells"])
    assert (store(memory, bits_of(word["data"])) == bits_of(word["cells"])).all()
    assert oracle.stored([int(b) for b in word["data"]], word["protection"]) == [int(b) for b in word["cells"]]


def test_the_hamming_code_of_the_textbooks():
    """Hamming's (7, 4) code stores 1011 as p1 p2 d1 p3 d2 d3 d4 = 0110011."""
    cells = store(Memory("secded", 4, 1), bits_of("1011"))[0]
    assert cells[[4, 5, 0, 6, 1, 2, 3]].tolist() == [0, 1, 1, 0, 0, 1, 1]
    assert cells[7] == 0


@pytest.mark.parametrize(
    ("data_bits", "check_bits"), [(1, 3), (4, 4), (5, 5), (8, 5), (11, 5), (12, 6), (16, 6), (26, 6), (32, 7), (64, 8)]
)
def test_check_bits(data_bits, check_bits):
    assert Memory("secded", data_bits, 8).check_bits == check_bits
    assert Memory("parity", data_bits, 8).check_bits == 1
    assert Memory("tmr", data_bits, 8).check_bits == 2 * data_bits


@pytest.mark.parametrize("kind", KINDS)
def test_sub_words(kind):
    for data_bits in WIDTHS:
        memory = Memory(kind, data_bits, 1)
        need = -(-memory.cells // 32)
        assert memory.sub_words in (1, 2, 4, 8)
        assert memory.sub_words // 2 < need <= memory.sub_words
        assert memory.sub_word_bits == min(memory.cells, 32)


def random_data(count, data_bits):
    return np.random.default_rng(data_bits).integers(0, 2, (count, data_bits), dtype=np.uint8)


def patterns(cells, weight):
    return [sum(1 << c for c in chosen) for chosen in combinations(range(cells), weight)]


def outcomes(memory, wrong):
    """Counts, data stored and data read, by the reference and by the native library, for patterns of wrong cells."""
    data = random_data(len(wrong), memory.data_bits)
    case = patterns_case(memory, wrong, data.ravel().astype(np.uint32))
    (after, counts), native = by_reference(case), by_native(case)
    assert (native[0] == after).all()
    assert native[1] == counts
    return counts, data, after.reshape(data.shape)


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_secded_corrects_every_single_error(data_bits):
    memory = Memory("secded", data_bits, 1)
    counts, data, after = outcomes(memory, patterns(memory.cells, 1))
    assert counts == [memory.cells, 0, 0]
    assert (after == data).all()


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_secded_detects_every_double_error(data_bits):
    for due in (False, True):
        memory = Memory("secded", data_bits, 1, due)
        wrong = patterns(memory.cells, 2)
        counts, data, after = outcomes(memory, wrong)
        assert counts == [0, len(wrong), 0]
        stays = [[int(c < data_bits and p >> c & 1) for c in range(data_bits)] for p in wrong]
        assert (after == (data ^ np.array(stays) if due else 0)).all()


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_tmr_corrects_whatever_strikes_one_copy(data_bits):
    memory = Memory("tmr", data_bits, 1)
    rng = np.random.default_rng(data_bits)
    shift = rng.integers(0, 3, 100) * data_bits
    errors = [int(rng.integers(1, 2**data_bits, dtype=np.uint64)) << int(s) for s in shift]
    counts, data, after = outcomes(memory, errors)
    assert counts == [100, 0, 0]
    assert (after == data).all()
    counts, data, after = outcomes(memory, [1 | 1 << data_bits, 1 | 1 << 2 * data_bits, 1 | 1 << data_bits])
    assert counts == [0, 0, 3]
    assert ((after ^ data) == [1] + [0] * (data_bits - 1)).all()


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_parity_detects_odd_errors_and_misses_even_ones(data_bits):
    memory = Memory("parity", data_bits, 1)
    singles, doubles = patterns(memory.cells, 1), patterns(memory.cells, 2)
    counts, _, after = outcomes(memory, singles)
    assert counts == [0, len(singles), 0]
    assert (after == 0).all()
    counts, data, after = outcomes(memory, doubles)
    assert counts == [0, 0, len(doubles)]
    assert ((after ^ data).sum(axis=1) >= 1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data_bits", [1, 2, 3, 4])
def test_every_pattern_of_small_words(kind, data_bits):
    """All 2^n patterns of wrong cells on all data, against the oracle, the verdicts among them."""
    memory = Memory(kind, data_bits, 1)
    every = np.arange(1 << memory.cells)[:, None] >> np.arange(memory.cells) & 1
    found, verdicts = read(memory, every.astype(np.uint8))
    names = ("nothing", "corrected", "detected")
    for cells, data, verdict in zip(every.tolist(), found.tolist(), verdicts.tolist(), strict=True):
        assert oracle.read(cells, data_bits, kind) == (data, names[verdict])
    outcomes(memory, range(1 << memory.cells))


def test_no_word_of_three_or_more_errors_counts_as_corrected():
    memory = Memory("secded", 8, 1)
    weights = [p.bit_count() for p in range(1 << memory.cells)]
    counts, _, _ = outcomes(memory, range(1 << memory.cells))
    assert counts[0] == memory.cells
    assert sum(counts) == sum(w > 0 for w in weights)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_all_implementations_agree(case):
    expected, counts = by_oracle(case)
    for name in ("reference", "native"):
        after, others = ENGINES[name](case)
        np.testing.assert_array_equal(after, expected, err_msg=name)
        assert others == counts, name


# intermittent rows of a tensor without words
EMPTY = Case(np.empty(0, np.uint32), 4, Memory("parity", 16, 4), rows=MapRows(*np.empty((3, 0), np.int64), 2**31, 9))


@settings(max_examples=40, deadline=None)
@given(cases())
@example(EMPTY)
def test_onnxruntime_agrees(case):
    np.testing.assert_array_equal(ENGINES["onnxruntime"](case)[0], by_reference(case)[0])


@settings(max_examples=25, deadline=None)
@given(cases(most_words=6000))
def test_larger_samples_agree(case):
    after, counts = by_native(case)
    expected, others = by_reference(case)
    np.testing.assert_array_equal(after, expected)
    assert counts == others


@settings(max_examples=100, deadline=None)
@given(cases(of_one_batch=True))
def test_the_linear_layout_is_a_table_too(case):
    """Written out as a table the linear layout gives the same, for a map alone."""
    alone = Case(case.codes, case.bits, case.memory, (), case.seed, case.sample, case.rows, case.period)
    if not alone.memory.words(alone.codes.size):
        return
    where = linear_layout(alone.memory, alone.codes.size, alone.bits)
    table = Case(*(getattr(alone, name) for name in alone.__dataclass_fields__ if name != "layout"), where)
    after, counts = by_native(table)
    expected, others = by_native(alone)
    np.testing.assert_array_equal(after, expected)
    # the table's sub-words may be any, the linear layout's words all exist
    assert counts == others


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_samples_one_by_one(kind):
    memory, bits, words = Memory(kind, 64, 7), 7, 700
    codes = np.random.default_rng(1).integers(0, 1 << bits, (64, words)).astype(np.uint32)
    rows = MapRows(np.arange(0, 100, 3), np.full(34, 2**32 - 5), np.full(34, 1), 2**31, 9)
    given_numbers = {"bit_width": bits, "program": flips(5, memory, 0.004).program(), "seed": 3, "rows": rows}
    numbers = np.arange(64) + 2**32 - 30
    together, counts = native.protect_codes(codes, memory, samples=numbers, periods=numbers, **given_numbers)
    total = np.zeros(3, np.int64)
    for row, number, struck in zip(codes, numbers, together, strict=True):
        alone, more = native.protect_codes(row[None], memory, samples=[number], periods=[number], **given_numbers)
        np.testing.assert_array_equal(alone[0], struck)
        total += more
    assert counts.tolist() == total.tolist()
    assert (together != codes).any()


def test_a_stuck_cell_that_holds_its_value_is_no_error():
    """Every cell of an all-zero word is stuck at 0: nothing is wrong; at 1 in one cell: corrected."""
    memory = Memory("secded", 8, 8)
    codes = np.zeros(50, np.uint32)
    stuck = MapRows(np.arange(50), np.zeros(50), np.zeros(50))
    after, counts = protect_codes(codes, memory, bit_width=8, rows=stuck)
    assert (after == 0).all()
    assert counts.tolist() == [0, 0, 0]
    stuck = MapRows(np.arange(50), np.full(50, 2**32 - 2), np.ones(50))
    assert by_native(Case(codes, 8, memory, rows=stuck))[1] == [50, 0, 0]
    assert by_native(Case(codes + np.uint32(1), 8, memory, rows=stuck))[1] == [0, 0, 0]


def test_wrong_cells_of_padding_and_past_the_end_are_counted_but_not_seen():
    memory = Memory("parity", 64, 8)  # 5 bits in slots of 8; 3 code words in a memory word of 64 bits
    codes = np.array([31, 0, 31], np.uint32)
    rows = MapRows([0, 1], [2**32 - 1] * 2, [1 << 7 | 1 << 5, 0])
    after, counts = by_native(Case(codes, 5, memory, rows=rows))
    assert (after == codes).all()
    assert counts == [0, 0, 1]
    rows = MapRows([1], [2**32 - 1], [1 << 31])  # data bit 63, past the end: the word is detected, its data become 0
    after, counts = by_native(Case(codes, 5, memory, rows=rows))
    assert (after == 0).all()
    assert counts == [0, 1, 0]


def test_cells_that_do_not_exist_are_dropped():
    memory = Memory("secded", 64, 8)  # 72 cells: sub-word 2 has 8, sub-word 3 none
    codes = np.arange(64, dtype=np.uint32)
    rows = MapRows([2, 3, 6], [2**32 - 1] * 3, [1 << 8, 2**32 - 1, 1 << 7])
    after, counts = by_native(Case(codes, 8, memory, rows=rows))
    assert (after == codes).all()
    assert counts == [1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("hamming", 64, 8), "unknown protection 'hamming': known are: 'parity', 'secded', 'tmr'"),
        (("secdec", 64, 8), "did you mean 'secded'"),
        (("parity", 0, 8), "data_bits is 0, expected 1 to 64"),
        (("parity", 65, 8), "data_bits is 65, expected 1 to 64"),
        (("parity", 64, 0), "slot is 0, expected 1 to 64"),
    ],
)
def test_memories_that_are_none(arguments, text):
    with pytest.raises(ModelError, match=text):
        Memory(*arguments)


def test_a_memory_of_too_many_words():
    with pytest.raises(ModelError, match=r"expected at most 2\^36 sub-words"):
        Memory("tmr", 1, 32).words(2**36)


def test_arrays_that_do_not_fit():
    with pytest.raises(ModelError, match="expected one length"):
        MapRows([1, 2], [0], [0, 0])
    with pytest.raises(ModelError, match="expected rows"):
        Layout([1, 2], [[1, 2]])
    codes, memory = np.zeros((2, 9), np.uint32), Memory("parity", 8, 8)
    with pytest.raises(ModelError, match="a layout of 3 bits for memory words of 8 data bits"):
        native.protect_codes(codes, memory, bit_width=8, samples=[0, 1], layout=Layout([1], [[1, 2, 3]]))
    with pytest.raises(HwfaultError, match="expected one a row"):
        native.protect_codes(codes, memory, bit_width=8, samples=[0])
