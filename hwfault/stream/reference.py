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
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
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
    every, per_hit = table[0] < 0, 2 if plane == WORD_PLANE else 1
    if every:
        count = np.full(blocks.size, BLOCK)
    else:
        count = np.searchsorted(table[1:], count_word(seed, site, sample, blocks, plane), side="right")
    blocks, count = blocks[count > 0], count[count > 0]
    most = int(count.max(initial=0))
    r = stream_words(seed, site, sample, blocks, plane, most * per_hit)
    first = r[:, ::per_hit]
    at = np.broadcast_to(np.arange(most), first.shape) if every else first & np.uint32(BLOCK - 1)
    aux = r[:, 1::2] if plane == WORD_PLANE else r >> np.uint32(10)
    hit = np.arange(most) < count[:, np.newaxis]
    return (blocks[:, np.newaxis] * BLOCK + at)[hit], aux[hit]


def plane_hits(seed: int, site: int, sample: int, words: int, plane: int, table: Table) -> Hits:
    """Word positions and aux of the hits of one plane of a sample of `words` words, in stream order."""
    position, aux = [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
    blocks = -(-words // BLOCK) if table[0] else 0
    for first in range(0, blocks, _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, blocks))
        at, extra = _hits_of_blocks(seed, site, sample, some, plane, table)
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
        accepted = np.where(one, aux >= ACCEPT_ALL - accept10, aux < accept01)
        flips[word[accepted]] |= np.uint32(1 << plane)
    return stored ^ flips


def _cluster(stored: Codes, body: list[int], draw: _Draw, bit_width: int) -> Codes:
    flips = np.zeros_like(stored)
    axis, k = body.pop(0), body.pop(0)
    sizes = np.array(body[:k], dtype=np.int64)
    del body[:k]
    for plane in range(bit_width):
        word, aux = plane_hits(*draw, plane, _take_table(body))
        size = 1 + np.searchsorted(sizes, aux, side="right")
        for first, count in zip(word.tolist(), size.tolist(), strict=True):
            if axis == 0:
                bits = range(plane, min(plane + count, bit_width))
                flips[first] |= np.uint32(sum(1 << b for b in bits))
            else:
                end = min(first + count, (first // BLOCK + 1) * BLOCK, stored.size)
                flips[first:end] |= np.uint32(1 << plane)
    return stored ^ flips


def mask_flips(mask: int, bit_width: int) -> tuple[int, int]:
    """What a mask process does to a word that is hit: the bits that flip where they hold 0, and where they hold 1."""
    full = (1 << bit_width) - 1
    # of a word that becomes a code every bit flips that is another there
    return mask & full, (~mask if mask >= TO_CODE else mask) & full


def _mask(stored: Codes, body: list[int], draw: _Draw, bit_width: int) -> Codes:
    zeros, ones = mask_flips(body.pop(0), bit_width)
    word, _ = plane_hits(*draw, WORD_PLANE, _take_table(body))
    hit, codes = stored[word], stored.copy()
    codes[word] = hit ^ ((~hit & np.uint32(zeros)) | (hit & np.uint32(ones)))
    return codes


def _random(stored: Codes, body: list[int], draw: _Draw, bit_width: int) -> Codes:
    word, v = plane_hits(*draw, WORD_PLANE, _take_table(body))
    others = np.uint64((1 << bit_width) - 1)
    step = np.uint64(1) + ((v.astype(np.uint64) * others) >> _SHIFT)
    codes = stored.copy()
    # NumPy assigns in order, so the last hit on a word stands
    codes[word] = ((stored[word].astype(np.uint64) + step) & others).astype(np.uint32)
    return codes


def _late(stored: Codes, faultless: Codes, body: list[int], draw: _Draw) -> Codes:
    mask, (columns, rows, channels, inner) = np.uint32(body.pop(0)), body[:4]
    del body[:4]
    word, _ = plane_hits(*draw, WORD_PLANE, _take_table(body))
    before = previous_words(word, columns, rows, channels, inner)
    kept = np.where(before < 0, 0, faultless[np.maximum(before, 0)]).astype(np.uint32)
    codes = stored.copy()
    codes[word] = (kept & mask) | (stored[word] & ~mask)
    return codes


def previous_words(word: NDArray[np.int64], columns: int, rows: int, channels: int, inner: int) -> NDArray[np.int64]:
    """The words that the same processing elements produced before these, -1 for the first of one.

    A sample has `channels` channels, `inner` words from one to the next; element (position mod rows, channel mod
    columns) produces for each of its positions, in order, its channels in order.
    """
    channel = word // inner % channels
    position = word // (inner * channels) * inner + word % inner - rows
    last = channel + (channels - 1 - channel) // columns * columns
    earlier = position // inner * inner * channels + last * inner + position % inner
    first = np.where(position < 0, -1, earlier)
    return np.where(channel >= columns, word - columns * inner, first)
