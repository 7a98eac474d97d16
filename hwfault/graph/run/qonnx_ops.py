"""The fault ops as qonnx sees them: what its shape and datatype inference, its cleanup and its executor need.

qonnx looks for the ops of the domain `hwfault` in the package of that name, which points it here.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from hwfault.codes import REPRESENTATIONS, CodeFormat, Codes, faulty_values, read_codes
from hwfault.graph.ops import FAULT_OPS
from hwfault.graph.read.batch_axes import batch_axis_of
from hwfault.graph.read.layouts import align_to_numbered, number_words
from hwfault.graph.run.qonnx_array import BATCH_TYPES, ArrayFaults, SameShape
from hwfault.graph.run.row_numbers import read_samples, read_seeds
from hwfault.graph.run.strike import ProtectedCells, strike_codes, strike_memory
from hwfault.program.batch_axes import BatchAxis, arrange, grid_shape, restore
from hwfault.program.clipped import ClipProcess
from hwfault.program.mapped import MapProcess
from hwfault.program.periods import changes_of, refresh_of_node
from hwfault.program.sampled import SampledProcess
from hwfault.program.steps import ClipStep, MapStep, Step, StreamStep
from hwfault.stream.fault_map import FaultMap as Rows
from hwfault.stream.protection import Layout, MapRows, Memory
from hwfault.stream.sampled_map import SampledMap
from hwfault.stream.tables import ALWAYS, SAMPLED


class _FaultOp(SameShape):
    """An op that changes some of the codes of its first input."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        required = dict.fromkeys(("bit_width", "signed", "batched"), ("i", True, 0))
        lying = {"layout": ("ints", False, []), **BATCH_TYPES}
        return required | {"representation": ("i", False, 0)} | lying

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        given, scale, zero_point, *rest = (context[name] for name in self.onnx_node.input if name)
        layout = tuple(self.get_nodeattr("layout"))
        x = number_words(given, layout)
        scale, zero_point = (align_to_numbered(small, layout) for small in (scale, zero_point))
        representation = REPRESENTATIONS[self.get_nodeattr("representation")]
        fmt = CodeFormat(self.get_nodeattr("bit_width"), bool(self.get_nodeattr("signed")), representation)
        codes = read_codes(x, scale, zero_point, fmt)
        batch = batch_axis_of(self.onnx_node)
        if self.get_nodeattr("batched"):
            _check_grid(x, batch, scale=scale, zero_point=zero_point)
            samples = arrange(codes, batch)
            words = samples.reshape(len(samples), math.prod(samples.shape[1:]))
            struck = restore(self._struck(words, *rest), x.shape, batch)
        else:
            struck = self._struck(codes.reshape(1, -1), *rest).reshape(x.shape)
        faulty = faulty_values(x, codes, struck, scale, zero_point, fmt)
        context[self.onnx_node.output[0]] = np.ascontiguousarray(faulty.transpose(layout) if layout else faulty)

    def _struck(self, codes: Codes, *inputs: NDArray[Any]) -> Codes:
        """Codes (samples, words) with the faults of the node."""
        named = dict(zip(FAULT_OPS[type(self).__name__], inputs, strict=False))
        batched = bool(self.get_nodeattr("batched"))
        none = np.zeros((), np.int64)
        seeds = read_seeds(named.get("seed", none), len(codes), batched)
        by_batch = self.changes_by_batch(batched)
        samples = read_samples(named.get("first_sample", none), len(codes), batched, by_batch=by_batch)
        struck = codes.copy()
        for seed in set(seeds.tolist()):
            own = seeds == seed
            struck[own] = self.strike(named, codes, seed, samples, batched)[own]
        return struck

    def changes_by_batch(self, batched: bool) -> bool:
        """Whether the faults of one seed change with the batch, and not with its samples or never."""
        return False

    def strike(
        self, inputs: Mapping[str, NDArray[Any]], codes: Codes, seed: int, samples: NDArray[np.int64], batched: bool
    ) -> Codes:
        """Codes (samples, words) after the node; `inputs` are those behind the zero point, by name."""
        return strike_codes(self.step(inputs, codes.shape[1]), codes, seed, samples, batched)

    def step(self, inputs: Mapping[str, NDArray[Any]], words: int) -> Step:
        """The step that the node stands for, on samples of so many words."""
        raise NotImplementedError


def _check_grid(x: NDArray[Any], batch: BatchAxis, **grid: NDArray[Any]) -> None:
    """Raises PlanError for a scale or zero point that lies along the axis of the samples."""
    for what, values in grid.items():
        if values.size > 1:
            grid_shape(values.shape, x.shape, batch, what.replace("_", " "))


class _Periodic(_FaultOp):
    """A fault op whose cells may show their fault in some refresh periods only."""

    def changes_by_batch(self, batched: bool) -> bool:
        if self.get_nodeattr("threshold") == ALWAYS:
            return False
        return changes_of(refresh_of_node(self.get_nodeattr("refresh")), batched) == "batch"


class TransientFaults(_FaultOp):
    """Faults drawn from the stream: X, scale, zeropt, seed, first_sample -> Y (SPEC.md of the ops)."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        return super().get_nodeattr_types() | {"program": ("ints", True, [])}

    def step(self, inputs: Mapping[str, NDArray[Any]], words: int) -> Step:
        program = tuple(self.get_nodeattr("program"))
        return StreamStep(program, self.get_nodeattr("bit_width"), True, "twos_complement")


class FaultMap(_FaultOp):
    """Permanent faults: X, scale, zeropt, word, and_mask, xor_mask -> Y; code' = (code & and_mask) ^ xor_mask."""

    def step(self, inputs: Mapping[str, NDArray[Any]], words: int) -> Step:
        rows = (inputs["word"], inputs["and_mask"], inputs["xor_mask"])
        shown, width = self.shown(), self.get_nodeattr("bit_width")
        if shown.get("threshold") != SAMPLED:
            return MapStep(MapProcess(fault=0, map=Rows(width, words, *rows), **shown))
        del shown["threshold"]
        return MapStep(SampledProcess(fault=0, map=SampledMap.from_keys(words, width, *rows), **shown))

    def shown(self) -> dict[str, Any]:
        """When the cells show their fault, as a process says it."""
        return {"site_number": 0}


class IntermittentFaults(_Periodic, FaultMap):
    """Faults that come and go, or are of one sample: X, scale, zeropt, (rows), seed, first_sample -> Y."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        own = {"threshold": ("i", True, 0), "site": ("i", True, 0), "refresh": ("s", False, "inference")}
        return super().get_nodeattr_types() | own

    def shown(self) -> dict[str, Any]:
        numbers = {"threshold": self.get_nodeattr("threshold"), "site_number": self.get_nodeattr("site")}
        return numbers | {"refresh": refresh_of_node(self.get_nodeattr("refresh"))}


class ProtectedFaults(_Periodic):
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

    def strike(
        self, inputs: Mapping[str, NDArray[Any]], codes: Codes, seed: int, samples: NDArray[np.int64], batched: bool
    ) -> Codes:
        named = {key: self.get_nodeattr(key) for key in ("data_bits", "slot")}
        memory = Memory(self.get_nodeattr("protection"), **named, due=self.get_nodeattr("on_detected") == "due")
        active = {"threshold": self.get_nodeattr("threshold"), "site": self.get_nodeattr("site")}
        rows = MapRows(inputs["word"], inputs["and_mask"], inputs["xor_mask"], **active)
        layout = Layout(inputs["number"], inputs["cells"]) if len(inputs["number"]) else None
        program, refresh = self.get_nodeattr("program"), refresh_of_node(self.get_nodeattr("refresh"))
        held = ProtectedCells(memory, rows, layout, program, refresh)
        return strike_memory(held, codes, self.get_nodeattr("bit_width"), seed, samples, batched)


class ClippedRange(_FaultOp):
    """Integers kept within a range: X, scale, zeropt -> Y."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        return super().get_nodeattr_types() | dict.fromkeys(("low", "high", "below", "above"), ("i", True, 0))

    def step(self, inputs: Mapping[str, NDArray[Any]], words: int) -> Step:
        given = {key: self.get_nodeattr(key) for key in ("low", "high", "below", "above", "bit_width")}
        return ClipStep(ClipProcess(fault=0, site_number=0, signed=bool(self.get_nodeattr("signed")), **given))


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


_OPS = (TransientFaults, FaultMap, IntermittentFaults, ProtectedFaults, ClippedRange, ArrayFaults, Affine)
custom_op = {op.__name__: op for op in _OPS}
