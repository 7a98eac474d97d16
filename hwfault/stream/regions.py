"""Regions of a device: cells' own numbers, clustered counts and the hits they bring ("Maps of a device").

A region is a set of cells of any size with one count of its own; regions are numbered from 0.
"""

from collections.abc import Iterator
from decimal import Context, Decimal
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import ModelError
from hwfault.stream.reference import philox

MOST_REGIONS = 1 << 28
"""The regions that 26 bits of block number and 4 planes reach."""
EXACT = Context(prec=60, Emin=-999_999_999, Emax=999_999_999)
"""The arithmetic that probabilities become integers in."""

_CHUNK = 1 << 17  # generator calls at once: some 20 MB of working memory
_LONGEST_TABLE = 1 << 18

Ints = NDArray[np.int64]
Words = NDArray[np.uint32]
CountTable = tuple[int, ...]


@lru_cache(maxsize=4096)
def cluster_table(weak: Decimal, shape: Decimal, mean: Decimal, most: int) -> CountTable:
    """Thresholds T[i] = floor(2^32 P(N <= i)) of a region's hits, at most `most` of them.

    N is 0 with probability 1 - weak, else negative binomial of the shape and mean (above 0). Raises ModelError for an
    empty table and for one of more than 2^18 entries.
    """
    ctx = EXACT
    unit = Decimal(1 << 32)
    below = ctx.subtract(Decimal(1), weak)
    table: list[int] = []
    for term in _negative_binomial(weak, shape, mean):
        below = ctx.add(below, term)
        beyond = ctx.multiply(unit, ctx.subtract(Decimal(1), below))
        if len(table) == most or beyond < Decimal("0.5"):
            break
        if len(table) == _LONGEST_TABLE:
            raise ModelError(
                f"a region of a map would be hit {float(mean):.3g} times on average, too often for so uneven a "
                "pattern; give a lower rate or spatial: {kind: independent}"
            )
        table.append(int(ctx.multiply(unit, below)))
    if not table:
        raise ModelError(
            f"a region of a map would be hit {float(ctx.multiply(weak, mean)):.3g} times on average, which is too "
            "small to be drawn: the stream resolves 2^-33; give 0 or a higher rate"
        )
    return tuple(table)


def _negative_binomial(weak: Decimal, shape: Decimal, mean: Decimal) -> Iterator[Decimal]:
    """weak * P(NB = 0), weak * P(NB = 1), ..."""
    # P(0) = (1 + mean / shape)^-shape, as a power is only exact to the context's precision through ln and exp
    ctx = EXACT
    odds = ctx.divide(mean, ctx.add(shape, mean))
    growth = ctx.ln(ctx.add(Decimal(1), ctx.divide(mean, shape)))
    none = ctx.exp(ctx.minus(ctx.multiply(shape, growth)))
    term = ctx.multiply(weak, none)
    for i in count():
        yield term
        # P(i + 1) / P(i) = (shape + i) / (i + 1) * mean / (shape + mean)
        ratio = ctx.divide(ctx.add(shape, Decimal(i)), Decimal(i + 1))
        factor = ctx.multiply(ratio, odds)
        term = ctx.multiply(term, factor)


def _chunks(n: int) -> Iterator[slice]:
    for at in range(0, n, _CHUNK):
        yield slice(at, min(at + _CHUNK, n))


def calls(seed: int, site: int, quad: Ints, block_and_plane: Ints) -> Words:
    """The generator's outputs (n, 4) for counters (quad, block << 6 | plane, 0, site)."""
    out = np.empty((len(quad), 4), np.uint32)
    for part in _chunks(len(quad)):
        counter = np.zeros((part.stop - part.start, 4), np.uint32)
        counter[:, 0] = quad[part]
        counter[:, 1] = block_and_plane[part]
        counter[:, 3] = site
        out[part] = philox(counter, seed)
    return out


def own_words(seed: int, site: int, cell: Ints) -> Words:
    """The word (n,) that belongs to each cell under one process: own(K, c)."""
    words = np.empty(len(cell), np.uint32)
    for part in _chunks(len(cell)):
        low = cell[part] & 0xFFFFFFFF
        block = cell[part] >> 32
        words[part] = calls(seed, site, low, block << 6)[:, 0]
    return words


def count_words(seed: int, site: int, first: int, regions: int) -> Words:
    """The count words of `regions` regions from number `first` (a multiple of 4)."""
    # four regions share a block: one call of the generator gives the count words of all four
    end = -(-(first + regions) // 4)
    block = np.arange(first // 4, end, dtype=np.int64)
    words = calls(seed, site, np.zeros_like(block), block << 6 | 32)
    return words.reshape(-1)[:regions]


def region_hits(seed: int, site: int, region: Ints, count: Ints) -> tuple[Ints, Words, Words]:
    """(index into `region`, o0, o1) of every hit of regions with these counts, region by region in stream order."""
    index = np.repeat(np.arange(len(region), dtype=np.int64), count)
    # a hit's number within its region is its counter, so that no region depends on those before it
    before = np.cumsum(count) - count
    hit = np.arange(len(index), dtype=np.int64) - np.repeat(before, count)
    block_and_plane = region >> 2 << 6 | (region & 3)
    outputs = calls(seed, site, hit, block_and_plane[index])
    return index, outputs[:, 0], outputs[:, 1]


def share_of(word: Words, n: int) -> Ints:
    """floor(word * n / 2^32): a number below n, as nearly uniform as 32 bits allow."""
    return (word.astype(np.uint64) * np.uint64(n) >> np.uint64(32)).astype(np.int64)
