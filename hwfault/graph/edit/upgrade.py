"""What onnxruntime cannot run as it stands, written anew: channels-last wrappers, imports left out, empty inputs."""

from collections import Counter
from collections.abc import Callable

from onnx import GraphProto, ModelProto, NodeProto, helper

from hwfault.errors import GraphError
from hwfault.graph.ops import CHANNELS_LAST, DOMAIN, OLD_DOMAINS, QUANT_DOMAIN, STANDARD_DOMAINS
from hwfault.graph.read.external import graphs
from hwfault.graph.read.qonnxgraph import attribute

_STANDARD_OPSET = 11
"""qonnx's choice where a graph says nothing."""


def upgrade(model: ModelProto) -> tuple[ModelProto, list[str]]:
    """The same graph in ops that onnxruntime and hwfault's library have, and a sentence for each kind of change.

    Nodes of qonnx.custom_op.channels_last, and MaxPoolNHWC with an automatic padding, become the standard op between
    two Transposes; DebugMarker becomes Identity; optional inputs that are empty names at the end of a node's list are
    taken away (onnxruntime before 1.24 crashes on them); domains that the graph uses but does not import get version 1,
    as in qonnx. A graph without any of these is handed back itself. Raises GraphError for a node whose number of axes
    nothing in the graph tells.
    """
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    if not _domains_left_out(model) and not any(_rule(node) or _empty_at_end(node) for node in nodes):
        return model, []
    out = ModelProto()
    out.CopyFrom(model)
    done = Counter(what for graph in graphs(out.graph) for what in _upgrade_nodes(graph))
    notes = [f"{what}, {count} node{'s' * (count > 1)}" for what, count in sorted(done.items())]
    for domain in _domains_left_out(out):
        version = 1 if domain else _STANDARD_OPSET
        out.opset_import.append(helper.make_opsetid(domain, version))
        notes.append(f"version {version} of the domain {domain!r}, which the graph uses but does not import")
    return out, notes


def _domains_left_out(model: ModelProto) -> list[str]:
    used = {node.domain for graph in graphs(model.graph) for node in graph.node}
    known = {entry.domain for entry in (*model.opset_import, *model.functions)}
    standard = set(STANDARD_DOMAINS)
    return sorted(used - known - (standard if standard & known else {"ai.onnx"}))


_Made = list[NodeProto]


def _rule(node: NodeProto) -> Callable[[GraphProto, NodeProto], _Made] | None:
    if node.domain == CHANNELS_LAST:
        return _between_transposes
    if not node.domain.startswith(("qonnx.", "finn", "onnx.")):
        return None
    if node.op_type == "DebugMarker":
        return _identity
    automatic = node.op_type == "MaxPoolNHWC" and attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return _between_transposes if automatic else None


def _empty_at_end(node: NodeProto) -> bool:
    known = node.domain in (DOMAIN, QUANT_DOMAIN, CHANNELS_LAST, *OLD_DOMAINS)
    return known and len(node.input) > 0 and not node.input[-1]


def _upgrade_nodes(graph: GraphProto) -> list[str]:
    nodes: _Made = []
    done = []
    for node in graph.node:
        if _empty_at_end(node):
            done.append(f"{node.op_type} ({node.domain}) without the empty inputs at its end")
        while _empty_at_end(node):
            node.input.pop()
        rule = _rule(node)
        made = [node] if rule is None else rule(graph, node)
        if rule is not None:
            done.append(f"{node.op_type} ({node.domain}) as {', '.join(n.op_type for n in made)}")
        nodes += made
    if done:
        content = [node.SerializeToString() for node in nodes]
        del graph.node[:]
        graph.node.extend(map(NodeProto.FromString, content))
    return done


def _identity(_graph: GraphProto, node: NodeProto) -> _Made:
    return [helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name)]


def _between_transposes(graph: GraphProto, node: NodeProto) -> _Made:
    """A node on channels-last values as the standard op on channels-first ones; a Conv's weights turn with them."""
    if len(node.output) != 1:
        raise GraphError(f"the node {node.name!r} ({node.op_type}) has {len(node.output)} outputs, expected 1")
    turned = range(min(2 if node.op_type == "Conv" else 1, len(node.input)))
    rank = _rank(graph, node)
    to_first, to_last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    first = NodeProto()
    first.CopyFrom(node)
    first.domain, first.op_type = "", node.op_type.removesuffix("NHWC")
    taken = {name for n in graph.node for name in (*n.input, *n.output)}
    made = []
    for i in turned:
        first.input[i] = _unused(f"{node.output[0]}.in{i}.channels_first", taken)
        made.append(helper.make_node("Transpose", [node.input[i]], [first.input[i]], perm=to_first))
    first.output[0] = _unused(f"{node.output[0]}.channels_first", taken)
    back = helper.make_node("Transpose", [first.output[0]], [node.output[0]], perm=to_last)
    return [*made, first, back]


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _rank(graph: GraphProto, node: NodeProto) -> int:
    """How many axes a node's values have, from its kernel or from what the graph says of its tensors."""
    kernel = attribute(node, "kernel_shape", [])
    if kernel:
        return len(kernel) + 2
    told = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.value_info, *graph.input, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            told[info.name] = len(info.type.tensor_type.shape.dim)
    names = [*node.input[:2], *node.output] if node.op_type == "Conv" else [*node.input[:1], *node.output]
    rank = next((told[name] for name in names if name in told), 0)
    if rank < 3:
        raise GraphError(
            f"nothing in the graph tells the axes of the node {node.name!r} ({node.op_type} of {node.domain}), "
            "expected 3 or more; let qonnx infer the graph's shapes first (qonnx.util.cleanup)"
        )
    return rank
