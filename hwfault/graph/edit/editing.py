"""What all passes over graphs have in common: each checks first, then edits a copy, and says what it changed."""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from onnx import ModelProto, NodeProto

from hwfault.graph.read.external import graphs
from hwfault.graph.read.shapes import read_by

_LOG = logging.getLogger("hwfault")


class Edit(NamedTuple):
    """What a pass made of a graph, which stays as it is, and a sentence for each kind of change.

    Without a sentence nothing was changed.
    """

    model: ModelProto
    changes: list[str]

    def log_changes(self) -> ModelProto:
        """The graph, for callers that are given no more; the log `hwfault` is told what was changed (level INFO)."""
        for change in self.changes:
            _LOG.info("the graph was edited: %s", change)
        return self.model


def copy_model(model: ModelProto) -> ModelProto:
    """A copy, to be edited."""
    out = ModelProto()
    out.CopyFrom(model)
    return out


def count_of(count: int, what: str) -> str:
    """A number of things, in words."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def read_names(nodes: Iterable[NodeProto]) -> set[str]:
    """The names of the tensors that nodes and their bodies read."""
    return {name for node in nodes for name in read_by(node)}


class FreshNames:
    """Names that no tensor or node of a graph has yet: those asked for, as long as nobody has them.

    New nodes are called after what they make, and onnxruntime takes no name of a node twice.
    """

    def __init__(self, model: ModelProto) -> None:
        self._taken = set(_names(model))

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def take(self, name: str) -> str:
        """The name, or where it is taken one that begins with it; nobody is given it again."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _names(model: ModelProto) -> Iterable[str]:
    """The names of all tensors and nodes, also of those in bodies: what a body reads may be the main level's."""
    for graph in graphs(model.graph):
        for named in (*graph.input, *graph.output, *graph.initializer):
            yield named.name
        for sparse in graph.sparse_initializer:
            yield sparse.values.name
        for node in graph.node:
            yield from (*node.input, *node.output, node.name)
