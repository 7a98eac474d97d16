"""The law `bypassed`: processing elements taken out of use."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from hwfault.devices.systolic import affected_weights
from hwfault.errors import ModelError
from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.datapath import Element, Number, OnElements
from hwfault.laws.files import Files
from hwfault.program.processes import MapProcess, Site
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import ALL_ONES, FaultMap
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.mapping import OutputStationary

EXAMPLE = "{model: bypassed, elements: [[3, 4]], mapping: {kind: weight_stationary, rows: 16, columns: 16}}"


class BypassedElements(OnElements):
    """Processing elements taken out of use: the products of their weights are dropped (fault-aware pruning).

    `elements` are rows and columns, or numbers. Strikes weights, which must be signed and of at least 2 bits.
    """

    drawn: ClassVar[bool] = False

    model: Literal["bypassed"] = "bypassed"
    sites: tuple[Select, ...] = (Select(kind="weight"),)
    elements: tuple[Number | Element, ...]

    @model_validator(mode="after")
    def _known_elements(self) -> Self:
        if not self.elements or isinstance(self.mapping, OutputStationary):
            raise ValueError(
                "expected at least one element of a weight-stationary array or a FINN unit; the elements of an "
                "output-stationary one hold no weights of their own"
            )
        _ = self.numbers  # which raises for an element that the array does not have
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the elements, ascending."""
        return tuple(sorted({self.number(element) for element in self.elements}))

    def address_mapping(self, files: Files) -> AddressMapping:
        """The array, whose elements hold the weights."""
        return self.mapping


def lower(bound: Bound[BypassedElements], target: Target) -> Lowered:
    """A permanent map at each weight, by which the words of the elements read 0.

    Raises ModelError for weights that have no code which drops their products.
    """
    return Lowered([_process(bound.fault, site, target) for site in target.sites])


def _process(fault: BypassedElements, site: Site, target: Target) -> MapProcess:
    if site.shape is None or not site.signed or site.bit_width < 2:
        raise ModelError(
            f"the weights {site.name!r} ({site.bit_width} bits, {'signed' if site.signed else 'unsigned'}) have no "
            "code that drops their products, expected signed ones of at least 2 bits"
        )
    rows = bypass_map(fault.mapping, fault.numbers, site.shape, site.bit_width)
    return MapProcess(**target.key(site), map=rows)


def bypass_map(mapping: Any, elements: Sequence[int], shape: Sequence[int], bit_width: int) -> FaultMap:
    """The words of a weight of `shape` that pass through any of the elements (numbers), each stuck at 0 in all bits.

    0 in two's complement drops the products of a signed weight without a zero point. Raises ModelError as the mapping
    does for weights that do not fit it.
    """
    word = np.empty(0, np.int64)
    for element in elements:
        word = np.union1d(word, affected_weights(mapping, shape, element))
    # all bits of the code are kept by none and flipped by none
    code = np.uint32((1 << bit_width) - 1)
    and_mask = np.full(len(word), ALL_ONES ^ code)
    xor_mask = np.zeros(len(word), np.uint32)
    numbers = ",".join(map(str, elements))
    provenance = {"bypassed": f"{mapping.kind} elements {numbers}"}
    return FaultMap(bit_width, int(np.prod(shape)), word, and_mask, xor_mask, provenance)
