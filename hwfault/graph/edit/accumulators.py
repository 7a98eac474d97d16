"""Layers of a graph that compute on their integers, so that faults reach their accumulators.

    X -> Div(s_x) -> Round ----------------+
    W -> Div(s_w) -> Round -> Transpose? --+-> Conv | Gemm | MatMul -> Cast? -> ArrayFaults -> the site's fault nodes
      -> Mul(s_x * s_w) -> Cast? -> Add(bias)?

with the casts, to double and back, where the plan asks for that arithmetic. In graphs of integer arithmetic layers
compute so already, and what is new is what stands between the sums and the Affine nodes behind them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.array_node import asks_for_double, make_array_node, value_scale
from hwfault.graph.edit.editing import Edit, FreshNames, copy_model, count_of, read_names
from hwfault.graph.read.integer import adds_integers, find_integers, find_worths, is_double
from hwfault.graph.read.layouts import inverse
from hwfault.graph.read.nodes import fault_node
from hwfault.graph.read.qonnxgraph import SITE, replace_nodes, set_metadata, standard_opset
from hwfault.graph.read.sites import GraphSites
from hwfault.graph.read.sums import Sums
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site, SitePlan

Array = NDArray[Any]

FIRST_WITH_ROUND, _AXES_ARE_INPUTS = 11, 13
"""Opsets: the first that has Round, the first whose Unsqueeze reads its axes."""


def select_sums(found: GraphSites, plan: FaultPlan) -> list[Sums]:
    """Every run of the layers whose accumulators the plan strikes.

    Raises GraphError for a layer that has no accumulator in the graph, PlanError for one of another shape or with
    wider sums.
    """
    planned = {entry.site.name: entry.site for entry in plan.sites if entry.site.kind == "accumulator"}
    for name in planned.keys() & found.obstacles.keys():
        raise GraphError(f"the accumulator {name!r} cannot be struck in the graph: {found.obstacles[name]}")
    sums = [entry for entry in found.sums if entry.site.name in planned]
    for entry in sums:
        _check_fits(entry.site, planned[entry.site.name])
    return sums


def _check_fits(site: Site, planned: Site) -> None:
    if site.weights != planned.weights:
        raise PlanError(
            f"the plan was made for weights of shape {list(planned.weights or ())} at {site.name!r}, but the graph "
            f"has {list(site.weights or ())} there; resolve the faults against this one again"
        )
    if site.bit_width > (planned.worst_case or 0):
        raise PlanError(
            f"the largest sum of {site.name!r} needs {site.bit_width} bits in the graph and {planned.worst_case} in "
            "the network that the plan was made for; resolve the faults against this one again"
        )


def check_rewritable(model: ModelProto, sums: Sequence[Sums]) -> None:
    """Raises GraphError unless the layers of the accumulators can compute on their integers in this graph."""
    opset = standard_opset(model)
    if sums and opset < FIRST_WITH_ROUND:
        raise GraphError(
            f"the graph is of opset {opset}, in which accumulators cannot be struck; export the network anew with "
            f"opset {FIRST_WITH_ROUND} or newer, or leave accumulators out of what the faults select"
        )
    for entry in sums:
        if adds_integers(entry.node) and not find_worths(model, entry.node):
            raise GraphError(f"no node says what the sums of {entry.site.name!r} are worth; export the network anew")


def rewrite_layers(model: ModelProto, sums: Sequence[Sums], plan: FaultPlan) -> Edit:
    """The graph with the layers of the accumulators computing on their integers, struck as the plan says.

    Raises GraphError for a graph that cannot compute so (see `check_rewritable`).
    """
    check_rewritable(model, sums)
    out = copy_model(model)
    fresh = FreshNames(model)
    # layers of integer arithmetic stay as they are: nodes are put in behind their sums
    behind: dict[str, list[NodeProto]] = {}
    exact = [entry for entry in sums if adds_integers(entry.node)]
    for entry in exact:
        behind |= _strike_integer_sums(out, entry, plan, fresh)
    # all others are written anew
    others = {entry.node.output[0]: entry for entry in sums if not adds_integers(entry.node)}
    nodes: list[NodeProto] = []
    for node in out.graph.node:
        output = node.output[0] if node.output else ""
        if output in others:
            nodes += _write_layer(out, others[output]._replace(node=node), plan, fresh)
        else:
            nodes += [node, *behind.get(output, [])]
    kept = _drop_idle_transposes(nodes, out, sums)
    replace_nodes(out, kept)
    return Edit(out, _describe_changes(exact, list(others.values()), len(nodes) - len(kept)))


def _drop_idle_transposes(nodes: list[NodeProto], model: ModelProto, sums: Sequence[Sums]) -> list[NodeProto]:
    """The nodes without the transpositions of weights that nobody reads any more.

    Left alone, such a one would be folded into the weights by qonnx's cleanup.
    """
    weights: set[str] = set()
    for entry in sums:
        weights.update(entry.node.input[1:2])
    idle = weights - read_names(nodes) - {info.name for info in model.graph.output}
    return [node for node in nodes if node.op_type != "Transpose" or not idle & set(node.output)]


def _describe_changes(exact: Sequence[Sums], others: Sequence[Sums], dropped: int) -> list[str]:
    changes = []
    if others:
        named = ", ".join(entry.site.name for entry in others)
        changes.append(f"{count_of(len(others), 'layer')} computed on integers from now on, with faults: {named}")
    if exact:
        named = ", ".join(entry.site.name for entry in exact)
        changes.append(f"faults behind the integer sums of {count_of(len(exact), 'layer')}: {named}")
    if dropped:
        changes.append(f"{count_of(dropped, 'transposition')} taken out that nothing reads any more")
    return changes


class _Writer:
    """Collects the nodes and constants that are written for one layer; their names begin with that of its output."""

    def __init__(self, prefix: str, fresh: FreshNames) -> None:
        self.prefix = prefix
        self._fresh = fresh
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def take_name(self, what: str) -> str:
        return self._fresh.take(f"{self.prefix}_{what}")

    def add_node(self, op: str, inputs: Sequence[str], what: str, **attributes: Any) -> str:
        """Writes a node; the name of what it makes."""
        output = self.take_name(what)
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def add_cast(self, tensor: str, to: int) -> str:
        output = self._fresh.take(f"{tensor}_cast")
        self.nodes.append(helper.make_node("Cast", [tensor], [output], name=output, to=to))
        return output

    def add_constant(self, what: str, values: Array) -> str:
        name = self.take_name(what)
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add_faults(
        self, layer: NodeProto, entry: SitePlan, plan: FaultPlan, operands: tuple[str, str, str], *, double: bool
    ) -> str:
        """Writes the ArrayFaults node of a layer and the fault nodes of its site; the name of the struck sums.

        `operands` are the sums, which are float64 where they are `double`, and the integers of inputs and weights.
        """
        site = entry.site
        at = self.take_name("added_up")
        self.nodes.append(make_array_node(entry, layer, operands, at))
        # the sums are integers: the grid of their codes has the scale 1 and the zero point 0
        dtype = np.float64 if double else np.float32
        one = self.add_constant("one", np.array(1, dtype))
        zero = self.add_constant("zero", np.array(0, dtype))
        for i, step in enumerate(plan.steps(site.name)):
            after = self.take_name(f"step{i}")
            node, constants = fault_node(
                site, step, (at, one, zero), after, f"{self.prefix}_faults{i}", take_name=self._fresh.take
            )
            self.nodes.append(node)
            self.constants += constants
            at = after
        return at


def _write_layer(model: ModelProto, layer: Sums, plan: FaultPlan, fresh: FreshNames) -> list[NodeProto]:
    """The nodes in a layer's place, whose constants are put into the graph."""
    entry = plan.at(layer.site.name)
    double = asks_for_double(entry)
    write = _Writer(layer.node.output[0], fresh)
    # the integers of inputs and weights
    x_scale = layer.source.grid.scale
    w_scale = layer.weights.grid.scale
    x = _write_integers(write, "x", layer.node.input[0], x_scale)
    w = _write_integers(write, "w", layer.read, w_scale)
    # their products added up, by the layer's own op
    weights = w
    if layer.transposed:
        weights = write.add_node("Transpose", [w], "w_transposed", perm=layer.transposed)
    sums = _write_sums(write, layer, x, weights)
    if double:
        sums = write.add_cast(sums, TensorProto.DOUBLE)
    # the faults, of which those of an array read the weights in the order of their words
    if layer.weights.layout:
        w = write.add_node("Transpose", [w], "w_in_order", perm=inverse(layer.weights.layout))
    struck = write.add_faults(layer.node, entry, plan, (sums, x, w), double=double)
    # what the sums are worth
    worth = value_scale(x_scale, w_scale, layer.node, layer.site, double=double)
    scale = write.add_constant("value_scale", worth)
    values = write.add_node("Mul", [struck, scale], "values")
    if double:
        values = write.add_cast(values, TensorProto.FLOAT)
    _write_output(write, layer.node, entry.site, values, standard_opset(model))
    model.graph.initializer.extend(write.constants)
    return write.nodes


def _write_integers(write: _Writer, what: str, tensor: str, scale: Array) -> str:
    by = write.add_constant(f"{what}_scale", scale.astype(np.float32))
    quotient = write.add_node("Div", [tensor, by], f"{what}_quotient")
    return write.add_node("Round", [quotient], f"{what}_integers")


def _write_sums(write: _Writer, layer: Sums, x: str, w: str) -> str:
    """The layer's own node on integers and without its bias; the name of its output."""
    output = write.take_name("sums")
    node = NodeProto()
    node.CopyFrom(layer.node)
    node.input[:] = [x, w]
    node.output[:] = [output]
    set_metadata(node, {SITE: layer.site.name})  # which outlives the names of nodes
    write.nodes.append(node)
    return output


def _write_output(write: _Writer, layer: NodeProto, site: Site, values: str, opset: int) -> None:
    """The layer's output, under its name: the values, plus the bias."""
    bias = layer.input[2] if len(layer.input) > 2 else ""
    if not bias:
        write.nodes[-1].output[0] = layer.output[0]
        return
    # the values have positions behind their channels, which a convolution's bias has not
    positions = list(range(1, len(site.weights or ()) - 1))
    if positions and opset < _AXES_ARE_INPUTS:
        bias = write.add_node("Unsqueeze", [bias], "bias", axes=positions)
    elif positions:
        axes = write.add_constant("bias_axes", np.array(positions, np.int64))
        bias = write.add_node("Unsqueeze", [bias, axes], "bias")
    # the layer's node keeps its own name, which may be that of its output
    named = write.take_name("output")
    write.nodes.append(helper.make_node("Add", [values, bias], [layer.output[0]], name=named))


def _strike_integer_sums(
    model: ModelProto, layer: Sums, plan: FaultPlan, fresh: FreshNames
) -> dict[str, list[NodeProto]]:
    """Puts faults behind the sums of a layer that computes on integers already, before what says their worth.

    New nodes by the tensor behind whose maker they belong; their constants are put into the graph, and what read the
    sums reads the struck ones.
    """
    entry = plan.at(layer.site.name)
    write = _Writer(layer.node.output[0], fresh)
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = find_worths(model, layer.node)
    sums = at = readers[0].input[0]
    # float64 where the layer adds up so, or the plan asks for it
    wide = is_double(makers, sums)
    double = wide or asks_for_double(entry)
    if double and not wide:
        at = write.add_cast(sums, TensorProto.DOUBLE)
    x, w = (find_integers(makers, name) for name in layer.node.input[:2])
    struck = write.add_faults(layer.node, entry, plan, (at, x, w), double=double)
    behind = {sums: write.nodes}
    # what says the worth of float64 sums answers in float64, too
    for reader in readers:
        reader.input[0] = struck
        if double and not wide:
            value = reader.output[0]
            reader.output[0] = fresh.take(f"{value}_double")
            behind[reader.output[0]] = [_cast_to_float(reader.output[0], value)]
    model.graph.initializer.extend(write.constants)
    return behind


def _cast_to_float(tensor: str, output: str) -> NodeProto:
    return helper.make_node("Cast", [tensor], [output], name=output, to=TensorProto.FLOAT)
