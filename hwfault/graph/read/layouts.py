"""How tensors lie in a graph against the order in which their words are numbered.

A layout is the permutation that a Transpose would need to make the tensor of the one whose words are numbered:
tensor.shape[i] = numbered.shape[layout[i]]. The empty one says that both are the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.ops import CHANNELS_LAST, STANDARD_DOMAINS
from hwfault.graph.read.qonnxgraph import attribute
from hwfault.graph.read.shapes import Shape, Tensors

Layout = tuple[int, ...]
Array = NDArray[Any]


def channels_last(rank: int) -> Layout:
    """The channels behind the positions; nothing to be done below three axes."""
    if rank < 3:
        return ()
    return (0, *range(2, rank), 1)


def then(layout: Layout, permutation: Sequence[int]) -> Layout:
    """The layout of a tensor that is transposed; empty where it is back in order."""
    in_order = tuple(range(len(permutation)))
    before = layout or in_order
    after = tuple(before[axis] for axis in permutation)
    return () if after == in_order else after


def inverse(permutation: Sequence[int]) -> Layout:
    """The permutation that undoes one."""
    return tuple(int(axis) for axis in np.argsort(permutation))


def permutation_of(node: NodeProto, rank: int) -> Layout:
    """What a Transpose does to a tensor of so many axes; raises GraphError for what is no permutation of them."""
    permutation = tuple(attribute(node, "perm", range(rank)[::-1]))
    if sorted(permutation) != list(range(len(permutation))) or rank not in (0, len(permutation)):
        raise GraphError(
            f"the node {node.name!r} transposes {rank} axes by {list(permutation)}, expected each axis once"
        )
    return permutation


def numbered_shape(shape: Shape | None, layout: Layout) -> Shape | None:
    """The shape of the tensor whose words are numbered; None where the layout is not one of the shape."""
    if shape is None or not layout:
        return shape
    if len(shape) != len(layout):
        return None
    return tuple(shape[axis] for axis in inverse(layout))


def number_words(values: Array, layout: Layout) -> Array:
    """A tensor in the order in which its words are numbered."""
    return values.transpose(inverse(layout)) if layout else values


def align_to_numbered(small: Array, layout: Layout) -> Array:
    """A scale or zero point, which lies along a tensor's last axes, as it lies along the numbered tensor's."""
    if not layout or small.size == 1:
        return small
    missing = len(layout) - small.ndim
    whole = small.reshape((1,) * missing + small.shape)
    return number_words(whole, layout)


def align_to_tensor(small: Array, layout: Layout) -> Array:
    """The other way round: one along the numbered tensor, as it lies along the tensor."""
    return align_to_numbered(small, inverse(layout)) if layout else small


def spread_layouts(model: ModelProto, tensors: Tensors) -> tuple[dict[str, Layout], set[str]]:
    """The layouts of activations where any has its channels last, and the tensors flattened out of such.

    They begin at the ops that want channels last or first, and reach through transpositions and all that works element
    by element.
    """
    ranks = {name: len(shape) for name, shape in tensors.shapes.items() if len(shape) > 2}
    if not any(_wanted_last(node) for node in model.graph.node):
        return {}, set()
    front = _find_wanted(model, ranks)
    layouts: dict[str, Layout] = {}
    while front:
        name, layout = front.pop()
        if name in layouts or name in tensors.constants:
            continue
        layouts[name] = layout
        for node in tensors.readers[name]:
            front += _next_to(node, name, layout, ranks)
        if name in tensors.makers:
            front += _next_to(tensors.makers[name], name, layout, ranks)
    return layouts, _flattened(model, tensors, layouts)


def _find_wanted(model: ModelProto, ranks: dict[str, int]) -> list[tuple[str, Layout]]:
    """The tensors that an op wants to have channels first or last, with the layout; the latter come last."""
    first: list[tuple[str, Layout]] = []
    last: list[tuple[str, Layout]] = []
    for node in model.graph.node:
        if _wants_first(node):
            for name in (*node.input[:1], *node.output[:1]):
                if name in ranks:
                    first.append((name, ()))
        for name in _wanted_last(node):
            if name in ranks:
                last.append((name, channels_last(ranks[name])))
    return first + last


def _next_to(node: NodeProto, name: str, layout: Layout, ranks: dict[str, int]) -> Iterator[tuple[str, Layout]]:
    """The layouts of a node's other tensors, where that of one tells them."""
    if node.op_type == "Transpose" and node.input and node.output:
        permutation = permutation_of(node, ranks[name])
        if name == node.input[0]:
            yield node.output[0], then(layout, permutation)
        else:
            yield node.input[0], then(layout, inverse(permutation))
    if ops.of(node.op_type).elementwise:
        for other in (*node.input, *node.output):
            if ranks.get(other) == ranks[name]:
                yield other, layout


def _wants_first(node: NodeProto) -> bool:
    return node.domain in STANDARD_DOMAINS and ops.of(node.op_type).channels == "first"


def _wanted_last(node: NodeProto) -> Iterable[str]:
    """The inputs and outputs of a node whose channels lie last."""
    channels = ops.of(node.op_type).channels
    if channels == "last before":
        return list(node.input[:1])
    if node.domain == CHANNELS_LAST or channels == "last" or _says_last(node):
        return (*node.input[:1], *node.output[:1])
    return ()


def _says_last(node: NodeProto) -> bool:
    """Whether a node's attribute says that channels lie last; of one position axis that of thresholds alone does."""
    says = attribute(node, "data_layout", b"")
    return says == b"NHWC" or (says == b"NWC" and node.op_type == "MultiThreshold")


def _flattened(model: ModelProto, tensors: Tensors, layouts: dict[str, Layout]) -> set[str]:
    """What is flattened of tensors that are not in order, where more than one axis is longer than 1."""
    found: set[str] = set()
    for node in model.graph.node:
        own = ops.of(node.op_type)
        name = node.input[0] if node.input else ""
        # of a single long axis the words are in order wherever it lies
        shape = tensors.shapes.get(name) or ()
        long = sum(extent != 1 for extent in shape[1:])
        scrambles = own.flattens and layouts.get(name) and long > 1
        passes_on = (own.elementwise or own.flattens) and any(other in found for other in node.input)
        if scrambles or passes_on:
            found.update(node.output)
    return found
