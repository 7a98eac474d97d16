"""ONNX' own integers: the tensors between QuantizeLinear, DequantizeLinear and the ops that compute on them.

Such a tensor is the code itself, so that its scale is of no concern to faults. Constants are held once, however many
nodes read them; what a quantizer has made may be clipped to fewer bits behind it, as Brevitas writes it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from hwfault.graph import ops
from hwfault.graph.read.grids import IntegerGrid, NoGridError
from hwfault.graph.read.qonnxgraph import SITE, Constants, attribute, called_path, dynamo_path, metadata, site_name
from hwfault.graph.read.shapes import Tensors, is_fault

NARROW: dict[int, tuple[int, bool]] = {
    TensorProto.INT4: (4, True),
    TensorProto.UINT4: (4, False),
}
"""Types of which no fault op has an operand: width and sign."""
TYPES: dict[int, tuple[int, bool]] = {
    TensorProto.INT8: (8, True),
    TensorProto.UINT8: (8, False),
    TensorProto.INT16: (16, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT32: (32, True),
    **NARROW,
}
"""Width and sign of the types that sites may have."""


def type_held(kind: int) -> int:
    """The type in which integers of a type are at hand: those of 4 bits are held in 8."""
    if kind not in NARROW:
        return kind
    _, signed = NARROW[kind]
    return int(TensorProto.INT8 if signed else TensorProto.UINT8)


_SUFFIXES = (
    *("_QuantizeLinear_Output", "_QuantizeLinear_Input", "_DequantizeLinear_Output"),
    *("_quantized", "_Transposed"),
)
"""What onnxruntime's quantizer hangs on the names of the float tensors that it quantizes."""


class OwnIntegers(NamedTuple):
    """A tensor of ONNX' own integers, what makes it (None: it is an initializer), and what names it.

    `type` is that of ONNX, 0 where nothing tells it. `dynamic` says that their scale is worked out at each run.
    """

    tensor: str
    node: NodeProto | None
    name: str
    type: int
    dynamic: bool = False


def find_own_integers(model: ModelProto, tensors: Tensors, constants: Constants) -> Iterator[OwnIntegers]:
    """The tensors of a graph that ONNX' own integers are made in or kept in, each constant before what reads it."""
    kept = _Kept(model, tensors, constants)
    for node in model.graph.node:
        yield from kept.read_by(node)
        if _makes_integers(node):
            yield _made(node, tensors, constants)
    for node in tensors.inner:
        yield from kept.read_by(node)


class _Kept:
    """The constants of a graph that are ONNX' own integers, each where it is read first."""

    def __init__(self, model: ModelProto, tensors: Tensors, constants: Constants) -> None:
        self._initializers = {tensor.name for tensor in model.graph.initializer}
        self._tensors = tensors
        self._constants = constants
        self._seen: set[str] = set()

    def read_by(self, node: NodeProto) -> Iterator[OwnIntegers]:
        for operand in ops.of(node.op_type).operands:
            name = node.input[operand.place] if operand.place < len(node.input) else ""
            name = _before_faults(name, self._tensors)
            new = name in self._tensors.constants and name not in self._seen
            if new and _is_kept(name, self._tensors, self._initializers):
                self._seen.add(name)
                yield _kept(name, node, self._tensors, self._constants)


def grid_of_own(found: OwnIntegers, tensors: Tensors, constants: Constants) -> IntegerGrid:
    """The codes of a tensor of ONNX' own integers; raises NoGridError for one that cannot be struck."""
    if found.type not in TYPES:
        kind = TensorProto.DataType.Name(found.type) if found.type in TensorProto.DataType.values() else found.type
        raise NoGridError(
            f"its numbers are of type {kind}, expected integers of 4, 8 or 16 bits, or of 32 in a bias"
            if found.type
            else "the type of its integers is not known before the graph runs (its zero point is no constant)"
        )
    width, signed = TYPES[found.type]
    if found.type in NARROW:
        _check_narrow(found, tensors)
    clipped = _clipped_width(found.node, constants, width, signed)
    one, zero = np.ones((), np.float32), np.zeros((), np.float32)
    return IntegerGrid(one, zero, clipped, signed, own=True)


def worth_of(node: NodeProto, place: IntegerGrid, rank: int, constants: Constants) -> IntegerGrid | None:
    """The grid of the values that a DequantizeLinear makes of integers; None where its scale is no constant."""
    scale = constants.get(node.input[1]) if len(node.input) > 1 else None
    given = node.input[2] if len(node.input) > 2 else ""
    zero_point = constants.get(given) if given else np.zeros((), np.float32)
    if scale is None or zero_point is None or not (np.isfinite(scale) & (scale != 0)).all():
        return None
    shape = _along(node, scale.size, rank) if scale.ndim == 1 else scale.shape
    of_zeros = shape if zero_point.size == scale.size else zero_point.shape
    return place._replace(
        scale=scale.astype(np.float32).reshape(shape),
        zero_point=zero_point.astype(np.float32).reshape(of_zeros),
        own=False,
    )


def keeps_codes(node: NodeProto, place: IntegerGrid) -> bool:
    """Whether a node is a Cast to a type of integers that has all codes of a place, as PyTorch writes between two."""
    if node.op_type != "Cast":
        return False
    width, signed = TYPES.get(int(attribute(node, "to", 0)), (0, False))
    return width - int(signed) >= place.bit_width - int(place.signed) and signed >= place.signed


def is_dequantizer(node: NodeProto) -> bool:
    return node.op_type == "DequantizeLinear"


def _makes_integers(node: NodeProto) -> bool:
    """Whether a node's output is ONNX' own integers; QGemm gives values where no scale is told in front of the zero."""
    own = ops.of(node.op_type)
    if own.makes is None or not node.output or not node.output[0]:
        return False
    return not own.twin or own.makes <= len(node.input)


def _along(node: NodeProto, size: int, rank: int) -> tuple[int, ...]:
    """The shape of numbers along one axis of values of that rank."""
    if size == 1 or not rank:
        return () if size == 1 else (size,)
    axis = int(attribute(node, "axis", 1)) % rank
    return tuple(size if i == axis else 1 for i in range(rank))


def _before_faults(name: str, tensors: Tensors) -> str:
    *_, first = tensors.before(name, is_fault)
    return first


def _is_kept(name: str, tensors: Tensors, initializers: set[str]) -> bool:
    """Whether a constant is kept in the graph, or clipped from one that is; a quantizer's output is a site already."""
    *_, first = tensors.before(name, lambda node: node.op_type == "Clip" or is_fault(node))
    maker = tensors.makers.get(first)
    return name in initializers or maker is None or ops.of(maker.op_type).makes is None


def _kept(name: str, reader: NodeProto, tensors: Tensors, constants: Constants) -> OwnIntegers:
    """A constant that a node reads."""
    maker = tensors.makers.get(name)
    source = maker.input[0] if maker is not None and maker.input else name
    bare = _without_suffix(name)
    called = reader if maker is None else maker
    if maker is not None and SITE in metadata(maker):
        own = metadata(maker)[SITE]
    elif bare != name:
        own = bare
    else:
        own = dynamo_path(called) or called_path(called) or name
    return OwnIntegers(name, maker, own, constants.type_of(source))


def _made(node: NodeProto, tensors: Tensors, constants: Constants) -> OwnIntegers:
    """What a node makes, behind the Clip that alone reads it."""
    tensor = node.output[0]
    kind = _type_made(node, constants)
    readers = tensors.readers[tensor]
    struck = node
    if len(readers) == 1 and readers[0].op_type == "Clip" and readers[0].output:
        struck = readers[0]
    bare = _without_suffix(tensor)
    own = metadata(struck).get(SITE) or (bare if bare != tensor else site_name(node))
    dynamic = (ops.of(node.op_type).makes or 0) < 0
    return OwnIntegers(struck.output[0], struck, own, kind, dynamic)


def _without_suffix(name: str) -> str:
    """The name of the float tensor that onnxruntime's quantizer named one after."""
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            name = name.removesuffix(suffix)
    return name


def _type_made(node: NodeProto, constants: Constants) -> int:
    """The type of the integers that a node makes; 0 where nothing tells."""
    place = ops.of(node.op_type).makes
    said = int(attribute(node, "output_dtype", 0))
    if place is None or place < 0 or said:
        return said or TensorProto.UINT8
    given = node.input[place] if place < len(node.input) else ""
    if given:
        return constants.type_of(given)
    return 0 if ops.of(node.op_type).twin else TensorProto.UINT8


def _clipped_width(node: NodeProto | None, constants: Constants, width: int, signed: bool) -> int:
    """How many bits hold what a Clip leaves of integers of that width; an end that it leaves out is theirs."""
    if node is None or node.op_type != "Clip":
        return width
    lowest = -(1 << (width - 1)) if signed else 0
    ends = [lowest, lowest + (1 << width) - 1]
    for i, name in enumerate(node.input[1:3]):
        end = constants.get(name) if name else np.array(ends[i])
        if end is None or end.size != 1:
            return width
        ends[i] = int(end.item())
    low, high = ends
    bits = max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0, 1)
    return min(width, bits + int(signed))


def _check_narrow(found: OwnIntegers, tensors: Tensors) -> None:
    """Raises NoGridError for integers of 4 bits that cannot be held in 8."""
    if found.node is not None:
        raise NoGridError(
            "its integers are of 4 bits where the graph computes them: onnxruntime hands such to ops of others from "
            "1.20 on, but hwfault's have no operand of them; quantize it to 8 bits with a Clip to 4 behind it"
        )
    others = [node for node in tensors.readers[found.tensor] if not (is_dequantizer(node) or is_fault(node))]
    if others:
        raise NoGridError(
            f"its integers are of 4 bits and {others[0].op_type} {others[0].name!r} reads them, expected "
            "DequantizeLinear alone, which reads 8 bits as well"
        )
