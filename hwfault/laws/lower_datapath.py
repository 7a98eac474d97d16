"""Datapath faults on the sites of a network: what each becomes in a plan."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwfault.devices.draw import draw_map
from hwfault.devices.systolic import array_of, schedule
from hwfault.errors import ModelError
from hwfault.laws.datapath import AccumulatorFormat, BypassedElements, LateBits, StuckElement, bypass_map
from hwfault.laws.hardware import selectors
from hwfault.laws.late import check_one_array, late_elements
from hwfault.laws.models import FaultModel, ProfileFaults
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import ProcessingElements
from hwfault.program.processes import ArrayPlan, MapProcess, Process, Site
from hwfault.program.selectors import chosen
from hwfault.stream.fault_map import ALL_ONES, FaultMap
from hwfault.stream.tables import encode_table, site_number

EXACT_BITS = 25
"""The widest two's complement words that float32 holds exactly, -2^24 to 2^24 - 1."""

Event = tuple[int, int, int, int, int, int, int, int]


def with_formats(sites: Sequence[Site], faults: Sequence[FaultModel]) -> list[Site]:
    """The sites, accumulators as wide as the faults declare them.

    On an array of processing elements, whose registers have one width, it is the widest of the layers' where none is
    declared. Raises ModelError for two formats of one site.
    """
    declared: dict[str, AccumulatorFormat] = {}
    for fault in (fault for fault in faults if isinstance(fault, AccumulatorFormat)):
        for site in _chosen(sites, fault):
            if site.name in declared:
                raise ModelError(f"two accumulator formats for the site {site.name!r}, expected one for each site")
            declared[site.name] = fault
    widths = {name: fault.width for name, fault in declared.items() if fault.width is not None}
    wide = [s.model_copy(update={"bit_width": widths[s.name]}) if s.name in widths else s for s in sites]
    for array in (fault for fault in faults if strikes_elements(fault)):
        common = max((site.bit_width for site in _chosen(wide, array)), default=0)
        struck = {site.name for site in _chosen(wide, array)} - widths.keys()
        wide = [s.model_copy(update={"bit_width": common}) if s.name in struck else s for s in wide]
    return wide


def array_plans(sites: Sequence[Site], faults: Sequence[FaultModel], device: int) -> dict[str, ArrayPlan]:
    """How each accumulator that the faults name is added up, by the site's name.

    The sites are those of `with_formats`. Raises ModelError for arrays that do not fit a layer or each other.
    """
    builders = {site.name: _Builder(site) for site in sites if site.kind == "accumulator"}
    named: set[str] = set()
    for fault in faults:
        struck = _chosen(sites, fault) if _makes_array(fault) else []
        if other := next((site for site in struck if site.name not in builders), None):
            raise ModelError(
                f"faults of processing elements strike accumulators, not the {other.kind} {other.name!r}; select sites "
                "of the kind accumulator"
            )
        for site, events in zip(struck, _events(fault, struck, device), strict=True):
            named.add(site.name)
            builders[site.name].add(fault, events)
    _check_late(sites, faults)
    return {name: builder.plan() for name, builder in builders.items() if name in named}


def _check_late(sites: Sequence[Site], faults: Sequence[FaultModel]) -> None:
    """Raises ModelError where late bits strike a layer that other faults put on an array they do not go with."""
    arrays = [fault for fault in faults if _makes_array(fault) and _mapping(fault) is not None]
    for late in (fault for fault in faults if isinstance(fault, LateBits)):
        for site in _chosen(sites, late):
            there = [_mapping(fault) for fault in arrays if site in _chosen(sites, fault)]
            check_one_array(site, [late], there)


def check_exact(site: Site, array: ArrayPlan | None) -> None:
    """Raises ModelError for an accumulator that float32 does not hold exactly, unless float64 was asked for."""
    bits = max(site.bit_width, site.worst_case or 0)
    if site.kind == "accumulator" and bits > EXACT_BITS and (array is None or array.arithmetic == "float32"):
        raise ModelError(
            f"the sums of {site.name!r} need {bits} bits, and float32 is exact to {EXACT_BITS} only (below 2^24); ask "
            f"for the other arithmetic: {{model: accumulator, arithmetic: float64, sites: {site.name}}}"
        )


def datapath_process(
    fault: BypassedElements | LateBits, k: int, site: Site, tables: dict[Any, int]
) -> Process | MapProcess:
    """The process of a fault on a site; raises ModelError for one that the site cannot have."""
    number = site_number(site.name, k)
    if isinstance(fault, BypassedElements):
        return MapProcess(fault=k, site_number=number, map=_bypass(fault, site))
    if fault.bits > site.bit_width:
        raise ModelError(
            f"fault {k} at site {site.name!r}: {fault.bits} late bits in a word of {site.bit_width}, expected at most"
            " all of them"
        )
    table = tables.setdefault(encode_table(fault.probability), len(tables))
    mask = ((1 << fault.bits) - 1) << (site.bit_width - fault.bits)
    return Process(
        fault=k, site_number=number, kind="late", tables=(table,), mask=mask, elements=late_elements(fault, site)
    )


def strikes_elements(fault: FaultModel) -> bool:
    """Whether a fault is a profile's of processing elements, not of the cells of a memory."""
    if not isinstance(fault, ProfileFaults):
        return False
    return isinstance(fault.spatial or Profile.load(fault.profile).spatial, ProcessingElements)


def _makes_array(fault: FaultModel) -> bool:
    return isinstance(fault, AccumulatorFormat | StuckElement) or strikes_elements(fault)


def _chosen(sites: Sequence[Site], fault: FaultModel) -> list[Site]:
    return chosen(sites, selectors(fault))


def _mapping(fault: FaultModel) -> Any:
    if isinstance(fault, ProfileFaults):
        return fault.mapping or Profile.load(fault.profile).mapping
    return getattr(fault, "mapping", None)


def _events(fault: FaultModel, sites: Sequence[Site], device: int) -> list[list[Event]]:
    """The stuck bits of a fault, for each of its sites."""
    if isinstance(fault, StuckElement):
        return [[_stuck(fault, site)] for site in sites]
    if isinstance(fault, ProfileFaults) and sites:
        return [_drawn(fault, sites, device)] * len(sites)
    return [[]] * len(sites)


def _stuck(fault: StuckElement, site: Site) -> Event:
    if fault.bit >= site.bit_width:
        raise ModelError(
            f"bit {fault.bit} of a processing element is stuck, but the accumulator {site.name!r} has {site.bit_width} "
            f"bits; declare wider ones, as in {{model: accumulator, width: {max(fault.bit + 1, 24)}}}"
        )
    bit = 1 << fault.bit
    return _event(fault.mapping, fault.place, int(ALL_ONES) ^ bit, fault.value * bit)


def _drawn(fault: ProfileFaults, sites: Sequence[Site], device: int) -> list[Event]:
    """The faulty elements of a device: one register for all of its layers, with a bit of each faulty one stuck."""
    profile = Profile.load(fault.profile)
    if profile.persistence.kind != "permanent":
        raise ModelError(f"{profile.name}: faults of processing elements are permanent, not {profile.persistence.kind}")
    widths = {site.bit_width for site in sites}
    if len(widths) > 1:
        raise ModelError(
            f"{profile.name}: the layers have accumulators of {', '.join(map(str, sorted(widths)))} bits, but an array "
            f"has registers of one width; declare it, as in {{model: accumulator, width: {max(*widths, 24)}}}"
        )
    rate, spatial, mapping = profile.resolve_rate(fault.at), fault.spatial or profile.spatial, _mapping(fault)
    rows, columns = array_of(mapping)
    shares = (float(rate.effect.flip), float(rate.effect.stuck_at_0), float(rate.effect.stuck_at_1))
    drawn = draw_map(
        spatial,
        rate.cells * fault.share,
        rows=rows * columns,
        row_bits=widths.pop(),
        shares=shares,
        device=device,
        name=profile.name,
        bit_weights=profile.bit_weights,
    )
    cells = zip(drawn.word.tolist(), drawn.and_mask.tolist(), drawn.xor_mask.tolist(), strict=True)
    return [_event(mapping, divmod(element, columns), and_mask, xor_mask) for element, and_mask, xor_mask in cells]


def _event(mapping: Any, place: tuple[int, int], and_mask: int, xor_mask: int) -> Event:
    """What a stuck element strikes: channels of its column; steps, or positions, of its row."""
    (rows, columns), (row, column) = array_of(mapping), place
    steps = (rows, row) if mapping.kind == "weight_stationary" else (1, 0)
    positions = (rows, row) if mapping.kind == "output_stationary" else (1, 0)
    return (columns, column, *positions, *steps, and_mask, xor_mask)


class _Builder:
    """Puts together how one layer is added up."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._mapping: Any = None
        self._format = AccumulatorFormat()
        self._events: list[Event] = []

    def add(self, fault: FaultModel, events: Sequence[Event]) -> None:
        mapping = _mapping(fault)
        if mapping is not None and self._mapping not in (None, mapping):
            raise ModelError(
                f"the layer of {self._site.name!r} is said to run on two arrays, {self._mapping} and {mapping}; "
                "expected one"
            )
        self._mapping = self._mapping or mapping
        self._events += events
        if isinstance(fault, AccumulatorFormat):
            self._format = fault

    def plan(self) -> ArrayPlan:
        walk = self._walk() if self._events or self._format.overflow == "saturate" else {}
        own = {"arithmetic": self._format.arithmetic, "overflow": self._format.overflow, "events": tuple(self._events)}
        return ArrayPlan(**own, **walk)

    def _walk(self) -> dict[str, Any]:
        if self._mapping is None:
            return {}
        plan = schedule(self._mapping, self._site.weights or (), name=self._site.name)
        natural = bool(np.array_equal(plan.order, np.arange(len(plan.order))))
        order = () if natural else tuple(plan.order.tolist())
        return {"step": plan.step, "pass_steps": plan.pass_steps, "order": order}


def _bypass(fault: BypassedElements, site: Site) -> FaultMap:
    if site.shape is None or not site.signed or site.bit_width < 2:
        raise ModelError(
            f"the weights {site.name!r} ({site.bit_width} bits, {'signed' if site.signed else 'unsigned'}) have no "
            "code that drops their products, expected signed ones of at least 2 bits"
        )
    return bypass_map(fault.mapping, fault.numbers, site.shape, site.bit_width)
