"""How a layer is added up under the faults that strike its sums: width, array, faulty elements."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hwfault.devices.systolic import array_of, schedule
from hwfault.errors import ModelError
from hwfault.laws.bound import AccumulationPart, Bound, Event
from hwfault.program.processes import ArrayPlan, Site
from hwfault.stream.mapping import WeightStationary


def with_widths(sites: Sequence[Site], struck: Iterable[tuple[Bound[Any], Sequence[int]]]) -> list[Site]:
    """The sites, accumulators as wide as the faults declare them; `struck` are faults and the places of their sites.

    On an array of processing elements, whose registers have one width, it is the widest of the layers' where none is
    declared. Raises ModelError for two formats of one site.
    """
    struck = list(struck)
    wide = list(sites)
    # formats first: a width that is declared stands, whatever the other layers of an array have
    formatted: set[int] = set()
    declared: set[int] = set()
    for bound, places in struck:
        if not bound.declares:
            continue
        for place in places:
            if place in formatted:
                raise ModelError(
                    f"two accumulator formats for the site {wide[place].name!r}, expected one for each site"
                )
            formatted.add(place)
            if bound.width is not None:
                wide[place] = _as_wide(wide[place], bound.width)
                declared.add(place)
    for bound, places in struck:
        if bound.one_register:
            common = max((wide[place].bit_width for place in places), default=0)
            for place in set(places) - declared:
                wide[place] = _as_wide(wide[place], common)
    return wide


def accumulation_of(site: Site, parts: Sequence[AccumulationPart]) -> ArrayPlan | None:
    """How a layer is added up of which several faults say something; None where it is added up as it is.

    Raises ModelError for arrays that do not fit the layer or each other.
    """
    adding = [part for part in parts if part.adds_up]
    mapping = _mapping_of(site, adding)
    if mapping is not None:
        for part in parts:
            if not part.adds_up:
                _check_results(site, part.mapping, mapping)
    if not adding:
        return None
    events: list[Event] = []
    for part in adding:
        events.extend(part.events)
    if events:
        check_positions(site)
    overflow = next((part.overflow for part in adding if part.overflow is not None), "wrap")
    arithmetic = next((part.arithmetic for part in adding if part.arithmetic is not None), "float32")
    # sums that wrap and meet no faulty element are the same in any order, which then need not be said
    order = {}
    if mapping is not None and (events or overflow == "saturate"):
        order = _order(mapping, site)
    return ArrayPlan(arithmetic=arithmetic, overflow=overflow, events=tuple(events), **order)


def _mapping_of(site: Site, parts: Sequence[AccumulationPart]) -> Any:
    """The one array that the parts say a layer runs on; None where none says it. Raises ModelError for two."""
    mapping = None
    for part in parts:
        if part.mapping is None:
            continue
        if mapping is not None and part.mapping != mapping:
            raise ModelError(
                f"the layer of {site.name!r} is said to run on two arrays, {mapping} and {part.mapping}; expected one"
            )
        mapping = part.mapping
    return mapping


def check_positions(site: Site) -> None:
    """Raises ModelError for a convolution whose samples lie among its positions, which an array walks one by one."""
    if site.batch is not None and site.batch.axis > 0 and len(site.weights or ()) > 2:
        raise ModelError(
            f"the accumulator {site.name!r} is that of a convolution with {site.batch}: an array would walk from one "
            "sample's positions into the next one's, so its faults are no longer each sample's own; expected samples "
            "along axis 0. Leave it out of the faults of elements and late bits (select)"
        )


def element_event(mapping: Any, element: tuple[int, int], and_mask: int, xor_mask: int) -> Event:
    """What a faulty element (row, column) strikes: channels of its column; steps, or positions, of its row."""
    rows, columns = array_of(mapping)
    row, column = element
    # (n, i) strikes where a number modulo n is i, so that (1, 0) strikes always
    steps = positions = (1, 0)
    if mapping.kind == "weight_stationary":
        steps = (rows, row)
    elif mapping.kind == "output_stationary":
        positions = (rows, row)
    return (columns, column, *positions, *steps, and_mask, xor_mask)


def pass_obstacle(mapping: Any, site: Site) -> str | None:
    """Why late bits of a layer on an array cannot be told; None where they can.

    A weight-stationary array streams all positions of one tile before it takes the next: the word before (n, m) is
    (n, m - 1) of the same pass, and the register holds that pass's sum. Only where a single tile holds all weights is
    this the layer's output of the position before.
    """
    if not isinstance(mapping, WeightStationary):
        return None
    size = "weights of a shape that is not known"
    if site.weights:
        channels = site.weights[0]
        products = int(np.prod(site.weights[1:], dtype=np.int64))
        if 0 < channels <= mapping.columns and products <= mapping.rows:
            return None
        size = f"{channels} output channels of {products} products"
    return (
        f"late bits of {site.name!r}: a weight-stationary array of {mapping.rows} x {mapping.columns} adds up {size} "
        "in several passes; a late bit there keeps that of the position before in the same pass, of a partial sum that "
        "is not modelled. Expected at most as many channels as columns and as many products as rows, or another mapping"
    )


def _check_results(site: Site, results: Any, mapping: Any) -> None:
    """Raises ModelError where late results (of the array `results`) do not go with the array that adds up the layer."""
    if results is not None and mapping != results:
        raise ModelError(
            f"the layer of {site.name!r} is said to run on two arrays, {mapping} and, for its late bits, {results}; "
            "expected one"
        )
    reason = pass_obstacle(mapping, site)
    if reason is not None:
        raise ModelError(reason)


def _order(mapping: Any, site: Site) -> dict[str, Any]:
    """In which steps and passes an array adds up a layer; the natural order of products is not written down."""
    plan = schedule(mapping, site.weights or (), name=site.name)
    natural = np.array_equal(plan.order, np.arange(len(plan.order)))
    order = () if natural else tuple(plan.order.tolist())
    return {"step": plan.step, "pass_steps": plan.pass_steps, "order": order}


def _as_wide(site: Site, bit_width: int) -> Site:
    return site.model_copy(update={"bit_width": bit_width})
