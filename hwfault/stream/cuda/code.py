"""Triton functions between values and codes (sections 1 and 6), equal to hwfault.codes to the bit.

bfloat16 values come and go as int16 bits: their rounding is done here, the same on every device. Divisions are IEEE's,
which `/` on float32 is not; nearest even is made of floor, which both the compiler and the interpreter have.
"""

import triton
import triton.language as tl

GRID_TENSORS = ["scale", "zero_point"]
"""Arguments of kernels that say how words stand for codes and lie in blocks; and those that are numbers."""
GRID_NUMBERS = [
    "n_scale",
    "scale_inner",
    "n_zero_point",
    "zero_point_inner",
    "blocks",
    "bit_width",
    "signed",
    "representation",
]

_KNOWN = tl.constexpr(float(1 << 62))
_OFFSET_BINARY, _SIGN_MAGNITUDE = tl.constexpr(1), tl.constexpr(2)


@triton.jit
def to_number(stored):
    """Stored values as the numbers that arithmetic is done in: float64 for float64, else float32."""
    if stored.dtype == tl.int16:
        # bfloat16 is the upper half of a float32
        upper = stored.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        number = upper.to(tl.float32, bitcast=True)
    elif stored.dtype == tl.float64:
        number = stored
    else:
        number = stored.to(tl.float32)
    return number


@triton.jit
def to_stored(number, like: tl.constexpr):
    """Numbers as stored values of the type `like`, rounded to the nearest even."""
    if like == tl.int16:
        bits = number.to(tl.uint32, bitcast=True)
        # a half and, for ties, the lowest bit that stays; of NaN a bit is set, which rounding up might clear
        nearest = bits + 0x7FFF + ((bits >> 16) & 1)
        rounded = tl.where(number != number, bits | 0x400000, nearest)
        stored = (rounded >> 16).to(tl.uint16).to(tl.int16, bitcast=True)
    else:
        stored = number.to(like)
    return stored


@triton.jit
def _pick(values, n, inner, word, number: tl.constexpr):
    """The scale or zero point of words: one value, or one for each `inner` words in turn."""
    if n == 1:
        at = tl.zeros(word.shape, tl.int32)
    else:
        at = (word // inner % n).to(tl.int32)
    return tl.load(values + at).to(number)


@triton.jit
def steps(word, grid, number: tl.constexpr):
    """The scale and the zero point of words of a sample.

    `grid` is (scale, how many, how many words share one, and the same three for the zero point).
    """
    scale, n_scale, scale_inner, zero_point, n_zero_point, zero_point_inner = grid
    scales = _pick(scale, n_scale, scale_inner, word, number)
    zeros = _pick(zero_point, n_zero_point, zero_point_inner, word, number)
    return scales, zeros


@triton.jit
def nearest_even(x):
    below = tl.floor(x)
    rest = x - below  # exact
    half = below * 0.5
    below_is_odd = half != tl.floor(half)
    up = (rest > 0.5) | ((rest == 0.5) & below_is_odd)
    return below + tl.where(up, 1.0, 0.0)


@triton.jit
def code_mask(bit_width):
    """The code word with all bits set."""
    return tl.full([], 0xFFFFFFFF, tl.uint32) >> (32 - bit_width).to(tl.uint32)


@triton.jit
def _top(bit_width, signed):
    """The highest bit of a code word if it is one of two's complement, else 0; of one bit alone there is no sign."""
    has_sign = (signed != 0) & (bit_width > 1)
    return tl.where(has_sign, 1, 0).to(tl.uint32) << (bit_width - 1).to(tl.uint32)


@triton.jit
def encode(number, scale, zero_point, form, half: tl.constexpr):
    """Codes (uint32) of numbers; what is not finite, or 2^62 and more, has code 0.

    `form` is (bit width, signed, representation). Integers of a 16 bit type (`half`) beyond the word's range, to which
    it rounded, are the range's ends.
    """
    bit_width, signed, representation = form
    if number.dtype == tl.float32:
        rounded = nearest_even(tl.div_rn(number, scale) + zero_point)
    else:
        rounded = nearest_even(number / scale + zero_point)
    q = tl.where(tl.abs(rounded) < _KNOWN, rounded, 0.0).to(tl.int64)
    bipolar = (signed != 0) & (bit_width == 1)  # -1 and 1 as 0 and 1
    if half:
        bits = tl.full([], 1, tl.int64) << bit_width
        low = tl.where(signed != 0, 0 - (bits >> 1), 0)
        high = tl.where(bipolar, 1, bits + low - 1)
        q = tl.minimum(tl.maximum(q, low), high)
    # two's complement, and then as the memory represents it
    mask = code_mask(bit_width)
    top = _top(bit_width, signed)
    code = q.to(tl.uint32) & mask
    negative = (code & top) != 0
    magnitude = tl.where(code == top, mask, ((0 - code) & mask) | top)  # the lowest integer has none: the next one's
    code = tl.where((representation == _SIGN_MAGNITUDE) & negative, magnitude, code)
    code = tl.where(representation == _OFFSET_BINARY, code ^ top, code)
    return tl.where(bipolar, (q > 0).to(tl.uint32), code)


@triton.jit
def decode(code, scale, zero_point, form):
    """Numbers of codes: one subtraction and one multiplication."""
    bit_width, signed, representation = form
    mask = code_mask(bit_width)
    top = _top(bit_width, signed)
    twos = tl.where(representation == _OFFSET_BINARY, code ^ top, code)
    negative = (representation == _SIGN_MAGNITUDE) & ((code & top) != 0)
    twos = tl.where(negative, (0 - (code ^ top)) & mask, twos)
    q = twos.to(tl.int64) - ((twos & top).to(tl.int64) << 1)  # the highest bit counts negative
    bipolar = (signed != 0) & (bit_width == 1)
    q = tl.where(bipolar, 2 * q - 1, q)
    return (q.to(scale.dtype) - zero_point) * scale


@triton.jit
def read_codes(stored, word, mask, grid, form, number: tl.constexpr):
    """The codes of words of a sample whose first value `stored` points at."""
    scale, zero_point = steps(word, grid, number)
    values = tl.load(stored + word, mask=mask, other=0)
    half: tl.constexpr = (values.dtype == tl.int16) or (values.dtype == tl.float16)
    return encode(to_number(values), scale, zero_point, form, half)


@triton.jit
def hold_numbers(stored, word, mask):
    """Which words of a sample hold a number: what is not finite is never struck."""
    number = to_number(tl.load(stored + word, mask=mask, other=0))
    return tl.abs(number) < float("inf")  # false for NaN, too


@triton.jit
def values_to_write(code, word, grid, form, like: tl.constexpr, zero: tl.constexpr, number: tl.constexpr):
    """What is written for codes that changed: their values of the type `like`, or zeros."""
    if zero:
        values = tl.zeros(code.shape, like)
    else:
        scale, zero_point = steps(word, grid, number)
        values = to_stored(decode(code, scale, zero_point, form), like)
    return values
