"""Shapes of a graph's tensors, which of them are constant, and what reads and makes them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorShapeProto,
    ValueInfoProto,
    helper,
    shape_inference,
)

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.ops import (
    AFFINE,
    CHANNELS_LAST,
    DOMAIN,
    MICROSOFT,
    OLD_DOMAINS,
    QUANT_DOMAIN,
    STANDARD_DOMAINS,
)
from hwfault.graph.read.external import graphs, walk_nodes
from hwfault.graph.read.functions import find_endless
from hwfault.graph.read.qonnxgraph import attribute

Shape = tuple[int | None, ...]


def is_fault(node: NodeProto) -> bool:
    """Whether a node is one of hwfault's that make faults; Affine makes none."""
    return node.domain == DOMAIN and node.op_type != AFFINE


def whole_shape(shape: Shape | None) -> tuple[int, ...] | None:
    """A shape of which every extent is known, None for others."""
    if shape is None or None in shape:
        return None
    return tuple(extent for extent in shape if extent is not None)


def bodies_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node runs: branches and loop bodies."""
    for held in node.attribute:
        yield from ([held.g] if held.type == AttributeProto.GRAPH else held.graphs)


def read_by(node: NodeProto) -> list[str]:
    """The tensors that a node reads, its inputs and then what its bodies read of the level around it."""
    read: set[str] = set()
    own: set[str] = set()
    for body in bodies_of(node):
        for graph in graphs(body):
            own.update(named.name for named in (*graph.input, *graph.initializer))
            for part in graph.node:
                read.update(part.input)
                own.update(part.output)
    return [*node.input, *sorted(read - own - set(node.input))]


def keeps_rows(before: Shape, after: Shape) -> bool:
    """Whether a reshape keeps axis 0, as far as the extents that are known tell."""
    if has_same_rows(before, after):
        return True
    # an extent that the graph fixes is not that of a batch of any size
    fixed = bool(after) and after[0] is not None and after[0] != before[0]
    return not fixed and (product(before[1:]) is None or None in after[1:])


def has_same_rows(before: Shape, after: Shape) -> bool:
    """Whether the extents themselves say that a reshape keeps axis 0."""
    words = product(before[1:])
    return bool(after) and words is not None and alike(after[0], before[0]) and product(after[1:]) == words


def product(shape: Shape) -> int | None:
    """How many words a shape has; None where an extent is not known."""
    words = 1
    for extent in shape:
        if extent is None:
            return None
        words *= extent
    return words


def alike(one: int | None, other: int | None) -> bool:
    """Whether two extents are, or may be, the same."""
    return one is None or other is None or one == other


class Tensors:
    """The tensors of a graph's main level by name."""

    def __init__(self, model: ModelProto) -> None:
        self.makers: dict[str, NodeProto] = {name: node for node in model.graph.node for name in node.output}
        self.readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in dict.fromkeys(read_by(node)):
                self.readers[name].append(node)
        self.inner = [node for outer in model.graph.node for body in bodies_of(outer) for node in walk_nodes(body.node)]
        """The nodes in bodies, which may read tensors of the main level."""
        self._inner_readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.inner:
            for name in dict.fromkeys(node.input):
                self._inner_readers[name].append(node)
        self.outputs = {info.name for info in model.graph.output}
        self.shapes = _shapes(model)
        self.constants = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:  # in the order in which they run
            fixed = all(name in self.constants for name in read_by(node) if name)
            if fixed and not ops.of(node.op_type).random:
                self.constants.update(node.output)

    def behind(
        self, name: str, through: Callable[[NodeProto], bool] = is_fault, *, inner: bool = False
    ) -> Iterator[tuple[NodeProto, str]]:
        """What reads a tensor, or what nodes behind it make of it, and under which name; also in bodies if `inner`."""
        seen, front = {name}, [name]
        while front:
            name = front.pop(0)
            for node in (*self.readers[name], *(self._inner_readers[name] if inner else ())):
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
    """The shapes that ONNX can infer, with ops of other domains taken for what they do to shapes; None: not known.

    What the graph says of its tensors in between counts only where nothing can be inferred: a transformation may have
    left it behind.
    """
    said = _read((*model.graph.value_info, *model.graph.output))
    stand_in = stand_in_of(model)
    found = inferred_shapes(stand_in)
    if left := said.keys() - found.keys():
        stand_in.graph.value_info.extend(info for info in model.graph.value_info if info.name in left)
        found = inferred_shapes(stand_in)
    return {name: _more_exact(found.get(name), said.get(name)) for name in said.keys() | found.keys()} | {
        tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer
    }


def with_twins(model: ModelProto) -> ModelProto:
    """The graph with ops of float numbers in place of those of ONNX' own integers, to ask it for shapes and axes.

    Tensors keep their names. A graph without any is handed back itself.
    """
    if not any(ops.of(node.op_type).own_integers for node in model.graph.node):
        return model
    out = ModelProto()
    out.CopyFrom(model)
    for node in out.graph.node:
        own = ops.of(node.op_type)
        if own.twin:
            node.input[:] = [node.input[operand.place] for operand in own.operands if operand.place < len(node.input)]
            node.op_type = own.twin
        if own.own_integers and node.domain == MICROSOFT:
            node.domain = ""
    return out


def stand_in_of(model: ModelProto) -> ModelProto:
    """The graph of stand-ins for ops of other domains, which says the shapes of its inputs only."""
    stand_in = ModelProto()
    stand_in.CopyFrom(with_twins(model))
    del stand_in.graph.value_info[:]
    for info in stand_in.graph.output:
        info.type.tensor_type.ClearField("shape")
    for node in stand_in.graph.node:
        own = ops.of(node.op_type)
        if (own.home == "qonnx" and own.shape == "same") or node.domain == DOMAIN:
            _replace(node, "Identity", node.input[:1])
        elif node.domain not in STANDARD_DOMAINS:
            _stand_in(node)
    stand_in.ir_version = max(stand_in.ir_version, 4)
    return stand_in


def inferred_shapes(model: ModelProto) -> dict[str, Shape]:
    """The shapes that ONNX infers in a graph of its own ops, and those that it says itself; None: not known."""
    if find_endless(model):  # which ONNX would go through to no end
        bare = ModelProto()
        bare.CopyFrom(model)
        del bare.functions[:]
        model = bare
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # what the graph says itself is then all that is known
        graph = model.graph
    return _read((*graph.input, *graph.value_info, *graph.output))


def _read(infos: Iterable[ValueInfoProto]) -> dict[str, Shape]:
    """The shapes that entries of a graph say, by the tensors' names."""
    return {info.name: _shape(info.type.tensor_type.shape) for info in infos if info.type.tensor_type.HasField("shape")}


def _more_exact(inferred: Shape | None, said: Shape | None) -> Shape:
    """What was inferred, with the extents that it leaves open as the graph says them, where both have as many axes."""
    if inferred is None:
        return said or ()
    if said is None or len(inferred) != len(said):
        return inferred
    return tuple(other if known is None else known for known, other in zip(inferred, said, strict=True))


def _shape(shape: TensorShapeProto) -> Shape:
    return tuple(extent.dim_value if extent.HasField("dim_value") else None for extent in shape.dim)


def _replace(node: NodeProto, op: str, inputs: list[str]) -> None:
    node.op_type, node.domain = op, ""
    node.input[:] = inputs
    del node.attribute[:], node.output[1:]


def _stand_in(node: NodeProto) -> None:
    """Puts an op of ONNX that makes the same shape in a node's place, where that needs no shapes known before.

    These are the stand-ins of qonnx' own shape inference, which need not be installed.
    """
    if node.domain == CHANNELS_LAST and node.op_type == "BatchNormalization":
        _replace(node, "Identity", node.input[:1])
    if node.domain not in (QUANT_DOMAIN, *OLD_DOMAINS):
        return
    if node.op_type == "XnorPopcountMatMul":
        _replace(node, "MatMul", node.input[:2])
        return
    try:
        if node.op_type == "QuantAvgPool2d":
            _stand_in_pool(node)
        elif node.op_type == "Im2Col":
            _stand_in_windows(node)
    except (GraphError, ValueError, ZeroDivisionError):  # attributes that say no shape
        return


def _stand_in_pool(node: NodeProto) -> None:
    """An average pool, where channels are not last."""
    if attribute(node, "data_layout", b"NCHW") != b"NCHW":
        return
    kernel, stride = attribute(node, "kernel", 1), attribute(node, "stride", 1)
    _replace(node, "AveragePool", node.input[:1])
    node.attribute.append(helper.make_attribute("kernel_shape", [kernel] * 2))
    node.attribute.append(helper.make_attribute("strides", [stride] * 2))


def _stand_in_windows(node: NodeProto) -> None:
    """Numbers of the shape (1, outputs high, outputs wide, words of a window), which Im2Col's attributes tell."""
    text = attribute(node, "input_shape", b"").decode(errors="replace")
    _, *image, channels = (int(part) for part in text.strip("()").split(","))
    top, left, bottom, right = attribute(node, "pad_amount", [0] * 4)
    kernels = attribute(node, "kernel_size", [])
    steps = zip(image, kernels, attribute(node, "stride", []), attribute(node, "dilations", [1, 1]), strict=True)
    shape = [1]
    for pad, (extent, kernel, stride, dilation) in zip((top + bottom, left + right), steps, strict=True):
        shape.append((extent + pad - dilation * (kernel - 1) - 1) // stride + 1)
    shape.append(math.prod(kernels) * channels)
    if min(shape) < 1:
        return
    _replace(node, "RandomNormal", [])
    node.attribute.append(helper.make_attribute("shape", shape))
