"""Graphs as FINN's and qonnx's transformations leave them: thresholds, integer weights, no scopes in names."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_shapes import InferShapes

from tests.helpers.graph.ops import QONNX

RANDOM = np.random.default_rng(7)
WEIGHTS = {
    "conv_w": ("INT3", RANDOM.integers(-4, 4, (4, 2, 3, 3)).astype(np.float32)),
    "dense_w": ("BIPOLAR", RANDOM.choice([-1.0, 1.0], (64, 5)).astype(np.float32)),
    "last_w": ("FIXED<6,3>", (RANDOM.integers(-32, 32, (5, 3)) / 8).astype(np.float32)),
}
THRESHOLDS = np.arange(1, 16, dtype=np.float32).reshape(1, -1) / 4


def graph(batch: int = 3) -> ModelProto:
    """x -> thresholds -> Conv -> Mul -> thresholds -> Flatten -> MatMul -> thresholds -> MatMul -> Quant."""
    thresholds = {"domain": QONNX, "out_scale": 1.0}
    nodes = [
        helper.make_node("MultiThreshold", ["x", "t0"], ["a0"], out_dtype="UINT4", name="Thresholds_0", **thresholds),
        helper.make_node("Conv", ["a0", "conv_w"], ["c0"], name="Conv_0", kernel_shape=[3, 3]),
        helper.make_node("Mul", ["c0", "half"], ["m0"]),
        helper.make_node("MultiThreshold", ["m0", "t1"], ["a1"], out_dtype="INT4", out_bias=-8.0, **thresholds),
        helper.make_node("Flatten", ["a1"], ["f1"]),
        helper.make_node("MatMul", ["f1", "dense_w"], ["d1"]),
        helper.make_node(
            "MultiThreshold", ["d1", "t2"], ["a2"], out_dtype="BIPOLAR", out_scale=2.0, out_bias=-1.0, domain=QONNX
        ),
        helper.make_node("MatMul", ["a2", "last_w"], ["d2"], name="MatMul_1"),
        helper.make_node("Quant", ["d2", "half", "zero", "eight"], ["y"], domain=QONNX, signed=1, narrow=0),
    ]
    constants = {
        **{name: values for name, (_, values) in WEIGHTS.items()},
        **{"t0": THRESHOLDS, "t1": THRESHOLDS * 8 - 20, "t2": np.zeros((1, 1), np.float32)},
        **{key: np.array(value, np.float32) for key, value in {"half": 0.5, "zero": 0, "eight": 8}.items()},
    }
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    held = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    made = helper.make_graph(nodes, "foreign", [x], [y], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    wrapper = ModelWrapper(helper.make_model(made, opset_imports=opsets, ir_version=8)).transform(InferShapes())
    for name, (datatype, _) in WEIGHTS.items():
        wrapper.set_tensor_datatype(name, DataType[datatype])
    return wrapper.model


def inputs(n: int = 3) -> np.ndarray:
    """A batch for it."""
    return np.random.default_rng(3).uniform(0, 4, (n, 2, 6, 6)).astype(np.float32)
