"""Code words <-> integers <-> values (fault-stream specification, sections 1 and 6), in NumPy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[np.uint32]


@dataclass(frozen=True)
class CodeFormat:
    """How integers are stored: `bit_width` (1 to 32) bits, two's complement if `signed`, else plain binary.

    Signed with one bit is bipolar: code 0 is -1 and code 1 is +1.
    """

    bit_width: int
    signed: bool

    def __post_init__(self) -> None:
        if not 1 <= self.bit_width <= 32:
            raise ValueError(f"bit_width is {self.bit_width}, expected 1 to 32")

    @property
    def bipolar(self) -> bool:
        return self.signed and self.bit_width == 1

    @property
    def mask(self) -> int:
        """The code word with all bits set."""
        return (1 << self.bit_width) - 1


def encode(value: ArrayLike, scale: ArrayLike, zero_point: ArrayLike, fmt: CodeFormat) -> Codes:
    """Codes of dequantized values; scale and zero point broadcast to them.

    The arithmetic is that of the value's type, float32 unless it is float64. What is not finite has code 0.
    """
    value = np.asarray(value)
    dtype = np.float64 if value.dtype == np.float64 else np.float32
    with np.errstate(all="ignore"):
        rounded = np.rint(value.astype(dtype) / np.asarray(scale, dtype)) + np.asarray(zero_point, dtype)
        q = np.where(np.abs(rounded) < 2.0**62, rounded, 0).astype(np.int64)
    return np.asarray(q > 0 if fmt.bipolar else q & fmt.mask, dtype=np.uint32)


def integers(codes: ArrayLike, fmt: CodeFormat) -> NDArray[np.int64]:
    """The integers that code words stand for."""
    q: NDArray[np.int64] = np.asarray(codes).astype(np.int64)
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
