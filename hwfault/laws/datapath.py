"""What the laws of layers and of processing elements have in common."""

from typing import Annotated

from pydantic import Field, StrictInt, field_validator

from hwfault.devices.systolic import array_of
from hwfault.errors import ModelError
from hwfault.laws.on_sites import OnSites
from hwfault.program.selectors import Select
from hwfault.stream.mapping import FinnMvau, OutputStationary, WeightStationary

PEArray = Annotated[FinnMvau | WeightStationary | OutputStationary, Field(discriminator="kind")]
"""The mappings that have processing elements."""
Number = Annotated[StrictInt, Field(ge=0)]
Element = tuple[Number, Number]
"""Row and column of a processing element."""


class OnLayers(OnSites):
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


class OnElements(OnLayers):
    """Faults of processing elements of the `mapping`'s array."""

    mapping: PEArray

    def number(self, element: int | Element) -> int:
        """The number of an element (row * columns + column); raises ModelError if the array has no such element."""
        rows, columns = array_of(self.mapping)
        if isinstance(element, int):
            row, column = divmod(element, columns)
        else:
            row, column = element
        if not (row < rows and column < columns):
            raise ModelError(f"the element ({row}, {column}) is not in the array of {rows} x {columns} elements")
        return row * columns + column
