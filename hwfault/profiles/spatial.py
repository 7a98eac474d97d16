"""Spatial patterns: how the faulty cells of a device lie in its memory ("Maps of a device" of the specification)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hwfault.profiles.numbers import Number
from hwfault.records import Record, Sourced
from hwfault.stream.tables import size_table

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Size = Annotated[int, Field(ge=1, le=1 << 20)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


OperatingPoint = dict[str, Number]


class Pattern(Sourced):
    """A pattern that was seen somewhere: at one operating point, or wherever the rate holds.

    `holds_at` is that point, a value for each axis (or free parameter) that matters, or "everywhere". None: not said.
    """

    holds_at: OperatingPoint | Literal["everywhere"] | None = None

    @model_validator(mode="after")
    def _some_point(self) -> Self:
        if self.holds_at == {}:
            raise ValueError("holds_at: an empty operating point; expected axis: value, or everywhere")
        return self


class MeasuredShare(Record):
    """The share of blocks with a fault that was measured at an operating point where the pattern does not hold."""

    at: OperatingPoint
    block_share: Share


class Independent(Sourced):
    """Every cell is faulty by itself."""

    kind: Literal["independent"] = "independent"


class BlockColumn(Pattern):
    """Faults crowd in some blocks and columns; the three statistics hold at the cell probability `at_rate`.

    `block_rows` and `row_bits` are the measured blocks' size (row_bits is the memory's own where left out). A column is
    the cells of one block and bit with one remainder of the row number modulo `column_period`. `block_share` is the
    share of blocks with a fault, `dispersion` is mean^2 / (variance - mean) of the faults per block, `column_share` the
    share of all faults in columns with `min_per_column` faults or more. With `lone_share`, the share of all faults that
    are alone in their column, the faults outside the weak columns crowd in columns too; without it, only in blocks.
    `elsewhere` are shares of blocks that were measured beside `holds_at`, for people who draw the pattern there.
    """

    kind: Literal["block_column"] = "block_column"
    block_rows: Size
    row_bits: Size | None = None
    column_period: Size = 1
    block_share: Annotated[float, Field(gt=0.0, le=1.0)]
    dispersion: Annotated[float, Field(ge=1e-6, le=1e6)]
    column_share: Share
    lone_share: Share | None = None
    min_per_column: Annotated[int, Field(ge=1, le=10_000)] = 5
    at_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    elsewhere: tuple[MeasuredShare, ...] | None = None

    @model_validator(mode="after")
    def _whole_columns(self) -> Self:
        if self.block_rows % self.column_period:
            raise ValueError(
                f"column_period {self.column_period} does not divide block_rows {self.block_rows}, expected a divisor"
            )
        if self.elsewhere is not None and not isinstance(self.holds_at, dict):
            raise ValueError("elsewhere: goes with the operating point at which the pattern holds (holds_at)")
        return self


class Rows(Pattern):
    """Whole rows (word lines) fail; in a failed row each cell is faulty with probability `fill`."""

    kind: Literal["rows"] = "rows"
    fill: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class Clusters(Pattern):
    """Events of 1, 2, ... neighbouring cells, with the probabilities `sizes`, along the row or down the column."""

    kind: Literal["clusters"] = "clusters"
    sizes: tuple[float, ...]
    along: Literal["row", "column"] = "row"

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        size_table(self.sizes)
        return self


class ProcessingElements(Pattern):
    """Elements of an array of `rows` x `columns`, each faulty by itself, with one bit of its register at fault."""

    kind: Literal["processing_elements"] = "processing_elements"
    rows: Annotated[int, Field(ge=1, le=1 << 16)]
    columns: Annotated[int, Field(ge=1, le=1 << 16)]


Spatial = Annotated[
    Independent | BlockColumn | Rows | Clusters | ProcessingElements,
    Field(discriminator="kind"),
]
