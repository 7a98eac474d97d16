"""Profiles and fault maps on the sites of a network: what each becomes in a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwfault.codes import Representation
from hwfault.errors import ModelError, PlanError
from hwfault.processes import MapProcess, Site
from hwfault.profiles.draw import draw_map
from hwfault.profiles.events import event_probability
from hwfault.profiles.faultmap import FaultMap
from hwfault.profiles.layouts import Layout, Stored
from hwfault.profiles.mapping import Linear
from hwfault.profiles.mapping import Mapping as AddressMapping
from hwfault.profiles.models import BitFlips, Clusters, FaultModel, MapFaults, ProfileFaults, Select
from hwfault.profiles.profile import Component, Profile, Rate
from hwfault.profiles.spatial import Clusters as ClusterPattern
from hwfault.profiles.spatial import Independent, ProcessingElements, Spatial
from hwfault.stream.tables import ALWAYS, site_number

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
        return BitFlips(**sites, p01=rate.p01 * fault.share, p10=rate.p10 * fault.share), other_than_usual(mapping)
    if isinstance(spatial, ClusterPattern) and rate.p01 == rate.p10 == rate.cells:
        axis = "bit" if spatial.along == "row" else "word"
        h = event_probability(rate.cells * fault.share, spatial.sizes, _LINE[axis])
        return Clusters(**sites, probability=h, sizes=spatial.sizes, axis=axis), other_than_usual(mapping)
    raise ModelError(
        f"{profile.name}: transient faults with spatial {spatial.kind} that do not all flip cannot be drawn; expected "
        "independent cells, or clusters that flip (cells that come and go in a pattern are intermittent)"
    )


def map_processes(fault: ProfileFaults | MapFaults, k: int, sites: Sequence[Site], device: int) -> list[MapProcess]:
    """The fault maps of permanent and intermittent faults on the sites that they select, one for each."""
    layout = layout_of(fault, sites)
    whole = _device_map(fault, layout, device) if isinstance(fault, ProfileFaults) else _loaded(fault)
    threshold, refresh = _activity(fault)
    rows, representation = layout.lay_over(whole), other_than_usual(mapping_of(fault))
    return [
        MapProcess(
            fault=k,
            site_number=site_number(site.name, k),
            map=rows[site.name],
            threshold=threshold,
            refresh=refresh,
            representation=representation,
        )
        for site in sites
    ]


def mapping_of(fault: ProfileFaults | MapFaults) -> AddressMapping:
    """The address mapping of a fault model: its own, or the profile's, or words one behind the other."""
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


def layout_of(fault: ProfileFaults | MapFaults, sites: Sequence[Site]) -> Layout:
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


def _device_map(fault: ProfileFaults, layout: Layout, device: int) -> FaultMap:
    profile = Profile.load(fault.profile)
    rate, spatial = _rate(fault, profile), fault.spatial or profile.spatial
    effect = rate.effect
    shares = (float(effect.flip), float(effect.stuck_at_0), float(effect.stuck_at_1))
    drawn = draw_map(
        _refuse_elements(profile, spatial),
        rate.cells * fault.share,
        rows=layout.rows,
        row_bits=layout.row_bits,
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


def _activity(fault: ProfileFaults | MapFaults) -> tuple[int, Any]:
    """(threshold, refresh period)."""
    source = Profile.load(fault.profile).persistence if isinstance(fault, ProfileFaults) else fault
    return int(ALWAYS * source.p_active), source.refresh or "inference"


_LINE = {"bit": 32, "word": 1024}
"""The cells along which a cluster can spread: a word's bits at most, and a block's words."""
