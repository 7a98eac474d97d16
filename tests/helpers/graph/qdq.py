"""Graphs of ONNX' own integers, made by onnxruntime's quantizer in the test, and what NumPy makes of them under faults.

The oracle evaluates node by node with onnx's reference evaluator and strikes codes with the specification of the
stream in code. Scales are powers of two afterwards, so that no engine rounds a sum.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from hwfault.codes import CodeFormat, encode_integers, integers
from hwfault.plan.fault_plan import FaultPlan
from hwfault.stream.reference import inject_codes

Array = NDArray[Any]
Strike = Callable[[str, Array], Array]
OPSET = 21

STATIC = {
    "QDQ": {"quant_format": QuantFormat.QDQ},
    "QDQ uint8": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8},
    "QDQ per channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "QDQ 16 bits": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt16},
    "QDQ 4 bits": {"quant_format": QuantFormat.QDQ, "weight_type": QuantType.QInt4},
    "QOperator": {"quant_format": QuantFormat.QOperator},
    "QOperator uint8": {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QUInt8},
    "QOperator per channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
}


def inputs(samples: int = 6) -> Array:
    return np.random.default_rng(1).normal(size=(samples, 1, 8, 8)).astype(np.float32)


def float_graph() -> ModelProto:
    """A convolution, a pooling and two linear layers with names of their own, without a rectifier between some."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["conv"], "conv", pads=[1] * 4),
        helper.make_node("MaxPool", ["conv"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "fc1.weight", "fc1.bias"], ["fc1"], "fc1", transB=1),
        helper.make_node("Relu", ["fc1"], ["relu"], "relu"),
        helper.make_node("Gemm", ["relu", "fc2.weight", "fc2.bias"], ["y"], "fc2", transB=1),
    ]
    shapes = {"conv.weight": (4, 1, 3, 3), "conv.bias": (4,), "fc1.weight": (10, 64), "fc1.bias": (10,)}
    shapes |= {"fc2.weight": (5, 10), "fc2.bias": (5,)}
    tensors = [
        numpy_helper.from_array((rng.normal(size=shape) * 0.4).astype(np.float32), n) for n, shape in shapes.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "net", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


class _Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self._batches = iter([{"x": inputs()}])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


@cache
def _quantized(what: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.onnx"
        if what == "dynamic":
            quantize_dynamic(float_graph(), path)
        else:
            quantize_static(float_graph(), path, _Calibration(), **STATIC[what])
        return path.read_bytes()


def quantized(what: str) -> ModelProto:
    """The graph as onnxruntime quantizes it, with powers of two for scales."""
    model = onnx.load_from_string(_quantized(what))
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_scale"):
            scale = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.exp2(np.ceil(np.log2(scale))).astype(np.float32), tensor.name))
    _scale_biases(model)
    return model


def _scale_biases(model: ModelProto) -> None:
    """Has biases the scale of their layers' sums again."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            x, w, bias = (makers[name].input[1] for name in node.input)
            product = numpy_helper.to_array(held[x]) * numpy_helper.to_array(held[w])
            held[bias].CopyFrom(numpy_helper.from_array(np.atleast_1d(product), bias))


def evaluate(model: ModelProto, x: Array, strike: Strike) -> dict[str, Array]:
    """Every tensor of a graph, each struck where it is made."""
    values = {t.name: strike(t.name, np.asarray(numpy_helper.to_array(t))) for t in model.graph.initializer}
    values["x"] = x
    for node in model.graph.node:
        made = _run(node, [values[name] if name else None for name in node.input])
        for name, value in zip(node.output, made, strict=True):
            values[name] = strike(name, np.asarray(value))
    return values


def _run(node: NodeProto, given: list[Array | None]) -> list[Array]:
    if node.op_type in ("QLinearConv", "QGemm"):
        return [_layer_on_integers(node, *given)]
    return _by_onnx(node, given)


def _by_onnx(node: NodeProto, given: list[Array | None]) -> list[Array]:
    """What onnx's reference evaluator makes of one node."""
    alone = NodeProto()
    alone.CopyFrom(node)
    alone.ClearField("domain")
    feeds = {name: value for name, value in zip(node.input, given, strict=True) if name}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    out = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([alone], "one", infos, out)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return ReferenceEvaluator(model).run(None, feeds)


def _layer_on_integers(node: NodeProto, *given: Array) -> Array:
    """What QLinearConv and QGemm (with transB) are said to compute; onnx's evaluator of the first rounds otherwise."""
    if node.op_type == "QGemm":
        x, x_scale, x_zero, w, w_scale, w_zero, bias, y_scale, y_zero = given
        sums = (x.astype(np.int64) - x_zero) @ (w.astype(np.int64).T - w_zero)
        along = (1, -1)
    else:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = given
        along = (1, -1, 1, 1)
        conv = helper.make_node("Conv", ["x", "w"], ["y"])
        conv.attribute.extend(node.attribute)
        centred = w.astype(np.float64) - np.reshape(w_zero, (-1, 1, 1, 1))
        sums = _by_onnx(conv, [x.astype(np.float64) - x_zero, centred])[0].astype(np.int64)
    worth = x_scale.astype(np.float64) * w_scale / y_scale
    y = np.rint((sums + bias.reshape(along)) * np.reshape(worth, along)) + y_zero
    limits = np.iinfo(y_zero.dtype)
    return np.clip(y, limits.min, limits.max).astype(y_zero.dtype)


def by_reference(
    plan: FaultPlan,
    tensors: Mapping[str, str],
    *,
    seed: int,
    first: int = 0,
    turned: tuple[str, ...] = (),
) -> Strike:
    """Strikes the codes of the tensors that are sites; words of those that are `turned` are those of the transpose."""

    def strike(name: str, values: Array) -> Array:
        site = tensors.get(name)
        if site not in plan.names:
            return values
        words = values.T if name in turned else values
        entry = plan.at(site).site
        fmt = CodeFormat(entry.bit_width, entry.signed)
        rows = encode_integers(words, fmt).reshape(len(words) if entry.batched else 1, -1)
        for step in plan.steps(site):
            own = {"program": step.program, "seed": seed, "bit_width": fmt.bit_width}
            samples = range(first, first + len(rows)) if entry.batched else [0]
            rows = np.stack([inject_codes(row, sample=s, **own) for row, s in zip(rows, samples, strict=True)])
        struck = integers(rows, fmt).astype(values.dtype).reshape(words.shape)
        return np.ascontiguousarray(struck.T) if name in turned else struck

    return strike
