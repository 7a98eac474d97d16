"""Graphs as converters of QKeras write them: numbers of quantizers in other types, and behind other nodes.

Channels lie last, between Transposes; biases are quantized, too; scales are powers of two, as quantized_bits has them.
"""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.graph.edit.test_number_types import number
from tests.helpers.graph.ops import QONNX

SHAPE = (6, 6, 2)
Types = dict[str, str]


class _Writer:
    """Nodes and constants of a graph, with quantizers whose numbers are of these types and behind these nodes."""

    def __init__(self, types: Types, ways: Types) -> None:
        self.nodes: list[NodeProto] = []
        self.held: list[TensorProto] = []
        self._types = {"scale": "float32", "zeropt": "float32", "bits": "int64"} | types
        self._ways = dict.fromkeys(self._types, "initializer") | ways
        self._rng = np.random.default_rng(9)

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def rows(self, width: int) -> str:
        """The constant that a Reshape to rows reads."""
        self.held.append(numpy_helper.from_array(np.array([-1, width], np.int64), "rows"))
        return "rows"

    def weights(self, name: str, *shape: int) -> str:
        largest = 6 if "int" in self._types["scale"] else 1
        values = self._rng.uniform(-largest, largest, shape).astype(np.float32)
        self.held.append(numpy_helper.from_array(values, name))
        return name

    def quantized(self, source: str, name: str, bits: int, integer: int, *, signed: bool = True) -> str:
        """quantized_bits(bits, integer), or quantized_relu where it is not signed; integers have the scale 1."""
        scale = 1 if "int" in self._types["scale"] else 2.0 ** (integer + int(signed) - bits)
        names = []
        for key, value in (("scale", scale), ("zeropt", 0), ("bits", bits)):
            nodes, held = number(f"{name}_{key}", value, self._types[key], self._ways[key])
            self.nodes += nodes
            self.held += held
            names.append(f"{name}_{key}")
        given = {"domain": QONNX, "signed": int(signed), "narrow": 0, "rounding_mode": "ROUND"}
        return self.node("Quant", [source, *names], name, **given)


def dense(types: Types, ways: Types) -> ModelProto:
    """Two QDense, with a quantized_relu in between."""
    own = _Writer(types, ways)
    flat = own.node("Reshape", ["x", own.rows(72)], "flatten")
    hidden = own.quantized(flat, "input_quantizer", 8, 0)
    for name, ins, outs in (("fc1", 72, 8), ("fc2", 8, 5)):
        kernel = own.quantized(own.weights(f"{name}/kernel", ins, outs), f"{name}_kernel_quantizer", 4, 0)
        bias = own.quantized(own.weights(f"{name}/bias", outs), f"{name}_bias_quantizer", 6, 1)
        sums = own.node("MatMul", [hidden, kernel], f"{name}/MatMul")
        hidden = own.node("Add", [sums, bias], f"{name}/BiasAdd")
        if name == "fc1":
            hidden = own.quantized(hidden, "relu1", 4, 2, signed=False)
    return _model(own, hidden, [5])


def convolutional(types: Types, ways: Types) -> ModelProto:
    """QConv2D between Transposes, QActivation, pooling, QDense."""
    own = _Writer(types, ways)
    hidden = own.quantized("x", "input_quantizer", 8, 0)
    kernel = own.quantized(own.weights("conv/kernel", 3, 3, 2, 4), "conv_kernel_quantizer", 4, 0)
    bias = own.quantized(own.weights("conv/bias", 4), "conv_bias_quantizer", 6, 1)
    first = own.node("Transpose", [hidden], "conv/first", perm=[0, 3, 1, 2])
    turned = own.node("Transpose", [kernel], "conv/kernel_turned", perm=[3, 2, 0, 1])
    window = {"pads": [1] * 4, "kernel_shape": [3, 3], "strides": [1, 1], "dilations": [1, 1], "group": 1}
    sums = own.node("Conv", [first, turned, bias], "conv/Conv2D", **window)
    hidden = own.quantized(sums, "relu1", 4, 2, signed=False)
    hidden = own.node("MaxPool", [hidden], "pool", kernel_shape=[2, 2], strides=[2, 2])
    last = own.node("Transpose", [hidden], "pool/last", perm=[0, 2, 3, 1])
    flat = own.node("Reshape", [last, own.rows(36)], "flatten")
    kernel = own.quantized(own.weights("fc/kernel", 36, 5), "fc_kernel_quantizer", 3, 0)
    return _model(own, own.node("MatMul", [flat, kernel], "fc/MatMul"), [5])


def _model(own: _Writer, last: str, out: list[int]) -> ModelProto:
    own.nodes[-1].output[0] = "y"
    for node in own.nodes:
        node.input[:] = ["y" if name == last else name for name in node.input]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *out])
    graph = helper.make_graph(own.nodes, "qkeras", [x], [y], own.held)
    imports = [helper.make_opsetid("", 13), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
