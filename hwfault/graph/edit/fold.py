"""Gains and offsets behind layers with faulty weights, folded into these: one layer to onnxruntime.

onnxruntime does that itself where weights are constants. Here the gain goes into the weights and into the scale by
which the faults read them: their codes, and so the faults, stay the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from hwfault.graph.edit.editing import FreshNames
from hwfault.graph.ops import DOMAIN, FAULT_OPS
from hwfault.graph.read.qonnxgraph import Constants, attribute
from hwfault.graph.read.shapes import read_by

Array = NDArray[Any]

_MOST_INTEGER = 1 << 20
"""Integers up to this size survive the roundings of a gain on both sides of their division."""


def fold_affine_nodes(model: ModelProto) -> Counter[str]:
    """Folds what scales and shifts the outputs of layers into them where it can be, in place; how many of each op.

    These are BatchNormalization, or Mul and Add by constants, right behind a convolution whose weights pass through
    fault nodes. The constants that nobody reads any longer stay.
    """
    constants = Constants(model)
    fresh = FreshNames(model)
    folded: Counter[str] = Counter()
    for number, layer in enumerate(list(_find_layers(model, constants))):
        made = _fold(constants, layer)
        if made is not None:
            names = [fresh.take(f"{DOMAIN}_folded{number}.{key}") for key in _Folded._fields]
            _put_in(model, layer, made, names)
            folded.update(node.op_type for node in layer.affine)
    return folded


class _Layer(NamedTuple):
    """A convolution whose weights pass through fault nodes, and the nodes behind it that scale and shift its outputs.

    Each of them is all that reads the one before.
    """

    faults: list[NodeProto]
    conv: NodeProto
    affine: list[NodeProto]


Readers = Mapping[str, Sequence[NodeProto | None]]
"""The nodes that read each tensor; None stands for the outside, which reads the graph's outputs."""


def _find_layers(model: ModelProto, constants: Constants) -> Iterator[_Layer]:
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = _find_readers(model)
    for conv in model.graph.node:
        if conv.op_type != "Conv":
            continue
        faults = _find_faults(conv.input[1], makers)
        affine = _find_affine(conv, readers, constants)
        if faults and affine and all(len(readers[node.output[0]]) == 1 for node in faults):
            yield _Layer(faults, conv, affine)


def _find_readers(model: ModelProto) -> Readers:
    readers: dict[str, list[NodeProto | None]] = {info.name: [None] for info in model.graph.output}
    for node in model.graph.node:
        for name in read_by(node):
            readers.setdefault(name, []).append(node)
    return readers


def _find_faults(weights: str, makers: Mapping[str, NodeProto]) -> list[NodeProto]:
    """The fault nodes that a layer's weights pass through, in the order in which they run."""
    faults: list[NodeProto] = []
    maker = makers.get(weights)
    while maker is not None and maker.domain == DOMAIN and maker.op_type in FAULT_OPS:
        faults.insert(0, maker)
        maker = makers.get(maker.input[0])
    return faults


def _find_affine(conv: NodeProto, readers: Readers, constants: Constants) -> list[NodeProto]:
    """The nodes behind a convolution: a BatchNormalization, or a product, a sum or both with constants."""
    behind = _only_reader(conv, readers)
    if behind is not None and behind.op_type == "BatchNormalization" and len(behind.output) == 1:
        return [behind]
    found: list[NodeProto] = []
    if behind is not None and behind.op_type == "Mul" and _reads_constant(behind, constants):
        found.append(behind)
        behind = _only_reader(behind, readers)
    if behind is not None and behind.op_type == "Add" and _reads_constant(behind, constants):
        found.append(behind)
    return found


def _only_reader(node: NodeProto, readers: Readers) -> NodeProto | None:
    """What alone reads the output of a node; None where others do, or nobody, or it is one of the graph's."""
    read = readers.get(node.output[0], [])
    return read[0] if len(read) == 1 else None


def _reads_constant(node: NodeProto, constants: Constants) -> bool:
    return any(name in constants for name in node.input)


class _Affine(NamedTuple):
    """The gain and the offset (outputs,) of a layer."""

    gain: Array
    offset: Array


def _read_affine(constants: Constants, layer: _Layer, weights: Array) -> _Affine | None:
    """What a layer's outputs are multiplied by and what is added then; None where it is not known for each output."""
    first = layer.affine[0]
    if first.op_type == "BatchNormalization":
        known = _known(constants, first.input[1:5])
        if known is None:
            return None
        gamma, beta, mean, variance = known
        epsilon = np.float32(attribute(first, "epsilon", 1e-5))
        gain: Array = (gamma / np.sqrt(variance + epsilon)).astype(np.float32)
        return _Affine(gain, beta - mean * gain)
    gain, offset = np.ones(len(weights), np.float32), np.zeros(len(weights), np.float32)
    for node in layer.affine:
        given = next(value for name in node.input if (value := constants.get(name)) is not None)
        of_each = _of_each_output(given, weights)
        if of_each is None:
            return None
        if node.op_type == "Mul":
            gain = of_each
        else:
            offset = of_each
    return _Affine(gain, offset)


def _of_each_output(given: Array, weights: Array) -> Array | None:
    """Numbers that broadcast against a layer's outputs (n, outputs, *positions), one for each output; None for others.

    Where they have fewer axes these are the last ones.
    """
    positions = weights.ndim - 2
    if given.size == 1:
        # more axes than the layer's outputs have would give these more, too
        return np.full(len(weights), given.reshape(())) if given.ndim <= weights.ndim else None
    shapes = ((len(weights), *[1] * positions), (1, len(weights), *[1] * positions))
    return given.reshape(-1) if given.shape in shapes else None


class _Folded(NamedTuple):
    """What the layer alone reads, once gain and offset are folded into it."""

    weights: Array
    scale: Array
    bias: Array


def _known(constants: Constants, names: Sequence[str]) -> list[Array] | None:
    """The values of constants; None where one of them is none."""
    found = []
    for name in names:
        value = constants.get(name)
        if value is None:
            return None
        found.append(value)
    return found


def _fold(constants: Constants, layer: _Layer) -> _Folded | None:
    """A layer with gain and offset inside; None where its numbers are no constants or a gain loses codes."""
    given = _known(constants, [*layer.faults[0].input[:3], *layer.conv.input[2:3]])
    if given is None:
        return None
    old_weights, old_scale, zero_point, *bias = given
    for node in layer.faults[1:]:
        other = constants.get(node.input[1])
        if other is None or not np.array_equal(other, old_scale):
            return None  # its fault nodes have different scales
    affine = _read_affine(constants, layer, old_weights)
    if affine is None:
        return None
    # the gain of an output goes into its weights, and into the scale by which the faults read their codes
    gains = affine.gain.reshape(-1, *[1] * (old_weights.ndim - 1))
    weights = old_weights * gains
    scale = np.broadcast_to(old_scale, gains.shape) if old_scale.size == 1 else old_scale
    scale = scale * gains
    if scale.shape != gains.shape:
        return None  # a scale along other axes than the outputs
    if not keeps_codes(old_weights, old_scale, weights, scale, zero_point):
        return None
    # the layer's own bias with the gain, and the offset, are the bias from now on
    offset = affine.offset + bias[0] * affine.gain if bias else affine.offset
    return _Folded(weights, scale, offset)


def _put_in(model: ModelProto, layer: _Layer, made: _Folded, names: Sequence[str]) -> None:
    """Has a layer and its faults read what was made, under these names, in place; what was folded goes."""
    for name, values in zip(names, made, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    weights, scale, bias = names
    layer.faults[0].input[0] = weights
    for node in layer.faults:
        node.input[1] = scale
    del layer.conv.input[2:]
    layer.conv.input.append(bias)
    layer.conv.output[0] = layer.affine[-1].output[0]
    for node in layer.affine:
        model.graph.node.remove(node)


def keeps_codes(weights: Array, scale: Array, new_weights: Array, new_scale: Array, zero: Array) -> bool:
    """Whether the faults find the same integers, also where they put others."""
    if weights.dtype != np.float32:
        return False
    smallest = np.finfo(np.float32).tiny
    if not np.isfinite(new_scale).all() or not (np.abs(new_scale) > smallest).all():
        return False
    with np.errstate(all="ignore"):
        before = np.rint(weights / scale + zero)
        after = np.rint(new_weights / new_scale + zero)
    # codes that are put there by faults are rounded once on the way: small ones come back from it
    are_small = np.abs(before) + np.abs(zero) < _MOST_INTEGER
    return bool(are_small.all()) and np.array_equal(before, after)
