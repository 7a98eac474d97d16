"""The words of the stream that belong to the cells of a memory, and how weights share them out."""

from fractions import Fraction

import numpy as np
import pytest

from hwfault.devices.device import Memory, bit_shares, column_of, places
from hwfault.errors import ModelError
from hwfault.stream.fault_map import FaultMap, Kind


def test_shares_are_weights_beside_their_mean_and_go_round_the_row():
    assert bit_shares(None, 3) == (1, 1, 1)
    assert bit_shares([1, 3], 6) == (Fraction(1, 2), Fraction(3, 2)) * 3


@pytest.mark.parametrize(
    ("weights", "columns", "words"),
    [
        ([], 8, "expected numbers from 0 up, not all 0"),
        ([0, 0], 8, "not all 0"),
        ([1, -1], 8, "numbers from 0 up"),
        ([float("inf"), 1], 8, "numbers from 0 up"),
        ([1, 2, 3], 8, "3 bit weights for rows of 8 bits"),
    ],
)
def test_weights_that_share_nothing_out(weights, columns, words):
    with pytest.raises(ModelError, match=words):
        bit_shares(weights, columns)


def test_columns_take_as_many_words_as_their_share():
    shares = bit_shares([0, 1, 3, 0], 4)
    edges = np.array([0, 2**30 - 1, 2**30, 2**32 - 1], np.uint32)
    assert column_of(edges, shares).tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("row_bits", [1, 8, 24, 72])
def test_hits_of_cells_are_those_of_the_planes_of_words(row_bits):
    memory = Memory(40, row_bits, 7, "m", bit_shares(None, row_bits))
    cell, aux = memory.cell_hits([0.05] * memory.word_bits)
    assert len(cell) == len(aux) > 0
    assert 0 <= cell.min() <= cell.max() < memory.cells
    for plane in range(memory.word_bits):
        word, _ = memory.hits(memory.cells // memory.word_bits, plane, 0.05)
        assert cell[cell % memory.word_bits == plane].tolist() == (word * memory.word_bits + plane).tolist()


def test_places_count_cells_along_rows():
    fault_map = FaultMap.from_cells(6, 4, [0, 2, 5], [1, 0, 3], [Kind.FLIP, Kind.STUCK_AT_0, Kind.STUCK_AT_1])
    row, column, kind = places(fault_map, 8)
    assert (row.tolist(), column.tolist(), kind.tolist()) == ([0, 1, 2], [1, 0, 7], [0, 1, 2])
