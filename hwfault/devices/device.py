"""A memory of one device, and the words of the fault stream that belong to its cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import ModelError
from hwfault.stream import native
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.mapping import memory_word_bits
from hwfault.stream.regions import own_words
from hwfault.stream.tables import encode_table, site_number

Ints = NDArray[np.int64]
Words = NDArray[np.uint32]

HITS, CELLS, KINDS = 0, 1, 2
"""The processes of a memory: its hits, its cells' own numbers (or its weak columns' hits), its cells' kinds."""


@dataclass(frozen=True)
class Memory:
    """A memory of a device: its size, its name, the device's number, and v(c) of each column of a row."""

    rows: int
    row_bits: int
    device: int
    name: str
    shares: tuple[Fraction, ...]

    @property
    def cells(self) -> int:
        return self.rows * self.row_bits

    @property
    def word_bits(self) -> int:
        return memory_word_bits(self.row_bits)

    def site(self, process: int) -> int:
        """The site number of a process of this memory."""
        return site_number(self.name, process)

    def own(self, process: int, cell: Ints) -> Words:
        """The word that belongs to each cell under a process."""
        return own_words(self.device, self.site(process), cell)

    def hits(self, words: int, plane: int, probability: float) -> tuple[Ints, Words]:
        """Words and aux of the first process's hits on a plane of a sample of `words` words."""
        return native.plane_hits(self.device, self.site(HITS), 0, words, plane, encode_table(probability))

    def cell_hits(self, probability: Sequence[float]) -> tuple[Ints, Words]:
        """Cells and aux of the first process's hits, plane by plane of the memory's words, with a probability each."""
        bits = self.word_bits
        cells = []
        auxes = []
        for plane, p in enumerate(probability):
            word, aux = self.hits(self.cells // bits, plane, p)
            cells.append(word * bits + plane)
            auxes.append(aux)
        return np.concatenate(cells), np.concatenate(auxes)


def bit_shares(weights: Sequence[float] | None, columns: int) -> tuple[Fraction, ...]:
    """v(c) of every column of a row: how likely it is to be faulty beside the mean column.

    Raises ModelError for weights that are negative, sum to nothing or do not divide the row.
    """
    if weights is None:
        return (Fraction(1),) * columns
    if not weights or not all(0 <= w < float("inf") for w in weights) or not any(weights):
        raise ModelError(f"the bit weights are {list(weights)}, expected numbers from 0 up, not all 0")
    if columns % len(weights):
        raise ModelError(f"{len(weights)} bit weights for rows of {columns} bits, expected a number that divides it")
    # in fractions, as thresholds follow from them that must be the same integers everywhere
    exact = [Fraction(w) for w in weights]
    mean = sum(exact, Fraction(0)) / len(exact)
    shares = tuple(w / mean for w in exact)
    return shares * (columns // len(weights))


def column_of(word: Words, shares: Sequence[Fraction]) -> Ints:
    """The column that a 32 bit word falls on: the number of thresholds E[j] at or below it."""
    sums = list(accumulate(shares))
    del sums[-1]  # which is 2^32 as a threshold: words lie below it
    thresholds = np.array([int((1 << 32) * s / len(shares)) for s in sums], np.uint64)
    return np.searchsorted(thresholds, word.astype(np.uint64), side="right").astype(np.int64)


def places(fault_map: FaultMap, row_bits: int) -> tuple[Ints, Ints, Ints]:
    """(row, column, kind) of every faulty cell of a memory's map, ascending."""
    word, bit, kind = fault_map.cells()
    cell = word * fault_map.bit_width + bit
    return cell // row_bits, cell % row_bits, kind.astype(np.int64)
