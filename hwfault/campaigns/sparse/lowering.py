"""The operations of a graph in integer arithmetic, one by one, as nodes of the native description."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from hwfault.campaigns.sparse import description as d
from hwfault.campaigns.sparse.builder import Builder, Value
from hwfault.campaigns.sparse.known import Known
from hwfault.campaigns.sparse.moved import MOVES, moved_table
from hwfault.errors import GraphError
from hwfault.graph.read.integer import adds_integers
from hwfault.graph.read.qonnxgraph import attribute, site_name

_SINGLE, _DOUBLE = 1, 11
"""Types of ONNX in which integers and values lie."""
_SAME = ("Identity", "Dropout")
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_KEEPS_ORIGIN = ("Div", "Round", "Transpose", "Slice", "Cast", "Identity", "Gather")
_QUANTIZERS = ("Quant", "IntQuant", "BipolarQuant")


class Taken(NamedTuple):
    """Some input channels of integers, of which a layer adds up a part."""

    value: Value
    first: int


class Sums(NamedTuple):
    """What a layer adds up, in one part or several: weights by their first input channel, in the layer's shape."""

    value: Value
    parts: dict[int, NDArray[np.float32]]
    node: NodeProto
    weights: str
    """The name of the (first part's) weights in the graph."""


class Layer(NamedTuple):
    """A layer of the description: its node's number, its weights as integers, and their name in the graph."""

    node: int
    name: str
    weights: NDArray[np.int64]
    source: str


class Quantized(NamedTuple):
    """A step of a node that quantizes, and whether the node's values have the graph's last axis in front."""

    node: int
    step: int
    last: bool


class Addend(NamedTuple):
    """What a layer adds to its sums: the layer's node and channels, and the constant's name in the graph."""

    node: int
    channels: int
    source: str


class Lowering:
    """Goes through a graph's nodes; `values` tells what each of its tensors is.

    `largest` bounds the magnitude of the codes of a quantizer of weights. Raises GraphError, which names the layer or
    operation, for what the description cannot carry.
    """

    def __init__(self, model: ModelProto, known: Known, largest: Callable[[NodeProto], int | None]) -> None:
        self.builder = Builder()
        self.layers: list[Layer] = []
        self.origin: dict[str, NodeProto] = {}
        """The quantizer that constants come from, by their names."""
        self.quantized: dict[str, Quantized] = {}
        """The step that is each quantizer of values, by the names of what they give."""
        self.addends: list[Addend] = []
        self._known, self._largest = known, largest
        self._readers = Counter(name for node in model.graph.node for name in node.input)
        self._readers.update(info.name for info in model.graph.output)
        self._kinds: dict[str, list[str]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._kinds.setdefault(name, []).append(node.op_type)
        self.values: dict[str, Value | Taken | Sums] = {}
        entry = next(info.name for info in model.graph.input if info.name not in known.constants)
        self.values[entry] = Value(0, known.shapes[entry], alone=False)
        for node in model.graph.node:
            self._lower(node)

    def _lower(self, node: NodeProto) -> None:
        name = node.output[0] if node.output else ""
        if name in self._known.constants or not any(n in self.values for n in node.input):
            self._trace_origin(node)
            return
        made = self._made(node)
        if isinstance(made, Value):
            shape = self._known.shapes[name]
            if shape[:1] != (1,):
                raise refusal(node, f"its output has the shape {shape} for one image, expected a batch of one in front")
            made = made._replace(shape=shape, alone=made.alone and self._readers[name] == 1)
        self.values[name] = made

    def _trace_origin(self, node: NodeProto) -> None:
        """Notes which quantizer a constant comes from."""
        if node.op_type in _QUANTIZERS:
            self.origin[node.output[0]] = node
        elif node.op_type in _KEEPS_ORIGIN and node.input[0] in self.origin:
            self.origin[node.output[0]] = self.origin[node.input[0]]

    def _made(self, node: NodeProto) -> Value | Taken | Sums:
        op = node.op_type
        if op in ("Conv", "MatMul"):
            return self._sums(node)
        if op == "ReduceSum":
            return self._channel_sums(node)
        if op == "Affine":
            return self._affine(node)
        if op in _SAME or op == "Cast":
            return self._same(node)
        if op == "Add" and isinstance(self.values.get(node.input[0]), Sums):
            return self._joined(node)
        if op == "Slice" and set(self._kinds.get(node.output[0], ())) == {"Conv"}:
            return self._taken(node)
        if op in _RESHAPES:
            return self._value(node, 0)
        if op == "MaxPool":
            return self._max_pool(node)
        if op in MOVES:
            return self._moved(node)
        return self._step(node)

    # ---- operands

    def _as_it_lies(self, node: NodeProto, index: int) -> Value:
        value = self.values.get(node.input[index])
        if not isinstance(value, Value):
            raise refusal(node, "it reads what is no tensor of values")
        return value

    def _value(self, node: NodeProto, index: int) -> Value:
        """An operand in the graph's own order of axes."""
        return self.builder.turned(self._as_it_lies(node, index), last=False)

    def _constant(self, node: NodeProto, index: int) -> NDArray[Any]:
        name = node.input[index] if index < len(node.input) else ""
        if name not in self._known.constants:
            raise refusal(node, f"its operand number {index} is no constant")
        return self._known.constants[name]

    def _same(self, node: NodeProto) -> Value | Taken | Sums:
        if node.op_type == "Cast" and attribute(node, "to", 0) not in (_SINGLE, _DOUBLE):
            raise refusal(node, "it casts to another type than float32 or float64")
        return self.values[node.input[0]]

    # ---- layers

    def _sums(self, node: NodeProto) -> Sums:
        if not adds_integers(node):
            raise refusal(node, "it is not computed on integers")
        weights = self._constant(node, 1)
        if node.op_type == "MatMul":
            value = self._as_it_lies(node, 0)
            if weights.ndim != 2 or len(value.shape) < 2:
                raise refusal(
                    node, f"it multiplies values of the shape {value.shape} with weights of the shape {weights.shape}"
                )
            value = self.builder.turned(value, last=True)
            return Sums(value, {0: weights.T}, node, node.input[1])
        if len(node.input) > 2:
            raise refusal(node, "it has a bias of its own")
        taken = self.values.get(node.input[0])
        if isinstance(taken, Taken):
            return Sums(taken.value, {taken.first: weights}, node, node.input[1])
        return Sums(self._value(node, 0), {0: weights}, node, node.input[1])

    def _channel_sums(self, node: NodeProto) -> Sums:
        """Sums over all positions of each channel, channels being the first axis or the last."""
        value = self._as_it_lies(node, 0)
        axes = self._constant(node, 1).tolist() if len(node.input) > 1 else attribute(node, "axes", [])
        summed = sorted(axis % len(value.shape) for axis in axes)
        rank = len(value.shape)
        if not adds_integers(node) or summed not in (list(range(2, rank)), list(range(1, rank - 1))):
            raise refusal(node, "it does not add up all positions of each channel")
        value = self.builder.turned(value, last=summed[:1] == [1])
        ones = np.ones((value.lying[1], 1, *value.lying[2:]), np.float32)
        return Sums(value, {0: ones}, node, "")

    def _taken(self, node: NodeProto) -> Taken:
        table = moved_table(node, [self._value(node, 0)], self._known)
        first = int(table.flat[0]) // int(np.prod(table.shape[2:]))
        count = table.size
        start = int(table.flat[0])
        if not np.array_equal(table.reshape(-1), np.arange(start, start + count)):
            raise refusal(node, "it takes other inputs of a layer than channels that follow on each other")
        return Taken(self._value(node, 0), first)

    def _joined(self, node: NodeProto) -> Sums:
        one, other = (self.values.get(name) for name in node.input)
        if not isinstance(one, Sums) or not isinstance(other, Sums) or one.value.tensor != other.value.tensor:
            raise refusal(node, "it adds what is no part of a layer to one")
        return one._replace(parts=one.parts | other.parts)

    def _affine(self, node: NodeProto) -> Value:
        source = self.values.get(node.input[0])
        multiplier, addend = self._constant(node, 1), self._constant(node, 2)
        if not isinstance(source, Sums):
            return self._stepped(node, self._as_it_lies(node, 0), d.AFFINE, [multiplier, addend])
        value = self._layer(source, node)
        self.addends.append(Addend(value.tensor - 1, value.lying[1], node.input[2]))
        return self._stepped(node, value, d.AFFINE, [multiplier, addend])

    def _layer(self, sums: Sums, affine: NodeProto) -> Value:
        node, name = sums.node, name_of(sums.node)
        groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
        if node.op_type == "ReduceSum":
            groups = sums.value.lying[1]
        parts = [sums.parts[first] for first in sorted(sums.parts)]
        ends = np.cumsum([0, *(part.shape[1] for part in parts)])[:-1].tolist()
        if sorted(sums.parts) != ends or (len(parts) > 1 and groups > 1):
            raise refusal(node, "its parts are not all of its input channels in their order")
        joined = np.concatenate(parts, axis=1)
        weights = joined.astype(np.int64)
        if not np.array_equal(weights, joined) or np.abs(weights).max(initial=0) > np.iinfo(np.int16).max:
            raise refusal(node, "its weights are no integers of 16 bits")
        shape = self._known.shapes[affine.output[0]]
        quantizer = self.origin.get(sums.weights)
        of_codes = None if quantizer is None else self._largest(quantizer)
        largest = max(of_codes or 1, int(np.abs(weights).max(initial=1)))
        axes = self._axes(node, sums.value, weights, shape)
        last = sums.value.last and len(shape) > 2
        lowered = self.builder.layer(sums.value, weights, largest, groups, axes, shape, name, last=last)
        self.layers.append(Layer(lowered.tensor - 1, name, weights, sums.weights))
        return lowered

    def _axes(self, node: NodeProto, value: Value, weights: NDArray[Any], shape: tuple[int, ...]) -> list[d.Axis]:
        kernel = weights.shape[2:]
        if node.op_type == "MatMul":
            return [d.Axis(length, length, 1, 1, 0, 1) for length in value.shape[1:-1]]
        if node.op_type == "ReduceSum":
            return [d.Axis(length, 1, length, 1, 0, 1) for length in kernel]
        return _window_axes(node, value.shape[2:], shape[2:], kernel)

    # ---- the rest

    def _max_pool(self, node: NodeProto) -> Value:
        value, shape = self._value(node, 0), self._known.shapes[node.output[0]]
        if len(node.output) > 1:
            raise refusal(node, "its indices are read")
        axes = _window_axes(node, value.shape[2:], shape[2:], tuple(attribute(node, "kernel_shape", [])))
        numbers = [len(axes)]
        for axis in axes:
            numbers.extend(axis)
        return self.builder.add(d.MAX_POOL, [value], shape, name_of(node), numbers)

    def _moved(self, node: NodeProto) -> Value:
        inputs = [self._value(node, i) for i, name in enumerate(node.input) if name in self.values]
        if len(node.output) > 1:
            raise refusal(node, "it has several outputs")
        return self.builder.move(inputs, moved_table(node, inputs, self._known), name_of(node))

    def _step(self, node: NodeProto) -> Value:
        op = node.op_type
        if op == "Add" and all(name in self.values for name in node.input):
            return self._added(node)
        if op in ("Add", "Mul", "Sub") and node.input[0] not in self.values:
            value, constant = self._as_it_lies(node, 1), self._constant(node, 0)
            if op == "Sub":  # c - x is -x + c, rounded alike
                value, op = self._stepped(node, value, d.MULTIPLY, [-1.0]), "Add"
        else:
            value = self._as_it_lies(node, 0)
            constant = self._constant(node, 1) if op in ("Add", "Mul", "Sub", "Div") else np.empty(0)
        if op == "Sub":  # x - c is x + -c, rounded alike
            return self._stepped(node, value, d.PLUS, [-constant])
        simple = {"Add": d.PLUS, "Mul": d.MULTIPLY, "Div": d.DIVIDE}
        if op in simple:
            return self._stepped(node, value, simple[op], [constant])
        if op in ("Relu", "Round"):
            return self._stepped(node, value, d.RECTIFY if op == "Relu" else d.ROUND, [])
        if op == "Clip":
            return self._stepped(node, value, d.CLIP, [self._constant(node, 1), self._constant(node, 2)])
        if op == "BipolarQuant":
            return self._noted(node, self._stepped(node, value, d.BIPOLAR, [self._constant(node, 1)]))
        if op in ("Quant", "IntQuant"):
            return self._quantized(node, value)
        raise refusal(node, "the sparse engine has no such operation")

    def _added(self, node: NodeProto) -> Value:
        values = [self._as_it_lies(node, 0), self._as_it_lies(node, 1)]
        shape = self._known.shapes[node.output[0]]
        for i, value in enumerate(values):
            if value.shape != shape:  # repeats it
                plain = self.builder.turned(value, last=False)
                table = np.broadcast_to(np.arange(plain.size).reshape(plain.shape), shape)
                values[i] = self.builder.move([plain], table, name_of(node))
        last = any(value.last for value in values)
        values = [self.builder.turned(value, last=last) for value in values]
        return self.builder.add(d.ADD, values, shape, name_of(node), [], last=last)

    def _quantized(self, node: NodeProto, value: Value) -> Value:
        scale, zero_point, width = (self._constant(node, i) for i in (1, 2, 3))
        mode = attribute(node, "rounding_mode", b"ROUND").decode()
        if width.size != 1 or mode not in d.ROUNDINGS:
            raise refusal(node, f"its bit width is not one number, or its rounding ({mode}) is not known")
        bits, signed, narrow = int(width.item()), attribute(node, "signed", 1), attribute(node, "narrow", 0)
        if bits == 1 and signed:
            raise refusal(node, "it yields signed integers of one bit")
        least = -(1 << bits - 1) + narrow if signed else 0
        most = (1 << bits - 1) - 1 if signed else (1 << bits) - 1 - narrow
        extent = {"least": least, "most": most, "rounding": d.ROUNDINGS[mode]}
        return self._noted(node, self._stepped(node, value, d.QUANTIZE, [scale, zero_point], **extent))

    def _noted(self, node: NodeProto, value: Value) -> Value:
        number = value.tensor - 1
        step = len(self.builder.nodes[number].steps) - 1
        self.quantized[node.output[0]] = Quantized(number, step, value.last)
        return value

    def _stepped(self, node: NodeProto, value: Value, kind: int, constants: list[Any], **rest: int) -> Value:
        try:
            return self.builder.step(value, kind, constants, name_of(node), **rest)
        except ValueError:
            raise refusal(node, f"its constants do not spread over values of the shape {value.shape}") from None


def _window_axes(
    node: NodeProto, inputs: tuple[int, ...], outputs: tuple[int, ...], kernel: tuple[int, ...]
) -> list[d.Axis]:
    """The axes of a convolution or pool; what it pads behind shows in the lengths of its outputs."""
    if attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
        raise refusal(node, "it pads by itself (auto_pad)")
    ones, rank = [1] * len(kernel), len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    pads = attribute(node, "pads", [0] * 2 * rank)
    return [d.Axis(inputs[i], outputs[i], kernel[i], strides[i], pads[i], dilations[i]) for i in range(rank)]


def name_of(node: NodeProto) -> str:
    """The layer of an operation, or its site, or where it lies."""
    return site_name(node).removesuffix(".accumulator")


def refusal(node: NodeProto, why: str) -> GraphError:
    """What says that an operation cannot be carried."""
    return GraphError(f"the sparse engine cannot carry {name_of(node)!r} ({node.op_type}): {why}")
