"""The op ArrayFaults as qonnx sees it."""

from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.base import CustomOp

from hwfault.graph.edit.array_node import LISTS, NUMBERS, add_up

BATCH_TYPES = {"axis": ("i", False, 0), "rows": ("i", False, 1), "inner": ("i", False, 1)}
"""The attributes that say where the samples of a batch lie, as qonnx wants them told."""


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
        lists: dict[str, Any] = dict.fromkeys(LISTS, ("ints", True, []))
        numbers = {key: ("i", False, value) for key, value in NUMBERS.items()}
        return lists | numbers | {"overflow": ("s", False, "wrap"), **BATCH_TYPES}

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        context[self.onnx_node.output[0]] = add_up(self.onnx_node, *(context[name] for name in self.onnx_node.input))
