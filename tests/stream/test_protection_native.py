"""Protected memories on floats: every type, channels, in place, threads, gradients, and hostile numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.codes import CodeFormat
from hwfault.errors import HwfaultError
from hwfault.stream.protection import KINDS, MapRows, Memory
from tests.helpers.stream.capi import pointer
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.protection_calls import Call, plain, struck
from tests.helpers.stream.protection_cases import Case, cases, flips
from tests.helpers.stream.values import BITS, DTYPES, STORED, Grid, grid, numbers, widen
from tests.stream.test_hostile import in_a_process_of_its_own

KEPT = 2**32 - 1


def same_bits(one, other, dtype):
    assert (one.view(BITS[dtype]) == other.view(BITS[dtype])).all()


@settings(max_examples=150, deadline=None)
@given(cases(most_words=200), st.sampled_from(tuple(DTYPES)), st.integers(0, 2**32 - 1))
def test_floats_are_the_reference_s(case, dtype, seed):
    draw = Draw(seed)
    rows = draw.one_of((0, 1, 2, 3))
    on = grid(draw, case.bits, signed=bool(draw.integer(0, 1)))
    x = numbers(draw, on, (rows, case.codes.size), dtype)
    samples, periods = (np.array([draw.sample() for _ in range(rows)], np.int64) for _ in range(2))
    call = Call(x, dtype, on, case, samples, periods)
    before = on.encode(x, dtype)
    after, counts = struck(before, case, samples, periods)
    changes = (before != after) & np.isfinite(widen(x, dtype))
    expected = np.where(changes, on.decode(after, dtype), x)
    out, changed = call.protected()
    same_bits(out, expected, dtype)
    assert changed == changes.sum()
    assert call.counts.tolist() == counts.tolist()
    gradient = np.ones(x.shape, STORED[dtype])
    zeroed, again = call.zeroed(gradient)
    np.testing.assert_array_equal(zeroed == 0, changes)
    assert again == changed
    in_place = call.x.copy()
    call.x = in_place
    same_bits(call.protected(out=in_place)[0], expected, dtype)


def big(kind, bits, slot, dtype="float32", rows=None):
    """Three samples that are worth several threads, in all but whole blocks."""
    words, memory = (3 << 20) + 12345, Memory(kind, 64, slot)
    on = Grid(CodeFormat(bits, False), np.array([0.5]), 1, np.array([1.0]), 1)
    x = on.decode(Draw(7).codes(bits, 3 * words).reshape(3, words), dtype)
    rows = rows or MapRows(np.arange(0, 200_000, 7), np.full(28572, KEPT - 1), np.full(28572, 1 << 9), 2**31, 4)
    case = Case(np.empty(0, np.uint32), bits, memory, (flips(11, memory, 1e-4),), 2**64 - 3, rows=rows)
    return Call(x, dtype, on, case, np.arange(3), np.arange(3) + 5)


@pytest.mark.every(2)
@pytest.mark.parametrize(("kind", "bits", "slot"), [("secded", 5, 5), ("tmr", 7, 8), ("parity", 3, 31)])
def test_threads_do_not_matter(kind, bits, slot):
    call = big(kind, bits, slot)
    alone, changed = call.protected()
    counts = call.counts.tolist()
    assert changed > 100 or kind == "tmr"
    zeroed = call.zeroed(np.ones(call.x.shape, np.float32))[0]
    for threads in (0, 2, 3, 1000, -1):
        out, again = call.protected(threads)
        same_bits(out, alone, "float32")
        assert (again, call.counts.tolist()) == (changed, counts)
        same_bits(call.zeroed(np.ones(call.x.shape, np.float32), threads)[0], zeroed, "float32")
    in_place = call.x.copy()
    call.x = in_place
    same_bits(call.protected(3, out=in_place)[0], alone, "float32")


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_word_that_straddles_blocks_and_threads(kind):
    """With slots of 7 bits every block of memory words but each seventh ends within a code word."""
    memory, words = Memory(kind, 64, 7), 20_000
    case = Case(np.empty(0, np.uint32), 7, memory, (flips(1, memory, 0.01),), 3)
    on = Grid(CodeFormat(7, False), np.ones(1), 1, np.zeros(1), 1)
    x = Draw(1).codes(7, words).reshape(1, words)
    call = Call(x.astype(np.float32), "float32", on, case, np.zeros(1), np.zeros(1))
    after, counts = struck(x, case, [0], [0])
    assert (call.protected()[0] == after).all()
    assert call.counts.tolist() == counts.tolist()
    assert (x != after).sum() > 20


def test_words_not_struck_keep_every_bit():
    memory = Memory("secded", 64, 4)
    call = plain(1000, memory, MapRows([0], [KEPT], [3]))
    call.x[:] = np.where(np.arange(1000) % 3, np.nan, -0.0)
    call.x[:, :16] = 5
    out, changed = call.protected()
    assert changed == 2 * 16
    assert (out[:, :16] == 0).all()
    same_bits(out[:, 16:], call.x[:, 16:], "float32")


def test_counts_are_written_only_on_success():
    call = plain(10, Memory("parity", 8, 4))
    call.map.threshold = -1
    with pytest.raises(HwfaultError):
        call.protected()
    assert call.counts.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("struct", "field", "value", "text"),
    [
        ("protection", "kind", 0, "a protected memory's kind is 0, expected 1 to 3"),
        ("protection", "kind", 4, "kind is 4"),
        ("protection", "data_bits", 0, "data_bits is 0, expected 1 to 64"),
        ("protection", "data_bits", 65, "data_bits is 65"),
        ("protection", "data_bits", -(2**31), "data_bits is -2147483648"),
        ("protection", "slot", 3, "slot is 3, expected 4 to 64"),
        ("protection", "slot", 65, "slot is 65"),
        ("protection", "on_detected", 2, "on_detected is 2, expected 0 to 1"),
        ("protection", "rows", -1, "number of table rows is -1"),
        ("protection", "rows", 1, "a pointer to the table of a protected memory is null"),
        ("format", "bit_width", 0, "bit_width is 0, expected 1 to 32"),
        ("draw", "words", 2**36 + 1, "expected 0 or more, and at most 2\\^36 words"),
        ("draw", "words", -1, "-1 words, expected 0 or more"),
        ("draw", "batch", -1, "a draw of -1 samples"),
        ("draw", "program_length", -1, "expected 0 or more"),
        ("map", "rows", -1, "a fault map of -1 rows"),
        ("map", "word", None, "rows is null"),
        ("map", "threshold", 2**32 + 1, "threshold is 4294967297"),
        ("map", "period", None, "the pointer to the periods is null"),
        ("draw", "sample", None, "a pointer to values, codes or sample numbers is null"),
    ],
)
def test_numbers_out_of_range(struct, field, value, text):
    call = plain(100, Memory("secded", 64, 4), MapRows([1], [KEPT], [1], 2**31))
    call.protected()
    setattr(getattr(call, struct), field, value)
    for attempt in (call.protected, lambda: call.zeroed(np.ones_like(call.x))):
        with pytest.raises(HwfaultError, match=text):
            attempt()


def test_a_memory_of_too_many_sub_words():
    call = plain(100, Memory("secded", 64, 64))
    call.draw.words = 2**34 + 1
    with pytest.raises(HwfaultError, match=r"expected at most 2\^36 sub-words"):
        call.protected()


@pytest.mark.parametrize(
    ("word", "xor_mask", "text"),
    [
        ([3, 2], [1, 1], "strictly ascending; row 1 is not"),
        ([3, 3], [1, 1], "strictly ascending"),
        ([-1, 2], [1, 1], "names word -1"),
        ([0, 28], [1, 1], "names word 28 of a tensor of 28 words"),
    ],
)
def test_rows_that_do_not_fit(word, xor_mask, text):
    """100 code words of 4 bits fill 7 memory words, 28 sub-words."""
    call = plain(100, Memory("secded", 64, 4), MapRows(word, [KEPT] * 2, xor_mask))
    with pytest.raises(HwfaultError, match=text):
        call.protected()


def test_flips_beyond_a_sub_word():
    call = plain(100, Memory("secded", 8, 4), MapRows([0], [KEPT], [1 << 13]))
    with pytest.raises(HwfaultError, match="mask bits beyond the bit width"):
        call.protected()
    plain(100, Memory("secded", 8, 4), MapRows([0], [KEPT], [1 << 12])).protected()


def with_table(number, cells, program=False):
    from hwfault.stream.protection import Layout

    memory = Memory("secded", 8, 4)
    case = Case(
        np.zeros(6, np.uint32), 4, memory, (flips(1, memory, 0.1),) if program else (), layout=Layout(number, cells)
    )
    on = Grid(CodeFormat(4, False), np.ones(1), 1, np.zeros(1), 1)
    return Call(np.zeros((2, 6), np.float32), "float32", on, case, np.arange(2), np.arange(2))


@pytest.mark.parametrize(
    ("number", "cells", "text"),
    [
        ([2, 1], [[-1] * 8] * 2, "memory word in the table is 1, expected 2 to"),
        ([-1], [[-1] * 8], "memory word in the table is -1, expected 0 to"),
        ([2**36], [[-1] * 8], "memory word in the table is 68719476736"),
        ([0], [[0] * 7 + [-2]], "row 0 of a protected memory's table names the cell -2, expected 32 word"),
        ([0, 0], [[0] * 8, [4] * 8], "row 1 of a protected memory's table names the cell 4"),
        ([0], [[6 * 32] * 8], "names the cell 192, expected 32 word . bit within 6 code words"),
        ([0], [[2**63 - 1] * 8], "names the cell 9223372036854775807"),
    ],
)
def test_tables_that_do_not_fit(number, cells, text):
    with pytest.raises(HwfaultError, match=text):
        with_table(number, cells).protected()
    with_table([0, 0, 5], [[5 * 32 + 3] + [-1] * 7, [0] + [-1] * 7, [-1] * 8]).protected()


def test_transient_faults_need_the_linear_layout():
    with pytest.raises(HwfaultError, match="transient faults need the linear layout"):
        with_table([0], [[-1] * 8], program=True).protected()


def test_programs_of_another_width():
    call = plain(100, Memory("secded", 8, 4))  # 13 cells
    program = np.array(flips(1, Memory("secded", 9, 4), 0.1).program(), np.int64)
    call.draw.program, call.draw.program_length = pointer(program), program.size
    with pytest.raises(HwfaultError, match="left over"):
        call.protected()


FUZZ = """
import numpy as np
from hwfault.errors import HwfaultError
from hwfault.stream.protection import Memory, MapRows
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.protection_calls import plain

draw, good, refused = Draw(1), 0, 0
strange = (0, 1, -1, 2, 3, 5, 8, 31, 32, 33, 63, 64, 65, 2**31 - 1, -2**31)
wide = (*strange, 2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1, -2**63)
for _ in range(3000):
    memory = Memory(draw.one_of(("parity", "secded", "tmr")), draw.integer(1, 64), draw.integer(4, 64))
    rows = draw.integer(0, 5)
    word = np.sort(draw.rng.integers(0, 12, rows))
    masks = draw.codes(32, rows), draw.codes(draw.one_of((1, 32)), rows)
    call = plain(draw.integer(0, 300), memory, MapRows(word, *masks))
    for _ in range(draw.integer(0, 3)):
        field = draw.one_of(("kind", "data_bits", "slot", "on_detected"))
        setattr(call.protection, field, draw.one_of(strange))
    if draw.integer(0, 1):
        call.map.threshold = draw.one_of(wide)
    if rows and draw.integer(0, 3) == 0:
        call.rows.word[draw.integer(0, rows - 1)] = draw.one_of(wide)
    try:
        out, changed = call.protected()
        assert (out < 16).all() and changed == (out != 0).sum()
        good += 1
    except HwfaultError as error:
        assert 10 < len(str(error)) < 300, error
        refused += 1
print(good, refused)
"""


def test_memories_broken_at_random():
    good, refused = map(int, in_a_process_of_its_own(FUZZ).split())
    assert good > 200
    assert refused > 1000
