"""Graphs that compute in integer arithmetic (see docs/exactness.md): how they say so, and what of them is not exact."""

from collections.abc import Mapping

from onnx import ModelProto, NodeProto

from hwfault.graph.qonnxgraph import DOMAIN, QUANT_OPS, metadata
from hwfault.inject.affine import AFFINE

ARITHMETIC = f"{DOMAIN}.arithmetic"
"""Metadata key of a graph: "integer" where its layers add up integers; without it they add up what Brevitas does."""
INTEGERS = f"{DOMAIN}.integers"
"""Metadata key of a node that adds up integers, all sums of which float32 holds exactly."""

_MOVES = "Cast Concat Constant ConstantOfShape Expand Flatten Gather Identity Pad Reshape Shape Slice Split Squeeze Tile"
_PICKS = "And Clip Equal GlobalMaxPool Greater Less Max MaxPool Min Not Or Relu Sign Transpose Unsqueeze Where"
_ROUNDS_ONCE = "Abs Add Ceil Div Floor LeakyRelu Mul Neg PRelu Round Sqrt Sub"
_EXACT_OPS = {*_MOVES.split(), *_PICKS.split(), *_ROUNDS_ONCE.split(), *QUANT_OPS}


def is_integer(model: ModelProto) -> bool:
    """Whether a graph says that it computes in integer arithmetic."""
    return metadata(model).get(ARITHMETIC) == "integer"


def left_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes of a graph whose result may differ from engine to engine: sums of other numbers than integers, ..."""
    return [
        node
        for node in model.graph.node
        if node.op_type not in _EXACT_OPS and node.domain != DOMAIN and INTEGERS not in metadata(node)
    ]


def worths(model: ModelProto, layer: NodeProto) -> list[NodeProto]:
    """The nodes that say what a layer's integer sums are worth; the sums are the first input of each."""
    found, at = [], [layer.output[0]]
    while at:
        name = at.pop()
        for node in (node for node in model.graph.node if name in node.input):
            if node.op_type == AFFINE:
                found.append(node)
            elif node.op_type in ("Cast", "Add"):  # parts of layers
                at.append(node.output[0])
    return found


def summed(makers: Mapping[str, NodeProto], sums: str) -> NodeProto | None:
    """The node that adds up the products (of the first part) behind integer sums."""
    node = makers.get(sums)
    while node is not None and node.op_type in ("Cast", "Add"):
        node = makers.get(node.input[0])
    return node if node is not None and INTEGERS in metadata(node) else None


def whole(makers: Mapping[str, NodeProto], part: str) -> str:
    """The integers, in float32, of which what a layer reads are some channels, in their order or transposed."""
    while (node := makers.get(part)) is not None and node.op_type in ("Cast", "Gather", "Slice", "Transpose"):
        part = node.input[0]
    return part


def in_double(makers: Mapping[str, NodeProto], sums: str) -> bool:
    """Whether integer sums are float64: cast to it, added up from parts, or those of inputs that are."""
    node = makers.get(sums)
    inputs = [] if node is None else [makers.get(name) for name in node.input]
    if node is None or node.op_type in ("Cast", "Add"):
        return node is not None
    return any(maker is not None and maker.op_type == "Cast" for maker in inputs)
