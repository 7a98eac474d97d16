"""What nodes hand on of integers: of a parameter to its layer, and of an activation to whoever reads it."""

from onnx import NodeProto

from hwfault.graph import ops
from hwfault.graph.ops import CHANNELS_LAST
from hwfault.graph.read.layouts import Layout, channels_last, inverse, permutation_of, then
from hwfault.graph.read.own_integers import is_dequantizer
from hwfault.graph.read.qonnxgraph import Constants, attribute
from hwfault.graph.read.shapes import Tensors, is_fault


def weight_layout(node: NodeProto, name: str, rank: int) -> Layout | None:
    """How a layer has its weights lie; None where it does not read them as such."""
    own = ops.of(node.op_type)
    place = own.layer.weights if own.layer is not None else 0
    if not own.weighted or len(node.input) <= place or node.input[place] != name:
        return None
    multiplies = ops.of(own.twin or node.op_type).samples == "multiply"
    if multiplies and not attribute(node, "transB", 0):
        return (1, 0) if rank == 2 else ()
    return channels_last(rank) if node.domain == CHANNELS_LAST else ()


def parameter_layout(tensor: str, rank: int, tensors: Tensors) -> Layout:
    """How a parameter lies; layers that want it in different ways leave it as it lies."""
    wanted = {weight_layout(node, name, rank) for node, name in tensors.behind(tensor, hands_on, inner=True)}
    for node, name in tensors.behind(tensor, _hands_on_or_turns):
        if is_convolution(node):
            wanted.add(_before_transposes(weight_layout(node, name, rank), tensor, name, tensors))
    wanted.discard(None)
    return (wanted.pop() or ()) if len(wanted) == 1 else ()


def _before_transposes(layout: Layout | None, tensor: str, name: str, tensors: Tensors) -> Layout | None:
    """The layout of a tensor by that of what it is handed on and transposed to."""
    way = list(tensors.before(name, _hands_on_or_turns))
    for made in way[: way.index(tensor)]:  # the last node first
        maker = tensors.makers[made]
        if layout is not None and maker.op_type == "Transpose":
            rank = len(tensors.shapes.get(maker.input[0]) or ())
            layout = then(layout, inverse(permutation_of(maker, rank)))
    return layout


def is_convolution(node: NodeProto) -> bool:
    """Whether a node's weights are (outputs, inputs, kernel).

    A matrix product's are or are not, and it reads them transposed or not: either is in order.
    """
    return "Conv" in (ops.of(node.op_type).twin or node.op_type)


def _hands_on_or_turns(node: NodeProto) -> bool:
    return hands_on(node) or node.op_type == "Transpose"


def hands_on(node: NodeProto) -> bool:
    """Whether a node reads a parameter to hand it to its layer."""
    return is_fault(node) or is_dequantizer(node)


def reads_parameters(node: NodeProto) -> bool:
    """Whether a node is a layer, or adds a bias."""
    return ops.of(node.op_type).weighted or node.op_type == "Add"


def keeps_sign(node: NodeProto) -> bool:
    return ops.of(node.op_type).grid in ("keeps", "keeps sign") or is_fault(node)


def keeps_grid(node: NodeProto, constants: Constants) -> bool:
    """Whether what a node makes are integers of its first input, or 0."""
    if ops.of(node.op_type).grid != "keeps":
        return is_fault(node)
    if node.op_type == "Im2Col":
        return not attribute(node, "pad_value", 0)
    if node.op_type != "Pad" or attribute(node, "mode", b"constant") != b"constant":
        return True
    if len(node.input) < 3 or not node.input[2]:
        return True  # pads with 0
    value = constants.get(node.input[2])
    return value is not None and not value.any()
