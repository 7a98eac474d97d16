"""The Triton kernels of the fake quantizer that strike its values in the same pass, forward and backward.

One program for a block of one sample, as in hwfault.stream.cuda.strike: it writes the block's values, and then strikes
them where they lie, while they are still in the caches; backward it writes the gradient with zeros at faulty words, and
then derives it. Values lie in rows of words of a sample that share a scale, and no program has late bits.
"""

import triton
import triton.language as tl

from hwfault.stream.cuda.code import GRID_NUMBERS, GRID_TENSORS, steps
from hwfault.stream.cuda.draw import BLOCK, block_of, key_of
from hwfault.stream.cuda.quantize import derived, quantized
from hwfault.stream.cuda.strike import collect, strike_block

# what may differ from site to site, for which nothing is to be compiled anew
_NUMBERS = ["program_length", *GRID_NUMBERS]
_TENSORS = ["samples", "seed", "program", "least", "most", *GRID_TENSORS]


@triton.jit(do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=_TENSORS)
def quantize_struck_kernel(
    x,
    out,
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
    least,
    most,
    words,
    blocks,
    bit_width,
    signed,
    representation,
    RECTIFIES: tl.constexpr,
    NUMBER: tl.constexpr,
    LANES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out = x quantized, with faults at the words whose codes change."""
    element, index, origin, begin, limit = block_of(words, blocks)
    word = begin + tl.arange(0, BLOCK)
    values = tl.load(x + origin + word, mask=word < words, other=0.0)
    key = key_of(seed, tl.load(samples + element), index)
    cells = collect(program, program_length, bit_width, limit, key, LANES)
    grid = (scale, n_scale, scale_inner, zero_point, n_zero_point, zero_point_inner)
    form = (bit_width, signed, representation)
    s, z = steps(word, grid, NUMBER)
    values = quantized(values, s, z, tl.load(least), tl.load(most), RECTIFIES)
    to = out + origin
    tl.store(to + word, values, mask=word < words)
    strike_block(
        to, to, begin, limit, cells, program, program_length, key, grid, form, False, True, NUMBER, LANES, WIDE
    )


@triton.jit
def add_up_rows(sums, terms, begin, limit, index, length, parts):
    """Stores what the words of a block add to each of the rows that they lie in; `sums` points at the sample's rows.

    A row has `parts` sums, one for each block that it may lie in.
    """
    word = begin + tl.arange(0, BLOCK)
    row = begin // length
    while row * length < begin + limit:
        own = (word >= row * length) & (word < (row + 1) * length) & (word < begin + limit)
        part = index - row * length // BLOCK
        tl.store(sums + row * parts + part, tl.sum(tl.where(own, terms, 0.0), 0))
        row += 1


@triton.jit(do_not_specialize=[*_NUMBERS, "length", "parts"], do_not_specialize_on_alignment=[*_TENSORS, "sums"])
def differentiate_struck_kernel(
    x,
    gradient,
    x_gradient,
    sums,
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
    least,
    most,
    words,
    blocks,
    length,
    parts,
    bit_width,
    signed,
    representation,
    PASSES: tl.constexpr,
    RECTIFIES: tl.constexpr,
    WANTS_SCALE: tl.constexpr,
    NUMBER: tl.constexpr,
    LANES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradient of values of which none passes at faulty words, and the sums of the terms of its scales'."""
    element, index, origin, begin, limit = block_of(words, blocks)
    word = begin + tl.arange(0, BLOCK)
    inside = word < words
    given = tl.load(gradient + origin + word, mask=inside, other=0.0)
    key = key_of(seed, tl.load(samples + element), index)
    cells = collect(program, program_length, bit_width, limit, key, LANES)
    grid = (scale, n_scale, scale_inner, zero_point, n_zero_point, zero_point_inner)
    form = (bit_width, signed, representation)
    to = x_gradient + origin
    tl.store(to + word, given, mask=inside)
    strike_block(
        to, to, begin, limit, cells, program, program_length, key, grid, form, True, False, NUMBER, LANES, WIDE
    )

    tl.debug_barrier()  # the zeros are written before the gradient is read again
    given = tl.load(to + word, mask=inside, other=0.0)
    values = tl.load(x + origin + word, mask=inside, other=0.0)
    s, z = steps(word, grid, NUMBER)
    dx, terms = derived(values, given, s, z, tl.load(least), tl.load(most), PASSES, RECTIFIES)
    tl.store(to + word, dx, mask=inside)
    if WANTS_SCALE:
        rows = words // length
        add_up_rows(sums + element.to(tl.int64) * rows * parts, terms, begin, limit, index, length, parts)
