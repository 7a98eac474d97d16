"""The fault ops as qonnx sees them: what its shape and datatype inference, its cleanup and its executor need.

qonnx looks for the ops of the domain `hwfault` in the package of that name, which points it here.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.base import CustomOp

from hwfault.codes import REPRESENTATIONS, CodeFormat, Codes, decode, encode

if TYPE_CHECKING:
    from hwfault.stream.array import Layer


class _FaultOp(CustomOp):  # type: ignore[misc]
    """An op that keeps the type and shape of its first input, and changes some of its codes."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        required = dict.fromkeys(("bit_width", "signed", "batched"), ("i", True, 0))
        return required | {"representation": ("i", False, 0)}

    def make_shape_compatible_op(self, model: ModelWrapper) -> NodeProto:
        return helper.make_node("Identity", [self.onnx_node.input[0]], [self.onnx_node.output[0]])

    def infer_node_datatype(self, model: ModelWrapper) -> None:
        node = self.onnx_node
        model.set_tensor_datatype(node.output[0], model.get_tensor_datatype(node.input[0]))

    def verify_node(self) -> None:
        pass

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        x, scale, zero_point, *rest = (context[name] for name in self.onnx_node.input)
        representation = REPRESENTATIONS[self.get_nodeattr("representation")]
        fmt = CodeFormat(self.get_nodeattr("bit_width"), bool(self.get_nodeattr("signed")), representation)
        samples = x.shape[0] if self.get_nodeattr("batched") else 1
        codes = encode(x, scale, zero_point, fmt)
        struck = self.struck(codes.reshape(samples, x.size // max(samples, 1)), *rest).reshape(x.shape)
        faulty = np.where(struck == codes, x, decode(struck, scale, zero_point, fmt, x.dtype.type))
        context[self.onnx_node.output[0]] = faulty

    def struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        """Codes (samples, words) with the op's faults."""
        raise NotImplementedError


class TransientFaults(_FaultOp):
    """Faults drawn from the stream: X, scale, zeropt, seed, first_sample -> Y (SPEC.md of the ops)."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        return super().get_nodeattr_types() | {"program": ("ints", True, [])}

    def struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        from hwfault.stream import native

        seed, first_sample = (int(value) for value in inputs)
        samples = np.arange(len(codes)) + (first_sample if self.get_nodeattr("batched") else 0)
        program = tuple(self.get_nodeattr("program"))
        return native.inject_codes(
            codes, program=program, seed=seed % (1 << 64), samples=samples, bit_width=self.get_nodeattr("bit_width")
        )


class FaultMap(_FaultOp):
    """Permanent faults: X, scale, zeropt, word, and_mask, xor_mask -> Y; code' = (code & and_mask) ^ xor_mask."""

    def struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        word, and_mask, xor_mask = inputs[:3]
        out = codes.copy()
        out[:, word] = (codes[:, word] & and_mask.astype(np.uint32)) ^ xor_mask.astype(np.uint32)
        return out


class IntermittentFaults(_FaultOp):
    """Faults that come and go: X, scale, zeropt, word, and_mask, xor_mask, seed, first_sample -> Y."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        own = {"threshold": ("i", True, 0), "site": ("i", True, 0), "refresh": ("s", False, "inference")}
        return super().get_nodeattr_types() | own

    def struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        from hwfault.processes import MapProcess, MapStep
        from hwfault.profiles.faultmap import FaultMap as Rows

        word, and_mask, xor_mask = inputs[:3]
        seed, first_sample = (int(value) for value in inputs[3:])
        rows = Rows(self.get_nodeattr("bit_width"), codes.shape[1], word, and_mask, xor_mask)
        refresh = {"held": "power_cycle"}.get(self.get_nodeattr("refresh"), self.get_nodeattr("refresh"))
        numbers = {"threshold": self.get_nodeattr("threshold"), "site_number": self.get_nodeattr("site")}
        step = MapStep(MapProcess(fault=0, map=rows, refresh=refresh, **numbers))
        samples = np.arange(len(codes)) + first_sample
        return step.struck(codes, seed % (1 << 64), samples, bool(self.get_nodeattr("batched")))


class ArrayFaults(CustomOp):  # type: ignore[misc]
    """A layer added up on an array of processing elements: accumulators, x, w (all integers) -> accumulators."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        lists: dict[str, Any] = dict.fromkeys(("strides", "pads", "dilations", "order", "events"), ("ints", True, []))
        numbers = {"group": 1, "channels_last": 0, "width": 0, "step": 1, "pass_steps": 0, "recompute": 0}
        return lists | {key: ("i", False, value) for key, value in numbers.items()} | {"overflow": ("s", False, "wrap")}

    def make_shape_compatible_op(self, model: ModelWrapper) -> NodeProto:
        return helper.make_node("Identity", [self.onnx_node.input[0]], [self.onnx_node.output[0]])

    def infer_node_datatype(self, model: ModelWrapper) -> None:
        node = self.onnx_node
        model.set_tensor_datatype(node.output[0], model.get_tensor_datatype(node.input[0]))

    def verify_node(self) -> None:
        pass

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        from hwfault.stream.array import Array, accumulate_arrays

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

    def _layer(self, acc: NDArray[Any], x: NDArray[Any], w: NDArray[Any]) -> "Layer":
        from hwfault.stream.array import Axis, Layer

        if self.get_nodeattr("channels_last"):
            positions = math.prod(acc.shape[1:-1])
            return Layer(acc.shape[0], w.shape[0], 1, w.shape[1], (Axis(positions, positions),), True)
        walk = [self.get_nodeattr(key) for key in ("strides", "pads", "dilations")]
        lengths = zip(x.shape[2:], acc.shape[2:], w.shape[2:], *walk, strict=False)
        axes = tuple(Axis(*map(int, axis)) for axis in lengths)
        return Layer(acc.shape[0], w.shape[0], self.get_nodeattr("group"), w.shape[1], axes)


custom_op = {op.__name__: op for op in (TransientFaults, FaultMap, IntermittentFaults, ArrayFaults)}
