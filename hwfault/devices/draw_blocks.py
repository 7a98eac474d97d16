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
    parts = list(background(spatial, memory, HITS, tables))
    parts.extend(_weak_columns(spatial, memory, found, x))
    cells = np.concatenate(parts)
    # the last block may reach beyond the memory: it is drawn as a whole one, so that others do not depend on it
    return cells[cells < memory.cells]


Tables = Callable[[int, Fraction, Fraction], CountTable]
"""The count table of a region of so many cells with so large a weight on average, and the least weight of a cell."""


def _tables(weak: Decimal, shape: Decimal, per_cell: Decimal) -> Tables:
    """Of regions where a cell of weight 1 has `per_cell` hits on average, if they are not among the 1 - weak others."""

    def table(cells: int, mean: Fraction, least: Fraction) -> CountTable:
        # so many hits that even the cell of the least weight has 24 on average: more would not change the map
        most = ceil(_HITS_FOR_ALL * cells * mean / least)
        hits = EXACT.multiply(per_cell, decimal(cells * mean))
        return cluster_table(weak, shape, hits, most)

    return table


def _weak_columns(spatial: BlockColumn, memory: Memory, found: Law, x: Decimal) -> Iterator[Ints]:
    """The cells of the weak columns' own hits: a geometric number each, a negative binomial of shape 1."""
    if not found.weak:
        return iter(())
    tables = _tables(found.weak, Decimal(1), found.in_weak_columns(x))
    return _columns(spatial, memory, _WEAK, tables)


def _columns(spatial: BlockColumn, memory: Memory, process: int, tables: Tables) -> Iterator[Ints]:
    """The cells of hits that have a count for every column."""
    period = spatial.column_period
    bits = memory.row_bits
    tall = spatial.block_rows // period
    table_of_bit, tables_by_weight = _table_of_bit(memory.shares, lambda v: tables(tall, v, v))
    blocks = -(-memory.rows // spatial.block_rows)
    columns = blocks * bits * period
    for first in range(0, columns, _AT_ONCE):
        n = min(_AT_ONCE, columns - first)
        words = count_words(memory.device, memory.site(process), first, n)
        bit = (first + np.arange(n)) // period % bits
        column, count = _regions_hit(first, _counts(words, bit, table_of_bit, tables_by_weight))
        index, o0, _ = region_hits(memory.device, memory.site(process), column, count)
        # a column's number is (block, bit, row modulo the period), the last one fastest
        hit_column = column[index]
        block = hit_column // (period * bits)
        row = hit_column % period + period * share_of(o0, tall)
        bit = hit_column // period % bits
        yield (block * spatial.block_rows + row) * bits + bit


def _blocks(spatial: BlockColumn, memory: Memory, process: int, tables: Tables) -> Iterator[Ints]:
    """The cells of hits that have a count for every block."""
    bits = memory.row_bits
    blocks = -(-memory.rows // spatial.block_rows)
    least_weight = min(v for v in memory.shares if v)
    table = np.array(tables(spatial.block_rows * bits, Fraction(1), least_weight), np.int64)
    for first in range(0, blocks, _AT_ONCE):
        n = min(_AT_ONCE, blocks - first)
        words = count_words(memory.device, memory.site(process), first, n)
        block, count = _regions_hit(first, np.searchsorted(table, words, side="right"))
        index, o0, o1 = region_hits(memory.device, memory.site(process), block, count)
        row = block[index] * spatial.block_rows + share_of(o0, spatial.block_rows)
        yield row * bits + column_of(o1, memory.shares)


def _table_of_bit(shares: Sequence[Fraction], table: Callable[[Fraction], CountTable]) -> tuple[Ints, list[Ints]]:
    """(which table each bit has, the tables); bits of weight 0 have an empty one."""
    distinct = list(dict.fromkeys(shares))
    tables = []
    for v in distinct:
        thresholds = table(v) if v else ()
        tables.append(np.array(thresholds, np.int64))
    return np.array([distinct.index(v) for v in shares]), tables


def _counts(words: Words, bit: Ints, table_of_bit: Ints, tables: list[Ints]) -> Ints:
    """How many hits columns of these bits have, by their count words."""
    if len(tables) == 1:
        return np.searchsorted(tables[0], words, side="right")
    count = np.zeros(len(words), np.int64)
    for i, table in enumerate(tables):
        its = table_of_bit[bit] == i
        count[its] = np.searchsorted(table, words[its], side="right")
    return count


def _regions_hit(first: int, count: Ints) -> tuple[Ints, Ints]:
    """The regions with hits, and how many."""
    hit = np.flatnonzero(count)
    return hit + first, count[hit]
