"""What of a graph may hold QONNX' integers: what nodes make, and initializers that are some."""

from collections.abc import Iterator

from onnx import ModelProto, NodeProto

from hwfault.graph import ops
from hwfault.graph.ops import GRID_OPS
from hwfault.graph.read.external import walk_nodes
from hwfault.graph.read.shapes import Tensors, bodies_of, is_fault


def find_candidates(
    model: ModelProto, tensors: Tensors, annotations: dict[str, str]
) -> Iterator[tuple[NodeProto | None, str]]:
    """Nodes that make integers, and initializers that are some: weights, each before the layer that reads it.

    What an op says of its weights by itself is annotated.
    """
    seen: set[str] = set()
    initializers = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in GRID_OPS:
            yield node, node.output[0] if node.output else ""
        bodies = (inner for body in bodies_of(node) for inner in walk_nodes(body.node))
        for reader in (node, *bodies):
            layer = ops.of(reader.op_type).layer
            if layer is None or len(reader.input) < 2:
                continue
            name = _constant_source(reader.input[1], tensors)
            if layer.datatype:
                annotations.setdefault(name, layer.datatype)
            if name in initializers and name in annotations and name not in seen:
                seen.add(name)
                yield None, name


def _constant_source(name: str, tensors: Tensors) -> str:
    """The tensor that a layer's weights are, before fault nodes and transpositions."""
    *_, first = tensors.before(name, lambda node: node.op_type not in GRID_OPS)
    if name in tensors.constants or any(map(is_fault, tensors.readers[first])):
        return first
    return name
