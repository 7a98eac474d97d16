"""qonnx's conversion to channels last on graphs with faults, whose words keep their numbers."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.base import Transformation
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.infer_shapes import InferShapes

from hwfault.errors import GraphError
from hwfault.graph.edit.editing import Edit, copy_model, count_of
from hwfault.graph.ops import ARRAY_OP, CHANNELS_LAST, DOMAIN, FAULT_OPS
from hwfault.graph.read.layouts import align_to_tensor, channels_last, inverse, then
from hwfault.graph.read.qonnxgraph import attribute


def to_channels_last(model: ModelProto, *, make_input_channels_last: bool = False) -> ModelProto:
    """The graph with its channels last, as qonnx's ConvertToChannelsLastAndClean makes it.

    Fault nodes go along: they stand where the values lie with their channels last, and have the attribute `layout`,
    by which they number the words as before. Accumulators that are struck, and all that is behind them up to the next
    quantizer, stay in order between transpositions. The graph must have been tidied for one size of the batch
    (`qonnx.util.cleanup.cleanup_model(model, override_inpsize=N)`). The log `hwfault` is told what was changed;
    `put_channels_last` returns it. Raises GraphError for a graph that was not tidied.
    """
    return put_channels_last(model, make_input_channels_last=make_input_channels_last).log_changes()


def put_channels_last(model: ModelProto, *, make_input_channels_last: bool = False) -> Edit:
    """The same graph as by `to_channels_last`, with a sentence for each kind of change."""
    with warnings.catch_warnings():  # where weights are struck, qonnx does not fold the flattening into them
        warnings.filterwarnings("ignore", message="Could not")
        wrapper = ModelWrapper(copy_model(model)).transform(InferShapes())
        if not wrapper.check_all_tensor_shapes_specified() or not all(map(_is_fixed, wrapper.graph.input)):
            raise GraphError(
                "the graph has tensors whose shape is not known, expected one that was tidied for a size of the batch: "
                "qonnx.util.cleanup.cleanup_model(ModelWrapper(model), override_inpsize=N)"
            )
        convert = ConvertToChannelsLastAndClean(make_input_channels_last=make_input_channels_last)
        wrapper = wrapper.transform(convert)
        # transpositions meet behind fault nodes that they moved past, which makes room for further ones
        while True:
            before = wrapper.model.SerializeToString(deterministic=True)
            wrapper = wrapper.transform(MoveTransposesPastFaults())
            if wrapper.model.SerializeToString(deterministic=True) == before:
                break
            wrapper = wrapper.transform(convert)
    return Edit(wrapper.model, _describe_changes(model, wrapper.model))


def _describe_changes(before: ModelProto, after: ModelProto) -> list[str]:
    """How many nodes have their channels last now, or number their words otherwise, and what stands between them."""
    turned = count_nodes(after, _has_channels_last) - count_nodes(before, _has_channels_last)
    laid_out = count_nodes(after, _has_layout) - count_nodes(before, _has_layout)
    changes = []
    if turned > 0:
        changes.append(f"{count_of(turned, 'node')} with channels last from now on")
    if laid_out > 0:
        changes.append(f"{count_of(laid_out, 'fault node')} that number words by a layout from now on")
    changes.append(f"{count_of(count_nodes(after, _is_transpose), 'transposition')} in the graph")
    return changes


def count_nodes(model: ModelProto, has: Callable[[NodeProto], bool]) -> int:
    """How many nodes have a property."""
    return sum(has(node) for node in model.graph.node)


def _has_channels_last(node: NodeProto) -> bool:
    return node.domain == CHANNELS_LAST


def _has_layout(node: NodeProto) -> bool:
    return node.domain == DOMAIN and bool(attribute(node, "layout", ()))


def _is_transpose(node: NodeProto) -> bool:
    return node.op_type == "Transpose"


def _is_fixed(info: object) -> bool:
    return all(extent.HasField("dim_value") for extent in info.type.tensor_type.shape.dim)  # type: ignore[attr-defined]


class MoveTransposesPastFaults(Transformation):  # type: ignore[misc]
    """Moves transpositions to channels first behind fault nodes and those to channels last before them.

    qonnx does the same with what works element by element, so that both kinds meet and vanish.
    """

    def apply(self, model: ModelWrapper) -> tuple[ModelWrapper, bool]:
        """One such move."""
        for node in model.graph.node:
            strikes = node.domain == DOMAIN and node.op_type in FAULT_OPS and not _behind_array(model, node)
            if strikes and (_moved_down(model, node) or _moved_up(model, node)):
                return model, True
        return model, False


def _behind_array(model: ModelWrapper, node: NodeProto) -> bool:
    """Whether a fault node strikes an accumulator."""
    maker: NodeProto | None = node
    while maker is not None and maker.domain == DOMAIN and maker.op_type in FAULT_OPS:
        maker = model.find_producer(maker.input[0])
    return maker is not None and maker.domain == DOMAIN and maker.op_type == ARRAY_OP


def _moved_down(model: ModelWrapper, node: NodeProto) -> bool:
    """before -> Transpose -> faults -> after becomes before -> faults -> Transpose -> after."""
    transpose = model.find_producer(node.input[0])
    readers = model.find_consumers(node.input[0])
    permutation = _permutation(transpose)
    if len(readers) != 1 or not permutation or permutation != inverse(channels_last(len(permutation))):
        return False
    before, between, after = transpose.input[0], transpose.output[0], node.output[0]
    node.input[0], node.output[0] = before, between
    transpose.input[0], transpose.output[0] = between, after
    model.set_tensor_shape(between, model.get_tensor_shape(before))
    _lay_out(model, node, inverse(permutation))
    model.graph.node.remove(transpose)
    model.graph.node.insert(_place(model, node) + 1, transpose)
    return True


def _moved_up(model: ModelWrapper, node: NodeProto) -> bool:
    """before -> faults -> Transposes, all alike, becomes before -> Transpose -> faults, for all that read those."""
    readers = model.find_consumers(node.output[0])
    permutation = _permutation(readers[0]) if readers else ()
    if not permutation or permutation != channels_last(len(permutation)):
        return False
    if any(_permutation(reader) != permutation for reader in readers):
        return False
    if node.output[0] in {info.name for info in model.graph.output}:
        return False
    before, between, after = node.input[0], node.output[0], readers[0].output[0]
    model.set_tensor_shape(between, model.get_tensor_shape(after))
    at = _place(model, node)
    # what the other transpositions made is what the first one makes
    for reader in readers:
        model.graph.node.remove(reader)
        for other in model.find_consumers(reader.output[0]):
            other.input[:] = [after if name == reader.output[0] else name for name in other.input]
    model.graph.node.insert(at, helper.make_node("Transpose", [before], [between], perm=permutation))
    node.input[0], node.output[0] = between, after
    _lay_out(model, node, permutation)
    return True


def _permutation(node: NodeProto | None) -> tuple[int, ...]:
    if node is None or node.op_type != "Transpose":
        return ()
    return tuple(attribute(node, "perm", ()))


def _place(model: ModelWrapper, node: NodeProto) -> int:
    return next(i for i, other in enumerate(model.graph.node) if other.output[:1] == node.output[:1])


def _lay_out(model: ModelWrapper, node: NodeProto, permutation: Sequence[int]) -> None:
    """Has a fault node know that its values are transposed now; scale and zero point go along."""
    layout = then(tuple(attribute(node, "layout", ())), permutation)
    for entry in [entry for entry in node.attribute if entry.name == "layout"]:
        node.attribute.remove(entry)
    if layout:
        node.attribute.append(helper.make_attribute("layout", layout))
    for i in (1, 2):
        values = model.get_initializer(node.input[i])
        if values.size > 1:
            # a tensor of its own: other nodes may read the old one as it lies
            node.input[i] = model.make_new_valueinfo_name()
            aligned = align_to_tensor(values, tuple(permutation))
            model.set_initializer(node.input[i], np.ascontiguousarray(aligned))
