"""The Triton kernel of transient faults, forward and backward: one program for a block of one sample.

A program copies its block's 1024 words and then strikes them, in one of two ways.

**Few hits** (up to LANES cells in all processes together): a lane holds a hit. The lanes of all hits of one word work
out that word's codes side by side: each reads the word's value, and after each process takes the OR of what this
process' hits on the word flip, found by comparing every lane with every other. So they agree, all write the same
value, and neither atomics nor memory of their own are asked for. Its cost does not depend on how the hits spread over
planes and processes, and it touches only words that are hit.

**Many hits** (rarely, or at high rates): the program goes through all of the block's words, WIDE at a time, whose
codes it keeps in registers. The hits of one plane become flips of the words by a histogram of their positions. Only
random word faults, of which the last on a word stands, are taken one by one.

Both are dataflow between registers: no result depends on which lane comes first. A lane a hit, not a lane a word,
because at a rate of 1e-3 and 4 bits a block has 4 hits: to compare each word with each hit, and to divide each by its
scale, is more work than its share of a copy leaves time for. One warp a program, because a step on 32 lanes costs
every warp the same.

Everything that differs from step to step (seed, sample numbers) and the fault program itself are data in device
memory, and the grid follows from shapes alone; so nothing is compiled anew and nothing waits for the host.
"""

import triton
import triton.language as tl

from hwfault.stream.cuda.code import GRID_NUMBERS, GRID_TENSORS, code_mask, hold_numbers, read_codes, values_to_write
from hwfault.stream.cuda.draw import (
    ACCEPT_ALL,
    BIT,
    BLOCK,
    CLUSTER,
    LATE,
    PLANES,
    RANDOM,
    another_code,
    block_of,
    cluster_sizes,
    count_hits,
    draw_hits,
    key_of,
    read_process,
    read_tables,
)
from hwfault.stream.cuda.strike_many import TO_CODE, late_flips, strike_many


@triton.jit
def either(a, b):
    """What a reduction by OR combines."""
    return a | b


@triton.jit
def _flips(program, body, first, kind, along_words, plane, aux, size, bit_width):
    """The bits that hits flip in a word where they are 0, and those that they flip where they are 1."""
    bit = tl.full(aux.shape, 1, tl.uint32) << plane.to(tl.uint32)
    if kind == BIT:
        accept01 = tl.load(program + first - 3).to(tl.uint32)
        accept10 = tl.load(program + first - 2).to(tl.uint32)
        zeros = tl.where(aux < accept01, bit, 0)
        ones = tl.where(aux + accept10 >= ACCEPT_ALL, bit, 0)
    elif kind == CLUSTER:
        bits = tl.minimum(size, bit_width - plane)
        run = (tl.full(aux.shape, 0xFFFFFFFF, tl.uint32) >> (32 - bits).to(tl.uint32)) << plane.to(tl.uint32)
        zeros = tl.where(along_words, bit, run)
        ones = zeros
    else:  # a random fault's v comes in place of its bits; of a word that becomes a code those flip that are others
        mask = tl.load(program + body)
        zeros = tl.where(kind == RANDOM, aux, mask.to(tl.uint32))
        ones = tl.where(kind == RANDOM, aux, tl.where(mask >= TO_CODE, ~mask, mask).to(tl.uint32))
    return zeros, ones


@triton.jit
def _hit_of_lane(count, lane):
    """Which plane's hit a lane holds, and its number there, where the hits of all planes take a lane each in turn."""
    behind = tl.cumsum(count, 0)
    # a lane's plane is the number of planes whose hits all lie in lanes before it
    passed = tl.sum((behind[:, None] <= lane[None, :]).to(tl.int32), 0)
    plane = tl.minimum(passed, PLANES - 1)
    first = tl.gather(behind - count, plane, 0)
    return plane, tl.maximum(lane - first, 0)


@triton.jit
def _of_last(flips, position, ours, lane):
    """What the last hit on the same word flips, which is what stands."""
    same = (position[:, None] == position[None, :]) & ours[:, None]
    last = tl.max(tl.where(same, lane[:, None], 0), 0)
    return tl.gather(flips, last, 0)


@triton.jit
def _cells_along_words(flips, position, size, ours, limit, lane):
    """A lane for each cell where hits had one: what it flips, its position, and how many cells there are."""
    # clusters end with the block, and its words at the latest
    room = tl.maximum(limit - position, 0)
    size = tl.where(ours, tl.minimum(size, room), 0)
    # lane j holds cell `step` of the one hit in whose run of lanes it lies, which the sums below pick
    ends = tl.cumsum(size, 0)
    step = lane[None, :] - (ends - size)[:, None]
    struck = (step >= 0) & (step < size[:, None])
    position = tl.sum(tl.where(struck, position[:, None] + step, 0), 0)
    flips = tl.sum(tl.where(struck, flips[:, None], 0), 0)
    return flips, position, tl.sum(size, 0)


@triton.jit
def _cells_of_process(
    program, body, kind, site, first, table, count, bit_width, limit, key, begin, LANES: tl.constexpr
):
    """The cells that a process hits in a block, in the lanes from `begin` on: their positions, flips and number."""
    lane = tl.arange(0, LANES)
    hits = tl.sum(count, 0)
    own = lane - begin
    ours = (own >= 0) & (own < hits)
    # a lane draws its hit
    plane, hit = _hit_of_lane(count, own)
    every = tl.gather(table, plane, 0) < 0
    position, aux = draw_hits(hit, plane, every, kind, site, key)
    size = tl.full(lane.shape, 1, tl.int32)
    along_words = kind < 0  # false, as a tensor: Triton's branches must agree on types
    if kind == CLUSTER:
        size = cluster_sizes(program, body, aux)
        along_words = tl.load(program + body) != 0
    table_at = tl.gather(first, plane, 0)
    zeros, ones = _flips(program, body, table_at, kind, along_words, plane, aux, size, bit_width)
    # what several hits come to, and one hit on several words
    if kind == RANDOM:
        zeros = _of_last(zeros, position, ours, lane)
    if along_words:
        zeros, position, hits = _cells_along_words(zeros, position, size, ours, limit, own)
        ones = zeros
    return position, zeros, ones, hits


@triton.jit
def collect(program, length, bit_width, limit, key, LANES: tl.constexpr):
    """The cells that all processes hit in a block, one a lane, and how many there are (more than LANES: too many).

    For each its process, its position, and the bits that it flips where they are 0 and where they are 1.
    """
    lane = tl.arange(0, LANES)
    owner = tl.full([LANES], -1, tl.int32)
    position = tl.zeros([LANES], tl.int32)
    zeros = tl.zeros([LANES], tl.uint32)
    ones = tl.zeros([LANES], tl.uint32)
    cells = 0
    process = 0
    at = 0
    while at < length:
        kind, site, body, after = read_process(program, at)
        first, table = read_tables(program, body, kind, bit_width)
        count = count_hits(program, first, table, kind, site, key)
        hits = tl.sum(count, 0)
        if (hits > 0) & (cells + hits <= LANES):
            drawn, flips0, flips1, hits = _cells_of_process(
                program, body, kind, site, first, table, count, bit_width, limit, key, cells, LANES
            )
            ours = (lane >= cells) & (lane < cells + hits)
            owner = tl.where(ours, process, owner)
            position = tl.where(ours, drawn, position)
            zeros = tl.where(ours, flips0, zeros)
            ones = tl.where(ours, flips1, ones)
        cells += hits
        process += 1
        at = after
    return owner, position, zeros, ones, cells


@triton.jit
def _strike_few(
    out,
    stored,
    begin,
    limit,
    cells,
    program,
    length,
    grid,
    form,
    ZERO: tl.constexpr,
    KNOWN: tl.constexpr,
    NUMBER: tl.constexpr,
    LANES: tl.constexpr,
):
    """Strikes the words of a block that the cells of `collect` belong to; `out`, `stored` point at the sample."""
    owner, position, zeros, ones, n = cells
    inside = (tl.arange(0, LANES) < n) & (position < limit)
    word = begin + position
    code = tl.zeros([LANES], tl.uint32)
    if KNOWN:
        code = read_codes(stored, word, inside, grid, form, NUMBER)
    before = code
    same = position[:, None] == position[None, :]
    process = 0
    at = 0
    while at < length:
        kind, _, body, after = read_process(program, at)
        mine = inside & (owner == process)
        flips = zeros ^ ((zeros ^ ones) & code)  # the bits of `ones` where the code has ones, else those of `zeros`
        if kind == RANDOM:
            flips = another_code(code, zeros, code_mask(form[0])) ^ code
        if KNOWN:
            if kind == LATE:
                flips = zeros & late_flips(code, stored, word, mine, program, body, grid, form, NUMBER)
        # every lane of a word takes what all of the process' hits on it flip, so that its lanes agree
        flips = tl.where(mine, flips, 0)
        on_my_word = tl.where(same, flips[:, None], 0)
        code = code ^ tl.reduce(on_my_word, 0, either)
        process += 1
        at = after
    if KNOWN:
        inside &= hold_numbers(stored, word, inside)
    values = values_to_write(code, word, grid, form, out.dtype.element_ty, ZERO, NUMBER)
    tl.store(out + word, values, mask=inside & (code != before))


@triton.jit
def strike_block(
    out,
    stored,
    begin,
    limit,
    cells,
    program,
    length,
    key,
    grid,
    form,
    ZERO: tl.constexpr,
    KNOWN: tl.constexpr,
    NUMBER: tl.constexpr,
    LANES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Strikes the words of a block that was written to the sample `out`, by the way that the number of cells asks for.

    `stored`, the sample before, may be `out`, unless the program has late bits.
    """
    n = cells[4]
    if n > 0:
        tl.debug_barrier()  # the block is written before the words that are struck
    if (n > 0) & (n <= LANES):
        _strike_few(out, stored, begin, limit, cells, program, length, grid, form, ZERO, KNOWN, NUMBER, LANES)
    if n > LANES:
        strike_many(out, stored, begin, limit, program, length, key, grid, form, ZERO, KNOWN, NUMBER, WIDE)


# what may differ from site to site, for which nothing is to be compiled anew
_NUMBERS = ["program_length", *GRID_NUMBERS]
_TENSORS = ["samples", "seed", "program", *GRID_TENSORS]


@triton.jit(do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=_TENSORS)
def strike_kernel(
    source,
    out,
    stored,
    samples,
    seed,
    program,
    program_length,
    scale,
    n_scale,
    scale_inner,
    zero_point,
    n_zero_point,
    zero_point_inner,
    words,
    blocks,
    bit_width,
    signed,
    representation,
    ZERO: tl.constexpr,
    KNOWN: tl.constexpr,
    NUMBER: tl.constexpr,
    LANES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out = source with faults: decoded codes, or zeros (ZERO), at the words whose codes change.

    The codes before are those of `stored`, or 0 if it is not KNOWN.
    """
    element, index, origin, begin, limit = block_of(words, blocks)
    # hits are drawn between the load and the store of the copy, so that memory's latency is not waited for
    word = begin + tl.arange(0, BLOCK)
    copied = tl.load(source + origin + word, mask=word < words)
    key = key_of(seed, tl.load(samples + element), index)
    cells = collect(program, program_length, bit_width, limit, key, LANES)
    tl.store(out + origin + word, copied, mask=word < words)

    grid = (scale, n_scale, scale_inner, zero_point, n_zero_point, zero_point_inner)
    form = (bit_width, signed, representation)
    to, was = out + origin, stored + origin
    strike_block(
        to, was, begin, limit, cells, program, program_length, key, grid, form, ZERO, KNOWN, NUMBER, LANES, WIDE
    )
