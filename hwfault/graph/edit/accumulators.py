"""Layers of a graph that compute on their integers, so that faults reach their accumulators.

    X -> Div(s_x) -> Round ----------------+
    W -> Div(s_w) -> Round -> Transpose? --+-> Conv | Gemm | MatMul -> Cast? -> ArrayFaults -> the site's fault nodes
      -> Mul(s_x * s_w) -> Cast? -> Add(bias)?

with the casts, to double and back, where the plan asks for that arithmetic. In graphs of integer arithmetic layers
compute so already, and what is new is what stands between the sums and the Affine nodes behind them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.errors import GraphError, PlanError
from hwfault.graph import ops
from hwfault.graph.ops import AFFINE, ARRAY_OP, DOMAIN
from hwfault.graph.read.integer import adds_integers, in_double, summed, whole, worths
from hwfault.graph.read.layouts import Layout, inverse
from hwfault.graph.read.nodes import fault_node
from hwfault.graph.read.places import Places
from hwfault.graph.read.qonnxgraph import (
    SITE,
    attribute,
    replace_nodes,
    set_metadata,
    standard_opset,
)
from hwfault.graph.read.shapes import is_fault
from hwfault.graph.read.sites import GraphSites
from hwfault.graph.read.sums import Sums, divided, origin
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import ArrayPlan, Site, SitePlan

Array = NDArray[Any]

_FIRST_WITH_ROUND, _AXES_ARE_INPUTS = 11, 13
"""Opsets: the first that has Round, the first whose Unsqueeze reads its axes."""


def summing_node(node: NodeProto, makers: dict[str, NodeProto]) -> NodeProto | None:
    """The node that adds up the products of a layer whose output `node` makes; a bias may be added behind it."""
    if node.op_type == "Add":
        before = [makers[name] for name in node.input if name in makers]
        return next((maker for maker in before if ops.of(maker.op_type).accumulates), None)
    return node if ops.of(node.op_type).accumulates else None


def planned_sums(found: GraphSites, plan: FaultPlan) -> list[Sums]:
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


def rewrite_layers(model: ModelProto, sums: Sequence[Sums], plan: FaultPlan) -> None:
    """Makes the layers of the accumulators compute on their integers, with the faults of the plan, in place."""
    nodes: list[NodeProto] = []
    opset = standard_opset(model)
    if sums and opset < _FIRST_WITH_ROUND:
        raise GraphError(
            f"the graph is of opset {opset}, in which accumulators cannot be struck; export the network anew with "
            f"opset {_FIRST_WITH_ROUND} or newer, or leave accumulators out of what the faults select"
        )
    planned = {entry.node.output[0]: entry for entry in sums if not adds_integers(entry.node)}
    exact = [_OnIntegers(model, entry, plan) for entry in sums if adds_integers(entry.node)]
    behind = {name: new for layer in exact for name, new in layer.behind.items()}
    model.graph.initializer.extend(tensor for layer in exact for tensor in layer.constants)
    for node in list(model.graph.node):
        entry = planned.get(node.output[0]) if node.output else None
        if entry is None:
            nodes += [node, *(behind.get(node.output[0], []) if node.output else [])]
            continue
        rewritten = _Rewritten(entry._replace(node=node), plan.at(entry.site.name), plan, opset)
        nodes += rewritten.nodes
        model.graph.initializer.extend(rewritten.constants)
    # left alone, a transposition that nobody reads would be folded into the weights by qonnx's cleanup
    read = {name for node in nodes for name in node.input} | {info.name for info in model.graph.output}
    idle = {maker for entry in sums for maker in entry.node.input[1:2]} - read
    replace_nodes(model, [node for node in nodes if node.op_type != "Transpose" or not idle & set(node.output)])


class _Rewritten:
    """The nodes in a layer's place; their names begin with the name of its output."""

    def __init__(self, sums: Sums, entry: SitePlan, plan: FaultPlan, opset: int) -> None:
        self._opset = opset
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._layer, self._entry, self._output = sums.node, entry, sums.node.output[0]
        self._double = _asks_for_double(entry)
        x_scale, w_scale = sums.source.grid.scale, sums.weights.grid.scale
        x = self._integers("x", sums.node.input[0], x_scale)
        w = self._integers("w", sums.read, w_scale)
        added = self._sums(x, w, sums.transposed)
        if sums.weights.layout:
            w = self._node("Transpose", [w], self._named("w_in_order"), perm=inverse(sums.weights.layout))
        self._values(self._faults(added, x, w, plan), value_scale(x_scale, w_scale, sums.node, self._double))

    def _node(self, op: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        node = helper.make_node(op, list(inputs), [output], name=output, **attributes)
        self.nodes.append(node)
        return output

    def _constant(self, what: str, values: Array) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), self._named(what)))
        return self._named(what)

    def _named(self, what: str) -> str:
        return f"{self._output}_{what}"

    def _integers(self, what: str, tensor: str, scale: Array) -> str:
        by = self._constant(f"{what}_scale", scale.astype(np.float32))
        quotient = self._node("Div", [tensor, by], self._named(f"{what}_quotient"))
        return self._node("Round", [quotient], self._named(f"{what}_integers"))

    def _sums(self, x: str, w: str, transposed: Layout) -> str:
        if transposed:
            w = self._node("Transpose", [w], self._named("w_transposed"), perm=transposed)
        node = NodeProto()
        node.CopyFrom(self._layer)
        node.input[:] = [x, w]
        node.output[:] = [self._named("sums")]
        set_metadata(node, {SITE: self._entry.site.name})  # which outlives the names of nodes
        self.nodes.append(node)
        return self._cast(node.output[0], TensorProto.DOUBLE) if self._double else node.output[0]

    def _cast(self, tensor: str, to: int) -> str:
        return self._node("Cast", [tensor], f"{tensor}_cast", to=to)

    def _faults(self, sums: str, x: str, w: str, plan: FaultPlan) -> str:
        site, steps = self._entry.site, plan.steps(self._entry.site.name)
        self.nodes.append(array_node(self._entry, self._layer, (sums, x, w), self._named("added_up")))
        at = self._named("added_up")
        dtype = np.float64 if self._double else np.float32
        grid = [self._constant(what, np.array(value, dtype)) for what, value in (("one", 1), ("zero", 0))]
        for i, step in enumerate(steps):
            inputs, after = (at, grid[0], grid[1]), self._named(f"step{i}")
            node, constants = fault_node(site, step, inputs, after, self._named(f"faults{i}"))
            self.nodes.append(node)
            self.constants += constants
            at = after
        return at

    def _values(self, sums: str, scale: Array) -> None:
        """The layer's output: sums times the scale, plus the bias."""
        value = self._node("Mul", [sums, self._constant("value_scale", scale)], self._named("values"))
        value = self._cast(value, TensorProto.FLOAT) if self._double else value
        bias = self._layer.input[2] if len(self._layer.input) > 2 else ""
        if bias:
            self._node("Add", [value, self._spread(bias)], self._output)
        else:
            self.nodes[-1].output[0] = self._output

    def _spread(self, bias: str) -> str:
        """A bias as it lies along the accumulators."""
        axes = list(range(1, len(self._entry.site.weights or ()) - 1))
        if not axes:
            return bias
        if self._opset < _AXES_ARE_INPUTS:
            return self._node("Unsqueeze", [bias], self._named("bias"), axes=axes)
        shape = self._constant("bias_axes", np.array(axes, np.int64))
        return self._node("Unsqueeze", [bias, shape], self._named("bias"))


class _OnIntegers(_Rewritten):
    """The nodes behind the sums of a layer that computes on integers already; what read the sums reads theirs."""

    def __init__(self, model: ModelProto, layer: Sums, plan: FaultPlan) -> None:
        self.nodes, self.constants = [], []
        self._layer, self._entry, self._output = layer.node, plan.at(layer.site.name), layer.node.output[0]
        readers = worths(model, layer.node)
        if not readers:
            raise GraphError(f"no node says what the sums of {layer.site.name!r} are worth; export the network anew")
        sums, self.behind = readers[0].input[0], dict[str, list[NodeProto]]()
        makers = {name: node for node in model.graph.node for name in node.output}
        wide = in_double(makers, sums)
        self._double = wide or _asks_for_double(self._entry)
        x, w = (whole(makers, name) for name in layer.node.input[:2])
        at = sums if wide or not self._double else self._cast(sums, TensorProto.DOUBLE)
        at = self._faults(at, x, w, plan)
        self.behind[sums] = self.nodes
        for reader in readers:
            reader.input[0], value = at, reader.output[0]
            if self._double and not wide:
                reader.output[0] = f"{value}_double"
                cast = helper.make_node("Cast", [reader.output[0]], [value], name=value, to=TensorProto.FLOAT)
                self.behind[reader.output[0]] = [cast]


def _asks_for_double(entry: SitePlan) -> bool:
    return entry.array is not None and entry.array.arithmetic == "float64"


def value_scale(x: Array, w: Array, node: NodeProto, double: bool) -> Array:
    """What an accumulator's unit is worth, of the shape in which it lies along the accumulators."""
    dtype = np.float64 if double else np.float32
    channels = () if w.size == 1 else (w.size, *[1] * (w.ndim - 2)) if node.op_type == "Conv" else (w.size,)
    return np.asarray(np.multiply(x.astype(dtype).reshape(()), w.astype(dtype).reshape(channels)))


def array_node(entry: SitePlan, layer: NodeProto, inputs: tuple[str, str, str], output: str) -> NodeProto:
    """The ArrayFaults node behind a layer: inputs are its accumulators, and the integers of inputs and weights."""
    array, convolution = entry.array or ArrayPlan(), layer.op_type == "Conv"
    rank = len(entry.site.weights or ()) - 2 if convolution else 0
    lists: dict[str, Any] = {
        "strides": attribute(layer, "strides", [1] * rank) if convolution else [],
        "pads": attribute(layer, "pads", [0] * 2 * rank) if convolution else [],
        "dilations": attribute(layer, "dilations", [1] * rank) if convolution else [],
        "order": array.order,
        "events": [number for event in array.events for number in event],
    }
    numbers: dict[str, Any] = {
        "group": attribute(layer, "group", 1) if convolution else 1,
        "channels_last": int(not convolution),
        "width": entry.site.bit_width,
        "overflow": array.overflow,
        "step": array.step,
        "pass_steps": array.pass_steps,
        "recompute": int(array.arithmetic == "float64"),
    }
    node = helper.make_node(ARRAY_OP, list(inputs), [output], name=output, domain=DOMAIN, **numbers)
    node.attribute.extend(
        helper.make_attribute(key, list(values), attr_type=AttributeProto.INTS) for key, values in lists.items()
    )
    set_metadata(node, {SITE: entry.site.name})
    return node


def check_accumulator(places: Places, entry: SitePlan, before: str, after: str) -> bool:
    """Whether the layer of the ArrayFaults node that makes `before` is computed as the plan says.

    `after` is the tensor behind the site's fault nodes, which alone gives the layer's values. Transpositions may lie
    anywhere between.
    """
    tensors = places.tensors
    node = tensors.makers[before]
    double, exact = _asks_for_double(entry), summed(tensors.makers, node.input[0])
    layer = exact or tensors.makers.get(origin(places, node.input[0], casts=double))
    if layer is None or not ops.of(layer.op_type).accumulates or len(layer.input) != 2:
        return False
    scales = _integers_of(places, node, layer)
    if scales is None or not _same_attributes(node, array_node(entry, layer, ("", "", ""), "")):
        return False
    readers = list(tensors.behind(after, lambda reader: reader.op_type == "Transpose"))
    if exact is not None:  # the worth holds normalisations, too: only the network knows it
        return bool(readers) and all(n.op_type == AFFINE and name == n.input[0] for n, name in readers)
    value = (
        places.constants.get(readers[0][0].input[1]) if len(readers) == 1 and readers[0][0].op_type == "Mul" else None
    )
    if value is None or scales[1] is None:
        return value is not None
    return np.array_equal(value.ravel(), value_scale(scales[0], scales[1], layer, double).ravel())


def _same_attributes(node: NodeProto, other: NodeProto) -> bool:
    mine, theirs = ({a.name: helper.get_attribute_value(a) for a in n.attribute} for n in (node, other))
    return mine.keys() == theirs.keys() and all(_plain(mine[key]) == _plain(theirs[key]) for key in mine)


def _plain(value: Any) -> Any:
    return list(value) if not isinstance(value, int | bytes | str | float) else value


def _integers_of(places: Places, node: NodeProto, layer: NodeProto) -> tuple[Array, Array | None] | None:
    """The scales of a rewritten layer's inputs and weights; None if it does not compute on their integers.

    Weights that nothing strikes may have been folded into constants, which no longer tell their scale.
    """
    exact = adds_integers(layer)
    (inputs, read), (given, weights_given) = (
        [whole(places.tensors.makers, name) if exact else origin(places, name) for name in names]
        for names in (layer.input, node.input[1:3])
    )
    if inputs != given or not (read == weights_given or _same_constants(places, read, weights_given)):
        return None
    x, w = divided(places, places.unmoved(inputs) if exact else inputs), divided(places, read)
    source = places.source(x[0]) if x is not None else None
    if x is None or source is None or not np.array_equal(x[1].ravel(), source.grid.scale.ravel()):
        return None
    if w is None:
        folded = places.constants.get(read)
        return (x[1], None) if folded is not None and np.array_equal(folded, np.round(folded)) else None
    scale = _weight_scale(places, origin(places, w[0]))
    return (x[1], w[1]) if scale is not None and np.array_equal(w[1].ravel(), scale.ravel()) else None


def _weight_scale(places: Places, name: str) -> Array | None:
    """The scale of weights, which their fault nodes still tell where the quantizer was folded into them."""
    weights, maker = places.weights(name), places.tensors.makers.get(name)
    if weights is not None:
        return weights.grid.scale
    return places.constants.get(maker.input[1]) if maker is not None and is_fault(maker) else None


def _same_constants(places: Places, one: str, other: str) -> bool:
    """Whether two tensors are the same constants, of which qonnx gives each reader its own, transposed or not."""
    mine, theirs = (places.constants.get(name) for name in (one, other))
    if mine is None or theirs is None:
        return False
    return np.array_equal(mine, theirs) or np.array_equal(mine, theirs.T)
