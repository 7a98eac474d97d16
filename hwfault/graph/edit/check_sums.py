"""Whether the accumulators of a faulted graph are computed as its plan says."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from hwfault.graph import ops
from hwfault.graph.edit.array_node import asks_for_double, make_array_node, value_scale
from hwfault.graph.ops import AFFINE
from hwfault.graph.read.integer import adds_integers, find_first_sums, find_integers
from hwfault.graph.read.operands import find_origin, read_division
from hwfault.graph.read.places import Places
from hwfault.graph.read.shapes import is_fault
from hwfault.program.processes import SitePlan

Array = NDArray[Any]


class _Scales(NamedTuple):
    """The scales of a layer's inputs and weights; None where the weights were folded and tell theirs no longer."""

    x: Array
    w: Array | None


def check_accumulator(places: Places, entry: SitePlan, before: str, after: str) -> bool:
    """Whether the layer of the ArrayFaults node that makes `before` is computed as the plan says.

    `after` is the tensor behind the site's fault nodes, which alone gives the layer's values. Transpositions may lie
    anywhere between.
    """
    tensors = places.tensors
    node = tensors.makers[before]
    double = asks_for_double(entry)
    # a layer adds up integers, and an array node with the plan's attributes stands behind it
    exact = find_first_sums(tensors.makers, node.input[0])
    layer = exact or tensors.makers.get(find_origin(places, node.input[0], casts=double))
    if layer is None or not ops.of(layer.op_type).accumulates or len(layer.input) != 2:
        return False
    scales = _read_scales(places, node, layer)
    if scales is None or not _has_same_attributes(node, make_array_node(entry, layer, ("", "", ""), "")):
        return False
    # what reads the struck sums gives them the worth that they have
    readers = list(tensors.behind(after, lambda reader: reader.op_type == "Transpose"))
    if exact is not None:  # that worth holds normalisations, too: only the network knows it
        return bool(readers) and all(reader.op_type == AFFINE and name == reader.input[0] for reader, name in readers)
    if len(readers) != 1:
        return False
    product, _ = readers[0]
    if product.op_type != "Mul":
        return False
    value = places.constants.get(product.input[1])
    if value is None:
        return False
    if scales.w is None:
        return True  # folded weights do not tell their scale, so that no other value can be expected
    expected = value_scale(scales.x, scales.w, layer, entry.site, double=double)
    return np.array_equal(value.ravel(), expected.ravel())


def _has_same_attributes(node: NodeProto, other: NodeProto) -> bool:
    return _read_attributes(node) == _read_attributes(other)


def _read_attributes(node: NodeProto) -> dict[str, Any]:
    return {entry.name: _plain(helper.get_attribute_value(entry)) for entry in node.attribute}


def _plain(value: Any) -> Any:
    if isinstance(value, int | bytes | str | float):
        return value
    return list(value)  # protobuf's repeated fields do not compare with each other


def _read_scales(places: Places, node: NodeProto, layer: NodeProto) -> _Scales | None:
    """The scales of a rewritten layer's inputs and weights; None if it does not compute on their integers.

    Weights that nothing strikes may have been folded into constants, which no longer tell their scale.
    """
    # the array node reads the very integers that the layer adds up
    exact = adds_integers(layer)
    inputs, weights = (_find_operand(places, name, exact=exact) for name in layer.input)
    inputs_given, weights_given = (_find_operand(places, name, exact=exact) for name in node.input[1:3])
    if inputs != inputs_given:
        return None
    if weights != weights_given and not _are_same_constants(places, weights, weights_given):
        return None
    # those of the inputs are a quantizer's, divided by its scale
    x = read_division(places, places.unmoved(inputs) if exact else inputs)
    if x is None:
        return None
    source = places.source(x.tensor)
    if source is None or not np.array_equal(x.scale.ravel(), source.grid.scale.ravel()):
        return None
    # those of the weights are, too, or they are constants
    w = read_division(places, weights)
    if w is None:
        folded = places.constants.get(weights)
        if folded is None or not np.array_equal(folded, np.round(folded)):
            return None
        return _Scales(x.scale, None)
    scale = _find_weight_scale(places, find_origin(places, w.tensor))
    if scale is None or not np.array_equal(w.scale.ravel(), scale.ravel()):
        return None
    return _Scales(x.scale, w.scale)


def _find_operand(places: Places, name: str, *, exact: bool) -> str:
    """The integers that a layer or array node reads, before they were transposed or, in parts, picked."""
    if exact:
        return find_integers(places.tensors.makers, name)
    return find_origin(places, name)


def _find_weight_scale(places: Places, name: str) -> Array | None:
    """The scale of weights, which their fault nodes still tell where the quantizer was folded into them."""
    weights = places.weights(name)
    if weights is not None:
        return weights.grid.scale
    maker = places.tensors.makers.get(name)
    if maker is None or not is_fault(maker):
        return None
    return places.constants.get(maker.input[1])


def _are_same_constants(places: Places, one: str, other: str) -> bool:
    """Whether two tensors are the same constants, of which qonnx gives each reader its own, transposed or not."""
    mine = places.constants.get(one)
    theirs = places.constants.get(other)
    if mine is None or theirs is None:
        return False
    return np.array_equal(mine, theirs) or np.array_equal(mine, theirs.T)
