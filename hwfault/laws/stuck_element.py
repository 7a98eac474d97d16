"""The law `stuck_element`: a stuck bit in the register of one processing element."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StrictInt, model_validator

from hwfault.devices.systolic import array_of
from hwfault.errors import ModelError
from hwfault.laws.accumulation import element_event
from hwfault.laws.bound import AccumulationPart, Bound, Event, Lowered, Target
from hwfault.laws.bypassed import BypassedElements
from hwfault.laws.datapath import Element, Number, OnElements
from hwfault.laws.on_sites import OnSites
from hwfault.program.processes import Site
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import ALL_ONES

EXAMPLE = (
    "{model: stuck_element, element: [3, 4], bit: 20, value: 1,"
    " mapping: {kind: weight_stationary, rows: 16, columns: 16}}"
)


class StuckElement(OnElements):
    """A stuck bit in the accumulating register of one processing element: every partial sum that passes has it.

    The element is named by `element` (row, column), or by its number `pe` in a FINN unit. `bit` (0 the lowest) is that
    of the accumulator's width, `value` what it is stuck at.
    """

    drawn: ClassVar[bool] = False

    model: Literal["stuck_element"] = "stuck_element"
    element: Element | None = None
    pe: Number | None = None
    bit: Annotated[StrictInt, Field(ge=0, le=31)]
    value: Annotated[StrictInt, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _one_element_of_the_array(self) -> Self:
        if (self.element is None) == (self.pe is None):
            raise ValueError("expected either `element` (row, column) or `pe` (the element's number)")
        _ = self.place  # which raises for an element that the array does not have
        return self

    @property
    def place(self) -> Element:
        """Row and column of the element."""
        _, columns = array_of(self.mapping)
        given = self.element if self.element is not None else self.pe
        assert given is not None
        row, column = divmod(self.number(given), columns)
        return row, column

    def taken_out(self) -> OnSites | None:
        """The element bypassed, at the weights of the same layers; None for an array whose elements hold none."""
        if self.mapping.kind == "output_stationary":
            return None
        weights = [_of_weights(select) for select in self.sites]
        return BypassedElements(mapping=self.mapping, elements=(self.place,), sites=tuple(weights))


def _of_weights(select: Select) -> Select:
    """What chooses the weights of the layers whose accumulators a selector chooses."""
    name = select.name
    if name.endswith("accumulator"):
        name = name.removesuffix("accumulator") + "weight_quant"
    return select.model_copy(update={"kind": "weight", "name": name})


def lower(bound: Bound[StuckElement], target: Target) -> Lowered:
    """The array of each layer with the stuck bit; raises ModelError for a bit beyond an accumulator's width."""
    fault = bound.fault
    parts = []
    for site in target.sites:
        event = _event(fault, site)
        parts.append(AccumulationPart(fault.mapping, (event,)))
    return Lowered(parts=parts)


def _event(fault: StuckElement, site: Site) -> Event:
    if fault.bit >= site.bit_width:
        raise ModelError(
            f"bit {fault.bit} of a processing element is stuck, but the accumulator {site.name!r} has {site.bit_width} "
            f"bits; declare wider ones, as in {{model: accumulator, width: {max(fault.bit + 1, 24)}}}"
        )
    bit = 1 << fault.bit
    return element_event(fault.mapping, fault.place, int(ALL_ONES) ^ bit, fault.value * bit)
