"""Spatial patterns: how the faulty cells of a device lie in its memory ("Maps of a device" of the specification)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hwfault.profiles.records import Sourced
from hwfault.stream.tables import size_table

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Size = Annotated[int, Field(ge=1, le=1 << 20)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Independent(Sourced):
    """Every cell is faulty by itself."""

    kind: Literal["independent"] = "independent"


class BlockColumn(Sourced):
    """Faults crowd in some blocks and columns; the three statistics hold at the cell probability `at_rate`.

    `block_rows` and `row_bits` are the measured blocks' size (row_bits is the memory's own where left out). A column is
    the cells of one block and bit with one remainder of the row number modulo `column_period`. `block_share` is the
    share of blocks with a fault, `dispersion` is mean^2 / (variance - mean) of the faults per block, `column_share` the
    share of all faults in columns with `min_per_column` faults or more. With `lone_share`, the share of all faults that
    are alone in their column, the faults outside the weak columns crowd in columns too; without it, only in blocks.
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

    @model_validator(mode="after")
    def _whole_columns(self) -> Self:
        if self.block_rows % self.column_period:
            raise ValueError(
                f"column_period {self.column_period} does not divide block_rows {self.block_rows}, expected a divisor"
            )
        return self


class Rows(Sourced):
    """Whole rows (word lines) fail; in a failed row each cell is faulty with probability `fill`."""

    kind: Literal["rows"] = "rows"
    fill: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class Clusters(Sourced):
    """Events of 1, 2, ... neighbouring cells, with the probabilities `sizes`, along the row or down the column."""

    kind: Literal["clusters"] = "clusters"
    sizes: tuple[float, ...]
    along: Literal["row", "column"] = "row"

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        size_table(self.sizes)
        return self


class ProcessingElements(Sourced):
    """Elements of an array of `rows` x `columns`, each faulty by itself, with one bit of its register at fault."""

    kind: Literal["processing_elements"] = "processing_elements"
    rows: Annotated[int, Field(ge=1, le=1 << 16)]
    columns: Annotated[int, Field(ge=1, le=1 << 16)]


Spatial = Annotated[
    Independent | BlockColumn | Rows | Clusters | ProcessingElements,
    Field(discriminator="kind"),
]
