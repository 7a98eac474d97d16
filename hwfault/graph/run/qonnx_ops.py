"""The fault ops as qonnx sees them: what its shape and datatype inference, its cleanup and its executor need.

qonnx looks for the ops of the domain `hwfault` in the package of that name, which points it here.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from hwfault.codes import REPRESENTATIONS, CodeFormat, Codes, encode, faulty_values
from hwfault.graph.read.batch_axes import batch_axis_of
from hwfault.graph.read.layouts import aligned, numbered
from hwfault.graph.run.qonnx_array import BATCH_TYPES, ArrayFaults, SameShape
from hwfault.program.batch_axes import BatchAxis, arrange, grid_shape, restore
from hwfault.stream.check import check_number
from hwfault.stream.tables import ALWAYS


class _FaultOp(SameShape):
    """An op that changes some of the codes of its first input."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        required = dict.fromkeys(("bit_width", "signed", "batched"), ("i", True, 0))
        lying = {"layout": ("ints", False, []), **BATCH_TYPES}
        return required | {"representation": ("i", False, 0)} | lying

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        given, scale, zero_point, *rest = (context[name] for name in self.onnx_node.input if name)
        layout = tuple(self.get_nodeattr("layout"))
        x, scale, zero_point = numbered(given, layout), aligned(scale, layout), aligned(zero_point, layout)
        representation = REPRESENTATIONS[self.get_nodeattr("representation")]
        fmt = CodeFormat(self.get_nodeattr("bit_width"), bool(self.get_nodeattr("signed")), representation)
        codes = encode(x, scale, zero_point, fmt)
        batch = batch_axis_of(self.onnx_node)
        if self.get_nodeattr("batched"):
            _check_grid(x, batch, scale=scale, zero_point=zero_point)
            samples = arrange(codes, batch)
            words = samples.reshape(len(samples), math.prod(samples.shape[1:]))
            struck = restore(self.struck(words, *rest), x.shape, batch)
        else:
            struck = self.struck(codes.reshape(1, -1), *rest).reshape(x.shape)
        faulty = faulty_values(x, codes, struck, scale, zero_point, fmt)
        context[self.onnx_node.output[0]] = np.ascontiguousarray(faulty.transpose(layout) if layout else faulty)

    def struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        """Codes (samples, words) with the op's faults."""
        raise NotImplementedError

    def numbered(self, first_sample: int, batch: int) -> NDArray[np.int64]:
        """The numbers of a batch's samples; raises HwfaultError where the stream does not have them."""
        last = max(batch - 1, 0) if self.get_nodeattr("batched") else 0
        check_number(first_sample, "first sample number")
        check_number(first_sample + last, "last sample's number")
        return first_sample + np.arange(batch)


def _check_grid(x: NDArray[Any], batch: BatchAxis, **grid: NDArray[Any]) -> None:
    """Raises PlanError for a scale or zero point that lies along the axis of the samples."""
    for what, values in grid.items():
        if values.size > 1:
            grid_shape(values.shape, x.shape, batch, what.replace("_", " "))


class TransientFaults(_FaultOp):
    """Faults drawn from the stream: X, scale, zeropt, seed, first_sample -> Y (SPEC.md of the ops)."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        return super().get_nodeattr_types() | {"program": ("ints", True, [])}

    def struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        from hwfault.stream import native

        seed, first_sample = (int(value) for value in inputs)
        samples = self.numbered(first_sample, len(codes)) if self.get_nodeattr("batched") else np.zeros(len(codes))
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
        from hwfault.program.processes import MapProcess, MapStep
        from hwfault.stream.fault_map import FaultMap as Rows

        word, and_mask, xor_mask = inputs[:3]
        seed, first_sample = (int(value) for value in inputs[3:])
        rows = Rows(self.get_nodeattr("bit_width"), codes.shape[1], word, and_mask, xor_mask)
        refresh = {"held": "power_cycle"}.get(self.get_nodeattr("refresh"), self.get_nodeattr("refresh"))
        numbers = {"threshold": self.get_nodeattr("threshold"), "site_number": self.get_nodeattr("site")}
        step = MapStep(MapProcess(fault=0, map=rows, refresh=refresh, **numbers))
        samples = self.numbered(first_sample, len(codes))
        return step.struck(codes, seed % (1 << 64), samples, bool(self.get_nodeattr("batched")))


class ProtectedFaults(_FaultOp):
    """A memory with check bits: X, scale, zeropt, word, and_mask, xor_mask, seed, first_sample, number, cells -> Y."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        memory = {"protection": ("s", True, ""), "data_bits": ("i", True, 0), "slot": ("i", True, 0)}
        rules = {
            "program": ("ints", True, []),
            "on_detected": ("s", False, "zero"),
            "refresh": ("s", False, "inference"),
        }
        return (
            super().get_nodeattr_types() | memory | rules | {"threshold": ("i", False, ALWAYS), "site": ("i", False, 0)}
        )

    def struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        from hwfault.stream import native, protection

        seed, first_sample = (int(value) for value in inputs[3:5])
        (word, and_mask, xor_mask), (number, cells) = inputs[:3], inputs[5:]
        named = {key: self.get_nodeattr(key) for key in ("data_bits", "slot")}
        due = self.get_nodeattr("on_detected") == "due"
        memory = protection.Memory(self.get_nodeattr("protection"), **named, due=due)
        activity = self.get_nodeattr("threshold"), self.get_nodeattr("site")
        rows = protection.MapRows(word, and_mask, xor_mask, *activity)
        batched = bool(self.get_nodeattr("batched"))
        held = self.get_nodeattr("refresh") == "held"
        moving = batched and self.get_nodeattr("refresh") == "inference"
        samples = self.numbered(first_sample, len(codes))
        out, _ = native.protect_codes(
            codes,
            memory,
            bit_width=self.get_nodeattr("bit_width"),
            program=tuple(self.get_nodeattr("program")),
            seed=seed % (1 << 64),
            samples=samples * batched,
            rows=rows,
            periods=samples if moving else np.full(len(codes), 0 if held else first_sample),
            layout=protection.Layout(number, cells) if len(number) else None,
        )
        return out


class Affine(SameShape):
    """What sums are worth: X, multiplier, addend -> X * multiplier + addend in float64, rounded to the type of X."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        return {}

    def infer_node_datatype(self, model: ModelWrapper) -> None:
        model.set_tensor_datatype(self.onnx_node.output[0], DataType["FLOAT32"])

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        x, multiplier, addend = (context[name] for name in self.onnx_node.input)
        worth = x.astype(np.float64) * multiplier.astype(np.float64) + addend.astype(np.float64)
        context[self.onnx_node.output[0]] = worth.astype(x.dtype)


_OPS = (TransientFaults, FaultMap, IntermittentFaults, ProtectedFaults, ArrayFaults, Affine)
custom_op = {op.__name__: op for op in _OPS}
