"""From a site's words and bits to places in the hardware: the mappings that a profile names."""

from typing import Annotated, Literal

from pydantic import Field

from hwfault.profiles.records import Sourced


class _Mapping(Sourced):
    representation: Literal["twos_complement", "offset_binary", "sign_magnitude"] = "twos_complement"


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


class WeightStationary(_Mapping):
    """A systolic array whose elements hold weights."""

    kind: Literal["weight_stationary"] = "weight_stationary"
    rows: int
    columns: int


class OutputStationary(_Mapping):
    """A systolic array whose elements hold outputs."""

    kind: Literal["output_stationary"] = "output_stationary"
    rows: int
    columns: int


Mapping = Annotated[Linear | FinnMvau | WeightStationary | OutputStationary, Field(discriminator="kind")]
