"""The shapes of a graph's tensors for inputs of given shapes, with what its own arithmetic on shapes comes to."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hwfault.graph import ops
from hwfault.graph.ops import STANDARD_DOMAINS
from hwfault.graph.read.qonnxgraph import Constants, replace_nodes
from hwfault.graph.read.shapes import Shape, inferred_shapes, stand_in_of

Numbers = NDArray[Any]

_MOST = 64
"""Longer tensors, and nodes of more inputs, are no arithmetic on shapes."""
_LARGEST = 1 << 60
"""So many elements NumPy can count, in an array that takes no memory."""
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def shapes_for(model: ModelProto, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of a graph's tensors, by name, where its inputs have those of `inputs`; None: not known.

    ONNX's own inference stops at a reshape whose target is worked out by more than a few ops. Here what that comes to
    is put in its place, and the shapes are inferred anew, until nothing more is found.
    """
    light = _light(model, inputs)
    known = _numbers_of(light)
    while True:
        shapes = inferred_shapes(light)
        found = _worked_out(light, shapes, known)
        if not found:
            return shapes | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        light.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in found.items())
        replace_nodes(light, [node for node in light.graph.node if not all(name in found for name in node.output)])
        known |= found


def _numbers_of(light: ModelProto) -> dict[str, Numbers]:
    """The values of a graph's initializers; raises GraphError for one that cannot be read."""
    constants, known = Constants(light), {}
    for tensor in light.graph.initializer:
        values = constants.get(tensor.name)
        if values is not None:
            known[tensor.name] = values
    return known


def _light(model: ModelProto, inputs: Mapping[str, Shape]) -> ModelProto:
    """A graph of stand-ins in which only numbers of shapes are constants; of all others it has the shape."""
    light = ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.output.extend(model.graph.output)
    initializers = {tensor.name for tensor in model.graph.initializer}
    for info in (info for info in model.graph.input if info.name not in initializers):
        kind = info.type.tensor_type.elem_type
        shape = inputs.get(info.name)
        light.graph.input.append(info if shape is None else helper.make_tensor_value_info(info.name, kind, shape))
    for tensor in model.graph.initializer:
        if tensor.data_type in _INTEGERS and _few(tensor.dims) and not tensor.external_data:
            light.graph.initializer.append(tensor)
        else:
            kind, dims = tensor.data_type, list(tensor.dims)
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, kind, dims))
    return stand_in_of(light)


def _few(dims: Iterable[int]) -> bool:
    """Whether a tensor of these extents has so few numbers that it may be arithmetic on shapes."""
    return 0 <= math.prod(dims) <= _MOST


def _worked_out(light: ModelProto, shapes: Mapping[str, Shape], known: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """What nodes make of shapes, and of numbers that are known, by the tensors' names."""
    found: dict[str, Numbers] = {}
    for node in light.graph.node:
        if node.domain not in STANDARD_DOMAINS or not all(_is_small(shapes.get(name)) for name in node.output if name):
            continue
        if node.op_type == "Shape" and node.input:
            inputs = _of_shape(node, shapes.get(node.input[0]))
        elif ops.of(node.op_type).exact or ops.of(node.op_type).elementwise:
            inputs = _numbers_read(node, known, found)
        else:
            continue
        if inputs is not None:
            found |= _evaluated(node, inputs, light)
    return found


def _is_small(shape: Shape | None) -> bool:
    return shape is not None and None not in shape and _few(extent or 0 for extent in shape)


def _of_shape(node: NodeProto, shape: Shape | None) -> dict[str, Numbers] | None:
    """An array of a shape that takes no memory, if the shape is known."""
    if shape is None or None in shape:
        return None
    extents = tuple(extent or 0 for extent in shape)
    if any(extent < 0 for extent in extents) or math.prod(extents) > _LARGEST:  # what no tensor has
        return None
    return {node.input[0]: np.broadcast_to(np.zeros((), np.float32), extents)}


def _numbers_read(
    node: NodeProto, known: Mapping[str, Numbers], found: Mapping[str, Numbers]
) -> dict[str, Numbers] | None:
    """The numbers that a node reads; None where not all are known."""
    inputs: dict[str, Numbers] = {}
    for name in filter(None, node.input):
        values = found[name] if name in found else known.get(name)
        if values is None:
            return None
        inputs[name] = values
    return inputs if len(node.input) <= _MOST else None


def _evaluated(node: NodeProto, inputs: Mapping[str, Numbers], light: ModelProto) -> dict[str, Numbers]:
    """What one node makes of its inputs; nothing where it fails on them."""
    infos = [helper.make_tensor_value_info(name, _kind(values), values.shape) for name, values in inputs.items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "numbers", infos, outputs)
    one = helper.make_model(graph, opset_imports=light.opset_import, ir_version=light.ir_version)
    try:
        with np.errstate(all="ignore"):
            made = ReferenceEvaluator(one).run(None, dict(inputs))
    except Exception:  # whatever a graph of others asks for
        return {}
    return {name: np.asarray(values) for name, values in zip(node.output, made, strict=True)}


def _kind(values: Numbers) -> int:
    return helper.np_dtype_to_tensor_dtype(values.dtype)
