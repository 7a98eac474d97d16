"""Copies of a body's nodes, whose tensors and nodes have names of their own: `q`, `q#1`, ... as runs of a site have."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from onnx import GraphProto, ModelProto, NodeProto

from hwfault.graph.read.external import graphs, walk_nodes
from hwfault.graph.read.shapes import bodies_of
from hwfault.program.names import run_name


class Instances:
    """The names that a graph has for tensors and nodes on all of its levels, and new ones."""

    def __init__(self, model: ModelProto) -> None:
        self._tensors = _Names(_defined(model.graph))
        self._nodes = _Names(node.name for node in walk_nodes(model.graph.node))

    def forget(self, body: GraphProto) -> None:
        """Gives the names free that a body has, which will be written out."""
        self._tensors.free(_defined(body))
        self._nodes.free(node.name for node in walk_nodes(body.node))

    def move(self, name: str) -> str:
        """The name that a tensor of a body has on the main level: the same if nobody else has it."""
        self._tensors.free([name])
        return self._tensors.take(name)

    def move_node(self, name: str) -> str:
        """The same for a node; none remains none."""
        self._nodes.free([name])
        return self.take_for_node(name)

    def take(self, name: str) -> str:
        """A name for a tensor that is called so in a body: the same if nobody else has it."""
        return self._tensors.take(name)

    def take_again(self, name: str) -> None:
        """Has one more tensor have a name that was taken, in another body beside."""
        self._tensors.add(name)

    def take_for_node(self, name: str) -> str:
        """The same for a node; none remains none."""
        return self._nodes.take(name) if name else ""


class _Names:
    """How many have each name, and those that are next."""

    def __init__(self, names: Iterable[str]) -> None:
        self._counts = Counter(names)
        self._next: Counter[str] = Counter()

    def free(self, names: Iterable[str]) -> None:
        self._counts.subtract(names)

    def add(self, name: str) -> None:
        self._counts[name] += 1

    def take(self, name: str) -> str:
        taken = name
        while self._counts[taken] > 0:
            self._next[name] += 1
            taken = run_name(name, self._next[name])
        self._counts[taken] += 1
        return taken


def _defined(graph: GraphProto) -> Iterator[str]:
    """The names of the tensors that a graph and its bodies define."""
    for level in graphs(graph):
        for named in (*level.input, *level.initializer):
            yield named.name
        for node in level.node:
            yield from filter(None, node.output)


class Copy(NamedTuple):
    """Nodes of a body under new names, and what the tensors of the body are called now."""

    nodes: list[NodeProto]
    names: dict[str, str]


def copy_body(body: GraphProto, given: Mapping[str, str], instances: Instances) -> Copy:
    """A copy of a body's nodes that reads `given` for what it is given; what it defines has names of its own."""
    names = dict(given)
    for name in _defined(body):
        if name in names and name not in given:  # of two branches
            instances.take_again(names[name])
        elif name not in names:
            names[name] = instances.take(name)
    nodes = []
    for node in body.node:
        made = NodeProto()
        made.CopyFrom(node)
        nodes.append(made)
    for node in walk_nodes(nodes):
        node.name = instances.take_for_node(node.name)
    rename_tensors(nodes, names)
    return Copy(nodes, names)


def rename_tensors(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Gives tensors other names in nodes and their bodies, in place."""
    for node in walk_nodes(nodes):
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for body in bodies_of(node):
            for named in (*body.input, *body.output, *body.initializer, *body.value_info):
                named.name = names.get(named.name, named.name)
            for entry in body.quantization_annotation:
                entry.tensor_name = names.get(entry.tensor_name, entry.tensor_name)


def describe_renamed(model: ModelProto, body: GraphProto, names: Mapping[str, str]) -> None:
    """Has a graph say of tensors what a body does, under their new names."""
    for info in (*body.value_info, *body.output):
        if info.name in names and info.type.WhichOneof("value"):
            made = model.graph.value_info.add()
            made.CopyFrom(info)
            made.name = names[info.name]
    for entry in body.quantization_annotation:
        if entry.tensor_name in names:
            note = model.graph.quantization_annotation.add()
            note.CopyFrom(entry)
            note.tensor_name = names[entry.tensor_name]
