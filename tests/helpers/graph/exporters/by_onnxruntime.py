"""Float graphs as onnxruntime's quantizer writes them: static and dynamic, QDQ and QOperator, of 4, 8 and 16 bits."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from tests.helpers.graph.exporters.case import quietly, samples
from tests.helpers.graph.qdq import float_graph

TOKENS, WIDTH = 4, 16
QDQ, QOPERATOR = {"quant_format": QuantFormat.QDQ}, {"quant_format": QuantFormat.QOperator}
UINT8 = {"activation_type": QuantType.QUInt8}
SHAPES = {"chain": (1, 8, 8), "block": (2, 6, 6), "tokens": (TOKENS, WIDTH)}


def _graph(nodes: list[NodeProto], shapes: dict[str, tuple[int, ...]], what: str, out: list[Any]) -> ModelProto:
    """x -> nodes -> y, with weights of these shapes."""
    rng = np.random.default_rng(4)
    held = [numpy_helper.from_array((rng.normal(size=s) * 0.4).astype(np.float32), n) for n, s in shapes.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPES[what]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *out])
    graph = helper.make_graph(nodes, what, [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def block() -> ModelProto:
    """A residual block, channels joined, an average over positions, a matrix and a sigmoid."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "stem.weight", "stem.bias"], ["stem"], "stem", pads=[1] * 4),
        node("Relu", ["stem"], ["stem_relu"], "stem_relu"),
        node("Conv", ["stem_relu", "left.weight", "left.bias"], ["left"], "left", pads=[1] * 4, group=2),
        node("Add", ["left", "stem_relu"], ["sum"], "sum"),
        node("Relu", ["sum"], ["sum_relu"], "sum_relu"),
        node("Concat", ["sum_relu", "left"], ["both"], "both", axis=1),
        node("GlobalAveragePool", ["both"], ["mean"], "mean"),
        node("Flatten", ["mean"], ["flat"], "flat"),
        node("MatMul", ["flat", "head.weight"], ["head"], "head"),
        node("Sigmoid", ["head"], ["y"], "out"),
    ]
    shapes = {"stem.weight": (4, 2, 3, 3), "stem.bias": (4,), "left.weight": (4, 2, 3, 3), "left.bias": (4,)}
    return _graph(nodes, shapes | {"head.weight": (8, 5)}, "block", [5])


def tokens() -> ModelProto:
    """Attention over a few tokens, where a matrix product reads two activations."""
    node = helper.make_node
    nodes = [
        *(node("MatMul", ["x", f"{name}.weight"], [name], name) for name in ("q", "k", "v")),
        node("Transpose", ["k"], ["kt"], "kt", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["attention"], "attention", axis=-1),
        node("MatMul", ["attention", "v"], ["mixed"], "mixed"),
        node("MatMul", ["mixed", "out.weight"], ["out"], "out"),
        node("Add", ["out", "x"], ["y"], "sum"),
    ]
    return _graph(nodes, {f"{n}.weight": (WIDTH, WIDTH) for n in ("q", "k", "v", "out")}, "tokens", [TOKENS, WIDTH])


FLOATS = {"chain": float_graph, "block": block, "tokens": tokens}


def floats(what: str) -> ModelProto:
    """A float graph whose convolutions say all of their attributes, as exporters write them."""
    model = FLOATS[what]()
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            said = {entry.name for entry in node.attribute}
            window = {"kernel_shape": shapes[node.input[1]][2:], "strides": [1, 1], "dilations": [1, 1], "group": 1}
            missing = {key: value for key, value in window.items() if key not in said}
            node.attribute.extend(helper.make_attribute(key, value) for key, value in missing.items())
    return model


class _Calibration(CalibrationDataReader):
    def __init__(self, x: NDArray[np.float32]) -> None:
        self._batches = iter([{"x": x}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def static(what: str, **given: Any) -> ModelProto:
    """The float graph as `quantize_static` writes it."""
    x = samples(SHAPES[what], 16) * 2
    with TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "q.onnx"
        quantize_static(floats(what), path, _Calibration(x), **given)
        return onnx.load(path)


def dynamic(what: str, **given: Any) -> ModelProto:
    """The float graph as `quantize_dynamic` writes it."""
    with TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "q.onnx"
        quantize_dynamic(floats(what), path, **given)
        return onnx.load(path)


def blocks_of_4_bits(what: str) -> ModelProto:
    """The float graph with the weights of its matrix products as integers of 4 bits, a scale for each block."""
    with quietly():
        config = DefaultWeightOnlyQuantConfig(block_size=16, is_symmetric=True, quant_format=QuantFormat.QDQ)
        quantizer = MatMulNBitsQuantizer(floats(what), algo_config=config)
        quantizer.process()
    made: ModelProto = quantizer.model.model
    return made
