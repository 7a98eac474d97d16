"""A memory that holds the words of sites: where they lie in it, and what its faulty cells become in a plan."""

from collections.abc import Sequence
from typing import Any

from hwfault.codes import Representation
from hwfault.errors import PlanError
from hwfault.laws.bound import Target
from hwfault.laws.files import Files
from hwfault.laws.on_sites import OnSites
from hwfault.laws.protected import Cells, ProtectedMemory
from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.processes import Site
from hwfault.stream.fault_map import Words
from hwfault.stream.layouts import Layout, Stored
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import ALWAYS


def cell_processes(
    target: Target,
    cells: Cells,
    mapping: AddressMapping,
    *,
    protection: Protection | None,
    p_active: float,
    refresh: str | None,
) -> Sequence[MapProcess | ProtectedProcess]:
    """A process for each site with those of a memory's faulty cells that hold its words.

    The memory holds one site behind the other. Its cells show with `p_active` in each `refresh` period. Raises
    PlanError for a site whose shape is not known, ModelError for tensors that do not fit the memory.
    """
    known: dict[str, Any] = {
        "threshold": int(ALWAYS * p_active),
        "refresh": refresh or "inference",
        "representation": representation_of(mapping),
    }
    layout = layout_of(mapping, target.sites)
    if protection is not None:
        return ProtectedMemory(protection, mapping, target.sites).processes(target, cells, known)
    rows = layout.lay_over(cells(layout.rows, layout.row_bits))
    return [MapProcess(**target.key(site), map=rows[site.name], **known) for site in target.sites]


def representation_of(mapping: AddressMapping) -> Representation | None:
    """How a memory's words represent integers, None for two's complement, which plans leave unsaid."""
    return None if mapping.representation == "twos_complement" else mapping.representation


def layout_of(mapping: AddressMapping, sites: Sequence[Site]) -> Layout:
    """Where in a memory the words of sites lie, one site behind the other.

    Raises PlanError for a site whose shape is not known, ModelError for tensors that do not fit the memory.
    """
    unknown = [site.name for site in sites if site.shape is None]
    if unknown:
        raise PlanError(
            f"the shape of the site {unknown[0]!r} is not known, so its words have no addresses; list the network's "
            "sites with an example batch before resolving the faults"
        )
    return mapping.layout([Stored(site.name, site.shape or (1,), site.bit_width) for site in sites])


def addresses(fault: OnSites, sites: Sequence[Site], name: str, word: Words, bit: Words) -> list[str | None]:
    """The physical places of cells (word, bit) of one of the sites that a fault strikes; None where it has no memory.

    Raises FileError or ModelError where the memory is said in a file that cannot be read.
    """
    mapping = fault.address_mapping(Files())
    if mapping is None:
        return [None] * len(word)
    layout = layout_of(mapping, sites)
    return [layout.address(cell) + fault.address_note() for cell in layout.cells(name, word, bit).tolist()]
