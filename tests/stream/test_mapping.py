"""Address mappings: every cell found again, on all options; known answers; fault maps laid over; each error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import ModelError
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.layouts import Stored
from hwfault.stream.mapping import (
    FinnMvau,
    Linear,
    OutputStationary,
    WeightStationary,
    describe_addresses,
    memory_word_bits,
)

WIDTHS = st.integers(1, 32)
LENGTHS = st.integers(1, 5)


@st.composite
def tensors(draw, axes=(1, 4), widths=WIDTHS):
    shapes = draw(st.lists(st.lists(LENGTHS, min_size=axes[0], max_size=axes[1]), min_size=1, max_size=3))
    axis = st.integers(-1, axes[0] - 1)
    return [Stored(f"t{i}", tuple(s), draw(widths), draw(axis)) for i, s in enumerate(shapes)]


@st.composite
def linear(draw, tile=("fresh", "repeat"), interleave=(1, 1, 2, 4)):
    """(mapping, tensors): where words are interleaved, parts of a row hold whole words."""
    packing, tile = draw(st.sampled_from(["packed", "padded"])), draw(st.sampled_from(tile))
    interleave = draw(st.sampled_from(interleave))
    if interleave == 1:
        stored, row_bits = draw(tensors()), draw(st.integers(1, 40))
    else:
        width = draw(st.integers(1, 8))
        slot = width if packing == "packed" else 1 << (width - 1).bit_length()
        stored, row_bits = draw(tensors(widths=st.just(width))), interleave * slot * draw(st.integers(1, 3))
    rows = draw(st.integers(1, 30)) if tile == "repeat" else draw(st.none() | st.integers(1, 30))
    size = {"rows": rows, "row_bits": row_bits, "interleave": interleave}
    order = draw(st.sampled_from(["lsb_first", "msb_first"]))
    return Linear(**size, bit_order=order, packing=packing, tile=tile), stored


@st.composite
def finn(draw):
    """(mapping, tensors): all weights have shapes that pe and simd divide."""
    pe, simd = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shapes = [(pe * n, simd * c, *taps) for n, c, taps in draw(
        st.lists(st.tuples(LENGTHS, LENGTHS, st.lists(st.integers(1, 3), max_size=2)), min_size=1, max_size=3)
    )]  # fmt: skip
    return FinnMvau(pe=pe, simd=simd), [Stored(f"t{i}", s, draw(WIDTHS)) for i, s in enumerate(shapes)]


@st.composite
def systolic(draw, tile=("fresh", "repeat")):
    kind = draw(st.sampled_from([WeightStationary, OutputStationary]))
    stored = draw(tensors(axes=(2 if kind is WeightStationary else 1, 4)))
    size = {"rows": draw(LENGTHS), "columns": draw(LENGTHS)}
    return kind(**size, tile=draw(st.sampled_from(tile))), stored


ANY = linear() | finn() | systolic()
FRESH = linear(tile=["fresh"]) | finn() | systolic(tile=["fresh"])


def every_cell(layout):
    """(tensor, word, bit, cell) of all bits of all tensors, (n, 4), from `cells`."""
    rows = []
    for i, t in enumerate(layout.tensors):
        word, bit = (x.ravel() for x in np.meshgrid(np.arange(t.words), np.arange(t.bit_width), indexing="ij"))
        rows.append(np.stack([np.full_like(word, i), word, bit, layout.cells(t.name, word, bit)], axis=1))
    return np.concatenate(rows)


def lexically(rows):
    return rows[np.lexsort(rows.T[::-1])]


@given(ANY)
def test_places_is_the_exact_inverse_of_cells(case):
    mapping, stored = case
    layout = mapping.layout(stored)
    expected = every_cell(layout)
    assert expected[:, 3].min() >= 0
    assert expected[:, 3].max() < layout.size == layout.rows * layout.row_bits
    found = layout.places(np.arange(layout.size))
    assert np.all(np.diff(found.asked) >= 0)
    rows = np.stack([found.tensor, found.word, found.bit, found.asked], axis=1)
    assert np.array_equal(lexically(rows), lexically(expected))


@given(FRESH)
def test_fresh_cells_hold_one_bit(case):
    mapping, stored = case
    cells = every_cell(mapping.layout(stored))[:, 3]
    assert len(np.unique(cells)) == len(cells)


@given(ANY, st.data())
def test_places_answer_in_the_order_asked(case, data):
    mapping, stored = case
    layout = mapping.layout(stored)
    tensor = data.draw(st.sampled_from(stored))
    word = np.array(data.draw(st.lists(st.integers(0, tensor.words - 1), max_size=5)), dtype=np.int64)
    bit = np.array([data.draw(st.integers(0, tensor.bit_width - 1)) for _ in word], dtype=np.int64)
    found = layout.places(layout.cells(tensor.name, word, bit))
    for i, (w, b) in enumerate(zip(word, bit, strict=True)):
        mine = (found.asked == i) & (found.tensor == stored.index(tensor))
        assert (w, b) in set(zip(found.word[mine], found.bit[mine], strict=True))


@given(linear(tile=["repeat"]) | systolic(tile=["repeat"]))
def test_repeated_cells_are_fresh_ones_run_round(case):
    mapping, stored = case
    again = mapping.layout(stored)
    fresh = mapping.model_copy(update={"tile": "fresh"}).layout(stored)
    assert again.rows == mapping.rows
    for t in stored:
        word = np.arange(t.words)
        assert np.array_equal(again.cells(t.name, word, 0), fresh.cells(t.name, word, 0) % again.size)


@given(ANY)
def test_what_lies_outside_has_no_cell_and_holds_nothing(case):
    mapping, stored = case
    layout, t = mapping.layout(stored), stored[0]
    assert layout.cells(t.name, [-1, t.words, 0, 0], [0, 0, -1, t.bit_width]).tolist() == [-1] * 4
    assert len(layout.places([-1, layout.size, 1 << 62]).word) == 0


@given(linear(interleave=[2, 4]))
def test_neighbouring_columns_belong_to_different_words(case):
    mapping, stored = case
    layout = mapping.layout(stored)
    found, holders = layout.places(np.arange(layout.size)), {}
    for cell, tensor, word in zip(found.asked.tolist(), found.tensor.tolist(), found.word.tolist(), strict=True):
        holders.setdefault(cell, set()).add((tensor, word))
    inner = [c for c in holders if (c + 1) % layout.row_bits]
    assert all(holders[c].isdisjoint(holders.get(c + 1, set())) for c in inner)


# ---- known answers (those of the specification) ----


def laid(mapping, *stored):
    return mapping.layout([Stored(f"t{i}", s, b) for i, (s, b) in enumerate(stored)])


def cells_of(layout, name, word):
    bits = next(t.bit_width for t in layout.tensors if t.name == name)
    return layout.cells(name, word, np.arange(bits)).tolist()


def test_packed_words_run_on_from_row_to_row():
    layout = laid(Linear(row_bits=8), ((5,), 3), ((2,), 4))
    assert (layout.rows, layout.row_bits) == (3, 8)
    assert [cells_of(layout, "t0", w) for w in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert cells_of(layout, "t1", 0) == [16, 17, 18, 19]  # on a new row
    assert layout.address(8) == "row 1, bit 0 of 8"


def test_padded_words_take_a_power_of_two():
    layout = laid(Linear(row_bits=8, packing="padded"), ((5,), 3))
    assert [cells_of(layout, "t0", w) for w in range(3)] == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert len(layout.places([3, 7]).word) == 0


@pytest.mark.parametrize(("bits", "slot"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (17, 32)])
def test_the_power_of_two(bits, slot):
    assert laid(Linear(row_bits=32, packing="padded"), ((9,), bits)).cells("t0", 1, 0) == slot


def test_msb_first_puts_the_highest_bit_first():
    packed, padded = (
        laid(Linear(row_bits=8, bit_order="msb_first", packing=p), ((4,), 3)) for p in ("packed", "padded")
    )
    assert cells_of(packed, "t0", 1) == [5, 4, 3]
    assert cells_of(padded, "t0", 1) == [7, 6, 5]  # the unused highest bits come first


def test_interleaved_words():
    layout = laid(Linear(row_bits=8, interleave=2), ((4,), 4))
    assert [cells_of(layout, "t0", w) for w in (0, 1, 2)] == [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14]]


def test_fresh_blocks_and_their_names():
    layout = laid(Linear(rows=4, row_bits=16), ((21,), 8))
    assert (layout.rows, layout.size) == (12, 192)
    assert layout.cells("t0", 8, 0) == 64
    assert layout.address(64 + 2 * 16 + 5) == "block 1, row 2, bit 5 of 16"


def test_a_buffer_that_is_used_again():
    layout = laid(Linear(rows=4, row_bits=16, tile="repeat"), ((21,), 8))
    assert (layout.rows, layout.size) == (4, 64)
    assert layout.cells("t0", [0, 8, 16], 3).tolist() == [3, 3, 3]
    found = layout.places([3, 63])
    assert (found.asked.tolist(), found.word.tolist(), found.bit.tolist()) == (
        [0, 0, 0, 1, 1],
        [0, 8, 16, 7, 15],
        [3, 3, 3, 7, 7],
    )
    assert layout.address(17) == "row 1, bit 1 of 16"


def test_a_buffer_larger_than_the_tensors():
    layout = laid(Linear(rows=100, row_bits=16, tile="repeat"), ((21,), 8))
    assert layout.rows == 100
    assert len(layout.places(np.arange(layout.size)).word) == 21 * 8


def test_a_scalar_is_one_word():
    assert cells_of(laid(Linear(row_bits=4), ((), 3)), "t0", 0) == [0, 1, 2]


def test_systolic_registers_and_tiles():
    fresh = laid(WeightStationary(rows=2, columns=3, tile="fresh"), ((4, 3), 8))
    assert (fresh.rows, fresh.row_bits) == (8, 24)  # 2 x 2 tiles of 2 rows
    # weight (n=3, k=2), word 11: tile (3 div 3) * 2 + 2 div 2 = 3, element (0, 0)
    assert fresh.cells("t0", 11, 5) == (3 * 2 + 0) * 24 + 5
    assert fresh.address(int(fresh.cells("t0", 11, 5))) == "PE (0, 0), tile 3, bit 5"
    again = laid(WeightStationary(rows=2, columns=3), ((4, 3), 8))
    assert (again.rows, again.row_bits) == (2, 24)
    assert again.address(int(again.cells("t0", 11, 5))) == "PE (0, 0), bit 5"
    assert again.places([5]).word.tolist() == [0, 2, 9, 11]


def test_outputs_in_their_elements():
    layout = laid(OutputStationary(rows=2, columns=2, tile="fresh"), ((3, 2, 2), 16))
    # pixel 3 of channel 2, word 11: tile (2 div 2) * 2 + 3 div 2 = 3, element (1, 0)
    assert layout.cells("t0", 11, 0) == (3 * 2 + 1) * 32
    assert layout.pe_of("t0", [0, 1, 4, 11]).tolist() == [0, 2, 1, 2]
    tokens = OutputStationary(rows=2, columns=2).layout([Stored("t0", (5, 3), 8, channel_axis=-1)])
    assert tokens.pe_of("t0", [0, 1, 2, 3, 14]).tolist() == [0, 1, 0, 2, 0]


# ---- fault maps ----


def memory_map(layout, cells, kinds, spare=0):
    bits = memory_word_bits(layout.row_bits)
    words = layout.size // bits + spare
    cells = np.asarray(cells, dtype=np.int64)
    return FaultMap.from_cells(words, bits, cells // bits, cells % bits, kinds, {"device": "7"})


@given(ANY, st.data())
def test_laid_over_maps_read_as_the_faulty_memory_does(case, data):
    mapping, stored = case
    layout = mapping.layout(stored)
    cells = data.draw(st.lists(st.integers(0, layout.size - 1), unique=True, max_size=30))
    kinds = [data.draw(st.sampled_from(Kind)) for _ in cells]
    maps = layout.lay_over(memory_map(layout, cells, kinds, spare=data.draw(st.integers(0, 3))))
    faulty = dict(zip(cells, kinds, strict=True))
    for t in stored:
        codes = np.random.default_rng(1).integers(0, 1 << t.bit_width, t.words).astype(np.uint32)
        assert np.array_equal(maps[t.name].apply(codes), through_memory(layout, t, codes, faulty))
        assert maps[t.name].provenance == {"device": "7"}


def through_memory(layout, tensor, codes, faulty):
    """The codes read back from the memory, cell by cell."""
    out = []
    for word, code in enumerate(codes.tolist()):
        for bit in range(tensor.bit_width):
            kind = faulty.get(int(layout.cells(tensor.name, word, bit)))
            if kind is not None:
                stored = code >> bit & 1
                read = {Kind.FLIP: 1 - stored, Kind.STUCK_AT_0: 0, Kind.STUCK_AT_1: 1}[kind]
                code = code & ~(1 << bit) | read << bit
        out.append(code)
    return np.array(out, dtype=np.uint32)


def test_a_repeated_cell_strikes_every_tile():
    layout = laid(Linear(rows=4, row_bits=16, tile="repeat"), ((21,), 8))
    over = layout.lay_over(memory_map(layout, [3], [Kind.STUCK_AT_1]))["t0"]
    assert (over.words, over.bit_width, over.word.tolist(), over.xor_mask.tolist()) == (21, 8, [0, 8, 16], [8, 8, 8])


def test_maps_of_huge_memories_cost_what_their_faults_cost():
    layout = laid(Linear(rows=1024, row_bits=16), ((1 << 20, 1 << 14), 8))
    over = layout.lay_over(memory_map(layout, [0, 77, layout.size - 1], [Kind.FLIP] * 3))["t0"]
    assert over.word.tolist() == [0, 9, (1 << 34) - 1]


@pytest.mark.parametrize("bit_width", [4, 16, 20])
def test_maps_of_any_word_width_name_cells_alike(bit_width):
    layout = laid(Linear(row_bits=20), ((8,), 5))
    at = np.array([7, 33])
    given_map = FaultMap.from_cells(-(-layout.size // bit_width), bit_width, at // bit_width, at % bit_width, [0, 0])
    word, bit, _ = layout.lay_over(given_map)["t0"].cells()
    assert (word.tolist(), bit.tolist()) == ([1, 6], [2, 3])


def test_a_map_smaller_than_the_memory():
    layout = laid(Linear(row_bits=16), ((21,), 8))
    layout.lay_over(FaultMap.from_cells(11, 16, [], [], []))
    with pytest.raises(ModelError, match=r"11 rows of 16 bits \(176 cells\).* 10 words of 16 bits \(160 cells\)"):
        layout.lay_over(FaultMap.from_cells(10, 16, [], [], []))
    with pytest.raises(ModelError, match=r"176 cells.* 175 words of 1 bits"):
        layout.lay_over(FaultMap.from_cells(175, 1, [], [], []))


@pytest.mark.parametrize(
    ("row_bits", "word_bits"),
    [(1, 1), (16, 16), (32, 32), (33, 11), (37, 1), (48, 24), (72, 24), (128, 32), (4096, 32)],
)
def test_memory_word_bits(row_bits, word_bits):
    assert memory_word_bits(row_bits) == word_bits


# ---- both names ----


def test_both_names_of_a_cell():
    layout = laid(Linear(rows=4, row_bits=16), ((21,), 8))
    assert describe_addresses(layout, "t0", [0, 9], 3) == [
        "t0, word 0, bit 3: block 0, row 0, bit 3 of 16",
        "t0, word 9, bit 3: block 1, row 0, bit 11 of 16",
    ]
    with pytest.raises(ModelError, match="no word 21, bit 3; expected words below 21 and bits below 8"):
        describe_addresses(layout, "t0", 21, 3)


@given(ANY)
def test_addresses_tell_cells_apart(case):
    mapping, stored = case
    layout = mapping.layout(stored)
    cells = range(min(layout.size, 500))
    assert len({layout.address(cell) for cell in cells}) == len(cells)


def test_an_address_outside():
    layout = laid(Linear(row_bits=16), ((2,), 8))
    for cell in (-1, 16):
        with pytest.raises(ModelError, match=f"the cell {cell} lies outside a memory of 1 rows of 16 bits"):
            layout.address(cell)


# ---- records and errors ----
