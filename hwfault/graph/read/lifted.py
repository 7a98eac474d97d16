"""What is constant in a body, brought to the main level, where it is made once."""

from collections.abc import Iterable
from typing import NamedTuple

from onnx import GraphProto, ModelProto, NodeProto

from hwfault.graph import ops
from hwfault.graph.read.instances import Instances, describe_renamed, rename_tensors
from hwfault.graph.read.rounds import Fixed, is_constant
from hwfault.graph.read.shapes import bodies_of


class Taken(NamedTuple):
    """The nodes that make the constants of a body, the body without them, and what its constants are called now."""

    nodes: list[NodeProto]
    rest: GraphProto
    names: dict[str, str]


def take_constants(body: GraphProto, model: ModelProto, fixed: Fixed, instances: Instances) -> Taken:
    """What is constant in a body that is written out, as initializers and nodes of the main level of `model`."""
    rest = GraphProto()
    rest.CopyFrom(body)
    nodes = _find_constant(rest, fixed, ())
    names = {tensor.name: instances.take(tensor.name) for tensor in rest.initializer}
    names |= {name: instances.take(name) for node in nodes for name in node.output if name}
    made = _move(rest, nodes, names, model, fixed)
    for node in made:
        node.name = instances.take_for_node(node.name)
    return Taken(made, rest, names)


def lift_quantizers(node: NodeProto, model: ModelProto, fixed: Fixed, instances: Instances) -> list[NodeProto]:
    """What quantizes constants in the bodies of a node, which stay without it, as nodes of the main level."""
    lifted: list[NodeProto] = []
    for body in bodies_of(node):
        nodes = _find_quantizers(body, fixed)
        read = {name for one in nodes for name in one.input} | _find_integers(body, model)
        moved = [tensor.name for tensor in body.initializer if tensor.name in read]
        if moved or nodes:
            moved += [name for one in nodes for name in one.output if name]
            names = {name: instances.move(name) for name in moved}
            made = _move(body, nodes, names, model, fixed)
            for one in made:
                one.name = instances.move_node(one.name)
            rename_tensors(body.node, names)
            lifted += made
        for inner in body.node:
            lifted += lift_quantizers(inner, model, fixed, instances)
    return lifted


def _find_constant(body: GraphProto, fixed: Fixed, kept: Iterable[str]) -> list[NodeProto]:
    """The nodes of a body that make the same in every round, but for those that make the tensors `kept`."""
    local = {tensor.name for tensor in body.initializer}
    found = []
    for node in body.node:
        if any(node.output) and is_constant(node, fixed, local) and not set(kept).intersection(node.output):
            found.append(node)
            local.update(filter(None, node.output))
    return found


def _find_quantizers(body: GraphProto, fixed: Fixed) -> list[NodeProto]:
    """The nodes of a body that quantize constants, and those that make these, in their order.

    What a body hands out stays, as runtimes want it made there.
    """
    wanted: set[str] = set()
    found = []
    for node in reversed(_find_constant(body, fixed, [info.name for info in body.output])):
        own = ops.of(node.op_type)
        if own.grid == "makes" or own.own_integers or wanted.intersection(node.output):
            found.append(node)
            wanted.update(node.input)
    return found[::-1]


def _find_integers(body: GraphProto, model: ModelProto) -> set[str]:
    """The tensors of a body that layers read as integers: ONNX' own, and those that are said to be some."""
    found = {entry.tensor_name for graph in (body, model.graph) for entry in graph.quantization_annotation}
    for node in body.node:
        places = [operand.place for operand in ops.of(node.op_type).operands]
        found.update(node.input[place] for place in places if place < len(node.input))
    return found - {info.name for info in body.output}


def _move(
    body: GraphProto, nodes: list[NodeProto], names: dict[str, str], model: ModelProto, fixed: Fixed
) -> list[NodeProto]:
    """Takes nodes and initializers that have other names on the main level out of a body; copies of the nodes."""
    describe_renamed(model, body, names)
    for tensor in body.initializer:
        if tensor.name in names:
            held = model.graph.initializer.add()
            held.CopyFrom(tensor)
            held.name = names[tensor.name]
            fixed.hold(held)
    made = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        made.append(copy)
    rename_tensors(made, names)
    for node in made:
        fixed.note(node)
    # what is left of the body
    gone = {name for node in nodes for name in node.output if name}
    kept = [node for node in body.node if not gone.intersection(node.output)]
    del body.node[:]
    body.node.extend(kept)
    for field in (body.initializer, body.value_info):
        stay = [entry for entry in field if entry.name not in names]
        del field[:]
        field.extend(stay)
    return made
