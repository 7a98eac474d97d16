"""The op ArrayFaults as qonnx sees it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.base import CustomOp

from hwfault.stream.array import Array, Axis, Layer, accumulate_arrays


class SameShape(CustomOp):  # type: ignore[misc]
    """An op that keeps the type and shape of its first input."""

    def make_shape_compatible_op(self, model: ModelWrapper) -> NodeProto:
        return helper.make_node("Identity", [self.onnx_node.input[0]], [self.onnx_node.output[0]])

    def infer_node_datatype(self, model: ModelWrapper) -> None:
        node = self.onnx_node
        model.set_tensor_datatype(node.output[0], model.get_tensor_datatype(node.input[0]))

    def verify_node(self) -> None:
        pass


class ArrayFaults(SameShape):
    """A layer added up on an array of processing elements: accumulators, x, w (all integers) -> accumulators."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        lists: dict[str, Any] = dict.fromkeys(("strides", "pads", "dilations", "order", "events"), ("ints", True, []))
        numbers = {"group": 1, "channels_last": 0, "width": 0, "step": 1, "pass_steps": 0, "recompute": 0}
        return lists | {key: ("i", False, value) for key, value in numbers.items()} | {"overflow": ("s", False, "wrap")}

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        acc, x, w = (context[name] for name in self.onnx_node.input)
        get = self.get_nodeattr
        array = Array(
            width=get("width"),
            saturate=get("overflow") == "saturate",
            step=get("step"),
            pass_steps=get("pass_steps"),
            order=np.array(get("order"), np.int64),
            events=np.array(get("events"), np.int64).reshape(-1, 8),
            recompute=bool(get("recompute")),
        )
        context[self.onnx_node.output[0]] = accumulate_arrays(acc, x, w, self._layer(acc, x, w), array)

    def _layer(self, acc: NDArray[Any], x: NDArray[Any], w: NDArray[Any]) -> Layer:
        if self.get_nodeattr("channels_last"):
            positions = math.prod(acc.shape[1:-1])
            return Layer(acc.shape[0], w.shape[0], 1, w.shape[1], (Axis(positions, positions),), True)
        walk = [self.get_nodeattr(key) for key in ("strides", "pads", "dilations")]
        lengths = zip(x.shape[2:], acc.shape[2:], w.shape[2:], *walk, strict=False)
        axes = tuple(Axis(*map(int, axis)) for axis in lengths)
        return Layer(acc.shape[0], w.shape[0], self.get_nodeattr("group"), w.shape[1], axes)
