"""Code words <-> integers <-> values (fault-stream specification, sections 1 and 6), in NumPy."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[np.uint32]
Representation = Literal["twos_complement", "offset_binary", "sign_magnitude"]
REPRESENTATIONS: tuple[Representation, ...] = ("twos_complement", "offset_binary", "sign_magnitude")


# looked up, not shifted: torch 2.11 cannot compile a shift by a width that differs from site to site
_POWERS = tuple(1 << bits for bits in range(33))


@dataclass(frozen=True)
class CodeFormat:
    """How integers are stored: `bit_width` (1 to 32) bits, in the `representation` if `signed`, else plain binary.

    Signed with one bit is bipolar: code 0 is -1 and code 1 is +1.
    """

    bit_width: int
    signed: bool
    representation: Representation = "twos_complement"

    def __post_init__(self) -> None:
        if not 1 <= self.bit_width <= 32:
            raise ValueError(f"bit_width is {self.bit_width}, expected 1 to 32")

    @property
    def bipolar(self) -> bool:
        return self.signed and self.bit_width == 1

    @property
    def mask(self) -> int:
        """The code word with all bits set."""
        return _POWERS[self.bit_width] - 1

    @property
    def low(self) -> int:
        """The least integer."""
        return -_POWERS[self.bit_width - 1] if self.signed else 0

    @property
    def high(self) -> int:
        """The largest integer."""
        return 1 if self.bipolar else _POWERS[self.bit_width - int(self.signed)] - 1

    @property
    def top(self) -> int:
        """The sign bit; 0 if there is none."""
        return _POWERS[self.bit_width - 1] if self.signed and self.bit_width > 1 else 0


def encode(
    value: ArrayLike, scale: ArrayLike, zero_point: ArrayLike, fmt: CodeFormat, *, half: bool | None = None
) -> Codes:
    """Codes of dequantized values: rint(value / scale + zero_point), ties to even; both broadcast to the values.

    One division and one addition in the value's type, float32 unless it is float64; the zero point need not be an
    integer. What is not finite has code 0. `half` says that values come from a 16 bit type, which bfloat16's do not
    show (None: as their type says): what it rounded to beyond the range of the word is then the range's end, where
    other values wrap.
    """
    value = np.asarray(value)
    dtype = np.float64 if value.dtype == np.float64 else np.float32
    with np.errstate(all="ignore"):
        rounded = np.rint(value.astype(dtype) / np.asarray(scale, dtype) + np.asarray(zero_point, dtype))
        q = np.where(np.abs(rounded) < 2.0**62, rounded, 0).astype(np.int64)
    if value.dtype == np.float16 if half is None else half:
        q = np.clip(q, fmt.low, fmt.high)
    return represent(np.asarray(q > 0 if fmt.bipolar else q & fmt.mask, dtype=np.uint32), fmt)


def encode_integers(values: NDArray[np.integer], fmt: CodeFormat) -> Codes:
    """Codes of words that are integers themselves: no scale, no rounding; one beyond the width is read modulo 2^b."""
    q = values.astype(np.int64)
    return represent(np.asarray(q > 0 if fmt.bipolar else q & fmt.mask, dtype=np.uint32), fmt)


def read_codes(
    values: NDArray[Any], scale: ArrayLike, zero_point: ArrayLike, fmt: CodeFormat, *, half: bool | None = None
) -> Codes:
    """Codes of a tensor's words: of integers as they are, of values by scale and zero point (see `encode`)."""
    if values.dtype.kind in "iu":
        return encode_integers(values, fmt)
    return encode(values, scale, zero_point, fmt, half=half)


def represent(codes: Codes, fmt: CodeFormat) -> Codes:
    """The codes of the format's representation for two's complement ones.

    In sign-magnitude the least integer, -2^(b-1), has no code and shares that of its neighbour.
    """
    top, mask = np.uint32(fmt.top), np.uint32(fmt.mask)
    if fmt.representation == "offset_binary":
        return codes ^ top
    if fmt.representation == "twos_complement":
        return codes
    magnitude = np.where(codes == top, mask, np.negative(codes) & mask)
    return np.where(codes & top, magnitude | top, codes).astype(np.uint32)


def twos_complement(codes: Codes, fmt: CodeFormat) -> Codes:
    """The two's complement codes for those of the format's representation; minus zero is zero."""
    top, mask = np.uint32(fmt.top), np.uint32(fmt.mask)
    if fmt.representation == "offset_binary":
        return codes ^ top
    if fmt.representation == "twos_complement":
        return codes
    return np.where(codes & top, np.negative(codes ^ top) & mask, codes).astype(np.uint32)


def integers(codes: ArrayLike, fmt: CodeFormat) -> NDArray[np.int64]:
    """The integers that code words stand for."""
    q: NDArray[np.int64] = twos_complement(np.asarray(codes, dtype=np.uint32), fmt).astype(np.int64)
    if fmt.bipolar:
        return 2 * q - 1
    return q - (q >> (fmt.bit_width - 1) << fmt.bit_width) if fmt.signed else q


def decode(
    codes: ArrayLike, scale: ArrayLike, zero_point: ArrayLike, fmt: CodeFormat, dtype: type = np.float32
) -> NDArray[np.floating]:
    """Values of code words: one subtraction and one multiplication in `dtype`."""
    q: NDArray[np.floating] = integers(codes, fmt).astype(dtype)
    value: NDArray[np.floating] = (q - np.asarray(zero_point, dtype)) * np.asarray(scale, dtype)
    return value


def faulty_values(
    values: NDArray[Any],
    before: Codes,
    after: Codes,
    scale: ArrayLike,
    zero_point: ArrayLike,
    fmt: CodeFormat,
) -> NDArray[Any]:
    """Values whose codes faults changed from `before` to `after`; all others keep their bits.

    What is not finite is no number of the word's: it stays what it is. Words that are integers themselves have the
    scale 1 and the zero point 0.
    """
    stays = (before == after) | ~np.isfinite(values)
    with np.errstate(all="ignore"):  # the struck value may be too large for the type
        return np.where(stays, values, decode(after, scale, zero_point, fmt, values.dtype.type))
