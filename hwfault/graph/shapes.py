"""Shapes of a graph's tensors, which of them are constant, and what reads and makes them."""

from collections import defaultdict
from collections.abc import Callable, Iterator

from onnx import ModelProto, NodeProto, TensorShapeProto, shape_inference

from hwfault.graph.nodes import AFFINE
from hwfault.graph.qonnxgraph import CHANNELS_LAST, DOMAIN

Shape = tuple[int | None, ...]

_OWN_SHAPE = ("Quant", "IntQuant", "BipolarQuant", "FloatQuant", "Trunc", "MultiThreshold")


def is_fault(node: NodeProto) -> bool:
    """Whether a node is one of hwfault's that make faults; Affine makes none."""
    return node.domain == DOMAIN and node.op_type != AFFINE


class Tensors:
    """The tensors of a graph's main level by name."""

    def __init__(self, model: ModelProto) -> None:
        self.makers: dict[str, NodeProto] = {name: node for node in model.graph.node for name in node.output}
        self.readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self.shapes = _shapes(model)
        self.constants = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:  # in the order in which they run
            if all(name in self.constants for name in node.input if name):
                self.constants.update(node.output)

    def behind(self, name: str, through: Callable[[NodeProto], bool] = is_fault) -> Iterator[tuple[NodeProto, str]]:
        """What reads a tensor, or what nodes behind it make of it, and under which name."""
        seen, front = {name}, [name]
        while front:
            name = front.pop(0)
            for node in self.readers[name]:
                if not through(node) or name != node.input[0] or not node.output:
                    yield node, name
                elif node.output[0] not in seen:
                    seen.add(node.output[0])
                    front.append(node.output[0])

    def before(self, name: str, through: Callable[[NodeProto], bool]) -> Iterator[str]:
        """A tensor, and what it was made of, as long as the nodes on the way are such to be passed through."""
        seen: set[str] = set()
        while name not in seen:
            yield name
            seen.add(name)
            maker = self.makers.get(name)
            if maker is not None and maker.input and through(maker):
                name = maker.input[0]


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """The shapes that ONNX can infer, with ops of other domains taken for what they do to shapes; None: not known."""
    stand_in = ModelProto()
    stand_in.CopyFrom(model)
    for node in stand_in.graph.node:
        if node.op_type in _OWN_SHAPE or node.domain == DOMAIN:
            _replace(node, "Identity", node.input[:1])
        elif node.domain not in ("", "ai.onnx"):
            _stand_in(node)
    stand_in.ir_version = max(stand_in.ir_version, 4)
    try:
        inferred = shape_inference.infer_shapes(stand_in, data_prop=True)
    except Exception:  # what the graph says itself is then all that is known
        inferred = model
    infos = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    found = {
        info.name: _shape(info.type.tensor_type.shape) for info in infos if info.type.tensor_type.HasField("shape")
    }
    return found | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def _shape(shape: TensorShapeProto) -> Shape:
    return tuple(extent.dim_value if extent.HasField("dim_value") else None for extent in shape.dim)


def _replace(node: NodeProto, op: str, inputs: list[str]) -> None:
    node.op_type, node.domain = op, ""
    node.input[:] = inputs
    del node.attribute[:], node.output[1:]


def _stand_in(node: NodeProto) -> None:
    """Puts qonnx's own stand-in for shape inference in a node's place, where that needs no shapes known before."""
    if node.domain == CHANNELS_LAST and node.op_type == "BatchNormalization":
        _replace(node, "Identity", node.input[:1])
        return
    from qonnx.custom_op.registry import getCustomOp

    try:
        other = getCustomOp(node).make_shape_compatible_op(None)
    except Exception:
        return
    if set(other.input) <= set(node.input):
        node.CopyFrom(other)
