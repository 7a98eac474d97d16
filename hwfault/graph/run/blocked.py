"""Graphs whose convolutions read struck weights, run by onnxruntime's kernels for blocked channels all the same.

onnxruntime has convolutions on channels in blocks (NCHWc), several times as fast as its others, but takes them only
where weights are constants: it reorders these once. Here a graph is optimized with the weights as constants, and then
the fault nodes, with the same reordering behind them, take the place of each constant. A constant is known again by its
values: where onnxruntime reorders otherwise than is known here, the graph is left as it was.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hwfault.graph.edit.editing import FreshNames, copy_model
from hwfault.graph.edit.fast import only_to_run
from hwfault.graph.edit.upgrade import upgrade
from hwfault.graph.read.qonnxgraph import Constants, attribute, replace_nodes
from hwfault.graph.read.shapes import read_by
from hwfault.graph.read.struck import FaultNode, fault_nodes
from hwfault.graph.run.session import run_without_inputs, session
from hwfault.stream.native import onnxruntime_library

Array = NDArray[Any]

_BLOCKED = "com.microsoft.nchwc"
_LEFT_OUT = ["ConvMulFusion", "ConvAddFusion", "ConvBNFusion"]
"""onnxruntime's passes that would write other numbers into constant weights."""


def session_of_struck(model: ModelProto, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session for a graph with faults, as `session(model, fast=True)`, for any seed.

    Where the weights of convolutions are struck these run on blocked channels, if onnxruntime can. Outputs are those of
    that session where sums are exact. Raises GraphError for a graph that onnxruntime refuses.
    """
    ready = only_to_run(upgrade(model).model, run_without_inputs)
    struck = _struck_convolutions(ready)
    while struck:
        blocked = _block(ready, struck)
        if isinstance(blocked, ModelProto):
            return session(blocked, threads=threads, spin=False, graph_optimization="none")
        struck = {name: entry for name, entry in struck.items() if name not in blocked}
    return session(model, threads=threads, spin=False, fast=True)


def _struck_convolutions(model: ModelProto) -> dict[str, FaultNode]:
    """The struck weights that one convolution reads and nothing else does, by the names of the struck tensors."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in read_by(node):
            readers.setdefault(name, []).append(node)
    constants = Constants(model)
    found = {}
    for entry in fault_nodes(model):
        read = readers.get(entry.after, [])
        is_parameter = bool(entry.nodes) and not attribute(entry.node, "batched", 1) and entry.before in constants
        if is_parameter and len(read) == 1 and read[0].op_type == "Conv" and read[0].input[1] == entry.after:
            found[entry.after] = entry
    return found


class _Reordering(NamedTuple):
    """How weights (outputs, inputs, *kernel) become those on blocked channels: reshaped, transposed, reshaped.

    The axes `inwards` become the innermost one after the other: onnxruntime moves a single axis several times as fast
    as it transposes in any other way.
    """

    padded: int
    split: tuple[int, ...]
    inwards: tuple[int, ...]
    shape: tuple[int, ...]

    def apply(self, weights: Array) -> Array:
        missing = [(0, self.padded)] + [(0, 0)] * (weights.ndim - 1)
        values = np.pad(weights, missing).reshape(self.split)
        for axis in self.inwards:
            values = np.moveaxis(values, axis, -1)
        return values.reshape(self.shape)


def _reorderings(weights: tuple[int, ...], blocked: tuple[int, ...]) -> list[_Reordering]:
    """The ways in which weights of a shape can come to the blocked one."""
    outputs, inputs, *kernel = weights
    if len(blocked) != len(weights) or blocked[1:] != weights[1:] or blocked[0] < outputs:
        return []
    ways = []
    for block in (8, 16):
        if blocked[0] % block:
            continue
        # outputs in blocks, which lie innermost
        padded = blocked[0] - outputs
        groups = blocked[0] // block
        ways.append(_Reordering(padded, (groups, block, inputs, *kernel), (1,), blocked))
        # inputs in blocks, too, which is the same for kernels of one position
        if inputs % block == 0 and max(kernel) > 1:
            split = (groups, block, inputs // block, block, *kernel)
            ways.append(_Reordering(padded, split, (3, 1), blocked))
    return ways


def _block(model: ModelProto, struck: dict[str, FaultNode]) -> ModelProto | set[str]:
    """The optimized graph with the fault nodes in it again, or the struck weights that are not known again."""
    optimized = _optimize(_freeze(model, struck))
    if optimized is None:
        return set(struck)
    constants = Constants(optimized)
    before = Constants(model)
    fresh = FreshNames(optimized)
    readers = [node for node in optimized.graph.node if node.domain == _BLOCKED and node.op_type == "Conv"]
    nodes: list[NodeProto] = []
    taken: set[str] = set()
    unknown: set[str] = set()
    for after, entry in struck.items():
        weights = before.get(entry.before)
        nodes += entry.nodes
        match = None if weights is None else _find_reordered(weights, readers, constants, taken)
        if after in constants:  # not blocked, and still under its name
            taken.add(after)
        elif match is None:
            unknown.add(after)
        else:
            name, way = match
            taken.add(name)
            nodes += _write_reordering(optimized, after, name, way, fresh)
    if unknown:
        return unknown
    replace_nodes(optimized, [*nodes, *optimized.graph.node])
    _put_back(optimized, model, struck, taken)
    return optimized


def _freeze(model: ModelProto, struck: dict[str, FaultNode]) -> ModelProto:
    """The graph with the weights of convolutions as constants that no fault strikes."""
    out = copy_model(model)
    gone = {node.output[0] for entry in struck.values() for node in entry.nodes}
    replace_nodes(out, [node for node in model.graph.node if not gone.intersection(node.output)])
    constants = Constants(model)
    for after, entry in struck.items():
        value = constants.get(entry.before)
        if value is not None:
            out.graph.initializer.append(numpy_helper.from_array(value, after))
    del out.metadata_props[:]
    return out


def _optimize(model: ModelProto) -> ModelProto | None:
    """The graph as onnxruntime's passes leave it; None where it does not write that down."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(onnxruntime_library())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=_LEFT_OUT
            )
            return onnx.load(path)
        except Exception:  # whatever it is, the graph runs without
            return None


def _find_reordered(
    weights: Array, readers: Sequence[NodeProto], constants: Constants, taken: set[str]
) -> tuple[str, _Reordering] | None:
    """The one constant that holds the weights in blocks, and how they lie there; None where there is none, or several.

    What is all alike, such as zeros, tells no order.
    """
    found = []
    for node in readers:
        name = node.input[1]
        blocked = constants.get(name)
        if blocked is None or name in taken:
            continue
        for way in _reorderings(weights.shape, blocked.shape):
            if np.array_equal(way.apply(weights), blocked):
                found.append((name, way))
    return found[0] if len(found) == 1 else None


def _write_reordering(model: ModelProto, after: str, name: str, way: _Reordering, fresh: FreshNames) -> list[NodeProto]:
    """The nodes that make a blocked constant of struck weights."""

    def constant(what: str, values: Sequence[int]) -> str:
        own = fresh.take(f"{after}.{what}")
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), own))
        return own

    nodes = []
    source = after
    if way.padded:
        rank = len(way.shape)
        pads = constant("pads", [0] * rank + [way.padded] + [0] * (rank - 1))
        source = fresh.take(f"{after}.padded")
        nodes.append(helper.make_node("Pad", [after, pads], [source]))
    ordered = fresh.take(f"{after}.split")
    nodes.append(helper.make_node("Reshape", [source, constant("blocks", way.split)], [ordered]))
    for axis in way.inwards:
        before, ordered = ordered, fresh.take(f"{after}.transposed")
        others = [other for other in range(len(way.split)) if other != axis]
        nodes.append(helper.make_node("Transpose", [before], [ordered], perm=[*others, axis]))
    nodes.append(helper.make_node("Reshape", [ordered, constant("shape", way.shape)], [name]))
    return nodes


def _put_back(optimized: ModelProto, model: ModelProto, struck: dict[str, FaultNode], taken: set[str]) -> None:
    """Takes away the constants that are made now, and gives the graph what the fault nodes read, in place."""
    kept = [tensor for tensor in optimized.graph.initializer if tensor.name not in taken]
    del optimized.graph.initializer[:]
    optimized.graph.initializer.extend(kept)
    read = {name for entry in struck.values() for node in entry.nodes for name in node.input}
    there = {tensor.name for tensor in kept}
    optimized.graph.initializer.extend(t for t in model.graph.initializer if t.name in read - there)
    inputs = {info.name for info in optimized.graph.input}
    for info in model.graph.input:
        if info.name in read and info.name not in inputs:
            optimized.graph.input.append(info)
    known = {opset.domain for opset in optimized.opset_import}
    optimized.opset_import.extend(opset for opset in model.opset_import if opset.domain not in known)
