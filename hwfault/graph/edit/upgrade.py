"""What onnxruntime cannot run as it stands, written anew: channels-last wrappers, imports left out, numbers' types."""

from collections import Counter

from onnx import GraphProto, ModelProto, NodeProto, checker, helper, version_converter

from hwfault.errors import GraphError
from hwfault.graph.edit.editing import Edit, FreshNames, copy_model, count_of
from hwfault.graph.edit.number_types import (
    Types,
    cast_around,
    describe_types,
    find_stale,
    find_types,
    needs_float32,
)
from hwfault.graph.ops import CHANNELS_LAST, DOMAIN, OLD_DOMAINS, QUANT_DOMAIN, STANDARD_DOMAINS
from hwfault.graph.read.external import graphs, walk_nodes
from hwfault.graph.read.functions import inline_functions
from hwfault.graph.read.qonnxgraph import attribute, replace_nodes, standard_opset
from hwfault.graph.read.shapes import bodies_of

_STANDARD_OPSET = 11
"""qonnx's choice where a graph says nothing."""


def upgrade(model: ModelProto) -> Edit:
    """The same graph in ops that onnxruntime and hwfault's library have, and a sentence for each kind of change.

    Nodes of qonnx.custom_op.channels_last, and MaxPoolNHWC with an automatic padding, become the standard op between
    two Transposes; DebugMarker becomes Identity; optional inputs that are empty names at the end of a node's list are
    taken away (onnxruntime before 1.24 crashes on them); domains that the graph uses but does not import get version 1,
    as in qonnx; quantizers read float32 numbers only, behind a Cast where they are others, and types that the graph
    says of tensors in between and that are not so are taken away; functions of other ops than ONNX' are written out. A
    graph without any of these is handed back itself.
    Raises GraphError for a node whose number of axes nothing in the graph tells, and for one with several outputs.
    """
    inlined: list[str] = []
    if any(node.domain not in STANDARD_DOMAINS for function in model.functions for node in walk_nodes(function.node)):
        model, inlined, _ = inline_functions(model)  # onnxruntime takes no others' ops in them
    missing = _find_missing_domains(model)
    types = find_types(model)
    stale = [info for graph in graphs(model.graph) for info in find_stale(graph, types)]
    nodes = (node for graph in graphs(model.graph) for node in graph.node)
    if not missing and not stale and not any(_needs_upgrade(node, types) for node in nodes):
        return Edit(model, inlined)
    for graph in graphs(model.graph):
        for node in graph.node:
            if _has_channels_last(node):
                _check_transposable(graph, node)
    out, fresh = copy_model(model), FreshNames(model)
    done: Counter[str] = Counter()
    for graph in graphs(out.graph):
        done.update(_upgrade_nodes(graph, types, fresh))
    notes = inlined + [f"{what}, {count_of(count, 'node')}" for what, count in sorted(done.items())]
    if stale:
        for graph in graphs(out.graph):
            for info in find_stale(graph, types):
                graph.value_info.remove(info)
        notes.append(f"without the types said of {count_of(len(stale), 'tensor')} that are of another")
    for domain in missing:
        version = 1 if domain else _STANDARD_OPSET
        out.opset_import.append(helper.make_opsetid(domain, version))
        notes.append(f"version {version} of the domain {domain!r}, which the graph uses but does not import")
    return Edit(out, notes)


def raise_opset(model: ModelProto, version: int) -> Edit:
    """The same graph in the ops of a newer opset of ONNX, as onnx' own converter writes them, and a sentence about it.

    Nodes that are the same in both stay as they are, with their metadata, and so does all else of the graph; constants
    that were attributes come behind its own. A graph of that opset or a newer one is handed back itself. Raises
    GraphError where onnx cannot convert it, and for a graph with bodies or functions, which onnx leaves as they are.
    """
    before = standard_opset(model)
    if before >= version:
        return Edit(model, [])
    if model.functions or any(True for node in model.graph.node for _ in bodies_of(node)):
        raise GraphError(f"the graph is of opset {before} and has bodies or functions, expected opset {version}")
    imported = copy_model(model)
    for domain in _find_missing_domains(model):
        imported.opset_import.append(helper.make_opsetid(domain, 1 if domain else _STANDARD_OPSET))
    try:
        converted = version_converter.convert_version(imported, version)
        checker.check_model(converted)
    except Exception as error:  # of several types of onnx' own
        reason = str(error).strip().splitlines()[0]
        raise GraphError(f"onnx cannot convert the graph from opset {before} to {version}: {reason}") from None
    out = copy_model(model)
    replace_nodes(out, _take_converted(model, converted))
    held = {tensor.name for tensor in model.graph.initializer}
    out.graph.initializer.extend(tensor for tensor in converted.graph.initializer if tensor.name not in held)
    for entry in out.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = version
    return Edit(out, [f"opset {version} of ONNX in place of {before}"])


def _take_converted(model: ModelProto, converted: ModelProto) -> list[NodeProto]:
    """The nodes of the converted graph, those that stand in the graph before as they are there."""
    makers = {node.output[0]: node for node in model.graph.node if node.output}
    nodes = []
    for node in converted.graph.node:
        before = makers.get(node.output[0]) if node.output else None
        if before is not None and _does_the_same(before, node):
            node = before
        elif before is not None:
            del node.metadata_props[:]
            node.metadata_props.extend(before.metadata_props)
        nodes.append(node)
    return nodes


def _does_the_same(one: NodeProto, other: NodeProto) -> bool:
    """Whether two nodes are one, but for what is said beside them and for the order of attributes."""
    if (one.op_type, one.domain, *one.input) != (other.op_type, other.domain, *other.input):
        return False
    ours, theirs = ({a.name: a.SerializeToString(deterministic=True) for a in node.attribute} for node in (one, other))
    return ours == theirs and list(one.output) == list(other.output)


def _find_missing_domains(model: ModelProto) -> list[str]:
    """The domains that a graph will use and does not import; what is upgraded is of ONNX' own."""
    used = set()
    for graph in graphs(model.graph):
        for node in graph.node:
            upgraded = _has_channels_last(node) or _is_marker(node)
            used.add("" if upgraded else node.domain)
    known = {entry.domain for entry in (*model.opset_import, *model.functions)}
    standard = set(STANDARD_DOMAINS)
    return sorted(used - known - (standard if standard & known else {"ai.onnx"}))


def _needs_upgrade(node: NodeProto, types: Types) -> bool:
    return _has_channels_last(node) or _is_marker(node) or _has_empty_end(node) or needs_float32(node, types)


def _has_channels_last(node: NodeProto) -> bool:
    """Whether a node works on channels-last values and has no kernel for that."""
    if node.domain == CHANNELS_LAST:
        return True
    if not _is_of_qonnx(node) or node.op_type != "MaxPoolNHWC":
        return False
    return attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")


def _is_marker(node: NodeProto) -> bool:
    return _is_of_qonnx(node) and node.op_type == "DebugMarker"


def _is_of_qonnx(node: NodeProto) -> bool:
    return node.domain.startswith(("qonnx.", "finn", "onnx."))


def _has_empty_end(node: NodeProto) -> bool:
    known = node.domain in (DOMAIN, QUANT_DOMAIN, CHANNELS_LAST, *OLD_DOMAINS)
    return known and len(node.input) > 0 and not node.input[-1]


def _upgrade_nodes(graph: GraphProto, types: Types, fresh: FreshNames) -> list[str]:
    """Upgrades the nodes of one level in place; what was done, once for each."""
    nodes: list[NodeProto] = []
    done = []
    for node in graph.node:
        if _has_empty_end(node):
            done.append(f"{node.op_type} ({node.domain}) without the empty inputs at its end")
        while _has_empty_end(node):
            node.input.pop()
        made = [node]
        if _has_channels_last(node):
            made = _transpose_around(graph, node, fresh)
        elif _is_marker(node):
            made = [helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name)]
        if needs_float32(node, types):
            nodes += cast_around(node, types, fresh)
            done.append(f"{node.op_type} ({node.domain}) on numbers of {describe_types(node, types)} in float32")
            continue
        if made != [node]:
            done.append(f"{node.op_type} ({node.domain}) as {', '.join(n.op_type for n in made)}")
        nodes += made
    if done:
        content = [node.SerializeToString() for node in nodes]
        del graph.node[:]
        graph.node.extend(map(NodeProto.FromString, content))
    return done


def _check_transposable(graph: GraphProto, node: NodeProto) -> None:
    """Raises GraphError for a node that cannot be put between transpositions."""
    if len(node.output) != 1:
        raise GraphError(f"the node {node.name!r} ({node.op_type}) has {len(node.output)} outputs, expected 1")
    _read_rank(graph, node)


def _transpose_around(graph: GraphProto, node: NodeProto, fresh: FreshNames) -> list[NodeProto]:
    """A node on channels-last values as the standard op on channels-first ones; a Conv's weights turn with them."""
    rank = _read_rank(graph, node)
    to_first = [0, rank - 1, *range(1, rank - 1)]
    to_last = [0, *range(2, rank), 1]
    first = NodeProto()
    first.CopyFrom(node)
    first.domain = ""
    first.op_type = node.op_type.removesuffix("NHWC")
    made = []
    turned = 2 if node.op_type == "Conv" else 1
    for i in range(min(turned, len(node.input))):
        first.input[i] = fresh.take(f"{node.output[0]}.in{i}.channels_first")
        made.append(helper.make_node("Transpose", [node.input[i]], [first.input[i]], perm=to_first))
    first.output[0] = fresh.take(f"{node.output[0]}.channels_first")
    back = helper.make_node("Transpose", [first.output[0]], [node.output[0]], perm=to_last)
    return [*made, first, back]


def _read_rank(graph: GraphProto, node: NodeProto) -> int:
    """How many axes a node's values have, from its kernel or from what the graph says of its tensors."""
    kernel = attribute(node, "kernel_shape", [])
    if kernel:
        return len(kernel) + 2
    told = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.value_info, *graph.input, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            told[info.name] = len(info.type.tensor_type.shape.dim)
    inputs = node.input[:1]
    if node.op_type == "Conv":
        inputs = node.input[:2]  # the weights tell it, too
    names = [*inputs, *node.output]
    rank = next((told[name] for name in names if name in told), 0)
    if rank < 3:
        raise GraphError(
            f"nothing in the graph tells the axes of the node {node.name!r} ({node.op_type} of {node.domain}), "
            "expected 3 or more; let qonnx infer the graph's shapes first (qonnx.util.cleanup)"
        )
    return rank
