"""The law `accumulator`: how layers are added up."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StrictInt

from hwfault.laws.bound import AccumulationPart, Bound, Lowered, Target
from hwfault.laws.datapath import OnLayers, PEArray
from hwfault.laws.files import Files

EXAMPLE = "{model: accumulator, width: 16, overflow: saturate}"


class AccumulatorFormat(OnLayers):
    """How layers are added up: accumulators of `width` bits (as wide as the largest sum unless given).

    Narrower ones wrap or saturate (`overflow`) at each step of the `mapping`'s array, one product after the other
    without one. Sums that need more than 25 bits are computed in `arithmetic` float64 or not at all.
    """

    drawn: ClassVar[bool] = False

    model: Literal["accumulator"] = "accumulator"
    width: Annotated[StrictInt, Field(ge=2, le=32)] | None = None
    overflow: Literal["wrap", "saturate"] = "wrap"
    arithmetic: Literal["float32", "float64"] = "float32"
    mapping: PEArray | None = None


def bind(fault: AccumulatorFormat, files: Files) -> Bound[AccumulatorFormat]:
    """The fault as a declaration of its accumulators' width."""
    return Bound(fault, fault.sites, declares=True, width=fault.width)


def lower(bound: Bound[AccumulatorFormat], target: Target) -> Lowered:
    """Array, overflow and arithmetic for each layer; no process, as nothing strikes its words."""
    fault = bound.fault
    part = AccumulationPart(fault.mapping, overflow=fault.overflow, arithmetic=fault.arithmetic)
    return Lowered(parts=[part] * len(target.sites))
