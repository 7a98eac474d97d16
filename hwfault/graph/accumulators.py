"""Layers of a graph that compute on their integers, so that faults reach their accumulators.

    X -> Div(s_x) -> Round ----------------+
    W -> Div(s_w) -> Round -> Transpose? --+-> Conv | Gemm | MatMul -> Cast? -> ArrayFaults -> the site's fault nodes
      -> Mul(s_x * s_w) -> Cast? -> Add(bias)?

with the casts, to double and back, where the plan asks for that arithmetic. In graphs of integer arithmetic layers
compute so already, and what is new is what stands between the sums and the Affine nodes behind them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.errors import GraphError, PlanError
from hwfault.graph.integer import INTEGERS, in_double, summed, whole, worths
from hwfault.graph.nodes import ARRAY_OP, fault_node
from hwfault.graph.qonnxgraph import (
    DOMAIN,
    QUANT_OPS,
    SITE,
    Constants,
    attribute,
    metadata,
    replace_nodes,
    set_metadata,
    site_name,
)
from hwfault.inject.affine import AFFINE
from hwfault.plan import FaultPlan, Site, SitePlan
from hwfault.plan.processes import ArrayPlan

LAYER_OPS = ("Conv", "Gemm", "MatMul")
"""The ops that add up products; site_name's scope of such a node is its layer's."""
SUFFIX = ".accumulator"

Array = NDArray[Any]


class LayerNode(NamedTuple):
    """A node that adds up products, and the name of its accumulator's site."""

    name: str
    node: NodeProto


def layer_nodes(model: ModelProto) -> list[LayerNode]:
    """The layers of a graph, in its order: by their metadata, or by the scope in their names."""
    nodes = [node for node in model.graph.node if node.op_type in LAYER_OPS]
    nodes = [node for node in nodes if INTEGERS not in metadata(node) or SITE in metadata(node)]  # not parts of layers
    return [LayerNode(metadata(node).get(SITE) or site_name(node) + SUFFIX, node) for node in nodes]


def summing_node(node: NodeProto, makers: dict[str, NodeProto]) -> NodeProto | None:
    """The node that adds up the products of a layer whose output `node` makes; a bias may be added behind it."""
    if node.op_type == "Add":
        before = [makers[name] for name in node.input if name in makers]
        return next((maker for maker in before if maker.op_type in LAYER_OPS), None)
    return node if node.op_type in LAYER_OPS else None


def planned_layers(model: ModelProto, plan: FaultPlan) -> list[LayerNode]:
    """The layers whose accumulators the plan strikes."""
    return [layer for layer in layer_nodes(model) if layer.name in plan.names]


def layer_sites(model: ModelProto, plan: FaultPlan) -> list[Site]:
    """The planned accumulators that the graph has; raises PlanError for a layer of another shape or with wider sums."""
    view = _View(model)
    found = {layer.name: layer for layer in planned_layers(model, plan)}
    return [_checked_site(view, layer, plan.at(name).site) for name, layer in found.items()]


def _checked_site(view: "_View", layer: LayerNode, planned: Site) -> Site:
    parts = view.parts(layer, planned)
    if parts.weight_shape not in (None, planned.weights):
        raise PlanError(
            f"the plan was made for weights of shape {list(planned.weights or ())} at {layer.name!r}, but the graph "
            f"has {list(parts.weight_shape)} there; resolve the faults against this one again"
        )
    if parts.bits > (planned.worst_case or 0):
        raise PlanError(
            f"the largest sum of {layer.name!r} needs {parts.bits} bits in the graph and {planned.worst_case} in the "
            "network that the plan was made for; resolve the faults against this one again"
        )
    return planned


class _Parts(NamedTuple):
    """What a layer computes on."""

    weights: str
    """The tensor of the weights (faults included) in the order (channels, inputs, kernel)."""
    transposed: list[int] | None
    """The permutation of the weights before the layer reads them."""
    weight_scale: Array
    input_scale: Array
    weight_shape: tuple[int, ...] | None
    bits: int


class _View:
    """What makes the tensors of a graph, and its constants."""

    def __init__(self, model: ModelProto) -> None:
        self.constants = Constants(model)
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.quantizers = {site_name(node): node for node in model.graph.node if node.op_type in QUANT_OPS}

    def parts(self, layer: LayerNode, planned: Site) -> _Parts:
        """The integers behind a layer's inputs; raises GraphError where they are on no known grid."""
        name, transposed = layer.node.input[1], None
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Transpose":
            name, transposed = maker.input[0], list(attribute(maker, "perm", []))
        if INTEGERS in metadata(layer.node):
            divided = _divided(self, whole(self.makers, name))
            name = divided[0] if divided is not None else name
        weights, source = self.quantizer(name), self.quantizers.get(planned.source or "")
        if weights is None or source is None:
            raise GraphError(
                f"the accumulator {layer.name!r} cannot be struck in the graph: "
                + (
                    f"its inputs come from the quantizer {planned.source!r}, which the graph does not have"
                    if weights is not None and planned.source
                    else "its inputs are on the grid of no single quantizer"
                    if weights is not None
                    else "its weights are not quantized there"
                )
            )
        self._check_order(layer, transposed)
        scales = self._scale(weights), self._scale(source)
        shape = self.constants.shape(weights.input[0])
        products = int(np.prod(shape[1:])) if shape else 0
        bound = products * self._largest(weights) * self._largest(source)
        return _Parts(name, transposed, *scales, shape, bound.bit_length() + 1)

    def quantizer(self, name: str) -> NodeProto | None:
        """The quantizer behind a tensor and its fault nodes."""
        node = self.makers.get(name)
        while node is not None and node.domain == DOMAIN:
            node = self.makers.get(node.input[0])
        return node if node is not None and node.op_type in QUANT_OPS else None

    def _check_order(self, layer: LayerNode, transposed: list[int] | None) -> None:
        node = layer.node
        natural = node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0) == 1)
        plain = node.op_type != "Gemm" or (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) == (1.0, 1.0)
        if natural == (transposed is not None) or not plain or attribute(node, "transA", 0):
            raise GraphError(
                f"the node {node.name!r} ({layer.name}) reads its weights in another order than the export writes; "
                "qonnx's cleanup transposes weights: put the plan into the exported graph first, then clean it up"
            )

    def _scale(self, quantizer: NodeProto) -> Array:
        scale = self.constants.get(quantizer.input[1])
        if scale is None:
            raise GraphError(f"the quantizer {quantizer.name!r} has a scale that is not a constant")
        return scale.astype(np.float32)

    def _largest(self, quantizer: NodeProto) -> int:
        """The largest integer, zero point taken off, that the quantizer's bits allow."""
        if quantizer.op_type == "BipolarQuant":
            return 1
        width, zero = (self.constants.get(quantizer.input[i]) for i in (3, 2))
        bits = int(width.item()) if width is not None and width.size == 1 else 0
        signed = bool(attribute(quantizer, "signed", 1)) and zero is not None and not zero.any()
        return 1 << (bits - 1) if signed else (1 << bits) - 1


def rewrite_layers(model: ModelProto, plan: FaultPlan) -> None:
    """Makes every planned accumulator's layer compute on its integers, with the faults of the plan, in place."""
    view, nodes = _View(model), []
    layers = planned_layers(model, plan)
    planned = {layer.node.output[0]: layer for layer in layers if INTEGERS not in metadata(layer.node)}
    exact = [_OnIntegers(model, view, layer, plan) for layer in layers if layer.node.output[0] not in planned]
    behind = {name: new for layer in exact for name, new in layer.behind.items()}
    model.graph.initializer.extend(tensor for new in exact for tensor in new.constants)
    for node in list(model.graph.node):
        if node.output and node.output[0] in behind:
            nodes += [node, *behind[node.output[0]]]
            continue
        layer = planned.get(node.output[0]) if node.output else None
        if layer is None:
            nodes.append(node)
            continue
        entry = plan.at(layer.name)
        rewritten = _Rewritten(layer, entry, view.parts(layer, entry.site), plan)
        nodes += rewritten.nodes
        model.graph.initializer.extend(rewritten.constants)
    # left alone, a transposition that nobody reads would be folded into the weights by qonnx's cleanup
    read = {name for node in nodes for name in node.input} | {info.name for info in model.graph.output}
    replace_nodes(model, [node for node in nodes if node.op_type != "Transpose" or read & set(node.output)])


class _Rewritten:
    """The nodes in a layer's place; their names begin with the name of its output."""

    def __init__(self, layer: LayerNode, entry: SitePlan, parts: _Parts, plan: FaultPlan) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._layer, self._entry, self._output = layer, entry, layer.node.output[0]
        self._double = self._asks_for_double()
        x = self._integers("x", layer.node.input[0], parts.input_scale)
        w = self._integers("w", parts.weights, parts.weight_scale)
        sums = self._faults(self._sums(x, w, parts.transposed), x, w, plan)
        self._values(sums, value_scale(parts.input_scale, parts.weight_scale, layer.node, self._double))

    def _asks_for_double(self) -> bool:
        return self._entry.array is not None and self._entry.array.arithmetic == "float64"

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
        by = self._constant(f"{what}_scale", scale)
        quotient = self._node("Div", [tensor, by], self._named(f"{what}_quotient"))
        return self._node("Round", [quotient], self._named(f"{what}_integers"))

    def _sums(self, x: str, w: str, transposed: list[int] | None) -> str:
        if transposed is not None:
            w = self._node("Transpose", [w], self._named("w_transposed"), perm=transposed)
        node = NodeProto()
        node.CopyFrom(self._layer.node)
        node.input[:] = [x, w]
        node.output[:] = [self._named("sums")]
        self.nodes.append(node)
        return self._cast(node.output[0], TensorProto.DOUBLE) if self._double else node.output[0]

    def _cast(self, tensor: str, to: int) -> str:
        return self._node("Cast", [tensor], f"{tensor}_cast", to=to)

    def _faults(self, sums: str, x: str, w: str, plan: FaultPlan) -> str:
        site, steps = self._entry.site, plan.steps(self._entry.site.name)
        self.nodes.append(array_node(self._entry, self._layer.node, (sums, x, w), self._named("added_up")))
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
        bias = self._layer.node.input[2] if len(self._layer.node.input) > 2 else ""
        if bias:
            axes = range(1, len(self._entry.site.weights or ()) - 1)
            if axes:
                shape = self._constant("bias_axes", np.array(axes, np.int64))
                bias = self._node("Unsqueeze", [bias, shape], self._named("bias"))
            self._node("Add", [value, bias], self._output)
        else:
            self.nodes[-1].output[0] = self._output


class _OnIntegers(_Rewritten):
    """The nodes behind the sums of a layer that computes on integers already; what read the sums reads theirs."""

    def __init__(self, model: ModelProto, view: "_View", layer: LayerNode, plan: FaultPlan) -> None:
        self.nodes, self.constants = [], []
        self._layer, self._entry, self._output = layer, plan.at(layer.name), layer.node.output[0]
        readers = worths(model, layer.node)
        if not readers:
            raise GraphError(f"no node says what the sums of {layer.name!r} are worth; export the network anew")
        sums, self.behind = readers[0].input[0], dict[str, list[NodeProto]]()
        wide = in_double(view.makers, sums)
        self._double = wide or self._asks_for_double()
        x, w = integers_read(view.makers, layer.node)
        at = sums if wide or not self._double else self._cast(sums, TensorProto.DOUBLE)
        at = self._faults(at, x, w, plan)
        self.behind[sums] = self.nodes
        for reader in readers:
            reader.input[0], value = at, reader.output[0]
            if self._double and not wide:
                reader.output[0] = f"{value}_double"
                cast = helper.make_node("Cast", [reader.output[0]], [value], name=value, to=TensorProto.FLOAT)
                self.behind[reader.output[0]] = [cast]


def integers_read(makers: Mapping[str, NodeProto], layer: NodeProto) -> tuple[str, str]:
    """The integers that a layer reads, those of the weights in the order (channels, inputs, kernel)."""
    x, w = layer.input[:2]
    if INTEGERS in metadata(layer):
        return whole(makers, x), whole(makers, w)
    maker = makers.get(w)
    return x, maker.input[0] if maker is not None and maker.op_type == "Transpose" else w


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


def check_accumulator(model: ModelProto, entry: SitePlan, before: str, after: str) -> bool:
    """Whether the layer of the ArrayFaults node that makes `before` is computed as the plan says.

    `after` is the tensor behind the site's fault nodes, which alone gives the layer's values.
    """
    view = _View(model)
    node = view.makers[before]
    exact = summed(view.makers, node.input[0])
    layer = exact or view.makers.get(node.input[0])
    double = entry.array is not None and entry.array.arithmetic == "float64"
    if double and layer is not None and layer.op_type == "Cast":
        layer = view.makers.get(layer.input[0])
    if layer is None or layer.op_type not in LAYER_OPS or len(layer.input) != 2:
        return False
    expected = array_node(entry, layer, ("", "", ""), "")
    scales = _integers_of(view, entry.site, node, layer)
    if scales is None or not _same_attributes(node, expected):
        return False
    readers = [reader for reader in model.graph.node if after in reader.input]
    if exact is not None:  # the worth holds normalisations, too: only the network knows it
        return bool(readers) and all(reader.op_type == AFFINE for reader in readers)
    value = view.constants.get(readers[0].input[1]) if len(readers) == 1 and readers[0].op_type == "Mul" else None
    return value is not None and np.array_equal(value, value_scale(*scales, layer, double))


def _same_attributes(node: NodeProto, other: NodeProto) -> bool:
    mine, theirs = ({a.name: helper.get_attribute_value(a) for a in n.attribute} for n in (node, other))
    return mine.keys() == theirs.keys() and all(_plain(mine[key]) == _plain(theirs[key]) for key in mine)


def _plain(value: Any) -> Any:
    return list(value) if not isinstance(value, int | bytes | str | float) else value


def _integers_of(view: _View, site: Site, node: NodeProto, layer: NodeProto) -> tuple[Array, Array] | None:
    """The scales of a rewritten layer's inputs and weights; None if it does not compute on their integers."""
    if integers_read(view.makers, layer) != tuple(node.input[1:3]):
        return None
    source = view.quantizers.get(site.source or "")
    weights = _divided(view, node.input[2])
    quantizer = view.quantizer(weights[0]) if weights is not None else None
    given = [_divided(view, node.input[1]), weights]
    if source is None or quantizer is None or None in given:
        return None
    scales = [view.constants.get(q.input[1]) for q in (source, quantizer)]
    pairs = list(zip((pair[1] for pair in given if pair is not None), scales, strict=True))
    same = all(b is not None and np.array_equal(a.ravel(), b.ravel()) for a, b in pairs)
    return (pairs[0][0], pairs[1][0]) if same else None


def _divided(view: _View, integers: str) -> tuple[str, Array] | None:
    """The tensor and the scale of Round(Div(tensor, scale)); None for anything else."""
    rounding = view.makers.get(integers)
    quotient = view.makers.get(rounding.input[0]) if rounding is not None and rounding.op_type == "Round" else None
    if quotient is None or quotient.op_type != "Div":
        return None
    scale = view.constants.get(quotient.input[1])
    return None if scale is None else (quotient.input[0], scale)
