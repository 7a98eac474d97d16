"""From a site's words and bits to places in the hardware: the mappings that a profile names."""

from typing import Annotated, Literal

from pydantic import Field

from hwfault.profiles.records import Sourced


class _Mapping(Sourced):
    representation: Literal["twos_complement", "offset_binary", "sign_magnitude"] = "twos_complement"

    @property
    def elements(self) -> tuple[int, int] | None:
        """(rows, columns) of the array of processing elements, None for a plain memory."""
        return None


class Linear(_Mapping):
    """Words one behind the other in a memory of rows."""

    kind: Literal["linear"] = "linear"
    rows: int | None = None
    row_bits: int
    bit_order: Literal["lsb_first", "msb_first"] = "lsb_first"
    packing: Literal["packed", "padded"] = "packed"
    tile: Literal["fresh", "repeat"] = "fresh"
    interleave: int = 1


class FinnMvau(_Mapping):
    """A FINN matrix-vector unit."""

    kind: Literal["finn_mvau"] = "finn_mvau"
    pe: int
    simd: int

    @property
    def elements(self) -> tuple[int, int]:
        return 1, self.pe


class _Systolic(_Mapping):
    rows: int
    columns: int

    @property
    def elements(self) -> tuple[int, int]:
        return self.rows, self.columns


class WeightStationary(_Systolic):
    """A systolic array whose elements hold weights."""

    kind: Literal["weight_stationary"] = "weight_stationary"


class OutputStationary(_Systolic):
    """A systolic array whose elements hold outputs."""

    kind: Literal["output_stationary"] = "output_stationary"


Mapping = Annotated[Linear | FinnMvau | WeightStationary | OutputStationary, Field(discriminator="kind")]
