"""The law `profile`: what measured hardware does at an operating point."""

import math
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hwfault.devices.draw import draw_map
from hwfault.devices.events import event_probability
from hwfault.devices.holding import pattern_note, point_text
from hwfault.devices.systolic import array_of
from hwfault.errors import HwfaultError, ModelError
from hwfault.laws import bit_flips, cluster
from hwfault.laws.accumulation import element_event
from hwfault.laws.bit_flips import BitFlips
from hwfault.laws.bound import AccumulationPart, Bound, Lowered, Target
from hwfault.laws.cluster import Clusters
from hwfault.laws.files import Files, NamedFile
from hwfault.laws.memory import cell_processes, representation_of
from hwfault.laws.on_sites import Digest, OnSites
from hwfault.laws.protected import ProtectedMemory
from hwfault.profiles.library import profile_path
from hwfault.profiles.parts import Component
from hwfault.profiles.profile import Rate
from hwfault.profiles.spatial import Clusters as ClusterPattern
from hwfault.profiles.spatial import Independent, ProcessingElements, Spatial
from hwfault.program.mapped import ProtectedProcess
from hwfault.program.processes import Site
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.mapping import Linear, Mapping
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import accepts

_SITES: MappingOf[Component, tuple[Select, ...]] = {
    "weight_memory": (Select(kind="weight"),),
    "activation_memory": (Select(kind="activation"), Select(kind="input")),
    "input": (Select(kind="input"),),
    "accumulator": (Select(kind="accumulator"),),
    "datapath": (Select(kind="accumulator"),),
}
_ROW = Linear(row_bits=32)
"""The memory of a profile that names none: words one behind the other in rows of 32 bits."""
_LINE: MappingOf[str, int] = {"bit": 32, "word": 1024}
"""The cells along which a cluster can spread: a word's bits at most, and a block's words."""


EXAMPLE = "{model: profile, profile: bram28-kintex7-kc705b-undervolt, at: {voltage_v: 0.53}}"


class ProfileFaults(OnSites):
    """The faults of a fault profile at an operating point `at` (a value for each axis or free parameter).

    `profile` is the name of one of the library's or a path. `sites` are, unless given, those of the profile's
    component. `mapping`, `spatial` and `protection` take the place of the profile's; `share` (0 to 1) is that of its
    rate. With `strict_sources` what rests on an assumption is refused. In a plan `digest` is the SHA-256 of the file.
    """

    _chooses_by_itself: ClassVar[bool] = True
    _probabilities: ClassVar[tuple[str, ...]] = ("share",)
    named_on_command_line: ClassVar[bool] = True

    model: Literal["profile"] = "profile"
    profile: str
    at: dict[str, float] = Field(default_factory=dict)
    sites: tuple[Select, ...] = ()
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    spatial: Spatial | None = None
    mapping: Mapping | None = None
    protection: Protection | None = None
    strict_sources: bool = False
    digest: Digest | None = None

    @property
    def profile_name(self) -> str:
        """The profile's name or path."""
        return self.profile

    def named_file(self) -> NamedFile:
        """The profile's file."""
        path: Path | None
        try:
            path = profile_path(self.profile)
        except HwfaultError:
            path = None
        return NamedFile(self.profile, path, self.digest)

    def address_mapping(self, files: Files) -> Mapping:
        """The mapping that is given, or the profile's, or words one behind the other in rows of 32 bits."""
        if self.mapping is not None:
            return self.mapping
        profile, _ = files.profile(self.profile)
        return profile.mapping or _ROW


def bind(fault: ProfileFaults, files: Files) -> Bound[ProfileFaults]:
    """The fault with its profile, and the sites of the profile's component where it names none.

    Raises FileError or ModelError for a profile that cannot be read.
    """
    profile, digest = files.profile(fault.profile)
    spatial = fault.spatial or profile.spatial
    return Bound(
        fault,
        fault.sites or _SITES[profile.component],
        profile=profile,
        mapping=fault.address_mapping(files),
        digest=digest,
        by_specimen=profile.persistence.kind != "transient",
        one_register=isinstance(spatial, ProcessingElements),
    )


def lower(bound: Bound[ProfileFaults], target: Target) -> Lowered:
    """What the profile's hardware does at the sites, by what is faulty there and for how long.

    Faulty processing elements are parts of how layers are added up, faulty cells that stay or come again are fault
    maps, and transient faults are drawn by the stream: at the words, or in the memory that protects them. The note
    says where the profile's pattern is drawn at an operating point at which it does not hold. Raises ModelError for an
    operating point beyond the profile's, and for a pattern that cannot be drawn.
    """
    at = _At(bound)
    if bound.one_register:
        lowered = _elements(at, target)
    elif bound.by_specimen:
        lowered = _cells(at, target)
    elif at.protection is not None:
        lowered = Lowered([_protected(at, site, target) for site in target.sites])
    else:
        lowered = _transient(at, target)
    fault = bound.fault
    note = pattern_note(at.profile, fault.at, spatial=fault.spatial, share=fault.share)
    return lowered._replace(notes=() if note is None else (note,))


def differs_by_specimen(bound: Bound[Any]) -> bool:
    """Whether specimens have different faults: some are drawn for one, at a rate above 0."""
    if bound.profile is None:
        return bound.by_specimen
    return bound.by_specimen and _At(bound).probability > 0


def rate_of_cells(bound: Bound[Any]) -> float:
    """The probability with which a cell is struck by the faults of a profile, at its operating point; 0 for others."""
    return 0.0 if bound.profile is None else _At(bound).probability


class _At:
    """A profile at the operating point of a fault, with what the fault puts in the place of its parts."""

    def __init__(self, bound: Bound[ProfileFaults]) -> None:
        assert bound.profile is not None
        assert bound.mapping is not None
        self.fault = bound.fault
        self.profile = bound.profile
        self.mapping = bound.mapping
        self.spatial: Spatial = self.fault.spatial or self.profile.spatial
        self.protection = self.fault.protection or self.profile.protection
        self.rate: Rate = self.profile.resolve_rate(self.fault.at, strict_sources=self.fault.strict_sources)
        self.probability = self.rate.cells * self.fault.share

    def draw(self, rows: int, row_bits: int, specimen: int) -> FaultMap:
        """The faulty cells of a specimen of so many rows."""
        effect = self.rate.effect
        return draw_map(
            self.spatial,
            self.probability,
            rows=rows,
            row_bits=row_bits,
            shares=(float(effect.flip), float(effect.stuck_at_0), float(effect.stuck_at_1)),
            device=specimen,
            name=self.profile.name,
            bit_weights=self.profile.bit_weights,
        )


def _elements(at: _At, target: Target) -> Lowered:
    """The faulty elements of a specimen: one register for all of its layers, with a bit of each faulty one stuck."""
    rows, columns = array_of(at.mapping)
    drawn = at.draw(rows * columns, _register_width(at, target.sites), target.specimen)
    events = []
    for element, and_mask, xor_mask in zip(drawn.word, drawn.and_mask, drawn.xor_mask, strict=True):
        row, column = divmod(int(element), columns)
        events.append(element_event(at.mapping, (row, column), int(and_mask), int(xor_mask)))
    # all layers run on this one array, one after the other
    part = AccumulationPart(at.mapping, tuple(events))
    return Lowered(parts=[part] * len(target.sites))


def _register_width(at: _At, sites: Sequence[Site]) -> int:
    """The bits of the one register that adds up all layers; raises ModelError where there is no such register."""
    name = at.profile.name
    for site in sites:
        if site.kind != "accumulator":
            raise ModelError(
                f"faults of processing elements strike accumulators, not the {site.kind} {site.name!r}; select sites "
                "of the kind accumulator"
            )
    if at.profile.persistence.kind != "permanent":
        raise ModelError(f"{name}: faults of processing elements are permanent, not {at.profile.persistence.kind}")
    widths = {site.bit_width for site in sites}
    if len(widths) > 1:
        raise ModelError(
            f"{name}: the layers have accumulators of {', '.join(map(str, sorted(widths)))} bits, but an array "
            f"has registers of one width; declare it, as in {{model: accumulator, width: {max(*widths, 24)}}}"
        )
    return widths.pop()


def _cells(at: _At, target: Target) -> Lowered:
    """The faulty cells of a specimen's memory, permanent or intermittent, as maps."""
    persistence = at.profile.persistence

    def cells(rows: int, row_bits: int) -> FaultMap:
        drawn = at.draw(rows, row_bits, target.specimen)
        provenance = dict(drawn.provenance)
        provenance["profile"] = at.profile.digest
        provenance["at"] = point_text(at.fault.at)
        return replace(drawn, provenance=provenance)

    return Lowered(
        cell_processes(
            target,
            cells,
            at.mapping,
            protection=at.protection,
            p_active=persistence.p_active,
            refresh=persistence.refresh,
        )
    )


def _transient(at: _At, target: Target) -> Lowered:
    """Transient faults as those of the law that they follow: bit flips, or clusters."""
    if isinstance(at.spatial, Independent):
        lowered = bit_flips.lower(_alone(_flips(at)), target)
    elif isinstance(at.spatial, ClusterPattern) and at.rate.p01 == at.rate.p10 == at.rate.cells:
        lowered = cluster.lower(_alone(_clusters(at, at.spatial)), target)
    else:
        raise ModelError(
            f"{at.profile.name}: transient faults with spatial {at.spatial.kind} that do not all flip cannot be drawn; "
            "expected independent cells, or clusters that flip (cells that come and go in a pattern are intermittent)"
        )
    # those laws know no memory, but how it represents integers says which bit is which
    own = {"representation": representation_of(at.mapping)}
    return Lowered([process.model_copy(update=own) for process in lowered.processes])


def _flips(at: _At) -> BitFlips:
    p01 = at.rate.p01 * at.fault.share
    p10 = at.rate.p10 * at.fault.share
    weights = at.profile.bit_weights
    if weights is None or len(weights) == 1:
        return BitFlips(p01=p01, p10=p10)
    # how likely each bit is struck beside the mean bit
    mean = math.fsum(weights) / len(weights)
    shares = [weight / mean for weight in weights]
    return BitFlips(
        p01=tuple(p01 * share for share in shares),
        p10=tuple(p10 * share for share in shares),
    )


def _clusters(at: _At, pattern: ClusterPattern) -> Clusters:
    axis: Literal["bit", "word"] = "bit" if pattern.along == "row" else "word"
    h = event_probability(at.probability, pattern.sizes, _LINE[axis])
    return Clusters(probability=h, sizes=pattern.sizes, axis=axis)


def _alone(fault: Any) -> Bound[Any]:
    return Bound(fault, fault.sites)


def _protected(at: _At, site: Site, target: Target) -> ProtectedProcess:
    """The transient faults of a protected memory at one site, drawn on its stored words, check bits among them."""
    assert at.protection is not None
    # a shape is only needed to lay the memory out, and where draws do not ask for it may be unknown
    shaped = site.model_copy(update={"shape": site.shape or (1,)})
    memory = ProtectedMemory(at.protection, at.mapping, [shaped])
    if not isinstance(at.spatial, Independent) or not memory.plain or at.profile.bit_weights:
        raise ModelError(
            f"{at.profile.name}: transient faults of a protected memory are drawn for independent cells that lie one "
            "behind the other, lowest bit first; expected spatial: {kind: independent} and such a linear mapping"
        )
    p01 = at.rate.p01 * at.fault.share
    p10 = at.rate.p10 * at.fault.share
    h, accept01, accept10 = accepts(p01, p10)
    return ProtectedProcess(
        **target.key(site),
        protection=at.protection,
        representation=representation_of(at.mapping),
        tables=(target.tables.number(h),),
        accept01=accept01,
        accept10=accept10,
        slot=memory.slot(site),
    )
