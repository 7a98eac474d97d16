"""The Triton kernel of fault maps, permanent and intermittent, forward and backward.

One program for a block of one sample copies the block's 1024 words, finds the block's rows by a search of the whole
map that looks at LANES rows at once, and then takes LANES rows at a time: gather, modify, scatter. A map has one row
a word, so no two lanes meet.
"""

import triton
import triton.language as tl

from hwfault.stream.cuda.code import GRID_NUMBERS, GRID_TENSORS, hold_numbers, read_codes, values_to_write
from hwfault.stream.cuda.draw import BLOCK, active, block_of

SAMPLED_WORDS = tl.constexpr(1 << 31)
"""By this many words the rows of single samples grow from one sample to the next."""


@triton.jit
def first_row(row_word, rows, word, LANES: tl.constexpr):
    """How many of the ascending words of a map's rows lie below `word`."""
    low = tl.zeros([], tl.int32)
    high = tl.zeros([], tl.int32) + rows
    while low < high:  # the number lies in low .. high
        stride = (high - low + LANES - 1) // LANES
        probe = low + (tl.arange(0, LANES) + 1) * stride - 1
        below = tl.load(row_word + probe, mask=probe < high, other=word) < word
        low += tl.sum(below.to(tl.int32), 0) * stride
        high = tl.minimum(high, low + stride - 1)
        low = tl.minimum(low, high)
    return low


@triton.jit
def active_masks(and_mask, xor_mask, word, mask, threshold, site, seed, period, bit_width):
    """The masks of rows as far as their cells are active in a period: an inactive cell works."""
    faulty = tl.where(mask, (and_mask ^ 0xFFFFFFFF) | xor_mask, 0)
    for bit in range(bit_width):
        cell = tl.full([], 1, tl.uint32) << bit
        here = (faulty & cell) != 0
        if tl.max(here.to(tl.int32), 0) > 0:  # most bits of most rows are healthy, and a draw is dear
            drawn = active(word, bit, site, seed, period).to(tl.int64)
            works = here & (drawn >= threshold)
            and_mask = tl.where(works, and_mask | cell, and_mask)
            xor_mask = tl.where(works, (xor_mask | cell) ^ cell, xor_mask)
    return and_mask, xor_mask


@triton.jit
def strike_rows(
    out,
    stored,
    word,
    at,
    here,
    masks,
    activity,
    grid,
    form,
    ZERO: tl.constexpr,
    KNOWN: tl.constexpr,
    DRAWN: tl.constexpr,
    NUMBER: tl.constexpr,
):
    """Strikes words of a sample by the rows `at` of a map; `out` and `stored` point at the sample.

    `masks` points at both masks of all rows. `activity` is (threshold, site, seed, period), the last a pointer, of rows
    that are DRAWN to be active.
    """
    kept = tl.load(masks[0] + at, mask=here, other=-1).to(tl.uint32, bitcast=True)
    flipped = tl.load(masks[1] + at, mask=here, other=0).to(tl.uint32, bitcast=True)
    if DRAWN:
        threshold, site, seed, period = activity
        kept, flipped = active_masks(kept, flipped, word, here, threshold, site, seed, tl.load(period), form[0])
    before = tl.zeros(word.shape, tl.uint32)
    if KNOWN:
        before = read_codes(stored, word, here, grid, form, NUMBER)
        here &= hold_numbers(stored, word, here)
    code = (before & kept) ^ flipped
    values = values_to_write(code, word, grid, form, out.dtype.element_ty, ZERO, NUMBER)
    tl.store(out + word, values, mask=here & (code != before))


# what may differ from site to site, for which nothing is to be compiled anew
_NUMBERS = ["rows", "threshold", "site", *GRID_NUMBERS]
_TENSORS = ["period", "seed", "word", "and_mask", "xor_mask", *GRID_TENSORS]


@triton.jit(do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=_TENSORS)
def map_kernel(
    source,
    out,
    stored,
    period,
    seed,
    word,
    and_mask,
    xor_mask,
    rows,
    threshold,
    site,
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
    DRAWN: tl.constexpr,
    SAMPLED: tl.constexpr,
    NUMBER: tl.constexpr,
    LANES: tl.constexpr,
):
    """out = source with a map's faults: decoded codes, or zeros (ZERO), at the words whose codes change.

    The codes before are those of `stored`, or 0 if it is not KNOWN. Rows are active in the periods that are DRAWN for
    them, else in all, or each in its own alone if SAMPLED.
    """
    # the block is copied while its rows are searched
    element, _, origin, begin, limit = block_of(words, blocks)
    at = begin + tl.arange(0, BLOCK)
    copied = tl.load(source + origin + at, mask=at < words)
    first = tl.zeros([], tl.int64)  # what the rows of this sample have for its word 0
    if SAMPLED:
        first += (tl.load(period + element) & 0xFFFFFFFF) * SAMPLED_WORDS
    row = first_row(word, rows, first + begin, LANES)
    end = first + begin + limit
    tl.store(out + origin + at, copied, mask=at < words)

    grid = (scale, n_scale, scale_inner, zero_point, n_zero_point, zero_point_inner)
    form = (bit_width, signed, representation)
    masks = (and_mask, xor_mask)
    activity = (threshold, site, seed, period + element)
    to, was = out + origin, stored + origin
    lane = tl.arange(0, LANES)
    struck = tl.load(word + row + lane, mask=row + lane < rows, other=end)
    left = tl.sum((struck < end).to(tl.int32), 0)
    if left > 0:
        tl.debug_barrier()  # the copy is written before the words that are struck
    while left > 0:
        here = struck < end
        strike_rows(to, was, struck - first, row + lane, here, masks, activity, grid, form, ZERO, KNOWN, DRAWN, NUMBER)
        row += LANES
        struck = tl.load(word + row + lane, mask=row + lane < rows, other=end)
        left = tl.sum((struck < end).to(tl.int32), 0)
