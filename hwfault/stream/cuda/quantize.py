"""The Triton kernels of the fake quantizer, forward and backward: the steps of hwfault_quantize, each in float32.

Values lie as repeats * outer * shared * inner of them, with scale number o * inner + i. Where inner is 1, a program of
the backward kernel takes a piece of a row of values with one scale, and leaves the piece's sum; elsewhere it takes some
of the scales of a row, and walks down all rows.
"""

import triton
import triton.language as tl

from hwfault.stream.cuda.code import nearest_even


@triton.jit
def rounded(ratio, zero):
    """The nearest integer to ratio + zero, of which a zero keeps the sign."""
    exact = ratio + zero
    k = nearest_even(exact)
    return tl.where(k == 0, exact * 0.0, k)


@triton.jit
def clamped(k, least, most):
    k = tl.where(k > most, most, k)
    return tl.where(k < least, least, k)


@triton.jit
def rectified(x, RECTIFIES: tl.constexpr):
    """As torch's relu has it: what is no number stays none."""
    if RECTIFIES:
        x = tl.where(x < 0, 0.0, x)
    return x


@triton.jit
def quantized(x, s, z, least, most, RECTIFIES: tl.constexpr):
    """Values on their grid."""
    k = rounded(tl.div_rn(rectified(x, RECTIFIES), s), z)
    return (clamped(k, least, most) - z) * s


@triton.jit
def derived(x, g, s, z, least, most, PASSES: tl.constexpr, RECTIFIES: tl.constexpr):
    """The gradient of values, and the terms (float64) of that of their scales."""
    ratio = tl.div_rn(rectified(x, RECTIFIES), s)
    k = rounded(ratio, z)
    stop = ((k > most) | (k < least)) & (not PASSES)
    dx = tl.div_rn(tl.where(stop, 0.0, g * s), s)
    if RECTIFIES:
        dx = tl.where(x <= 0, 0.0, dx)
    through = tl.where(stop, 0.0, g).to(tl.float64)
    terms = g.to(tl.float64) * (clamped(k, least, most) - z).to(tl.float64) - through * ratio.to(tl.float64)
    return dx, terms


# what may differ from site to site, for which nothing is to be compiled anew
_NUMBERS = ["n", "outer", "shared", "inner"]
_TENSORS = ["x", "out", "scale", "zero_point", "least", "most"]


@triton.jit(do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=_TENSORS)
def quantize_kernel(
    x,
    out,
    scale,
    zero_point,
    least,
    most,
    n,
    outer,
    shared,
    inner,
    ONE: tl.constexpr,
    RECTIFIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = x quantized; ONE scale, or several, each with its zero point."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = at < n
    number = at * 0
    if not ONE:
        row = at // inner
        number = row // shared % outer * inner + (at - row * inner)
    s, z = tl.load(scale + number, mask=here, other=1.0), tl.load(zero_point + number, mask=here, other=0.0)
    values = tl.load(x + at, mask=here, other=0.0)
    tl.store(out + at, quantized(values, s, z, tl.load(least), tl.load(most), RECTIFIES), mask=here)


_NUMBERS_OF_ROWS = ["outer", "length", "per_row"]
_TENSORS_OF_ROWS = ["x", "gradient", "x_gradient", "sums", "scale", "zero_point", "least", "most"]


@triton.jit(do_not_specialize=_NUMBERS_OF_ROWS, do_not_specialize_on_alignment=_TENSORS_OF_ROWS)
def rows_kernel(
    x,
    gradient,
    x_gradient,
    sums,
    scale,
    zero_point,
    least,
    most,
    outer,
    length,
    per_row,
    PASSES: tl.constexpr,
    RECTIFIES: tl.constexpr,
    WANTS_X: tl.constexpr,
    WANTS_SCALE: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of a piece of a row with one scale, and the sum of the terms of its scale's."""
    piece = tl.program_id(0)
    row = piece // per_row
    begin = (piece - row * per_row).to(tl.int64) * PIECE
    number = row % outer
    s, z, low, high = tl.load(scale + number), tl.load(zero_point + number), tl.load(least), tl.load(most)
    origin = row.to(tl.int64) * length
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, PIECE, BLOCK):
        at = begin + first + tl.arange(0, BLOCK)
        here = at < length
        value = tl.load(x + origin + at, mask=here, other=0.0)
        g = tl.load(gradient + origin + at, mask=here, other=0.0)
        dx, terms = derived(value, g, s, z, low, high, PASSES, RECTIFIES)
        if WANTS_X:
            tl.store(x_gradient + origin + at, dx, mask=here)
        total += tl.where(here, terms, 0.0)
    if WANTS_SCALE:
        tl.store(sums + piece, tl.sum(total, 0))


_NUMBERS_OF_COLUMNS = ["repeats", "outer", "shared", "inner", "columns"]


@triton.jit(do_not_specialize=_NUMBERS_OF_COLUMNS, do_not_specialize_on_alignment=_TENSORS_OF_ROWS)
def columns_kernel(
    x,
    gradient,
    x_gradient,
    sums,
    scale,
    zero_point,
    least,
    most,
    repeats,
    outer,
    shared,
    inner,
    columns,
    PASSES: tl.constexpr,
    RECTIFIES: tl.constexpr,
    WANTS_X: tl.constexpr,
    WANTS_SCALE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradients of some scales of a row of scales, and of all values that have them."""
    column = tl.program_id(0)
    group = column // columns
    i = (column - group * columns) * BLOCK + tl.arange(0, BLOCK)
    here = i < inner
    number = group * inner + i
    s, z = tl.load(scale + number, mask=here, other=1.0), tl.load(zero_point + number, mask=here, other=0.0)
    low, high = tl.load(least), tl.load(most)
    total = tl.zeros([BLOCK], tl.float64)
    for repeat in range(repeats):
        for shared_by in range(shared):
            row = (repeat * outer + group) * shared + shared_by
            at = row.to(tl.int64) * inner + i
            value = tl.load(x + at, mask=here, other=0.0)
            g = tl.load(gradient + at, mask=here, other=0.0)
            dx, terms = derived(value, g, s, z, low, high, PASSES, RECTIFIES)
            if WANTS_X:
                tl.store(x_gradient + at, dx, mask=here)
            total += terms
    if WANTS_SCALE:
        tl.store(sums + number, total, mask=here)
