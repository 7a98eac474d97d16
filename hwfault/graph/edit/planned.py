"""The places of a graph that a plan strikes, checked to be those that it was made for."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from hwfault.errors import GraphError, PlanError
from hwfault.graph.read.grids import check_steps
from hwfault.graph.read.layouts import number_words
from hwfault.graph.read.qonnxgraph import WORDS, Constants, metadata, words_sha256
from hwfault.graph.read.site_tensor import SiteTensor
from hwfault.graph.read.sites import GraphSites
from hwfault.graph.read.sums import Sums
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.names import first_run, split_run
from hwfault.program.processes import Site


def find_planned(model: ModelProto, found: GraphSites, plan: FaultPlan, sums: Sequence[Sums]) -> list[SiteTensor]:
    """The places of the plan, by its names; raises PlanError or GraphError for one that cannot be struck."""
    for name in found.obstacles.keys() & set(plan.names):
        raise GraphError(found.obstacles[name])
    # a graph tells by itself which quantizers read one parameter, but the plan which of them are one memory
    known = {alias: entry.site for entry in plan.sites for alias in entry.site.aliases or ()}
    known |= {entry.site.name: entry.site for entry in plan.sites}
    places: list[SiteTensor] = []
    others: list[Site] = []
    for place in found.places:
        planned = known.get(place.own)
        if planned is None:
            others.append(place.site.model_copy(update={"name": place.own}))
        else:
            own = {"name": planned.name, "batch": _batch_of(place.site, planned, found.batch)}
            places.append(place._replace(site=place.site.model_copy(update=own)))
    _check_batch_axes(plan, places, sums, found.batch)
    # sites first, as what differs there explains why words or grids do
    struck = [place.site for place in places]
    struck += [plan.at(entry.site.name).site for entry in sums]
    plan.check_fits([*others, *struck], "the graph")
    in_graph = [place.site for place in found.places]
    in_graph += [entry.site for entry in found.sums]
    _check_runs(in_graph, plan)
    constants = Constants(model)
    for place in places:
        _check_words(place, plan.at(place.site.name).site, constants)
        check_steps(place.site.name, place.grid, len(plan.steps(place.site.name)))
    _check_memories(places, constants)
    return places


def _batch_of(site: Site, planned: Site, batch: int | None) -> BatchAxis | None:
    """Where a graph made for so many samples has those of a site; one alone lies as the plan says, too, if it fits."""
    if batch != 1 or planned.batch == site.batch or site.shape is None:
        return site.batch
    # the whole tensor again: the shape of a sample has the axis of the samples only where it has rows there
    lying = site.batch_axis
    front = site.shape[: lying.axis]
    rest = site.shape[lying.axis + (lying.rows > 1) :]
    whole = (*front, lying.rows, *rest)
    said = planned.batch_axis
    if said.axis < len(whole) and whole[said.axis] == said.rows:
        return planned.batch
    return site.batch


def _check_batch_axes(plan: FaultPlan, places: Sequence[SiteTensor], sums: Sequence[Sums], batch: int | None) -> None:
    """Raises PlanError where the plan takes samples to lie otherwise than the graph has them."""
    sites = [place.site for place in places]
    for entry in sums:
        own = _batch_of(entry.site, plan.at(entry.site.name).site, batch)
        sites.append(entry.site.model_copy(update={"batch": own}))
    plan.check_batch_axes(sites, "the graph")


def _check_runs(sites: Sequence[Site], plan: FaultPlan) -> None:
    """Raises PlanError if a quantizer or layer runs more often in the graph than the plan knows."""
    known = {first_run(entry.site.name): entry.site.known_runs for entry in plan.sites}
    for site in sites:
        first, run = split_run(site.name)
        if first not in known or not site.batched or run == 0 or site.name in plan.names:
            continue
        runs = known[first]
        if runs is None or run >= runs:
            told = "no example has shown how often it runs" if runs is None else f"{runs} are known to the plan"
            raise PlanError(
                f"the graph has the run {site.name!r} of the site {first!r}, but {told}; resolve the faults against "
                "the sites of this graph, or of the network with an example, as in resolve(sites(model, example), ...)"
            )


def _check_memories(places: Sequence[SiteTensor], constants: Constants) -> None:
    """Raises PlanError where what is one memory in the plan are other parameters, or read otherwise, in the graph."""
    first: dict[str, SiteTensor] = {}
    for place in places:
        held = first.setdefault(place.site.name, place)
        if held.node is None or place.node is None or place.own == held.own:
            continue
        mine = constants.get(place.parameter)
        theirs = constants.get(held.parameter)
        differs = mine is not None and theirs is not None and not np.array_equal(mine, theirs)
        if differs or not _read_alike(place, held):
            what = "hold different values" if differs else "are read as different integers"
            raise PlanError(
                f"the plan was made for {place.own!r} and {held.own!r} as one parameter, the site {place.site.name!r}, "
                f"but in the graph they {what}; resolve the faults against this one again"
            )


def _read_alike(one: SiteTensor, other: SiteTensor) -> bool:
    """Whether two places have one width, sign, scale and zero point."""
    if (one.site.bit_width, one.site.signed) != (other.site.bit_width, other.site.signed):
        return False
    if not np.array_equal(one.grid.scale.ravel(), other.grid.scale.ravel()):
        return False
    return np.array_equal(one.grid.zero_point.ravel(), other.grid.zero_point.ravel())


def _check_words(place: SiteTensor, planned: Site, constants: Constants) -> None:
    """Raises PlanError if words lie in another order than where the plan comes from."""
    values = None if place.site.batched else constants.get(place.parameter)
    stamp = None if place.node is None else metadata(place.node).get(WORDS)
    # by the hash that the export noted of the words, or else by their shape
    shape = place.site.shape
    if stamp is not None and values is not None:
        same = stamp == words_sha256(number_words(values, place.layout))
    else:
        same = shape is None or planned.shape is None or _fits(shape, planned)
    if not same:
        raise PlanError(
            f"the values of the site {planned.name!r} (shape {list(shape or ())} in the graph, "
            f"{list(planned.shape or ())} in the plan) are not those that were exported, or lie in another order, so "
            "that faults would strike other words; put the plan into the graph as it was exported"
        )


def _fits(shape: tuple[int, ...], planned: Site) -> bool:
    """Whether words of a shape are the plan's; activations may have other positions than in the plan's example."""
    # axes of extent 1 move no word
    mine = [extent for extent in shape if extent != 1]
    theirs = [extent for extent in planned.shape or () if extent != 1]
    if mine == theirs:
        return True
    return planned.batched and sorted(mine) != sorted(theirs)
