"""Address mappings: which cell of a memory, or which processing element, a word of a tensor lies in.

The formulas are those of docs/hardware-faults.md, "Addresses".
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, StrictInt, model_validator

from hwfault.errors import ModelError
from hwfault.records import Sourced
from hwfault.stream.layout_arrays import ArrayLayout, Tiles, Unit, UnitLayout, check_folding, check_weight
from hwfault.stream.layouts import Layout, Stored, check_tensors, divisors, nearest_divisors
from hwfault.stream.linear import LinearLayout, Run

Representation = Literal["twos_complement", "offset_binary", "sign_magnitude"]
Tile = Literal["fresh", "repeat"]
Rows = Annotated[StrictInt, Field(ge=1, le=1 << 36)]
Length = Annotated[StrictInt, Field(ge=1, le=1 << 20)]


def memory_word_bits(row_bits: int) -> int:
    """The width of the words in which a fault map tells of a memory: row_bits, or its largest divisor up to 32.

    Raises ModelError for a row without bits.
    """
    if row_bits < 1:
        raise ModelError(f"a memory row of {row_bits} bits, expected at least 1")
    return max(d for d in divisors(row_bits) if d <= 32)


class _Mapping(Sourced):
    representation: Representation = "twos_complement"
    """How signed integers are stored; the codec's matter, not that of addresses."""

    @property
    def elements(self) -> tuple[int, int] | None:
        """(rows, columns) of the array of processing elements, None for a plain memory."""
        return None

    @abstractmethod
    def layout(self, tensors: Sequence[Stored]) -> Layout:
        """The tensors laid out, one behind the other; raises ModelError for tensors that do not fit the hardware."""


class Linear(_Mapping):
    """A memory of rows of `row_bits` bits that holds the words one behind the other.

    `packed` leaves no gap between words, which may then run on from one row into the next; `padded` gives each the
    next power of two of bits. A word's bits go from its lowest (`lsb_first`) or highest (`msb_first`) bit to higher
    columns. `interleave` i deals the i equal parts of a row out over its columns, so that neighbouring columns belong
    to different words. Of a memory of `rows` rows, further ones of the same size are taken when it is full (`fresh`),
    or its cells are used again (`repeat`).
    """

    kind: Literal["linear"] = "linear"
    rows: Rows | None = None
    row_bits: Length
    bit_order: Literal["lsb_first", "msb_first"] = "lsb_first"
    packing: Literal["packed", "padded"] = "packed"
    tile: Tile = "fresh"
    interleave: Length = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.row_bits % self.interleave:
            near = nearest_divisors(self.row_bits, self.interleave)
            raise ValueError(
                f"interleave: {self.interleave} does not divide the {self.row_bits} bits of a row; the nearest "
                f"divisors: {near}"
            )
        if self.tile == "repeat" and self.rows is None:
            raise ValueError("a memory that is used again (tile: repeat) needs its size; give `rows`")
        return self

    def layout(self, tensors: Sequence[Stored]) -> LinearLayout:
        tensors = check_tensors(tensors)
        runs = tuple(self._run(tensor) for tensor in tensors)
        return LinearLayout(tensors, runs, self.row_bits, self.rows, self.tile == "repeat")

    def _run(self, tensor: Stored) -> Run:
        slot = tensor.bit_width if self.packing == "packed" else 1 << (tensor.bit_width - 1).bit_length()
        part = self.row_bits // self.interleave
        if self.interleave > 1 and part % slot:
            raise ModelError(
                f"interleave: {self.interleave} leaves {part} of a row's {self.row_bits} bits for each part, no whole "
                f"number of the words of {slot} bits of {tensor.name!r}; expected parts of whole words"
            )
        msb_first = self.bit_order == "msb_first"
        return Run(tensor.words, tensor.bit_width, slot, self.row_bits, msb_first, self.interleave)


class FinnMvau(_Mapping):
    """A FINN matrix-vector unit of `pe` elements with `simd` lanes each, and a weight memory for each element."""

    kind: Literal["finn_mvau"] = "finn_mvau"
    pe: Length
    simd: Length

    @property
    def elements(self) -> tuple[int, int]:
        return 1, self.pe

    def layout(self, tensors: Sequence[Stored]) -> UnitLayout:
        """A unit for each weight, one behind the other; raises ModelError where pe or simd do not divide its size."""
        tensors = check_tensors(tensors)
        for tensor in tensors:
            check_folding(tensor, self.pe, self.simd)
        units = tuple(Unit(tensor, self.pe, self.simd) for tensor in tensors)
        row_bits = self.simd * max(tensor.bit_width for tensor in tensors)
        return UnitLayout(tensors, units, row_bits, pe=self.pe, simd=self.simd)


class _Systolic(_Mapping):
    rows: Length
    columns: Length
    tile: Tile = "repeat"

    @property
    def elements(self) -> tuple[int, int]:
        return self.rows, self.columns

    def layout(self, tensors: Sequence[Stored]) -> ArrayLayout:
        """The tensors' tiles, all in the array's registers (`repeat`) or one behind the other (`fresh`)."""
        tensors = check_tensors(tensors)
        width = max(tensor.bit_width for tensor in tensors)
        tiles = tuple(Tiles(tensor, self.elements, width) for tensor in tensors)
        again = self.tile == "repeat"
        return ArrayLayout(
            tensors, tiles, self.columns * width, self.rows if again else None, again, array=self.elements
        )


class WeightStationary(_Systolic):
    """A systolic array whose elements hold weights: of input k in row k mod rows, of output n in column n mod columns.

    The memory is that of the elements' weight registers, which serve tile after tile (`repeat`), or a buffer that
    holds all tiles one behind the other (`fresh`).
    """

    kind: Literal["weight_stationary"] = "weight_stationary"

    def layout(self, tensors: Sequence[Stored]) -> ArrayLayout:
        for tensor in tensors:
            check_weight(tensor, "a weight-stationary array")
        return super().layout(tensors)


class OutputStationary(_Systolic):
    """A systolic array whose elements hold outputs: of pixel m in row m mod rows, of channel n in column n mod columns.

    The tensors are outputs or accumulators (one sample), the memory that of the elements' registers, or of all tiles
    one behind the other (`fresh`).
    """

    kind: Literal["output_stationary"] = "output_stationary"


Mapping = Annotated[Linear | FinnMvau | WeightStationary | OutputStationary, Field(discriminator="kind")]


def describe_addresses(layout: Layout, name: str, word: ArrayLike, bit: ArrayLike) -> list[str]:
    """Both names of each cell, a line each: (word, bit) of the tensor, and its physical place.

    `word` and `bit` broadcast. Raises ModelError for an unknown tensor or a cell that it does not have.
    """
    pairs = np.broadcast_arrays(np.asarray(word, dtype=np.int64), np.asarray(bit, dtype=np.int64))
    cells = layout.cells(name, *pairs).ravel().tolist()
    lines = []
    for w, b, cell in zip(*(p.ravel().tolist() for p in pairs), cells, strict=True):
        if cell < 0:
            raise ModelError(f"{name!r} has no word {w}, bit {b}; {_extent(layout, name)}")
        lines.append(f"{name}, word {w}, bit {b}: {layout.address(cell)}")
    return lines


def _extent(layout: Layout, name: str) -> str:
    tensor = next(tensor for tensor in layout.tensors if tensor.name == name)
    return f"expected words below {tensor.words} and bits below {tensor.bit_width}"
