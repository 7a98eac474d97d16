"""Drawing blocks and columns ("block_column" of the specification)."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from math import ceil

import numpy as np

from hwfault.devices.clustering import Law, hits_per_cell, law
from hwfault.devices.device import CELLS, HITS, Ints, Memory, Words, column_of
from hwfault.devices.events import decimal
from hwfault.errors import ModelError
from hwfault.profiles.spatial import BlockColumn
from hwfault.stream.regions import (
    EXACT,
    MOST_REGIONS,
    CountTable,
    cluster_table,
    count_words,
    region_hits,
    share_of,
)

_AT_ONCE = 1 << 20  # regions, a multiple of 4
_HITS_FOR_ALL = 24  # of a cell: e^-24 is below the stream's resolution
_WEAK = CELLS  # the weak columns' hits take the number that other patterns use for cells' own words


def draw_block_column(spatial: BlockColumn, p: float, memory: Memory) -> Ints:
    """The cells of all hits; a cell may come more than once."""
    if p == 0:
        return np.empty(0, np.int64)
    if p == 1:
        raise ModelError("a pattern of blocks and columns cannot make every cell faulty; give a rate below 1")
    blocks = -(-memory.rows // spatial.block_rows)
    if blocks * memory.row_bits * spatial.column_period > MOST_REGIONS:
        raise ModelError(
            f"{blocks} blocks of {memory.row_bits} bits a row are more columns than the 2^28 that a map has"
        )
    found = law(spatial, memory.row_bits)
    x = hits_per_cell(found, p, memory.shares)
    background = _columns if found.by_column else _blocks
    tables = _tables(Decimal(1), found.background_shape, found.background(x))
    cells = [*background(spatial, memory, HITS, tables), *_weak_columns(spatial, memory, found, x)]
    inside = np.concatenate(cells)
    return inside[inside < memory.cells]


Tables = Callable[[int, Fraction, Fraction], CountTable]
"""The count table of a region of so many cells with so large a weight on average, and the least weight of a cell."""


def _tables(weak: Decimal, shape: Decimal, per_cell: Decimal) -> Tables:
    """Of regions where a cell of weight 1 has `per_cell` hits on average, if they are not among the 1 - weak others."""

    def table(cells: int, mean: Fraction, least: Fraction) -> CountTable:
        most = ceil(_HITS_FOR_ALL * cells * mean / least)
        return cluster_table(weak, shape, EXACT.multiply(per_cell, decimal(cells * mean)), most)

    return table


def _weak_columns(spatial: BlockColumn, memory: Memory, found: Law, x: Decimal) -> Iterator[Ints]:
    if not found.weak:
        return iter(())
    return _columns(spatial, memory, _WEAK, _tables(found.weak, Decimal(1), found.in_weak_columns(x)))


def _columns(spatial: BlockColumn, memory: Memory, process: int, tables: Tables) -> Iterator[Ints]:
    """The cells of hits that have a count for every column."""
    period, bits = spatial.column_period, memory.row_bits
    tall = spatial.block_rows // period
    by_bit = _table_of_bit(memory.shares, lambda v: tables(tall, v, v))
    blocks = -(-memory.rows // spatial.block_rows)
    for first in range(0, blocks * bits * period, _AT_ONCE):
        n = min(_AT_ONCE, blocks * bits * period - first)
        words = count_words(memory.device, memory.site(process), first, n)
        bit = (first + np.arange(n)) // period % bits
        region, count = _struck(first, _counts(words, bit, *by_bit))
        index, o0, _ = region_hits(memory.device, memory.site(process), region, count)
        column = region[index]
        row = column % period + period * share_of(o0, tall)
        yield (column // (period * bits) * spatial.block_rows + row) * bits + column // period % bits


def _blocks(spatial: BlockColumn, memory: Memory, process: int, tables: Tables) -> Iterator[Ints]:
    """The cells of hits that have a count for every block."""
    bits, blocks = memory.row_bits, -(-memory.rows // spatial.block_rows)
    table = np.array(tables(spatial.block_rows * bits, Fraction(1), min(filter(None, memory.shares))), np.int64)
    for first in range(0, blocks, _AT_ONCE):
        words = count_words(memory.device, memory.site(process), first, min(_AT_ONCE, blocks - first))
        region, count = _struck(first, np.searchsorted(table, words, side="right"))
        index, o0, o1 = region_hits(memory.device, memory.site(process), region, count)
        row = region[index] * spatial.block_rows + share_of(o0, spatial.block_rows)
        yield row * bits + column_of(o1, memory.shares)


def _table_of_bit(shares: Sequence[Fraction], table: Callable[[Fraction], CountTable]) -> tuple[Ints, list[Ints]]:
    """(which table each bit has, the tables); bits of weight 0 have an empty one."""
    distinct = list(dict.fromkeys(shares))
    tables = [np.array(table(v) if v else (), np.int64) for v in distinct]
    return np.array([distinct.index(v) for v in shares]), tables


def _counts(words: Words, bit: Ints, table_of_bit: Ints, tables: list[Ints]) -> Ints:
    if len(tables) == 1:
        return np.searchsorted(tables[0], words, side="right")
    count = np.zeros(len(words), np.int64)
    for i, table in enumerate(tables):
        its = table_of_bit[bit] == i
        count[its] = np.searchsorted(table, words[its], side="right")
    return count


def _struck(first: int, count: Ints) -> tuple[Ints, Ints]:
    """The regions with hits, and how many."""
    struck = np.flatnonzero(count)
    return struck + first, count[struck]
