"""The fault stream in NumPy: the specification in code, slow on purpose (docs/fault-stream.md).

Every kernel equals this bit for bit. A site's faults come as a *fault program*: a flat sequence of int64,

    program := process*          process := kind, site number, n, body[n]
    kind 0 bit:     (accept01, accept10, table) for each plane
    kind 1 cluster: axis (0 bit, 1 word), k, C[0..k-1], then a table for each plane
    kind 2 mask:    M, table                  M = 2^33 + C: the word becomes the code C
    kind 3 random:  table
    kind 4 late:    M, columns, rows, channels, inner, table
    table := t, T[0..t-1]        t = 0 draws nothing, t = -1 hits every cell
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import Codes
from hwfault.stream.tables import ACCEPT_ALL, ACTIVITY_PLANE, BLOCK, WORD_PLANE, Table, encode_table

Hits = tuple[NDArray[np.int64], NDArray[np.uint32]]

TO_CODE = 1 << 33
"""A mask process whose mask is this and more makes words the code that it is more."""

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_AT_ONCE = 256  # blocks: the words of all their cells take 8 MiB


def philox(counter: NDArray[np.uint32], key: int) -> NDArray[np.uint32]:
    """Philox4x32-10 of counters (..., 4) under a 64 bit key: (..., 4) words (Salmon et al., SC'11)."""
    # words of 32 bits in 64: NumPy has no product of two uint32 that keeps its upper half
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0 = key & 0xFFFFFFFF
    k1 = key >> 32
    for _ in range(10):
        p0 = _MULTIPLIERS[0] * c0
        p1 = _MULTIPLIERS[1] * c2
        c0 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0)
        c1 = p1 & _LOW
        c2 = (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c3 = p0 & _LOW
        k0 = (k0 + _WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def stream_words(
    seed: int, site: int, sample: int, block: int | NDArray[np.int64], plane: int, n: int
) -> NDArray[np.uint32]:
    """The first n words r[0..n-1] of one (seed, site, sample, block, plane); of blocks (b,): (b, n) words."""
    quads = -(-n // 4)
    counter = _counters(np.arange(quads), np.asarray(block)[..., np.newaxis], plane, sample, site)
    words = philox(counter, seed)
    return words.reshape(*words.shape[:-2], 4 * quads)[..., :n]


def count_word(seed: int, site: int, sample: int, block: int | NDArray[np.int64], plane: int) -> NDArray[np.uint32]:
    """The word that decides how many cells of a plane of a block are hit; of blocks (b,): (b,) words."""
    call = _counters(np.int64(0), np.asarray(block), 32 + (plane >> 2), sample, site)
    return philox(call, seed)[..., plane % 4]


def _counters(
    index: NDArray[np.int64] | np.int64, block: NDArray[np.int64], plane: int, sample: int, site: int
) -> NDArray[np.uint32]:
    counter = np.empty((*np.broadcast_shapes(np.shape(index), block.shape), 4), dtype=np.uint32)
    counter[..., 0] = index
    counter[..., 1] = ((block << 6) | plane) & 0xFFFFFFFF
    counter[..., 2] = sample & 0xFFFFFFFF
    counter[..., 3] = site
    return counter


def _hits_of_blocks(seed: int, site: int, sample: int, blocks: NDArray[np.int64], plane: int, table: Table) -> Hits:
    """Word positions, and aux (22 bits; the word v on the word plane), of all hits of some blocks in stream order."""
    # how many hits: the thresholds of the count table that the block's count word has reached
    every = table[0] < 0
    if every:
        count = np.full(blocks.size, BLOCK)
    else:
        count = np.searchsorted(table[1:], count_word(seed, site, sample, blocks, plane), side="right")
    blocks = blocks[count > 0]
    count = count[count > 0]
    most = int(count.max(initial=0))

    # where: a hit on a bit takes one word, of which 10 bits are its position and 22 its aux; one on a word takes two
    if plane == WORD_PLANE:
        r = stream_words(seed, site, sample, blocks, plane, 2 * most)
        positions, aux = r[:, 0::2], r[:, 1::2]
    else:
        r = stream_words(seed, site, sample, blocks, plane, most)
        positions, aux = r, r >> np.uint32(10)
    at = positions & np.uint32(BLOCK - 1)
    if every:
        at = np.broadcast_to(np.arange(most), positions.shape)

    # every block has been given as many as the one with most
    hit = np.arange(most) < count[:, np.newaxis]
    word = blocks[:, np.newaxis] * BLOCK + at
    return word[hit], aux[hit]


def plane_hits(seed: int, site: int, sample: int, words: int, plane: int, table: Table) -> Hits:
    """Word positions and aux of the hits of one plane of a sample of `words` words, in stream order."""
    position = [np.empty(0, np.int64)]
    aux = [np.empty(0, np.uint32)]
    blocks = -(-words // BLOCK)
    if table[0] == 0:
        blocks = 0  # a table that draws nothing
    for first in range(0, blocks, _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, blocks))
        at, extra = _hits_of_blocks(seed, site, sample, some, plane, table)
        # hits behind the last word are drawn and dropped: so the others do not depend on how many words there are
        position.append(at[at < words])
        aux.append(extra[at < words])
    return np.concatenate(position), np.concatenate(aux)


def hits(*, seed: int, site: int, sample: int, words: int, plane: int, probability: float) -> Hits:
    """Word positions (int64) and aux (uint32) of the hits of one plane, in stream order."""
    return plane_hits(seed, site, sample, words, plane, encode_table(probability))


def processes(program: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """(kind, site number, body) of each process of a program."""
    at = 0
    while at < len(program):
        kind, site, n = program[at : at + 3]
        yield kind, site, list(program[at + 3 : at + 3 + n])
        at += 3 + n


def _take_table(body: list[int]) -> Table:
    """The table at the front of a body, removed from it."""
    n = 1 + max(body[0], 0)
    table = tuple(body[:n])
    del body[:n]
    return table


def activity(*, seed: int, site: int, period: int, word: NDArray[np.int64], bit: NDArray[np.int64]) -> Codes:
    """The word of each cell that decides whether it shows its fault in a period: it does below floor(2^32 p)."""
    at = word & (BLOCK - 1)
    counter = np.empty((len(word), 4), dtype=np.uint32)
    counter[:, 0] = bit * 256 + (at >> 2)
    counter[:, 1] = ((word >> 10) << 6 | ACTIVITY_PLANE) & 0xFFFFFFFF
    counter[:, 2:] = period & 0xFFFFFFFF, site
    return np.asarray(philox(counter, seed)[np.arange(len(word)), at & 3], dtype=np.uint32)


def inject_codes(codes: Codes, *, program: Sequence[int], seed: int, sample: int, bit_width: int) -> Codes:
    """The codes of one sample after all processes of a program; the input stays as it is."""
    stored = codes
    for kind, site, body in processes(program):
        draw = (seed, site, sample, codes.size)
        if kind == 4:
            codes = _late(codes, stored, body, draw)
        else:
            codes = (_bit, _cluster, _mask, _random)[kind](codes, body, draw, bit_width)
    return codes


_Draw = tuple[int, int, int, int]


def _bit(stored: Codes, body: list[int], draw: _Draw, bit_width: int) -> Codes:
    flips = np.zeros_like(stored)
    for plane in range(bit_width):
        accept01, accept10 = body.pop(0), body.pop(0)
        word, aux = plane_hits(*draw, plane, _take_table(body))
        one = (stored[word] >> np.uint32(plane)) & 1 == 1
        # ones are taken from the upper end and zeros from the lower, so that one table serves both probabilities
        accepted = np.where(one, aux >= ACCEPT_ALL - accept10, aux < accept01)
        flips[word[accepted]] |= np.uint32(1 << plane)  # a cell that is hit twice flips once
    return stored ^ flips


def _cluster(stored: Codes, body: list[int], draw: _Draw, bit_width: int) -> Codes:
    flips = np.zeros_like(stored)
    axis = body.pop(0)
    k = body.pop(0)
    sizes = np.array(body[:k], dtype=np.int64)
    del body[:k]
    for plane in range(bit_width):
        word, aux = plane_hits(*draw, plane, _take_table(body))
        size = 1 + np.searchsorted(sizes, aux, side="right")
        for first, count in zip(word.tolist(), size.tolist(), strict=True):
            if axis == 0:
                end = min(plane + count, bit_width)
                flips[first] |= np.uint32((1 << end) - (1 << plane))
            else:
                # a cluster ends with its block, so that blocks are drawn without looking at their neighbours
                end = min(first + count, (first // BLOCK + 1) * BLOCK, stored.size)
                flips[first:end] |= np.uint32(1 << plane)
    return stored ^ flips


def mask_flips(mask: int, bit_width: int) -> tuple[int, int]:
    """What a mask process does to a word that is hit: the bits that flip where they hold 0, and where they hold 1."""
    full = (1 << bit_width) - 1
    if mask < TO_CODE:
        return mask & full, mask & full
    # of a word that becomes a code every bit flips that is another there
    return mask & full, ~mask & full


def _mask(stored: Codes, body: list[int], draw: _Draw, bit_width: int) -> Codes:
    zeros, ones = mask_flips(body.pop(0), bit_width)
    word, _ = plane_hits(*draw, WORD_PLANE, _take_table(body))
    hit = stored[word]
    flips = (~hit & np.uint32(zeros)) | (hit & np.uint32(ones))
    codes = stored.copy()
    codes[word] = hit ^ flips
    return codes


def _random(stored: Codes, body: list[int], draw: _Draw, bit_width: int) -> Codes:
    word, v = plane_hits(*draw, WORD_PLANE, _take_table(body))
    # a step of 1 to 2^b - 1 round the codes leads to another one, to each with the same probability
    others = np.uint64((1 << bit_width) - 1)
    step = np.uint64(1) + ((v.astype(np.uint64) * others) >> _SHIFT)
    codes = stored.copy()
    # NumPy assigns in order, so the last hit on a word stands
    codes[word] = ((stored[word].astype(np.uint64) + step) & others).astype(np.uint32)
    return codes


def _late(stored: Codes, faultless: Codes, body: list[int], draw: _Draw) -> Codes:
    mask = np.uint32(body.pop(0))
    columns, rows, channels, inner = body[:4]
    del body[:4]
    word, _ = plane_hits(*draw, WORD_PLANE, _take_table(body))
    # a late bit still has what the element produced before, without faults; before its first word it holds 0
    before = previous_words(word, columns, rows, channels, inner)
    earlier = faultless[np.maximum(before, 0)]
    kept = np.where(before < 0, 0, earlier).astype(np.uint32)
    codes = stored.copy()
    codes[word] = (kept & mask) | (stored[word] & ~mask)
    return codes


def previous_words(word: NDArray[np.int64], columns: int, rows: int, channels: int, inner: int) -> NDArray[np.int64]:
    """The words that the same processing elements produced before these, -1 for the first of one.

    A sample has `channels` channels, `inner` words from one to the next; element (position mod rows, channel mod
    columns) produces for each of its positions, in order, its channels in order.
    """
    channel = word // inner % channels
    position = word // (inner * channels) * inner + word % inner
    # before the element's first channel of a position came its last one of the position before
    earlier_position = position - rows
    last = channel + (channels - 1 - channel) // columns * columns
    outer, rest = np.divmod(earlier_position, inner)
    earlier = outer * inner * channels + last * inner + rest
    first_of_position = np.where(earlier_position < 0, -1, earlier)
    return np.where(channel >= columns, word - columns * inner, first_of_position)
