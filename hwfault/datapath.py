"""How the layers of a plan are added up, in integers: accumulators of a width, on arrays of processing elements."""

from typing import Annotated, Literal

from pydantic import Field

from hwfault.profiles.records import Record

Count = Annotated[int, Field(ge=0)]
Event = tuple[int, int, int, int, int, int, int, int]

EXACT_BITS = 25
"""The widest two's complement words that float32 holds exactly, -2^24 to 2^24 - 1."""


class ArrayPlan(Record):
    """How one layer is added up; see hwfault.stream.array.Array. The width is the site's bit width."""

    arithmetic: Literal["float32", "float64"] = "float32"
    overflow: Literal["wrap", "saturate"] = "wrap"
    step: Annotated[int, Field(ge=1)] = 1
    pass_steps: Count = 0
    order: tuple[Count, ...] = ()
    events: tuple[Event, ...] = ()
