"""What a layer adds up: the tensors that its inputs and weights are, before they were divided by their scales."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hwfault.graph.read.grids import NoGridError
from hwfault.graph.read.integer import adds_integers, takes_part
from hwfault.graph.read.layouts import Layout, permutation_of, then
from hwfault.graph.read.places import Places

Array = NDArray[Any]


class Operands(NamedTuple):
    """The tensors that a layer's inputs and weights are, faults included, and how it transposes the latter."""

    inputs: str
    weights: str
    transposed: Layout = ()
    """That transposition; empty for none."""


class Division(NamedTuple):
    """Integers that are Round(Div(tensor, scale))."""

    tensor: str
    scale: Array


def find_operands(node: NodeProto, places: Places) -> Operands:
    """What a layer adds up; raises NoGridError where it divides by other scales than those of the integers."""
    return _find_divided(node, places) if adds_integers(node) else _find_values(node, places)


def _find_values(node: NodeProto, places: Places) -> Operands:
    """The operands of a layer that adds up values."""
    inputs, weights = node.input[0], node.input[1]
    maker = places.tensors.makers.get(weights)
    if maker is None or maker.op_type != "Transpose" or not maker.input:
        return Operands(inputs, weights)
    return Operands(inputs, maker.input[0], _read_permutation(maker, places))


def _find_divided(node: NodeProto, places: Places) -> Operands:
    """The operands of a layer that adds up their integers, or parts of these."""
    way = list(places.tensors.before(node.input[1], takes_part))
    x = read_division(places, places.unmoved(node.input[0]))
    w = read_division(places, way[-1])
    inputs, weights = "" if x is None else x.tensor, "" if w is None else w.tensor
    _check_division(x, places.source(inputs))
    _check_division(w, places.weights(weights))
    return Operands(inputs, weights, _join_transposes(way, places))


def _join_transposes(way: list[str], places: Places) -> Layout:
    """What the transpositions on a way, from a tensor to what it was made of, do together."""
    makers, transposed = places.tensors.makers, Layout()
    for name in way[-2::-1]:  # in the order in which they run
        if makers[name].op_type == "Transpose":
            permutation = _read_permutation(makers[name], places)
            if len(transposed) not in (0, len(permutation)):
                raise NoGridError("it transposes its weights by permutations of different lengths")
            transposed = then(transposed, permutation)
    return transposed


def _read_permutation(node: NodeProto, places: Places) -> Layout:
    return permutation_of(node, len(places.tensors.shapes.get(node.input[0]) or ()))


def _check_division(division: Division | None, place: Any) -> None:
    """Raises NoGridError where a place's integers are not its values divided by its scale."""
    if place is None:
        return
    if division is None or not np.array_equal(division.scale.ravel(), place.grid.scale.ravel()):
        raise NoGridError(f"it divides the integers of {place.site.name!r} by another scale than theirs")


def find_origin(places: Places, tensor: str, *, casts: bool = False) -> str:
    """What a tensor was before transpositions, and before casts where these are asked for."""

    def is_passed(node: NodeProto) -> bool:
        return node.op_type == "Transpose" or (casts and node.op_type == "Cast")

    *_, first = places.tensors.before(tensor, is_passed)
    return first


def read_division(places: Places, integers: str) -> Division | None:
    """The tensor and the scale whose rounded quotient integers are; None for anything else."""
    makers = places.tensors.makers
    rounding = makers.get(integers)
    if rounding is None or rounding.op_type != "Round":
        return None
    quotient = makers.get(find_origin(places, rounding.input[0]))
    if quotient is None or quotient.op_type != "Div":
        return None
    scale = places.constants.get(quotient.input[1])
    return None if scale is None else Division(quotient.input[0], scale)
