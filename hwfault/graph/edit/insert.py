"""Putting a fault plan into a QONNX graph."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hwfault import __version__
from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.accumulators import planned_sums, rewrite_layers
from hwfault.graph.edit.strip import UNDO, how_to_undo
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.batch_axes import check_axis_0
from hwfault.graph.read.grids import check_steps
from hwfault.graph.read.layouts import numbered
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED, fault_node
from hwfault.graph.read.places import Place
from hwfault.graph.read.qonnxgraph import (
    PLAN,
    PLAN_SHA256,
    SITE,
    WORDS,
    Constants,
    metadata,
    replace_nodes,
    set_metadata,
    standard_opset,
    words_sha256,
)
from hwfault.graph.read.shapes import is_fault
from hwfault.graph.read.sites import GraphSites, graph_sites
from hwfault.graph.read.sums import Sums
from hwfault.graph.read.versions import SPEC
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.program.names import first_run, split_run
from hwfault.program.processes import Site

_ZERO = f"{DOMAIN}_zero_point"
_KEPT = f"{DOMAIN}_kept"
"""A number that qonnx does not take for a constant, so that it does not fold away what reads it."""
_CLIP_HAS_INPUTS = 11


def insert_faults(model: ModelProto, plan: FaultPlan, *, batch_axis: int | None = None) -> ModelProto:
    """A copy of a QONNX graph in which every site of the plan is followed by its fault nodes, one for each step.

    Whatever read a quantizer's output (nodes, the graph's outputs) reads the faulty values under the same name. The
    graph gets the inputs `hwfault_seed` and `hwfault_first_sample` (int64 scalars) where anything is drawn, and the
    plan, its hash, the versions, and what `strip_faults` needs as metadata. `batch_axis` is that of the graph's inputs
    (see `hwfault.graph.read.sites`). Raises GraphError for a graph without sites or with faults already and for a plan
    with samples along another axis than 0, PlanError for a plan that does not fit it.
    """
    if any(is_fault(node) for node in model.graph.node):
        raise GraphError("the graph carries faults already; put the plan into the graph that was exported without one")
    check_axis_0(entry.site for entry in plan.sites)
    out = ModelProto()
    out.CopyFrom(model)
    found = graph_sites(out, batch_axis)
    _name_runs(found)
    sums = planned_sums(found, plan)
    places = _planned(out, found, plan, sums)
    _splice(out, places, plan)
    rewrite_layers(out, sums, plan)
    read = {name for node in out.graph.node if node.domain == DOMAIN for name in node.input}
    if _KEPT in read:
        _add_kept(out)
    for name in (SEED, FIRST_SAMPLE):
        if name in read:
            out.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
    if all(opset.domain != DOMAIN for opset in out.opset_import):  # graphs of integer arithmetic have ops of it
        out.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    out.ir_version = max(out.ir_version, 10)  # the first with metadata on nodes
    set_metadata(out, _plan_metadata(plan, places))
    set_metadata(out, {UNDO: how_to_undo(model, out)})
    return out


def _name_runs(found: GraphSites) -> None:
    """Has nodes say which run of a quantizer or layer they are, also once those beside them have other names."""
    named: list[tuple[NodeProto | None, Site]] = [(place.node, place.site) for place in found.places]
    named += [(entry.node, entry.site) for entry in found.sums]
    for node, site in named:
        if node is not None and site.runs is not None:
            set_metadata(node, {SITE: site.name})


def _planned(model: ModelProto, found: GraphSites, plan: FaultPlan, sums: Sequence[Sums]) -> list[Place]:
    """The places of the plan, by its names; raises PlanError or GraphError for one that cannot be struck."""
    for name in found.obstacles.keys() & set(plan.names):
        raise GraphError(found.obstacles[name])
    # a graph tells by itself which quantizers read one parameter, but the plan which of them are one memory
    known = {alias: entry.site for entry in plan.sites for alias in entry.site.aliases or ()}
    known |= {entry.site.name: entry.site for entry in plan.sites}
    places, others = list[Place](), list[Site]()
    for place in found.places:
        planned = known.get(place.own)
        if planned is None:
            others.append(place.site.model_copy(update={"name": place.own}))
        else:
            places.append(place._replace(site=place.site.model_copy(update={"name": planned.name})))
    struck = [*(place.site for place in places), *(plan.at(entry.site.name).site for entry in sums)]
    plan.check_fits([*others, *struck], "the graph")
    _check_runs([*(place.site for place in found.places), *(entry.site for entry in found.sums)], plan)
    constants = Constants(model)
    for place in places:
        _check_words(place, plan.at(place.site.name).site, constants)
        check_steps(place.site.name, place.grid, len(plan.steps(place.site.name)))
    _check_memories(places, constants)
    return places


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


def _check_memories(places: Sequence[Place], constants: Constants) -> None:
    """Raises PlanError where what is one memory in the plan are other parameters, or read otherwise, in the graph."""
    first: dict[str, Place] = {}
    for place in places:
        held = first.setdefault(place.site.name, place)
        if held.node is None or place.node is None or place.own == held.own:
            continue
        mine, theirs = (constants.get(node.input[0]) for node in (place.node, held.node))
        differs = mine is not None and theirs is not None and not np.array_equal(mine, theirs)
        if differs or not _read_alike(place, held):
            what = "hold different values" if differs else "are read as different integers"
            raise PlanError(
                f"the plan was made for {place.own!r} and {held.own!r} as one parameter, the site {place.site.name!r}, "
                f"but in the graph they {what}; resolve the faults against this one again"
            )


def _read_alike(one: Place, other: Place) -> bool:
    """Whether two places have one width, sign, scale and zero point."""
    pairs = ((one.grid.scale, other.grid.scale), (one.grid.zero_point, other.grid.zero_point))
    words = (one.site.bit_width, one.site.signed) == (other.site.bit_width, other.site.signed)
    return words and all(np.array_equal(mine.ravel(), theirs.ravel()) for mine, theirs in pairs)


def _check_words(place: Place, planned: Site, constants: Constants) -> None:
    """Raises PlanError if words lie in another order than where the plan comes from."""
    name = place.tensor if place.node is None else place.node.input[0]
    values = None if place.site.batched else constants.get(name)
    stamp = None if place.node is None else metadata(place.node).get(WORDS)
    shape = place.site.shape
    if stamp is not None and values is not None:
        same = stamp == words_sha256(numbered(values, place.layout))
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
    mine, theirs = ([extent for extent in axes if extent != 1] for axes in (shape, planned.shape or ()))
    return mine == theirs or (planned.batched and sorted(mine) != sorted(theirs))


def _splice(model: ModelProto, planned: list[Place], plan: FaultPlan) -> None:
    """Puts the fault nodes behind each planned tensor.

    They take over the tensor's name, so that every reader, also in subgraphs, and the graph's outputs see the faulty
    values without being touched.
    """
    types = {info.name: info for info in [*model.graph.value_info, *model.graph.output]}
    if any(place.grid.names[1] is None and not place.grid.zero_point.any() for place in planned):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), _ZERO))
    chains = {place.tensor: _chain(model, place, plan) for place in planned}
    nodes: list[NodeProto] = []
    for place in planned:
        for follower in chains[place.tensor]:
            _describe_before(model, types.get(place.tensor), follower.input[0])
        if place.node is None:
            _rename_initializer(model, place.tensor, chains[place.tensor][0].input[0])
            nodes += chains[place.tensor]
    for node in model.graph.node:
        chain = chains.get(node.output[0], []) if node.output else []
        nodes.append(node)
        if chain:
            node.output[0] = chain[0].input[0]
            nodes += chain
    replace_nodes(model, nodes)


def _add_kept(model: ModelProto) -> None:
    """Puts the node that makes _KEPT in front: an input that it leaves out makes its output no constant to qonnx."""
    number = f"{_KEPT}_number"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), number))
    node = helper.make_node("Clip", [number, ""], [_KEPT], name=_KEPT)
    replace_nodes(model, [node, *model.graph.node])


def _chain(model: ModelProto, place: Place, plan: FaultPlan) -> list[NodeProto]:
    """The fault nodes behind a tensor; the last has its name, and the constants are in the graph.

    What makes the tensor is marked as the site, which outlives the names of nodes.
    """
    site, after = place.site, place.tensor
    steps = plan.steps(site.name)
    grid = _grid(model, place)
    names = [f"{after}_before_faults", *(f"{after}_after_step{i}" for i in range(1, len(steps))), after]
    nodes = []
    for i, step in enumerate(steps):
        name = f"{(place.node.name if place.node is not None else '') or after}.faults" + (f"{i}" if i else "")
        node, constants = fault_node(site, step, (names[i], *grid), names[i + 1], name, place.layout)
        if node.op_type == "FaultMap" and not site.batched and standard_opset(model) >= _CLIP_HAS_INPUTS:
            node.input.append(_KEPT)
        model.graph.initializer.extend(constants)
        nodes.append(node)
    if place.node is not None and steps:
        set_metadata(place.node, {SITE: site.name} | _stamp(model, place))
    return nodes


def _grid(model: ModelProto, place: Place) -> tuple[str, str]:
    """The tensors that hold a place's scale and zero point, which are added where there are none."""
    scale, zero_point = place.grid.names
    if scale is None:
        scale = f"{place.tensor}_scale"
        model.graph.initializer.append(numpy_helper.from_array(place.grid.scale, scale))
    if zero_point is None and place.grid.zero_point.any():
        zero_point = f"{place.tensor}_zero_point"
        model.graph.initializer.append(numpy_helper.from_array(place.grid.zero_point, zero_point))
    return scale, zero_point or _ZERO


def _stamp(model: ModelProto, place: Place) -> dict[str, str]:
    """The hash of a parameter's values, if the graph holds them."""
    values = None if place.site.batched or place.node is None else Constants(model).get(place.node.input[0])
    return {} if values is None else {WORDS: words_sha256(numbered(values, place.layout))}


def _rename_initializer(model: ModelProto, name: str, new: str) -> None:
    """Gives an initializer, and what qonnx says of it, another name; its own is left to the faulty values."""
    next(tensor for tensor in model.graph.initializer if tensor.name == name).name = new
    for entry in [entry for entry in model.graph.quantization_annotation if entry.tensor_name == name]:
        model.graph.quantization_annotation.add().CopyFrom(entry)
        model.graph.quantization_annotation[-1].tensor_name = new


def _describe_before(model: ModelProto, known: ValueInfoProto | None, name: str) -> None:
    """Gives the tensor before the faults the type and shape known of the one after them."""
    if known is not None:
        info = model.graph.value_info.add()
        info.CopyFrom(known)
        info.name = name


def _plan_metadata(plan: FaultPlan, places: Sequence[Place]) -> dict[str, str]:
    # a plan does not know the zero points of its sites, nor the type that holds them, but a graph does
    stream = "1.1" if any(place.grid.needs_stream for place in places) else plan.stream
    return {
        PLAN: plan.to_json(),
        PLAN_SHA256: plan.digest,
        f"{DOMAIN}.version": __version__,
        SPEC: spec_of(stream),
    }
