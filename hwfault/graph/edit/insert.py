"""Putting a fault plan into a QONNX graph."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hwfault import __version__
from hwfault.errors import GraphError
from hwfault.graph.edit.accumulators import FIRST_WITH_ROUND, check_rewritable, rewrite_layers, select_sums
from hwfault.graph.edit.editing import Edit, FreshNames, copy_model, count_of
from hwfault.graph.edit.narrow import hold_narrow
from hwfault.graph.edit.number_types import find_types
from hwfault.graph.edit.planned import find_planned
from hwfault.graph.edit.strip import UNDO, how_to_undo
from hwfault.graph.edit.upgrade import raise_opset
from hwfault.graph.ops import DOMAIN, FAULT_OPS
from hwfault.graph.read.external import check_in_memory
from hwfault.graph.read.layouts import number_words
from hwfault.graph.read.marked import note_marks
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED, fault_node
from hwfault.graph.read.qonnxgraph import (
    PLAN,
    PLAN_SHA256,
    SITE,
    WORDS,
    Constants,
    replace_nodes,
    set_metadata,
    standard_opset,
    words_sha256,
)
from hwfault.graph.read.shapes import is_fault
from hwfault.graph.read.site_tensor import SiteTensor
from hwfault.graph.read.sites import GraphSites, graph_sites
from hwfault.graph.read.versions import SPEC
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.program.processes import Site

_ZERO, _ONE = f"{DOMAIN}_zero_point", f"{DOMAIN}_scale"
_KEPT = f"{DOMAIN}_kept"
"""A number that qonnx does not take for a constant, so that it does not fold away what reads it."""
_CLIP_HAS_INPUTS = 11


def insert_faults(
    model: ModelProto, plan: FaultPlan, *, batch_axis: int | None = None, stored: ModelProto | None = None
) -> ModelProto:
    """A copy of a QONNX graph in which every site of the plan is followed by its fault nodes, one for each step.

    Whatever read a quantizer's output (nodes, the graph's outputs) reads the faulty values under the same name. The
    graph gets the inputs `hwfault_seed` and `hwfault_first_sample` (int64 scalars) where anything is drawn, and the
    plan, its hash, the versions, and what `strip_faults` needs as metadata. `batch_axis` is that of the graph's inputs
    (see `hwfault.graph.read.sites`). `stored` is the graph as its file has it, where that has tensors in other files,
    for `hwfault strip` to write that again (see `hwfault.graph.edit.strip.find_stored`). The log `hwfault` is told what
    was added; `put_faults_in` returns it.
    Raises GraphError for a graph without sites, with faults already, with a tensor that has the name of one of those
    inputs or with tensors that lie in other files; PlanError for a plan that does not fit it.
    """
    return put_faults_in(model, plan, batch_axis=batch_axis, stored=stored).log_changes()


def put_faults_in(
    model: ModelProto, plan: FaultPlan, *, batch_axis: int | None = None, stored: ModelProto | None = None
) -> Edit:
    """The same graph as by `insert_faults`, with a sentence for each kind of change."""
    # what the plan strikes, all of it looked up in the graph as it is
    _check_given(model)
    found = graph_sites(model, batch_axis)
    sums = select_sums(found, plan)
    # layers that compute on integers need Round
    changes = found.changes
    ready, raised = raise_opset(found.model, FIRST_WITH_ROUND) if sums else Edit(found.model, [])
    if raised:
        found = _find_same(ready, found, batch_axis)
        sums = select_sums(found, plan)
    check_rewritable(ready, sums)
    places = find_planned(ready, found, plan, sums)
    _check_types(ready, places)
    # the copy
    out = copy_model(ready)
    _name_runs(out, found)
    shared = _Shared(out, places)
    held = hold_narrow(out, places, shared.fresh)
    places = [held.get(place.tensor, place) for place in places]
    _splice(out, places, plan, shared)
    rewritten: list[str] = []
    if sums:
        out, rewritten = rewrite_layers(out, sums, plan)
    if shared.is_kept_read:
        _add_kept(out, shared)
    drawn = _add_inputs(out)
    _add_domain(out)
    set_metadata(out, _plan_metadata(plan, places))
    note_marks(out)
    set_metadata(out, {UNDO: how_to_undo(model, out, stored)})
    return Edit(out, changes + raised + _describe_changes(out, drawn, rewritten))


def _find_same(model: ModelProto, before: GraphSites, batch_axis: int | None) -> GraphSites:
    """The sites of a graph in newer ops; raises GraphError unless they are those that it had before."""
    found = graph_sites(model, batch_axis)
    if _sites_of(found) != _sites_of(before):
        raise GraphError(
            f"the graph has other sites in opset {FIRST_WITH_ROUND}, which struck accumulators need; export the "
            "network anew with that opset or a newer one, or leave accumulators out of what the faults select"
        )
    return found


def _sites_of(found: GraphSites) -> list[Site]:
    return [place.site for place in found.places] + [entry.site for entry in found.sums]


def _check_given(model: ModelProto) -> None:
    """Raises GraphError for a graph that cannot take faults."""
    if any(is_fault(node) for node in model.graph.node):
        raise GraphError("the graph carries faults already; put the plan into the graph that was exported without one")
    check_in_memory(model)
    taken = FreshNames(model)
    for name in (SEED, FIRST_SAMPLE):
        if name in taken:
            raise GraphError(
                f"the graph has a tensor {name!r} already, which is what the input of its faults is called; give that "
                "tensor another name, then put the faults in"
            )


def _name_runs(model: ModelProto, found: GraphSites) -> None:
    """Has nodes say which run of a quantizer or layer they are, also once those beside them have other names."""
    runs: dict[str, str] = {}
    for place in found.places:
        if place.node is not None and place.site.runs is not None:
            runs[place.node.output[0]] = place.site.name
    for entry in found.sums:
        if entry.site.runs is not None:
            runs[entry.node.output[0]] = entry.site.name
    for node in model.graph.node:
        if node.output and node.output[0] in runs:
            set_metadata(node, {SITE: runs[node.output[0]]})


def _add_inputs(model: ModelProto) -> list[str]:
    """Gives the graph the inputs that its faults read; their names."""
    read: set[str] = set()
    for node in model.graph.node:
        if node.domain == DOMAIN:
            read.update(node.input)
    drawn = [name for name in (SEED, FIRST_SAMPLE) if name in read]
    for name in drawn:
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
    return drawn


def _add_domain(model: ModelProto) -> None:
    if all(opset.domain != DOMAIN for opset in model.opset_import):  # graphs of integer arithmetic have ops of it
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.ir_version = max(model.ir_version, 10)  # the first with metadata on nodes


def _describe_changes(model: ModelProto, drawn: list[str], rewritten: list[str]) -> list[str]:
    struck = Counter(node.op_type for node in model.graph.node if node.op_type in FAULT_OPS)
    changes = [f"{count_of(count, 'node')} {op} put in" for op, count in sorted(struck.items())]
    changes += rewritten
    if drawn:
        inputs = "input" if len(drawn) == 1 else "inputs"
        changes.append(f"the {inputs} {' and '.join(drawn)}")
    changes.append("the plan, its hash and what undoes all this, as metadata")
    return changes


def _splice(model: ModelProto, planned: Sequence[SiteTensor], plan: FaultPlan, shared: "_Shared") -> None:
    """Puts the fault nodes behind each planned tensor, in place.

    They take over the tensor's name, so that every reader, also in subgraphs, and the graph's outputs see the faulty
    values without being touched.
    """
    types = {info.name: info for info in [*model.graph.value_info, *model.graph.output]}
    chains = {place.tensor: _chain(model, place, plan, shared) for place in planned}
    marks = {place.tensor: _mark(place, plan, shared.constants) for place in planned}
    nodes: list[NodeProto] = []
    # weights that are initializers have no node: their faults come first
    for place in planned:
        chain = chains[place.tensor]
        for follower in chain:
            _describe_before(model, types.get(place.tensor), follower.input[0])
        if place.node is None:
            _rename_initializer(model, place.tensor, chain[0].input[0])
            nodes += chain
    for node in model.graph.node:
        nodes.append(node)
        chain = chains.get(node.output[0], []) if node.output else []
        if chain:
            set_metadata(node, marks[node.output[0]])
            node.output[0] = chain[0].input[0]
            nodes += chain
    replace_nodes(model, nodes)


class _Shared:
    """What the fault nodes of one graph have in common: names, types, and constants that all of them read."""

    def __init__(self, model: ModelProto, planned: Sequence[SiteTensor]) -> None:
        self.fresh = FreshNames(model)
        self.types = find_types(model)
        self.constants = Constants(model)
        self.zero = self.fresh.take(_ZERO)
        self.one = self.fresh.take(_ONE)
        self.kept = self.fresh.take(_KEPT)
        self.is_kept_read = False
        if any(_reads_shared_zero(place) for place in planned):
            model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), self.zero))
        if any(place.grid.own for place in planned):
            model.graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), self.one))


def _reads_shared_zero(place: SiteTensor) -> bool:
    """Whether the graph has no tensor that holds a place's zero point, which is 0."""
    return place.grid.names[1] is None and not place.grid.zero_point.any()


def _add_kept(model: ModelProto, shared: _Shared) -> None:
    """Puts the node that makes `kept` in front: an input that it leaves out makes its output no constant to qonnx."""
    number = shared.fresh.take(f"{_KEPT}_number")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), number))
    node = helper.make_node("Clip", [number, ""], [shared.kept], name=shared.kept)
    replace_nodes(model, [node, *model.graph.node])


def _chain(model: ModelProto, place: SiteTensor, plan: FaultPlan, shared: _Shared) -> list[NodeProto]:
    """The fault nodes behind a tensor; the last has its name, and the constants are in the graph."""
    site = place.site
    after = place.tensor
    steps = plan.steps(site.name)
    grid = _grid(model, place, shared)
    # the tensors before, between and behind the nodes
    names = [shared.fresh.take(f"{after}_before_faults")]
    names += [shared.fresh.take(f"{after}_after_step{i}") for i in range(1, len(steps))]
    names.append(after)
    own = (place.node.name if place.node is not None else "") or after
    nodes = []
    for i, step in enumerate(steps):
        name = f"{own}.faults{i}" if i else f"{own}.faults"
        inputs = (names[i], *grid)
        node, constants = fault_node(site, step, inputs, names[i + 1], name, place.layout, take_name=shared.fresh.take)
        if node.op_type == "FaultMap" and not site.batched and standard_opset(model) >= _CLIP_HAS_INPUTS:
            node.input.append(shared.kept)
            shared.is_kept_read = True
        model.graph.initializer.extend(constants)
        nodes.append(node)
    return nodes


def _grid(model: ModelProto, place: SiteTensor, shared: _Shared) -> tuple[str, str]:
    """The tensors that hold a place's scale and zero point, which are added where there are none."""
    if place.grid.own:
        return shared.one, shared.zero
    scale, zero_point = place.grid.names
    double = shared.types.get(place.tensor) == TensorProto.DOUBLE  # the ops take three inputs of one type
    if scale is None or double:
        scale = _add_number(model, place.grid.scale, f"{place.tensor}_scale", double, shared)
    if double or (zero_point is None and place.grid.zero_point.any()):
        zero_point = _add_number(model, place.grid.zero_point, f"{place.tensor}_zero_point", double, shared)
    return scale, zero_point or shared.zero


def _add_number(model: ModelProto, values: NDArray[Any], name: str, double: bool, shared: _Shared) -> str:
    """Adds a constant of a grid in the type of the values that it belongs to; its name."""
    own = shared.fresh.take(name)
    model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float64) if double else values, own))
    return own


def _check_types(model: ModelProto, places: Sequence[SiteTensor]) -> None:
    """Raises GraphError for values of a type that no fault op has."""
    types = find_types(model)
    half = next((place for place in places if types.get(place.tensor) == TensorProto.FLOAT16), None)
    if half is not None:
        raise GraphError(
            f"the values of the site {half.site.name!r} are float16, expected float32 or double: half precision does "
            "not hold all codes that faults can make; export the network in float32"
        )


def _mark(place: SiteTensor, plan: FaultPlan, constants: Constants) -> dict[str, str]:
    """The metadata of what makes a struck tensor: its site, which outlives the names of nodes, and its words' hash."""
    if not plan.steps(place.site.name):
        return {}
    marks = {SITE: place.site.name}
    if not place.site.batched and place.node is not None:
        values = constants.get(place.parameter)
        if values is not None:
            marks[WORDS] = words_sha256(number_words(values, place.layout))
    return marks


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


def _plan_metadata(plan: FaultPlan, places: Sequence[SiteTensor]) -> dict[str, str]:
    # a plan does not know the zero points of its sites, nor the type that holds them, but a graph does
    stream = "1.1" if any(place.grid.needs_stream for place in places) else plan.stream
    return {
        PLAN: plan.to_json(),
        PLAN_SHA256: plan.digest,
        f"{DOMAIN}.version": __version__,
        SPEC: spec_of(stream),
    }
