"""A small QONNX graph that classifies, as anybody may have it: quantizers, a convolution, a matrix, three classes."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.helpers.graph.ops import QONNX

SHAPE = (2, 6, 6)
CLASSES = 3


def classifier(batch: int | str = "n", *, scale: float = 0.25) -> ModelProto:
    """x -> Quant -> Conv (weights quantized) -> Quant -> Flatten -> MatMul (weights quantized) -> y.

    Sums are exact where the scale is a power of two.
    """
    random = np.random.default_rng(7)
    constants = {
        "scale": scale,
        "zero": 0,
        "bits": 4,
        "conv.weight": random.uniform(-2, 2, (4, 2, 3, 3)),
        "dense.weight": random.uniform(-2, 2, (64, CLASSES)),
    }
    nodes = [
        _quant("x", "in.act_quant", signed=0),
        _quant("conv.weight", "conv.weight_quant", signed=1),
        helper.make_node("Conv", ["in.act_quant", "conv.weight_quant"], ["sums"], kernel_shape=[3, 3]),
        _quant("sums", "mid.act_quant", signed=1),
        helper.make_node("Flatten", ["mid.act_quant"], ["flat"]),
        _quant("dense.weight", "dense.weight_quant", signed=1),
        helper.make_node("MatMul", ["flat", "dense.weight_quant"], ["y"]),
    ]
    held = [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *SHAPE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])
    made = helper.make_graph(nodes, "classifier", [x], [y], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def _quant(read, name, signed):
    more = {"signed": signed, "narrow": 0, "rounding_mode": "ROUND"}
    return helper.make_node("Quant", [read, "scale", "zero", "bits"], [name], name=name, domain=QONNX, **more)


def samples(n: int) -> np.ndarray:
    """A batch for it."""
    return np.random.default_rng(3).uniform(0, 4, (n, *SHAPE)).astype(np.float32)
