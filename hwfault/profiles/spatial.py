"""Where faults lie in a memory or array: the patterns that a profile names."""

from typing import Annotated, Literal

from pydantic import Field

from hwfault.profiles.records import Sourced


class Independent(Sourced):
    """Every cell by itself."""

    kind: Literal["independent"] = "independent"


class BlockColumn(Sourced):
    """Few blocks hold most faults, and in them few columns."""

    kind: Literal["block_column"] = "block_column"
    block_rows: int
    row_bits: int | None = None
    column_period: int = 1
    block_share: float
    dispersion: float
    column_share: float
    min_per_column: int = 5
    at_rate: float


class Rows(Sourced):
    """Whole rows."""

    kind: Literal["rows"] = "rows"
    fill: float = 1.0


class Clusters(Sourced):
    """Events of several neighbouring cells."""

    kind: Literal["clusters"] = "clusters"
    sizes: tuple[float, ...]
    along: Literal["row", "column"]


class ProcessingElements(Sourced):
    """Elements of an array."""

    kind: Literal["processing_elements"] = "processing_elements"
    rows: int
    columns: int


Spatial = Annotated[Independent | BlockColumn | Rows | Clusters | ProcessingElements, Field(discriminator="kind")]
