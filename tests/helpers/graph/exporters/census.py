"""A count of its own of what a graph holds: which tensors are integers, which layers add them up, what is neither.

It walks the nodes once, knows ops by ONNX' schemas and onnxruntime's, and shares no code with hwfault.
"""

from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

WIDTHS = {
    TensorProto.INT4: (4, True),
    TensorProto.UINT4: (4, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT8: (8, False),
    TensorProto.INT16: (16, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT32: (32, True),
}
QUANTIZERS = ("Quant", "IntQuant", "BipolarQuant", "Trunc")
LAYERS = ("Conv", "Gemm", "MatMul")
INTEGER_LAYERS = (
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
)
UNKNOWN = ("MatMulNBits", "QAttention")


class Held(NamedTuple):
    """A tensor of integers: whether it is a parameter, and how its words are written."""

    parameter: bool
    bits: int
    signed: bool


class Census(NamedTuple):
    """What a graph holds.

    `tensors` are those of integers that hwfault's ops can strike, one for each memory. `narrow` are activations of 4
    bits. `layers` are outputs of layers that add up float numbers, `inside` those that do it with integers inside.
    """

    tensors: dict[str, Held]
    narrow: list[str]
    layers: list[str]
    inside: list[str]
    unknown: list[str]


def count(model: ModelProto) -> Census:
    """The census of a graph."""
    constants = find_constants(model)
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(info.name for info in model.graph.output)
    tensors: dict[str, Held] = {}
    narrow: list[str] = []
    memories: set[object] = set()
    for node in model.graph.node:
        for name, held in _made_by(node, model, constants, readers):
            memory = _memory(node, held, name)
            if memory in memories:
                continue
            memories.add(memory)
            if held.bits == 4 and not held.parameter and node.op_type not in QUANTIZERS and name == node.output[0]:
                narrow.append(name)
            else:
                tensors[name] = held
        for name, held in _kept_by(node, model, constants):
            tensors.setdefault(name, held)
    layers, inside, unknown = (_outputs_of(model, ops) for ops in (LAYERS, INTEGER_LAYERS, UNKNOWN))
    return Census(tensors, narrow, layers, inside, unknown)


def _outputs_of(model: ModelProto, ops: tuple[str, ...]) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type in ops]


def find_constants(model: ModelProto) -> set[str]:
    """The tensors that are the same whatever the graph is given."""
    found = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:
        if all(name in found for name in node.input):
            found.update(node.output)
    return found


def _made_by(node: NodeProto, model: ModelProto, constants: set[str], readers: Counter[str]) -> list[tuple[str, Held]]:
    """What a node makes of numbers: the tensor of its integers."""
    parameter = all(name in constants for name in node.input)
    if node.op_type in QUANTIZERS:
        return [(node.output[0], Held(parameter, *_written_by(node, model)))]
    place = _place(node, "y_zero_point", "C_zero_point", "Y_zero_point")
    quantizes = node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") or (
        node.op_type.startswith("QLinear") or (node.op_type == "QGemm" and len(node.input) > 8)
    )
    if not quantizes:
        return []
    said = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    kind = said or TensorProto.UINT8
    if place is not None and place < len(node.input) and node.input[place]:
        kind = _type_of(model, node.input[place])
    bits, signed = WIDTHS[kind]
    behind = [n for n in model.graph.node if node.output[0] in n.input]
    if readers[node.output[0]] == 1 and len(behind) == 1 and behind[0].op_type == "Clip":
        return [(behind[0].output[0], Held(parameter, _clipped(behind[0], model, bits, signed), signed))]
    return [(node.output[0], Held(parameter, bits, signed))]


def _clipped(clip: NodeProto, model: ModelProto, bits: int, signed: bool) -> int:
    """The fewest bits that hold what a Clip leaves of a type; an end that it leaves out is the type's."""
    low, high = _range(bits, signed)
    if len(clip.input) > 1 and clip.input[1]:
        low = int(value(model, clip.input[1]))
    if len(clip.input) > 2 and clip.input[2]:
        high = int(value(model, clip.input[2]))
    return next(few for few in range(1, bits + 1) if _range(few, signed)[0] <= low and high <= _range(few, signed)[1])


def _range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _kept_by(node: NodeProto, model: ModelProto, constants: set[str]) -> list[tuple[str, Held]]:
    """The constants of integers that a node reads as numbers, not as zero points."""
    if node.op_type in UNKNOWN:
        return []
    names = _formal(node)
    if not any("zero_point" in name for name in names):
        return []
    kept = []
    makers = {name: n for n in model.graph.node for name in n.output}
    for name, formal in zip(node.input, names, strict=False):
        if not name or name not in constants or "zero_point" in formal or "scale" in formal:
            continue
        maker = makers.get(name)
        if maker is not None and maker.op_type not in ("Clip", "Identity", "Constant"):
            continue  # a quantizer's, or a move of those
        source = name if maker is None or maker.op_type == "Constant" else maker.input[0]
        kind = _type_of(model, source)
        if kind not in WIDTHS:
            continue
        bits, signed = WIDTHS[kind]
        if maker is not None and maker.op_type == "Clip":
            if source in makers:
                continue
            bits = _clipped(maker, model, bits, signed)
        kept.append((name, Held(True, bits, signed)))
    return kept


def _written_by(node: NodeProto, model: ModelProto) -> tuple[int, bool]:
    """Width and sign of what a quantizer of QONNX makes."""
    if node.op_type == "BipolarQuant":
        return 1, True
    place = 3 if node.op_type != "Trunc" else len(node.input) - 1
    signed = next((a.i for a in node.attribute if a.name == "signed"), 1)
    return int(value(model, node.input[place])), bool(signed)


def _memory(node: NodeProto, held: Held, name: str) -> object:
    """What quantizers of one constant have in common if they make the same integers of it."""
    if held.parameter and node.op_type in QUANTIZERS:
        return (held, *node.input)
    return name


def value(model: ModelProto, name: str) -> float:
    """One number among the constants of a graph, through Identity, Cast and Constant."""
    return float(np.asarray(array(model, name)).reshape(-1)[0])


def array(model: ModelProto, name: str) -> np.ndarray:
    """A constant of a graph."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    node = next(n for n in model.graph.node if name in n.output)
    if node.op_type == "Constant":
        held = helper.get_attribute_value(node.attribute[0])
        return numpy_helper.to_array(held) if isinstance(held, TensorProto) else np.asarray(held)
    assert node.op_type in ("Identity", "Cast"), node.op_type
    return array(model, node.input[0])


def _type_of(model: ModelProto, name: str) -> int:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return int(tensor.data_type)
    node = next((n for n in model.graph.node if name in n.output), None)
    if node is None:
        return 0
    if node.op_type == "Cast":
        return int(next(a.i for a in node.attribute if a.name == "to"))
    if node.op_type == "Constant":
        return int(next(a.t.data_type for a in node.attribute))
    return _type_of(model, node.input[0]) if node.input else 0


def _place(node: NodeProto, *names: str) -> int | None:
    formal = _formal(node)
    return next((formal.index(name) for name in names if name in formal), None)


def _formal(node: NodeProto) -> list[str]:
    """The names that an op's schema gives its inputs."""
    if node.domain in ("", "ai.onnx"):
        try:
            return [given.name for given in defs.get_schema(node.op_type).inputs]
        except defs.SchemaError:
            return []
    return _of_onnxruntime().get((node.domain, node.op_type), [])


@cache
def _of_onnxruntime() -> dict[tuple[str, str], list[str]]:
    return {(s.domain, s.name): [given.name for given in s.inputs] for s in get_all_operator_schema()}
