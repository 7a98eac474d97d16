"""Parts of a graph, cut out along tensors, and the tensors along which nothing else goes on."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.ops import GRID_OPS
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.shapes import read_by

_DRAWN = frozenset((SEED, FIRST_SAMPLE))


def cut_out(model: ModelProto, inputs: Sequence[ValueInfoProto], outputs: Sequence[str]) -> ModelProto:
    """The part of a graph that makes `outputs` of `inputs`, tensors that are given in place of being computed.

    Inputs of the graph that the part reads stay its inputs. It has no metadata, and so no plan. Raises GraphError for
    an output that the graph does not have.
    """
    given = {info.name for info in inputs}
    nodes = _needed(model, outputs, given)
    read = {name for node in nodes for name in read_by(node)}
    out = ModelProto(ir_version=model.ir_version)
    out.opset_import.extend(model.opset_import)
    out.graph.name = model.graph.name
    out.graph.node.extend(nodes)
    out.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read - given)
    out.graph.input.extend(inputs)
    out.graph.input.extend(info for info in model.graph.input if info.name in read - given)
    out.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    return out


def _needed(model: ModelProto, outputs: Iterable[str], given: set[str]) -> list[NodeProto]:
    """The nodes on the way to some tensors, in the graph's order."""
    makers = {name: i for i, node in enumerate(model.graph.node) for name in node.output if name}
    needed: set[int] = set()
    front = [name for name in outputs if name not in given]
    for name in front:
        if name not in makers:
            raise GraphError(f"no node of the graph makes the tensor {name!r}, so that no part of it ends there")
    while front:
        maker = makers.get(front.pop())
        if maker is None or maker in needed:
            continue
        needed.add(maker)
        front += [name for name in read_by(model.graph.node[maker]) if name not in given]
    return [model.graph.node[i] for i in sorted(needed)]


def changing_tensors(model: ModelProto) -> set[str]:
    """The tensors that depend on the inputs of a graph, or on the faults that are drawn; all others are constants."""
    fixed = {tensor.name for tensor in model.graph.initializer} | {""}
    changing = {info.name for info in model.graph.input} - fixed
    for node in model.graph.node:
        if ops.of(node.op_type).random or any(name in changing for name in read_by(node)):
            changing.update(node.output)
    return changing


def find_cuts(model: ModelProto) -> list[str]:
    """The outputs of quantizers that alone are alive where they are made, in the graph's order.

    All that is computed behind such a tensor depends on it, on constants and on nothing else.
    """
    changing = changing_tensors(model) - _DRAWN
    last: dict[str, int] = {}
    for i, node in enumerate(model.graph.node):
        last.update(dict.fromkeys(read_by(node), i))
    last |= dict.fromkeys((info.name for info in model.graph.output), len(model.graph.node))
    alive = {info.name for info in model.graph.input} & changing
    cuts = []
    for i, node in enumerate(model.graph.node):
        made = set(node.output) & changing
        alive = {name for name in alive | made if last.get(name, -1) > i}
        if node.op_type in GRID_OPS and alive and alive == made:
            cuts.append(node.output[0])
    return cuts


class Front(NamedTuple):
    """Where a part of a graph begins: what it is given, and what else is alive there."""

    given: list[str]
    alive: list[str]


def find_front(model: ModelProto, given: Sequence[str], end: str) -> Front:
    """What the part from some tensors to `end` needs beside them: tensors that do not depend on them."""
    changing = changing_tensors(model) - _DRAWN
    behind = set(given)
    for node in model.graph.node:
        if behind.intersection(read_by(node)):
            behind.update(node.output)
    # backwards from the end, as far as the tensors reach
    makers = {name: node for node in model.graph.node for name in node.output if name}
    seen: set[str] = set()
    alive: list[str] = []
    front = [end]
    while front:
        name = front.pop()
        if name in seen or name not in changing:
            continue
        seen.add(name)
        if name not in behind:
            alive.append(name)
        elif name not in given:
            front += read_by(makers[name])
    return Front([name for name in given if name in seen], alive)
