"""Graphs that compute in integer arithmetic (see docs/exactness.md): how they say so, and what of them is not exact."""

from collections.abc import Callable, Mapping

from onnx import ModelProto, NodeProto

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.ops import AFFINE, DOMAIN
from hwfault.graph.read.qonnxgraph import metadata, set_metadata, site_name
from hwfault.program.names import first_run

ARITHMETIC = f"{DOMAIN}.arithmetic"
"""Metadata key of a graph: "integer" where its layers add up integers; without it they add up what Brevitas does."""
INTEGERS = f"{DOMAIN}.integers"
"""Metadata key of a node that adds up integers, all sums of which float32 holds exactly."""

LEFT = f"{DOMAIN}.left"
"""Metadata key of a node: why its layer is left as it is."""


def is_integer(model: ModelProto) -> bool:
    """Whether a graph says that it computes in integer arithmetic."""
    return metadata(model).get(ARITHMETIC) == "integer"


def adds_integers(node: NodeProto) -> bool:
    """Whether a node adds up integers in a graph of integer arithmetic: a layer, a part of one, or a mean."""
    return INTEGERS in metadata(node)


def left(model: ModelProto) -> dict[str, str]:
    """What of a graph may differ from engine to engine, and why, by layer or else by node; empty where all is exact."""
    found = {}
    for node in model.graph.node:
        if _is_left(node):
            rounded = f"{node.op_type} is rounded in each engine's way"
            found[_layer(node)] = metadata(node).get(LEFT) or rounded
    return found


def _is_left(node: NodeProto) -> bool:
    return not ops.of(node.op_type).exact and not adds_integers(node)


def _layer(node: NodeProto) -> str:
    return first_run(site_name(node)).removesuffix(".accumulator")


def mark_integer(model: ModelProto, reasons: Mapping[str, str]) -> None:
    """Notes in a graph that it computes in integer arithmetic, and by layer why one is left as it is.

    Raises GraphError if all of them are.
    """
    if not any(map(adds_integers, model.graph.node)):
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "it has no quantized layer"
        raise GraphError(
            f"no layer of the network computes on integers, so that integer arithmetic is not possible ({told}); "
            "quantize what goes into its layers, or export it with the arithmetic 'float'"
        )
    set_metadata(model, {ARITHMETIC: "integer"})
    for node in model.graph.node:
        if _is_left(node) and _layer(node) in reasons:
            set_metadata(node, {LEFT: reasons[_layer(node)]})


def find_worths(model: ModelProto, layer: NodeProto) -> list[NodeProto]:
    """The nodes that say what a layer's integer sums are worth; the sums are the first input of each."""
    found = []
    at = [layer.output[0]]
    for name in at:  # which grows on the way
        for node in model.graph.node:
            if name not in node.input:
                continue
            if node.op_type == AFFINE and node.input[0] == name:
                found.append(node)
            elif ops.of(node.op_type).joins_parts and node.output and node.output[0] not in at:
                at.append(node.output[0])
    return found


def find_first_sums(makers: Mapping[str, NodeProto], sums: str) -> NodeProto | None:
    """The node that adds up the products (of the first part) behind integer sums."""
    node = makers.get(_before(makers, sums, _is_behind_sums))
    if node is None or not adds_integers(node):
        return None
    return node


def find_integers(makers: Mapping[str, NodeProto], part: str) -> str:
    """The integers, in float32, of which what a layer reads are some channels, in their order or transposed."""
    return _before(makers, part, takes_part)


def takes_part(node: NodeProto) -> bool:
    """Whether a node may lie between integers and a layer that reads a part of them."""
    return ops.of(node.op_type).takes_part


def _is_behind_sums(node: NodeProto) -> bool:
    """Whether a node may lie between sums, or those of parts, and what says what they are worth."""
    return ops.of(node.op_type).joins_parts or node.op_type == "Transpose"


def _before(makers: Mapping[str, NodeProto], name: str, through: Callable[[NodeProto], bool]) -> str:
    """What a tensor was before such nodes; a graph from outside may go in circles."""
    seen: set[str] = set()
    while name not in seen:
        node = makers.get(name)
        if node is None or not through(node) or not node.input:
            break
        seen.add(name)
        name = node.input[0]
    return name


def is_double(makers: Mapping[str, NodeProto], sums: str) -> bool:
    """Whether integer sums are float64: cast to it, added up from parts, or those of inputs that are."""
    node = makers.get(sums)
    if node is None:
        return False
    if ops.of(node.op_type).joins_parts:
        return True  # parts are added up in float64, which holds all of their sums
    inputs = [makers.get(name) for name in node.input]
    return any(maker is not None and maker.op_type == "Cast" for maker in inputs)
