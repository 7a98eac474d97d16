"""Blocks with many hits: all words of a block in registers, WIDE at a time, and what few hits share with them."""

import triton
import triton.language as tl

from hwfault.stream.cuda.code import code_mask, hold_numbers, read_codes, values_to_write
from hwfault.stream.cuda.draw import (
    ACCEPT_ALL,
    BIT,
    CLUSTER,
    LATE,
    PLANES,
    RANDOM,
    another_code,
    cluster_sizes,
    count_hits,
    draw_hits,
    previous_word,
    read_process,
    read_tables,
)

TO_CODE = tl.constexpr(1 << 33)
"""A mask of this and more makes words the code that it is more."""


@triton.jit
def late_flips(code, stored, word, mask, program, body, grid, form, NUMBER: tl.constexpr):
    """Where codes differ from those that the same processing elements produced before."""
    columns = tl.load(program + body + 1)
    rows = tl.load(program + body + 2)
    channels = tl.load(program + body + 3)
    inner = tl.load(program + body + 4)
    before = previous_word(word, columns, rows, channels, inner)
    there = mask & (before >= 0)
    late = read_codes(stored, tl.maximum(before, 0), there, grid, form, NUMBER)
    return tl.where(there, late, 0) ^ code


@triton.jit
def _struck_words(program, table_at, kind, aux, at, here, code, flip, WIDE: tl.constexpr):
    """Which of the words hits at the places `at` strike, if a process of bits takes them by what the words hold."""
    # how many hits fall on each word, of those that count for a stored 0 and of those that count for a stored 1
    position = tl.where(here, at, 0)
    accepted = here
    if kind == BIT:
        accept01 = tl.load(program + table_at - 3).to(tl.uint32)
        accepted = here & (aux < accept01)
    zeros = tl.histogram(position, WIDE, mask=accepted)
    ones = zeros
    if kind == BIT:
        accept10 = tl.load(program + table_at - 2).to(tl.uint32)
        accepted = here & (aux + accept10 >= ACCEPT_ALL)
        ones = tl.histogram(position, WIDE, mask=accepted)
    holds_one = (code & flip) != 0
    return tl.where((kind == BIT) & holds_one, ones, zeros) > 0


@triton.jit
def _wide_flips(program, body, kind, site, code, start, limit, bit_width, key, WIDE: tl.constexpr):
    """The bits that a process other than random flips in words `start` to `start + WIDE - 1` of a block."""
    lane = tl.arange(0, PLANES)
    first, table = read_tables(program, body, kind, bit_width)
    count = count_hits(program, first, table, kind, site, key)
    flips = tl.zeros([WIDE], tl.uint32)
    for plane in range(tl.where(kind <= CLUSTER, bit_width, 1)):
        # a number that one lane holds is read by a sum of which all other lanes are 0
        hits = tl.sum(tl.where(lane == plane, count, 0), 0)
        table_at = tl.sum(tl.where(lane == plane, first, 0), 0)
        every = tl.sum(tl.where((lane == plane) & (table < 0), 1, 0), 0) > 0
        for done in range(0, hits, PLANES):
            # some hits of a plane, and how many cells each strikes
            position, aux = draw_hits(done + lane, plane, every, kind, site, key)
            inside = (done + lane < hits) & (position < limit)
            position -= start
            size = tl.full([PLANES], 1, tl.int32)
            along_words = kind < 0  # false, as a tensor: Triton's branches must agree on types
            if kind == CLUSTER:
                size = cluster_sizes(program, body, aux)
                along_words = tl.load(program + body) != 0
                room = tl.where(along_words, limit - start - position, bit_width - plane)
                size = tl.minimum(size, room)
            size = tl.where(inside, size, 0)
            # the first cells of all, then the second ones
            step = 0
            steps = tl.max(size, 0)
            while step < steps:
                at = position + tl.where(along_words, step, 0)
                here = (step < size) & (at >= 0) & (at < WIDE)
                flip = tl.full([WIDE], 1, tl.uint32) << tl.where(along_words, plane, plane + step).to(tl.uint32)
                if kind > CLUSTER:
                    mask = tl.load(program + body)
                    flip = tl.where(mask >= TO_CODE, mask.to(tl.uint32) ^ code, mask.to(tl.uint32))
                struck = _struck_words(program, table_at, kind, aux, at, here, code, flip, WIDE)
                flips |= tl.where(struck, flip, 0)
                step += 1
    return flips


@triton.jit
def _wide_random(program, body, kind, site, code, start, bit_width, key, WIDE: tl.constexpr):
    """The codes of words `start` to `start + WIDE - 1` after a random process, whose hits are taken one by one."""
    lane = tl.arange(0, PLANES)
    first, table = read_tables(program, body, kind, bit_width)
    hits = tl.sum(count_hits(program, first, table, kind, site, key), 0)
    every = tl.min(table, 0) < 0
    word = start + tl.arange(0, WIDE)
    v = tl.zeros([WIDE], tl.uint32)
    struck = word < 0  # none
    for done in range(0, hits, PLANES):
        positions, auxes = draw_hits(done + lane, 0, every, kind, site, key)
        for i in range(tl.minimum(hits - done, PLANES)):
            # of several hits on a word the last one stands
            position = tl.sum(tl.where(lane == i, positions, 0), 0)
            aux = tl.sum(tl.where(lane == i, auxes, 0), 0)
            here = word == position
            v = tl.where(here, aux, v)
            struck = struck | here
    return tl.where(struck, another_code(code, v, code_mask(bit_width)), code)


@triton.jit
def strike_many(
    out,
    stored,
    begin,
    limit,
    program,
    length,
    key,
    grid,
    form,
    ZERO: tl.constexpr,
    KNOWN: tl.constexpr,
    NUMBER: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Strikes all words of a block, WIDE at a time; `out` and `stored` point at the sample."""
    for start in range(0, limit, WIDE):
        inside = start + tl.arange(0, WIDE) < limit
        word = begin + start + tl.arange(0, WIDE)
        code = tl.zeros([WIDE], tl.uint32)
        if KNOWN:
            code = read_codes(stored, word, inside, grid, form, NUMBER)
        before = code
        at = 0
        while at < length:
            kind, site, body, after = read_process(program, at)
            if kind == RANDOM:
                code = _wide_random(program, body, kind, site, code, start, form[0], key, WIDE)
            else:
                flips = _wide_flips(program, body, kind, site, code, start, limit, form[0], key, WIDE)
                if KNOWN:
                    if kind == LATE:
                        hit = flips != 0
                        flips &= late_flips(code, stored, word, hit, program, body, grid, form, NUMBER)
                code = code ^ flips
            at = after
        if KNOWN:
            inside &= hold_numbers(stored, word, inside)
        values = values_to_write(code, word, grid, form, out.dtype.element_ty, ZERO, NUMBER)
        tl.store(out + word, values, mask=inside & (code != before))
