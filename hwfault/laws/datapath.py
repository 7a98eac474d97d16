"""Fault models of the datapath: accumulators of a width, and processing elements that are stuck, bypassed or late."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, StrictInt, field_validator, model_validator

from hwfault.devices.systolic import affected_weights, array_of
from hwfault.errors import ModelError
from hwfault.program.selectors import OnSites, Select
from hwfault.stream.fault_map import ALL_ONES, FaultMap
from hwfault.stream.mapping import FinnMvau, OutputStationary, WeightStationary

ArrayMapping = Annotated[FinnMvau | WeightStationary | OutputStationary, Field(discriminator="kind")]
Number = Annotated[StrictInt, Field(ge=0)]
Place = tuple[Number, Number]
"""Row and column of a processing element."""


class _Datapath(OnSites):
    """Faults of layers: `sites` chooses among accumulators (by a glob on names without their kind, too)."""

    sites: tuple[Select, ...] = (Select(kind="accumulator"),)

    @field_validator("sites")
    @classmethod
    def _of_its_kind(cls, value: tuple[Select, ...]) -> tuple[Select, ...]:
        kind = cls.model_fields["sites"].default[0].kind
        for selector in value:
            if selector.kind not in (None, kind):
                raise ValueError(f"the selector {str(selector)!r} chooses no {kind} sites, which alone can be struck")
        return tuple(selector.model_copy(update={"kind": kind}) for selector in value)


class AccumulatorFormat(_Datapath):
    """How layers are added up: accumulators of `width` bits (as wide as the largest sum unless given).

    Narrower ones wrap or saturate (`overflow`) at each step of the `mapping`'s array, one product after the other
    without one. Sums that need more than 25 bits are computed in `arithmetic` float64 or not at all.
    """

    model: Literal["accumulator"] = "accumulator"
    width: Annotated[StrictInt, Field(ge=2, le=32)] | None = None
    overflow: Literal["wrap", "saturate"] = "wrap"
    arithmetic: Literal["float32", "float64"] = "float32"
    mapping: ArrayMapping | None = None


class _Elements(_Datapath):
    mapping: ArrayMapping

    def number(self, place: int | Place) -> int:
        """The number of an element (row * columns + column); raises ModelError if the array has no such element."""
        rows, columns = array_of(self.mapping)
        row, column = divmod(place, columns) if isinstance(place, int) else place
        if not (row < rows and column < columns):
            raise ModelError(f"the element ({row}, {column}) is not in the array of {rows} x {columns} elements")
        return row * columns + column


class StuckElement(_Elements):
    """A stuck bit in the accumulating register of one processing element: every partial sum that passes has it.

    The element is named by `element` (row, column), or by its number `pe` in a FINN unit. `bit` (0 the lowest) is that
    of the accumulator's width, `value` what it is stuck at.
    """

    model: Literal["stuck_element"] = "stuck_element"
    element: Place | None = None
    pe: Number | None = None
    bit: Annotated[StrictInt, Field(ge=0, le=31)]
    value: Annotated[StrictInt, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _one_element_of_the_array(self) -> Self:
        if (self.element is None) == (self.pe is None):
            raise ValueError("expected either `element` (row, column) or `pe` (the element's number)")
        _ = self.place
        return self

    @property
    def place(self) -> Place:
        """Row and column of the element."""
        columns = array_of(self.mapping)[1]
        given = self.element if self.element is not None else self.pe
        assert given is not None
        row, column = divmod(self.number(given), columns)
        return row, column


class BypassedElements(_Elements):
    """Processing elements taken out of use: the products of their weights are dropped (fault-aware pruning).

    `elements` are rows and columns, or numbers. Strikes weights, which must be signed and of at least 2 bits.
    """

    model: Literal["bypassed"] = "bypassed"
    sites: tuple[Select, ...] = (Select(kind="weight"),)
    elements: tuple[Number | Place, ...]

    @model_validator(mode="after")
    def _known_elements(self) -> Self:
        if not self.elements or isinstance(self.mapping, OutputStationary):
            raise ValueError(
                "expected at least one element of a weight-stationary array or a FINN unit; the elements of an "
                "output-stationary one hold no weights of their own"
            )
        _ = self.numbers
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the elements, ascending."""
        return tuple(sorted({self.number(place) for place in self.elements}))


class LateBits(_Datapath):
    """Timing errors: with `probability` a result keeps its highest `bits` from what its element produced before.

    What is late is the register that takes finished sums. The `mapping` says which element produces what; without one
    each output channel has its own. A weight-stationary array must hold all weights of a layer in one tile: one of
    several passes keeps bits of a pass's sum, which is refused when the faults are resolved.
    """

    model: Literal["late_bits"] = "late_bits"
    probability: float
    bits: Annotated[StrictInt, Field(ge=1, le=32)]
    mapping: ArrayMapping | None = None


def bypass_map(mapping: Any, elements: Sequence[int], shape: Sequence[int], bit_width: int) -> FaultMap:
    """The words of a weight of `shape` that pass through any of the elements (numbers), each stuck at 0 in all bits.

    0 in two's complement drops the products of a signed weight without a zero point. Raises ModelError as the mapping
    does for weights that do not fit it.
    """
    words = [affected_weights(mapping, shape, element) for element in elements]
    word = np.unique(np.concatenate([np.empty(0, np.int64), *words]))
    kept = ALL_ONES ^ np.uint32((1 << bit_width) - 1)
    rows = (word, np.full(len(word), kept), np.zeros(len(word), np.uint32))
    numbers = ",".join(map(str, elements))
    return FaultMap(bit_width, int(np.prod(shape)), *rows, {"bypassed": f"{mapping.kind} elements {numbers}"})
