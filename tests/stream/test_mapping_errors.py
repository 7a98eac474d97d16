"""Mappings, tensors and cells that are none: each is one clear error."""

import pytest
from pydantic import TypeAdapter

from hwfault.errors import ModelError
from hwfault.stream.layouts import Stored
from hwfault.stream.mapping import FinnMvau, Linear, Mapping, OutputStationary, WeightStationary, memory_word_bits
from tests.stream.test_mapping import laid


def test_records_are_told_by_their_kind():
    parse = TypeAdapter(Mapping).validate_python
    assert parse({"kind": "linear", "row_bits": 16}) == Linear(row_bits=16)
    assert parse({"kind": "finn_mvau", "pe": 2, "simd": 3}).elements == (1, 2)
    assert parse({"kind": "weight_stationary", "rows": 2, "columns": 3}).elements == (2, 3)
    assert parse({"kind": "output_stationary", "rows": 2, "columns": 3}).representation == "twos_complement"
    assert Linear(row_bits=16).elements is None


@pytest.mark.parametrize(
    ("record", "fields", "words"),
    [
        (Linear, {}, "row_bits"),
        (Linear, {"row_bits": 0}, "greater than or equal to 1"),
        (Linear, {"row_bits": True}, "row_bits"),
        (Linear, {"row_bits": 16, "rows": 0}, "greater than or equal to 1"),
        (Linear, {"row_bits": 16, "interleave": 3}, "3 does not divide the 16 bits of a row.*: 2 or 4"),
        (Linear, {"row_bits": 16, "interleave": 32}, "32 does not divide the 16 bits of a row.*: 16"),
        (Linear, {"row_bits": 16, "tile": "repeat"}, "give `rows`"),
        (Linear, {"row_bits": 16, "bit_order": "big"}, "lsb_first"),
        (Linear, {"row_bits": 16, "rowbits": 1}, "did you mean 'row_bits'"),
        (FinnMvau, {"pe": 0, "simd": 1}, "greater than or equal to 1"),
        (WeightStationary, {"rows": 2}, "columns"),
        (OutputStationary, {"rows": 2, "columns": 1 << 21}, "less than or equal"),
        (OutputStationary, {"rows": 2, "columns": 2, "representation": "gray"}, "offset_binary"),
    ],
)
def test_wrong_records(record, fields, words):
    with pytest.raises(ModelError, match=words):
        record(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shape": (2, 0), "bit_width": 8}, r"shape \(2, 0\), expected at least one word"),
        ({"shape": (2,), "bit_width": 0}, "words of 0 bits, expected 1 to 32"),
        ({"shape": (2,), "bit_width": 33}, "words of 33 bits"),
        ({"shape": (2,), "bit_width": 8, "channel_axis": 1}, "no axis 1"),
        ({"shape": (2,), "bit_width": 8, "channel_axis": -2}, "no axis -2"),
    ],
)
def test_wrong_tensors(fields, words):
    with pytest.raises(ModelError, match=words):
        Stored("t", **fields)


def test_no_tensors_and_equal_names():
    with pytest.raises(ModelError, match="no tensor to lay out"):
        Linear(row_bits=8).layout([])
    with pytest.raises(ModelError, match="two tensors are named 'a'"):
        Linear(row_bits=8).layout([Stored("a", (1,), 1), Stored("b", (1,), 1), Stored("a", (2,), 1)])


def test_words_that_do_not_fill_the_parts_of_a_row():
    with pytest.raises(ModelError, match=r"leaves 8 of a row's 16 bits.*words of 3 bits of 'w'"):
        Linear(row_bits=16, interleave=2).layout([Stored("w", (4,), 3)])
    Linear(row_bits=16, interleave=2, packing="padded").layout([Stored("w", (4,), 3)])


def test_an_unknown_tensor():
    layout = Linear(row_bits=8).layout([Stored("conv.weight", (4,), 3)])
    with pytest.raises(ModelError, match=r"no tensor 'conv.wieght' is laid out: did you mean 'conv.weight'"):
        layout.cells("conv.wieght", 0, 0)


def test_elements_of_a_plain_memory():
    layout = laid(Linear(row_bits=8), ((4,), 3))
    assert layout.elements is None
    with pytest.raises(ModelError, match="a linear memory has no processing elements"):
        layout.pe_of("t0", 0)


def test_a_word_outside_has_no_element():
    layout = laid(WeightStationary(rows=2, columns=2), ((2, 2), 3))
    assert layout.elements == (2, 2)
    with pytest.raises(ModelError, match="the word 4 lies outside 't0' of 4 words"):
        layout.pe_of("t0", [0, 4])


def test_a_memory_beyond_64_bits():
    huge = [Stored(f"t{i}", (1 << 36, 1), 32) for i in range(64)]
    with pytest.raises(ModelError, match=r"at most 2\^62 cells"):
        WeightStationary(rows=1 << 20, columns=1 << 10, tile="fresh").layout(huge)


def test_a_row_without_bits():
    with pytest.raises(ModelError, match="a memory row of 0 bits"):
        memory_word_bits(0)
