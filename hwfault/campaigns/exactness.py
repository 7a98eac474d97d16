"""Whether every engine gives the same outputs to the bit: sums of integers, or of floats that no sum can round."""

import numpy as np
from onnx import ModelProto, NodeProto

from hwfault.errors import GraphError
from hwfault.graph.read.grids import IntegerGrid, NoGridError, grid_of
from hwfault.graph.read.integer import is_integer, left
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.sites import sites
from hwfault.program.names import first_run

_QUANTIZERS = ("Quant", "IntQuant")
_LAYERS = ("Conv", "MatMul", "Gemm")
_MOVES = (
    "MaxPool",
    "Flatten",
    "Reshape",
    "Transpose",
    "Relu",
    "Identity",
    "Constant",
    "Squeeze",
    "Unsqueeze",
    "Gather",
)
"""Ops that hand on numbers as they are, or 0."""
_MOST_BITS = 24
"""Sums of so many bits, their sign among them, are below 2^23, and all partial ones: float32 holds them."""


def why_not_exact(graph: ModelProto) -> str | None:
    """Why engines may differ in the last bit of what a graph computes; None where they cannot.

    A graph of integer arithmetic is exact where nothing of it is left in floats. Any other is taken to be where all
    scales are powers of two, every layer's largest sum needs at most 24 bits, what is added to it lies on a grid as
    well, and nothing else is computed but moves, maxima, and products with powers of two. That is sufficient, not
    necessary: what is not known to be exact is not.
    """
    if is_integer(graph):
        found = left(graph)
        if found:
            name, why = next(iter(found.items()))
            return f"{name}: {why}"
        return None
    return _why_floats_round(graph)


def _why_floats_round(graph: ModelProto) -> str | None:
    constants = Constants(graph)
    on_grid: set[str] = set()
    for node in graph.graph.node:
        why = _why_rounds(node, constants, on_grid)
        if why is not None:
            return f"{node.name or node.op_type}: {why}"
    wide = [site for site in sites(graph) if site.kind == "accumulator" and (site.worst_case or 99) > _MOST_BITS]
    if wide:
        return f"{wide[0].name}: its largest sum needs {wide[0].worst_case} bits, more than float32 is sure to hold"
    known = {first_run(site.name) for site in sites(graph) if site.kind == "accumulator"}
    layers = [node for node in graph.graph.node if node.op_type in _LAYERS]
    if len(known) < len(layers):
        return f"the largest sums of {len(layers) - len(known)} of {len(layers)} layers are not known"
    return None


def _why_rounds(node: NodeProto, constants: Constants, on_grid: set[str]) -> str | None:
    """Why a node may round; notes which tensors lie on a grid of powers of two."""
    if node.op_type in _QUANTIZERS:
        try:
            grid: IntegerGrid = grid_of(node, constants)
        except (NoGridError, GraphError) as error:
            return str(error)
        if not _all_powers(grid.scale) or not grid.whole:
            return "its scale is no power of two"
        on_grid.add(node.output[0])
        return None
    if node.op_type in _LAYERS:
        added = [name for name in node.input[2:] if name]
        off = [name for name in added if name not in on_grid]
        return f"it adds {off[0]!r}, which lies on no known grid" if off else None
    if node.op_type == "Mul":
        factors = [constants.get(name) for name in node.input]
        known = [factor for factor in factors if factor is not None]
        return None if known and all(_all_powers(factor) for factor in known) else "it multiplies by no power of two"
    return None if node.op_type in _MOVES else f"{node.op_type} may round"


def _all_powers(values: object) -> bool:
    """Whether all numbers are powers of two."""
    mantissa, _ = np.frexp(np.abs(np.asarray(values, np.float64)))
    return bool((mantissa == 0.5).all())
