"""Graphs with qonnx's channels-last wrappers as standard ONNX, for onnxruntime."""

from onnx import ModelProto, NodeProto, helper
from qonnx.custom_op.channels_last.base_wrapped_op import to_channels_first_args, to_channels_last_args

from tests.helpers.graph.running import copied

WRAPPED = "qonnx.custom_op.channels_last"


def lowered(graph: ModelProto, rank: int = 4) -> ModelProto:
    """The same graph, each wrapper as the op it wraps between transpositions."""
    out = copied(graph)
    nodes: list[NodeProto] = []
    for node in list(out.graph.node):
        if node.domain != WRAPPED:
            nodes.append(node)
            continue
        for i in range(2 if node.op_type == "Conv" else 1):
            first = f"{node.output[0]}_input{i}_first"
            nodes.append(helper.make_node("Transpose", [node.input[i]], [first], perm=to_channels_first_args(rank)))
            node.input[i] = first
        last, node.output[0], node.domain = node.output[0], f"{node.output[0]}_first", ""
        nodes += [node, helper.make_node("Transpose", [node.output[0]], [last], perm=to_channels_last_args(rank))]
    del out.graph.node[:], out.graph.value_info[:]
    out.graph.node.extend(nodes)
    return out
