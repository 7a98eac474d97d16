"""The tensors that hold what the integers of a site are worth, where nodes behind it say so by constants."""

from collections.abc import Iterable

from onnx import NodeProto

from hwfault.graph.read.grids import IntegerGrid, NoGridError, read_scale, read_zero_point
from hwfault.graph.read.handing_on import keeps_grid
from hwfault.graph.read.own_integers import is_dequantizer, keeps_codes, worth_of
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.shapes import Tensors
from hwfault.graph.read.site_tensor import SiteTensor


def read_worths(found: Iterable[SiteTensor], tensors: Tensors, constants: Constants) -> dict[str, SiteTensor]:
    """The values of integers that a graph computes on, by the tensors that hold them."""
    worths: dict[str, SiteTensor] = {}
    for place in found:
        if place.grid.own:
            worths |= _behind_own(place, tensors, constants)
        elif _has_unit_grid(place.grid):
            worths |= _behind_unit(place, tensors, constants)
    return worths


def _has_unit_grid(grid: IntegerGrid) -> bool:
    """Whether values are the integers themselves."""
    return bool((grid.scale == 1).all() and not grid.zero_point.any())


def _behind_unit(place: SiteTensor, tensors: Tensors, constants: Constants) -> dict[str, SiteTensor]:
    """What integers are worth behind nodes that take a zero point off and multiply by a scale, as QONNX' Quant does.

    qonnx writes a quantizer so (ExtractQuantScaleZeroPt), and FINN one of thresholds. Each node is all that reads the
    one before.
    """
    found: dict[str, SiteTensor] = {}
    grid, at = place.grid._replace(names=(None, None)), place.tensor
    try:
        node = _only_reader(at, tensors)
        if node is not None and node.op_type == "Sub" and node.input[0] == at:
            grid = grid._replace(zero_point=read_zero_point(node.input[1], constants))
            at = node.output[0]
            found[at] = place._replace(grid=grid)
            node = _only_reader(at, tensors)
        if node is not None and node.op_type == "Mul" and node.input[0] == at:
            grid = grid._replace(scale=read_scale(node.input[1], constants))
            found[node.output[0]] = place._replace(grid=grid)
    except NoGridError:  # numbers that no integers are worth
        pass
    return found


def _only_reader(tensor: str, tensors: Tensors) -> NodeProto | None:
    readers = tensors.readers[tensor]
    alone = len(readers) == 1 and tensor not in tensors.outputs
    return readers[0] if alone and len(readers[0].input) == 2 and readers[0].output else None


def _behind_own(place: SiteTensor, tensors: Tensors, constants: Constants) -> dict[str, SiteTensor]:
    """The values of ONNX' own integers, behind each DequantizeLinear."""
    found = {}
    for node, _ in tensors.behind(place.tensor, lambda n: keeps_grid(n, constants) or keeps_codes(n, place.grid)):
        if is_dequantizer(node):
            rank = len(tensors.shapes.get(place.tensor) or ())
            grid = worth_of(node, place.grid, rank, constants)
            if grid is not None:
                found[node.output[0]] = place._replace(grid=grid, tensor=node.output[0])
    return found
