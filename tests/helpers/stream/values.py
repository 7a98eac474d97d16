"""Faults on floats by the reference alone: encode, inject into codes, decode what changed, keep every other bit."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.codes import CodeFormat, Codes, decode, encode, integers
from tests.helpers.stream.cases import Case, Draw
from tests.helpers.stream.engines import by_reference

DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}
STORED = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": np.uint16}
BITS = {"float32": np.uint32, "float64": np.uint64, "float16": np.uint16, "bfloat16": np.uint16}


def widen(x: NDArray, dtype: str) -> NDArray:
    """Stored numbers as numpy floats; bfloat16 is stored as the upper half of a float32."""
    return (x.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else x


def narrow(x: NDArray, dtype: str) -> NDArray:
    """Floats as stored numbers, rounded to the nearest even; NaN stays NaN."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return x.astype(STORED[dtype])
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


@dataclass(frozen=True)
class Grid:
    """A quantizer: formats, scales and zero points, each one for the tensor or one for `inner` words in turn."""

    fmt: CodeFormat
    scale: NDArray[np.float64]
    scale_inner: int
    zero_point: NDArray[np.float64]
    zero_point_inner: int

    def along(self, words: int) -> tuple[NDArray, NDArray]:
        """The scale and the zero point of each word of a sample."""
        word = np.arange(words)
        scale = self.scale[word // self.scale_inner % self.scale.size]
        return scale, self.zero_point[word // self.zero_point_inner % self.zero_point.size]

    def encode(self, x: NDArray, dtype: str) -> Codes:
        return encode(widen(x, dtype), *self.along(x.shape[-1]), self.fmt, half=dtype in ("float16", "bfloat16"))

    def decode(self, codes: Codes, dtype: str) -> NDArray:
        wide = np.float64 if dtype == "float64" else np.float32
        with np.errstate(all="ignore"):
            return narrow(decode(codes, *self.along(codes.shape[-1]), self.fmt, wide), dtype)


def tells(x: NDArray, scale: ArrayLike, zero_point: ArrayLike, fmt: CodeFormat) -> NDArray[np.bool_]:
    """Which float32 values tell their codes: no other code of the word has the value, and it is read as its own.

    By the specification (section 1) those of up to 2^20 steps always do, and what is no number has no code to tell.
    """
    scale, zero_point = (np.asarray(y, np.float32) for y in (scale, zero_point))
    q = integers(encode(x, scale, zero_point, fmt), fmt)

    def has_the_value(other: NDArray) -> NDArray:
        inside = (other >= fmt.low) & (other <= fmt.high)
        return inside & ((other.astype(np.float32) - zero_point) * scale == x)

    with np.errstate(all="ignore"):
        few = np.abs(x / scale) + np.abs(zero_point) <= 2**20
    return few | ~np.isfinite(x) | (has_the_value(q) & ~has_the_value(q - 1) & ~has_the_value(q + 1))


def telling(x: NDArray, scale: ArrayLike, zero_point: ArrayLike, fmt: CodeFormat) -> NDArray:
    """The values, with others in place of those that do not tell their codes: some of 16 bits."""
    if x.dtype != np.float32 or fmt.bit_width <= 20:
        return x
    few = decode(encode(x, scale, zero_point, fmt) & np.uint32(0xFFFF), scale, zero_point, fmt)
    return np.where(tells(x, scale, zero_point, fmt), x, few)


@dataclass(frozen=True)
class Batch:
    """Stored numbers (batch, words), the sample number of each row, their grid, and what strikes them."""

    x: NDArray
    samples: NDArray[np.int64]
    dtype: str
    grid: Grid
    case: Case

    def struck(self, before: Codes) -> Codes:
        """The codes after the faults."""
        program, seed, bits = self.case.program, self.case.seed, self.case.bit_width
        rows = [by_reference(row, program, seed, int(s), bits) for row, s in zip(before, self.samples, strict=True)]
        return np.stack(rows) if rows else before

    def codes(self) -> tuple[Codes, Codes]:
        """The codes before and after."""
        return self._codes

    @cached_property
    def _codes(self) -> tuple[Codes, Codes]:
        before = self.grid.encode(self.x, self.dtype)
        return before, self.struck(before)

    def injected(self) -> NDArray:
        """The stored numbers after: decoded codes where these changed."""
        return np.where(self.faulty(), self.grid.decode(self.codes()[1], self.dtype), self.x)

    @property
    def numbers(self) -> NDArray[np.bool_]:
        """Which words hold a number: no others can be struck."""
        return np.isfinite(widen(self.x, self.dtype))

    def faulty(self) -> NDArray[np.bool_]:
        before, after = self.codes()
        return (before != after) & self.numbers

    def faulty_without_x(self) -> NDArray[np.bool_]:
        """The faulty words as seen by one who knows no codes, and takes 0 for each."""
        return self.struck(np.zeros(self.x.shape, np.uint32)) != 0


def grid(draw: Draw, bits: int, signed: bool) -> Grid:
    """Scales and zero points of float32, for the tensor or for channels."""
    fmt = CodeFormat(bits, signed)
    n = [draw.one_of((1, 1, 2, 3, 16)) for _ in range(2)]
    inner = [draw.one_of((1, 2, 9, 100, 1024)) for _ in range(2)]
    scale = np.exp2(draw.rng.uniform(-12, 4, n[0])).astype(np.float32).astype(np.float64)
    if draw.rng.random() < 0.4:
        scale = np.exp2(np.rint(np.log2(scale)))
    high = 0 if fmt.bipolar or draw.rng.random() < 0.5 else min(fmt.mask, 2**20)
    zero_point = draw.rng.integers(0, high, n[1], endpoint=True).astype(np.float64)
    if draw.rng.random() < 0.3:  # as HQO finds them
        zero_point = (zero_point + draw.rng.random(n[1])).astype(np.float32).astype(np.float64)
    return Grid(fmt, scale, inner[0], zero_point, inner[1])


FAR = (3e12, 1e18, 4.5e18, 4.7e18, 1e19, 1e30)  # 2^62 is 4.61e18


def numbers(draw: Draw, on: Grid, shape: tuple[int, int], dtype: str) -> NDArray:
    """Values on the grid, and some beside it, outside its range, halfway, or not finite."""
    x = on.decode(draw.codes(on.fmt.bit_width, shape[0] * shape[1]).reshape(shape), dtype)
    strange = draw.rng.random(shape) < 0.1
    scale = on.along(shape[1])[0]
    some = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.5, -1.5, 0.3, 1e6, 6e4, *FAR, *(-far for far in FAR)])
    with np.errstate(all="ignore"):
        other = narrow((draw.rng.choice(some, shape) * scale).astype(np.float32), dtype)
    return np.where(strange, other, x)


def batch(draw: Draw) -> Batch:
    """A batch of 0 to 5 samples of any dtype, width and process."""
    dtype, case = draw.one_of(tuple(DTYPES)), draw.case()
    on = grid(draw, case.bit_width, signed=bool(draw.integer(0, 1)))
    rows = draw.one_of((0, 1, 1, 2, 3, 5))
    samples = np.array([draw.sample() for _ in range(rows)], np.int64)
    return Batch(numbers(draw, on, (rows, case.codes.size), dtype), samples, dtype, on, case)
