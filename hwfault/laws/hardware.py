"""Profiles and fault maps on the sites of a network: what each becomes in a plan."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwfault.codes import Representation
from hwfault.devices.draw import draw_map
from hwfault.devices.events import event_probability
from hwfault.errors import ModelError, PlanError
from hwfault.laws.datapath import BypassedElements
from hwfault.laws.models import BitFlips, Clusters, FaultModel, MapFaults, ProfileFaults
from hwfault.laws.protected import ProtectedMemory
from hwfault.profiles.profile import Component, Profile, Rate
from hwfault.profiles.spatial import Clusters as ClusterPattern
from hwfault.profiles.spatial import Independent, ProcessingElements, Spatial
from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.processes import Site
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.layouts import Layout, Stored
from hwfault.stream.mapping import Linear
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import ALWAYS, accepts, site_number

_KINDS: Mapping[Component, tuple[Select, ...]] = {
    "weight_memory": (Select(kind="weight"),),
    "activation_memory": (Select(kind="activation"), Select(kind="input")),
    "input": (Select(kind="input"),),
    "accumulator": (Select(kind="accumulator"),),
    "datapath": (Select(kind="accumulator"),),
}
_ROW = Linear(row_bits=32)
"""The memory of a profile that names none: words one behind the other in rows of 32 bits."""


def selectors(fault: FaultModel) -> tuple[Select, ...]:
    """The selectors of a fault model; those of its component for a profile that was given none."""
    if not isinstance(fault, ProfileFaults) or fault.sites:
        return fault.sites
    return _KINDS[Profile.load(fault.profile).component]


def depends_on_device(faults: Sequence[FaultModel]) -> bool:
    """Whether a device is drawn for any of the faults, so that another device number gives another plan."""
    profiles = [Profile.load(fault.profile) for fault in faults if isinstance(fault, ProfileFaults)]
    return any(profile.persistence.kind != "transient" for profile in profiles)


def law_of(fault: ProfileFaults) -> tuple[BitFlips | Clusters | ProfileFaults, Representation | None]:
    """The fault model that a transient profile is at its operating point, and the code that it strikes.

    Permanent and intermittent faults stay what they are. Raises ModelError for a pattern that transient faults cannot
    have.
    """
    profile = Profile.load(fault.profile)
    if profile.persistence.kind != "transient":
        return fault, None
    rate = _rate(fault, profile)
    spatial, mapping = fault.spatial or profile.spatial, fault.mapping or profile.mapping or _ROW
    sites: dict[str, Any] = {"sites": selectors(fault)}
    if isinstance(spatial, Independent):
        weights = _weights(profile)
        p01, p10 = (tuple(p * fault.share * w for w in weights) for p in (rate.p01, rate.p10))
        one = weights == (1.0,)
        return BitFlips(**sites, p01=p01[0] if one else p01, p10=p10[0] if one else p10), other_than_usual(mapping)
    if isinstance(spatial, ClusterPattern) and rate.p01 == rate.p10 == rate.cells:
        axis = "bit" if spatial.along == "row" else "word"
        h = event_probability(rate.cells * fault.share, spatial.sizes, _LINE[axis])
        return Clusters(**sites, probability=h, sizes=spatial.sizes, axis=axis), other_than_usual(mapping)
    raise ModelError(
        f"{profile.name}: transient faults with spatial {spatial.kind} that do not all flip cannot be drawn; expected "
        "independent cells, or clusters that flip (cells that come and go in a pattern are intermittent)"
    )


def map_processes(
    fault: ProfileFaults | MapFaults, k: int, sites: Sequence[Site], device: int
) -> Sequence[MapProcess | ProtectedProcess]:
    """The fault maps of permanent and intermittent faults on the sites that they select, one for each."""
    mapping, activity = mapping_of(fault), _activity(fault)
    known = activity | {"representation": other_than_usual(mapping)}

    def cells(rows: int, row_bits: int) -> FaultMap:
        return _drawn(fault, rows, row_bits, device) if isinstance(fault, ProfileFaults) else _loaded(fault)

    layout = layout_of(fault, sites)
    if (protection := protection_of(fault)) is not None:
        return ProtectedMemory(protection, mapping, sites).processes(k, cells, known)
    rows = layout.lay_over(cells(layout.rows, layout.row_bits))
    return [MapProcess(fault=k, site_number=site_number(s.name, k), map=rows[s.name], **known) for s in sites]


def protected_process(fault: ProfileFaults, k: int, site: Site, table: Callable[[float], int]) -> ProtectedProcess:
    """The transient faults of a protected memory at one site; `table` numbers a hit probability's count table.

    Raises ModelError for a pattern or a mapping that a protected memory cannot draw.
    """
    profile, protection, mapping = Profile.load(fault.profile), protection_of(fault), mapping_of(fault)
    assert protection is not None
    memory = ProtectedMemory(protection, mapping, [site.model_copy(update={"shape": site.shape or (1,)})])
    if not isinstance(fault.spatial or profile.spatial, Independent) or not memory.plain or profile.bit_weights:
        raise ModelError(
            f"{profile.name}: transient faults of a protected memory are drawn for independent cells that lie one "
            "behind the other, lowest bit first; expected spatial: {kind: independent} and such a linear mapping"
        )
    rate = _rate(fault, profile)
    h, accept01, accept10 = accepts(rate.p01 * fault.share, rate.p10 * fault.share)
    drawn = {"tables": (table(h),), "accept01": accept01, "accept10": accept10, "slot": memory.slot(site)}
    own = {"protection": protection, "representation": other_than_usual(mapping), **drawn}
    return ProtectedProcess(fault=k, site_number=site_number(site.name, k), **own)


def _weights(profile: Profile) -> tuple[float, ...]:
    """How likely each bit of a word is struck beside the mean bit, lowest first; one number for all alike."""
    weights = profile.bit_weights or (1.0,)
    mean = math.fsum(weights) / len(weights)
    return tuple(weight / mean for weight in weights)


def protection_of(fault: FaultModel) -> Protection | None:
    """What protects the memory of a fault model; None where nothing does."""
    if not isinstance(fault, ProfileFaults | MapFaults):
        return None
    if fault.protection is not None or isinstance(fault, MapFaults):
        return fault.protection
    return Profile.load(fault.profile).protection


def mapping_of(fault: ProfileFaults | MapFaults | BypassedElements) -> AddressMapping:
    """The address mapping of a fault model: its own, or the profile's, or words one behind the other."""
    if isinstance(fault, BypassedElements):
        return fault.mapping
    if fault.mapping is not None:
        return fault.mapping
    if isinstance(fault, ProfileFaults):
        return Profile.load(fault.profile).mapping or _ROW
    whole = FaultMap.load(fault.file)
    row_bits = whole.provenance.get("row_bits", whole.bit_width)
    try:
        return Linear(row_bits=int(row_bits))
    except ValueError:
        raise ModelError(
            f"{fault.file}: its provenance has row_bits {str(row_bits)[:40]!r}, expected the number of bits in a row"
        ) from None


def other_than_usual(mapping: AddressMapping) -> Representation | None:
    """The representation of a mapping's words, None for two's complement."""
    return None if mapping.representation == "twos_complement" else mapping.representation


def layout_of(fault: ProfileFaults | MapFaults | BypassedElements, sites: Sequence[Site]) -> Layout:
    """Where in the memory of a fault model the words of its sites lie, one site behind the other.

    Raises PlanError for a site whose shape is not known, ModelError for tensors that do not fit the memory.
    """
    unknown = [site.name for site in sites if site.shape is None]
    if unknown:
        raise PlanError(
            f"the shape of the site {unknown[0]!r} is not known, so its words have no addresses; list the network's "
            "sites with an example batch before resolving the faults"
        )
    return mapping_of(fault).layout([Stored(s.name, s.shape or (1,), s.bit_width) for s in sites])


def _rate(fault: ProfileFaults, profile: Profile) -> Rate:
    return profile.resolve_rate(fault.at, strict_sources=fault.strict_sources)


def _drawn(fault: ProfileFaults, rows: int, row_bits: int, device: int) -> FaultMap:
    profile = Profile.load(fault.profile)
    rate, spatial = _rate(fault, profile), fault.spatial or profile.spatial
    effect = rate.effect
    shares = (float(effect.flip), float(effect.stuck_at_0), float(effect.stuck_at_1))
    drawn = draw_map(
        _refuse_elements(profile, spatial),
        rate.cells * fault.share,
        rows=rows,
        row_bits=row_bits,
        shares=shares,
        device=device,
        name=profile.name,
        bit_weights=profile.bit_weights,
    )
    at = ",".join(f"{key}={value:g}" for key, value in fault.at.items())
    return replace(drawn, provenance=dict(drawn.provenance) | {"profile": profile.digest, "at": at})


def _refuse_elements(profile: Profile, spatial: Spatial) -> Spatial:
    if isinstance(spatial, ProcessingElements):
        raise ModelError(
            f"{profile.name}: faults of processing elements strike accumulators, not the words of a memory; select "
            "sites of the kind accumulator"
        )
    return spatial


def _loaded(fault: MapFaults) -> FaultMap:
    """The device's map from `first_row` on."""
    whole = FaultMap.load(fault.file)
    if fault.first_row == 0:
        return whole
    bits = mapping_of(fault).layout([Stored("row", (1,), 1)]).row_bits
    first = fault.first_row * bits // whole.bit_width
    if fault.first_row * bits % whole.bit_width or not 0 <= first < whole.words:
        raise ModelError(
            f"{fault.file}: first_row is {fault.first_row}, expected a row of {bits} bits that begins one of the map's "
            f"{whole.words} words of {whole.bit_width} bits"
        )
    at = slice(int(np.searchsorted(whole.word, first)), None)
    rows = (whole.word[at] - first, whole.and_mask[at], whole.xor_mask[at])
    return FaultMap(whole.bit_width, whole.words - first, *rows, dict(whole.provenance))


def _activity(fault: ProfileFaults | MapFaults) -> dict[str, Any]:
    source = Profile.load(fault.profile).persistence if isinstance(fault, ProfileFaults) else fault
    return {"threshold": int(ALWAYS * source.p_active), "refresh": source.refresh or "inference"}


_LINE = {"bit": 32, "word": 1024}
"""The cells along which a cluster can spread: a word's bits at most, and a block's words."""
