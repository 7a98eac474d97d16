"""What of a graph holds integers and is no site, and why: nothing of the kind is passed over without a word."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from onnx import ModelProto, NodeProto

from hwfault.graph import ops
from hwfault.graph.ops import GRID_OPS
from hwfault.graph.read.external import graphs_of, walk_nodes
from hwfault.graph.read.functions import Key, defines_op
from hwfault.graph.read.grids import NoGridError, read_datatype
from hwfault.graph.read.names import SUFFIX
from hwfault.graph.read.own_integers import is_dequantizer
from hwfault.graph.read.qonnxgraph import site_name
from hwfault.graph.read.shapes import Tensors, is_fault


class _Found(NamedTuple):
    """Something that is no site: the name that it would have, and why it is none."""

    name: str
    why: str


class Left(NamedTuple):
    """Why nodes with bodies, by their first output, and model functions are not written out."""

    bodies: Mapping[str, str]
    functions: Mapping[Key, str]


NOTHING_LEFT = Left({}, {})


def find_left_out(
    model: ModelProto,
    tensors: Tensors,
    annotations: Mapping[str, str],
    taken: Collection[str],
    left: Left = NOTHING_LEFT,
) -> dict[str, str]:
    """Why other integers of a graph are no sites, by the names that they would have.

    These are quantizers that write small floats or ONNX' own integers, annotated constants that are no weights of a
    layer that can be struck, and whatever lies in the bodies of control flow and in model functions. `taken` are the
    names of sites and of those that are none already.
    """
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for name, why in (*_nodes(model, tensors), *_constants(model, annotations, taken), *_inside(model, left)):
        own = name
        while own in found or own in taken:  # nodes in bodies and functions may well have the names of others
            seen[name] += 1
            own = f"{name} ({seen[name] + 1})"
        found[own] = why
    return found


def _nodes(model: ModelProto, tensors: Tensors) -> Iterator[_Found]:
    """The nodes of the main level that make other numbers than QONNX' integers, or keep them for themselves."""
    for node in model.graph.node:
        if is_fault(node):
            continue
        if (why := _why_none(node, tensors)) is not None:
            yield _Found(site_name(node), f"the node {node.name!r} ({node.op_type}) cannot be a site: {why}")


def _why_none(node: NodeProto, tensors: Tensors) -> str | None:
    """Why a node that makes or reads quantized numbers is no site; None for one that does neither."""
    own = ops.of(node.op_type)
    if own.floats:
        return (
            "it rounds to small floating-point numbers, and the fault stream defines no words of exponent and "
            "mantissa; expected integers on one scale"
        )
    if not own.own_integers:
        return None
    if own.makes is None and not own.operands:
        return "it computes on ONNX' own integers, and hwfault does not know which of its tensors they are"
    if is_dequantizer(node):
        # what a quantizer has made, or the graph holds, is a site
        *_, first = tensors.before(node.input[0] if node.input else "", lambda n: ops.of(n.op_type).grid == "keeps")
        if first not in tensors.makers and first not in tensors.constants:
            return f"its integers {first!r} are given to the graph, so that nothing of it holds them before"
    return None


def _constants(model: ModelProto, annotations: Mapping[str, str], taken: Collection[str]) -> Iterator[_Found]:
    """Integers among the initializers, by qonnx's annotations, that no layer reads as weights that can be struck."""
    *first, last = ops.names(lambda row: row.weighted)
    sizes = {tensor.name: max(tensor.dims, default=1) for tensor in model.graph.initializer}
    for node in walk_nodes(model.graph.node):
        for i, name in enumerate(node.input):
            if sizes.get(name, 0) < 2 or name in taken or (i and node.op_type in GRID_OPS) or is_fault(node):
                continue
            if _holds_integers(annotations.get(name)):
                sizes.pop(name)
                yield _Found(
                    name,
                    f"the constants ({annotations[name]}) {name!r} cannot be a site: {node.op_type} {node.name!r} "
                    f"reads them, and hwfault strikes weights of {', '.join(first)} and {last}; put faults in before "
                    "they are converted",
                )


def _holds_integers(datatype: str | None) -> bool:
    if datatype is None:
        return False
    try:
        read_datatype(datatype)
    except NoGridError:
        return False
    return True


def _inside(model: ModelProto, left: Left) -> Iterator[_Found]:
    """The quantizers and layers in bodies of control flow and in model functions, which are not written out."""
    for node in model.graph.node:
        why = left.bodies.get(node.output[0] if node.output else node.name, "it may run any number of times or never")
        for held in node.attribute:
            for body in graphs_of(held):
                where = f"the {held.name} of the {node.op_type} {node.name or ', '.join(node.output)!r}"
                yield from _quantized(walk_nodes(body.node), where, f"{why}, so that its runs have no numbers")
    called = Counter((node.domain, node.op_type) for node in _all_nodes(model))
    for function in model.functions:
        key = (function.domain, function.name)
        times = called[key]
        if times and not defines_op(key):
            where = f"the model function {function.domain}::{function.name}, which {times} nodes call"
            yield from _quantized(walk_nodes(function.node), where, left.functions.get(key, "it is not written out"))


def _quantized(nodes: Iterable[NodeProto], where: str, advice: str) -> Iterator[_Found]:
    """The quantizers and layers among nodes that hwfault does not look into."""
    for node in nodes:
        own = ops.of(node.op_type)
        if own.grid == "makes" or own.floats or own.own_integers or own.accumulates:
            name = site_name(node) + (SUFFIX if own.accumulates else "")
            yield _Found(name, f"the node {site_name(node)!r} ({node.op_type}) lies in {where}: {advice}")


def _all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the main level, of bodies and of functions."""
    yield from walk_nodes(model.graph.node)
    for function in model.functions:
        yield from walk_nodes(function.node)
