"""Quantizers whose numbers are no float32, as QKeras' converter and chisel4ml write them, made ones of float32."""

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper

from hwfault.graph import ops
from hwfault.graph.edit.editing import FreshNames
from hwfault.graph.ops import STANDARD_DOMAINS
from hwfault.graph.read.external import graphs
from hwfault.graph.read.qonnxgraph import NUMBERS, attribute, standard_opset

Types = dict[str, int]
"""The types of tensors, as ONNX numbers them, by name; those that nothing tells are left out."""

_HANDED_ON = (TensorProto.DOUBLE, TensorProto.FLOAT16)
"""The types of values that a quantizer hands on as it was given them."""


def find_types(model: ModelProto) -> Types:
    """The types of a graph's tensors, also of those in bodies, as far as inputs, constants and nodes tell them."""
    types: Types = {}
    for graph in graphs(model.graph):
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        types |= {info.name: info.type.tensor_type.elem_type for info in graph.input}
    for graph in graphs(model.graph):
        for node in graph.node:
            for place, name in enumerate(node.output):
                kind = _type_made(node, place, types, standard_opset(model))
                if kind:
                    types[name] = kind
    return types


def _type_made(node: NodeProto, place: int, types: Mapping[str, int], opset: int) -> int:
    """The type of an output of a node; 0 where nothing tells."""
    if _is_quantizer(node):
        given = types.get(node.input[0], 0) if node.input else 0
        return given if given in _HANDED_ON else TensorProto.FLOAT
    if node.domain not in STANDARD_DOMAINS:
        moves = ops.of(node.op_type).home in ("qonnx", "hwfault")
        return types.get(node.input[0], 0) if moves and node.input else 0
    if node.op_type == "Cast":
        return int(attribute(node, "to", 0))
    if node.op_type == "Constant":
        return _type_held(node)
    if node.op_type == "ConstantOfShape":
        return _type_held(node)
    try:
        schema = defs.get_schema(node.op_type, opset)
    except defs.SchemaError:
        return 0
    if not schema.outputs or not schema.inputs:
        return 0
    told = schema.outputs[min(place, len(schema.outputs) - 1)].type_str
    for at, name in enumerate(node.input):  # an output is of the type of the inputs that share its letter
        if schema.inputs[min(at, len(schema.inputs) - 1)].type_str == told and name in types:
            return types[name]
    return 0


def _type_held(node: NodeProto) -> int:
    """The type of what a node of constants holds."""
    held = {entry.name: entry for entry in node.attribute}
    if "value" in held:
        return int(held["value"].t.data_type)
    return TensorProto.INT64 if held.keys() & {"value_int", "value_ints"} else TensorProto.FLOAT


def _is_quantizer(node: NodeProto) -> bool:
    own = ops.of(node.op_type)
    return own.home == "qonnx" and own.native and (own.grid == "makes" or own.floats)


def needs_float32(node: NodeProto, types: Mapping[str, int]) -> bool:
    """Whether a node is a quantizer with numbers of another type than float32."""
    return _is_quantizer(node) and any(_is_other(name, types) for name in node.input)


def _is_other(name: str, types: Mapping[str, int]) -> bool:
    kind = types.get(name, TensorProto.FLOAT)
    return kind != TensorProto.FLOAT and kind in NUMBERS


def cast_around(node: NodeProto, types: Mapping[str, int], fresh: FreshNames) -> list[NodeProto]:
    """A quantizer on float32 numbers, between Casts; double and float16 values are handed on as what they were.

    It rounds in float32: with a scale that is no float32 number, values on the border of two integers may come to the
    other one than in double.
    """
    own = NodeProto()
    own.CopyFrom(node)
    before = []
    for place, name in enumerate(node.input):
        if _is_other(name, types):
            own.input[place] = fresh.take(f"{node.output[0]}.in{place}.float32")
            before.append(helper.make_node("Cast", [name], [own.input[place]], to=TensorProto.FLOAT))
    handed_on = types.get(node.input[0], TensorProto.FLOAT)
    if handed_on not in _HANDED_ON:
        return [*before, own]
    own.output[0] = fresh.take(f"{node.output[0]}.float32")
    return [*before, own, helper.make_node("Cast", [own.output[0]], [node.output[0]], to=handed_on)]


def describe_types(node: NodeProto, types: Mapping[str, int]) -> str:
    """The other types of a quantizer's numbers, in words."""
    kinds = {types[name] for name in node.input if _is_other(name, types)}
    return " and ".join(sorted(TensorProto.DataType.Name(kind).lower() for kind in kinds))


def find_stale(graph: GraphProto, types: Mapping[str, int]) -> list[ValueInfoProto]:
    """What one level of a graph says of tensors in between that are of another type, as passes leave it behind."""
    return [
        info
        for info in graph.value_info
        if info.name in types and info.type.tensor_type.elem_type not in (0, types[info.name])
    ]
