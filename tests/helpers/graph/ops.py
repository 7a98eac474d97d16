"""Graphs of one node, in onnxruntime and in qonnx's executor."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from qonnx.custom_op.registry import getCustomOp

import hwfault

QONNX = "qonnx.custom_op.general"
FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
_NUMBERS = ("seed", "first_sample", "word", "and_mask", "xor_mask")


def model(node: NodeProto, dtype: int = FLOAT) -> ModelProto:
    """A graph of one node whose inputs are the graph's, of any rank."""
    inputs = [(name, TensorProto.INT64 if name in _NUMBERS else dtype) for name in node.input]
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs]
    out = helper.make_tensor_value_info(node.output[0], dtype, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1), helper.make_opsetid("hwfault", 1)]
    return helper.make_model(helper.make_graph([node], "one", infos, [out]), opset_imports=opsets, ir_version=8)


def load(graph: ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session of onnxruntime, made as any host would make it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.register_custom_ops_library(hwfault.onnxruntime_library())
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def quant_node(op: str = "Quant", inputs: str = "x scale zeropt bits", **attributes) -> NodeProto:
    return helper.make_node(op, inputs.split(), ["y"], name="the node", domain=QONNX, **attributes)


@cache
def quant_session(signed: int, narrow: int, mode: str, threads: int) -> onnxruntime.InferenceSession:
    node = quant_node(signed=signed, narrow=narrow, rounding_mode=mode)
    return load(model(node), threads)


def by_qonnx(
    node: NodeProto, feeds: Mapping[str, NDArray], version: int | None = None, graph: GraphProto | None = None
) -> NDArray:
    """What qonnx's executor makes of a node, in the op's newest version or the one of that version of its domain."""
    context = dict(feeds)
    with np.errstate(all="ignore"):
        getCustomOp(node, version).execute_node(context, graph)
    return context[node.output[0]]


def assert_same(got: NDArray, expected: NDArray, about: object = None) -> None:
    """Equality of type, shape and every bit; a NaN is a NaN."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), about
    kind = {4: np.uint32, 8: np.uint64}[got.dtype.itemsize]
    same = (got.view(kind) == expected.view(kind)) | (np.isnan(got) & np.isnan(expected))
    assert same.all(), f"{about}: {got[~same][:3]} instead of {expected[~same][:3]}"


def qonnx_attributes(op: str) -> dict[str, str]:
    """Names and types ("i", "ints", "s", ...) of the attributes that a fault op has in qonnx's registry."""
    node = helper.make_node(op, ["x"], ["y"], domain="hwfault")
    return {name: kind for name, (kind, *_) in getCustomOp(node).get_nodeattr_types().items()}
