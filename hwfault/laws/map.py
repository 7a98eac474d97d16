"""The law `map`: the faulty cells of one device, as they were measured or drawn."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from hwfault.errors import ModelError
from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.files import Files, NamedFile
from hwfault.laws.memory import cell_processes
from hwfault.laws.on_sites import Digest, OnSites
from hwfault.program.periods import Refresh
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.layouts import Stored
from hwfault.stream.mapping import Linear, Mapping
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import check_probability

EXAMPLE = "{model: map, file: device.safetensors, mapping: {kind: linear, row_bits: 16}}"


class MapFaults(OnSites):
    """The faulty cells of one device, from a fault map's file, laid over the sites (all weights unless given).

    `mapping` says where in the device's memory the words lie (one behind the other in rows as wide as the map's words
    unless given), and `first_row` where the first of them begins. The faults are permanent, or show with probability
    `p_active` in each `refresh` period. A device has its cells: what `scaled` scales is `p_active`. In a plan `digest`
    is the SHA-256 of the file.
    """

    _probabilities: ClassVar[tuple[str, ...]] = ("p_active",)
    named_on_command_line: ClassVar[bool] = True

    model: Literal["map"] = "map"
    file: str
    sites: tuple[Select, ...] = (Select(kind="weight"),)
    mapping: Mapping | None = None
    protection: Protection | None = None
    first_row: Annotated[int, Field(ge=0)] = 0
    p_active: float = 1.0
    refresh: Refresh = "inference"
    digest: Digest | None = None

    @field_validator("p_active")
    @classmethod
    def _a_probability(cls, value: float) -> float:
        return check_probability(value, "p_active")

    def named_file(self) -> NamedFile:
        """The map's file."""
        return NamedFile(self.file, Path(self.file), self.digest)

    def address_mapping(self, files: Files) -> Mapping:
        """The mapping that is given, or words one behind the other in rows as wide as the file says."""
        if self.mapping is not None:
            return self.mapping
        whole, _ = files.fault_map(self.file)
        row_bits = whole.provenance.get("row_bits", whole.bit_width)
        try:
            return Linear(row_bits=int(row_bits))
        except ValueError:
            raise ModelError(
                f"{self.file}: its provenance has row_bits {str(row_bits)[:40]!r}, expected the number of bits in a row"
            ) from None

    def address_note(self) -> str:
        """From which row on the map counts, where that is not its first."""
        return f" from row {self.first_row} of the map on" if self.first_row else ""


def bind(fault: MapFaults, files: Files) -> Bound[MapFaults]:
    """The fault with the cells in its file; raises FileError, ModelError for a file that says nonsense of its rows."""
    cells, digest = files.fault_map(fault.file)
    return Bound(fault, fault.sites, cells=cells, mapping=fault.address_mapping(files), digest=digest)


def lower(bound: Bound[MapFaults], target: Target) -> Lowered:
    """A map at each site with those of the device's cells that hold its words; raises as `cell_processes` does."""
    fault, mapping, whole = bound.fault, bound.mapping, bound.cells
    assert mapping is not None
    assert whole is not None
    cells = _from_first_row(whole, fault, mapping)
    return Lowered(
        cell_processes(
            target,
            lambda rows, row_bits: cells,
            mapping,
            protection=fault.protection,
            p_active=fault.p_active,
            refresh=fault.refresh,
        )
    )


def _from_first_row(whole: FaultMap, fault: MapFaults, mapping: Mapping) -> FaultMap:
    """The device's map from `first_row` on; raises ModelError for a row that begins none of its words."""
    if fault.first_row == 0:
        return whole
    bits = mapping.layout([Stored("row", (1,), 1)]).row_bits
    first = fault.first_row * bits // whole.bit_width
    if fault.first_row * bits % whole.bit_width or not 0 <= first < whole.words:
        raise ModelError(
            f"{fault.file}: first_row is {fault.first_row}, expected a row of {bits} bits that begins one of the map's "
            f"{whole.words} words of {whole.bit_width} bits"
        )
    at = slice(int(np.searchsorted(whole.word, first)), None)
    rows = (whole.word[at] - first, whole.and_mask[at], whole.xor_mask[at])
    return FaultMap(whole.bit_width, whole.words - first, *rows, dict(whole.provenance))
