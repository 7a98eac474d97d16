"""Model functions: the nodes that they stand for in place of their calls, where that ends."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from onnx import FunctionProto, ModelProto, NodeProto, helper, inliner

from hwfault.graph import ops
from hwfault.graph.ops import CHANNELS_LAST, DOMAIN, MICROSOFT, OLD_DOMAINS, QUANT_DOMAIN, STANDARD_DOMAINS
from hwfault.graph.read.external import walk_nodes
from hwfault.graph.read.qonnxgraph import replace_nodes

MOST_NODES = 20_000
"""The most nodes that the functions of a graph are written out to."""
_DEEPEST = 100
"""The most functions that call each other in turn."""
_OF_OPS = (*STANDARD_DOMAINS, MICROSOFT, QUANT_DOMAIN, *OLD_DOMAINS, CHANNELS_LAST, DOMAIN)
"""Domains of ops."""

Key = tuple[str, str]
"""A function's domain and name."""
Functions = Mapping[Key, FunctionProto]


class Inlined(NamedTuple):
    """A graph without calls, a sentence about those that are gone, and why others are left, by function.

    The graph is the given one where nothing was to be done.
    """

    model: ModelProto
    changes: list[str]
    left: dict[Key, str]


def inline_functions(model: ModelProto) -> Inlined:
    """The graph with the nodes of its functions in place of their calls, as onnx' own inliner writes them.

    Left are functions that are written in other versions of ops than the graph, and all of them where calls do not end
    or stand for too many nodes. Those that define an op, such as QONNX', are none. What nothing calls any longer is not
    defined.
    """
    functions = find_functions(model)
    called = {(node.domain, node.op_type) for node in walk_nodes(model.graph.node)} & functions.keys()
    if not called:
        return Inlined(model, [], {})
    if why := find_endless(model):
        return Inlined(model, [], dict.fromkeys(functions, why))
    versions = {entry.domain: entry.version for entry in model.opset_import}
    left = {key: why for key, function in functions.items() if (why := _of_other_version(function, versions))}
    chosen = [key for key in functions if key not in left]
    if not called.intersection(chosen):
        return Inlined(model, [], left)
    try:
        out = _inline(model, chosen)
    except Exception as error:  # of several types of onnx' own
        reason = str(error).strip().splitlines()[0]
        return Inlined(model, [], left | dict.fromkeys(chosen, f"onnx cannot write it out ({reason})"))
    names = ", ".join(f"{domain}::{name}" for domain, name in chosen if (domain, name) in called)
    return Inlined(out, [f"what the model functions {names} stand for, in place of their calls"], left)


def find_endless(model: ModelProto, most: int = MOST_NODES) -> str:
    """Why a graph's calls cannot be written out: they do not end, or stand for more nodes than `most`; empty if not so.

    Runtimes write them out, too, and few look before they do.
    """
    if not model.functions:
        return ""
    sizes = _Sizes(find_functions(model), most)
    size = sizes.of_nodes(model.graph.node, ())
    return size if isinstance(size, str) else ""


def defines_op(key: Key) -> bool:
    """Whether a function says what a known op does, as exporters write QONNX' ops for runtimes that have none."""
    domain, name = key
    return domain in _OF_OPS and ops.of(name) is not ops.of("")


def find_functions(model: ModelProto) -> Functions:
    """The functions of a graph, but for those that define ops."""
    found = {(function.domain, function.name): function for function in model.functions}
    return {key: function for key, function in found.items() if not defines_op(key)}


def _of_other_version(function: FunctionProto, versions: Mapping[str, int]) -> str:
    """Why a function is of other ops than the graph that imports these versions; empty where it is not."""
    for entry in function.opset_import:
        mine = versions.get(entry.domain, entry.version)
        if mine != entry.version:
            return f"it is written in version {entry.version} of the ops of {entry.domain!r}, the graph in {mine}"
    return ""


class _Sizes:
    """How many nodes functions are once nothing in them is a call, or why they cannot be written out."""

    def __init__(self, functions: Functions, most: int) -> None:
        self._functions = functions
        self._most = most
        self._known: dict[Key, int | str] = {}

    def of_nodes(self, nodes: Iterable[NodeProto], callers: Collection[Key]) -> int | str:
        """The size of nodes in a function that `callers` call in turn."""
        count = 0
        for node in walk_nodes(nodes):
            key = (node.domain, node.op_type)
            size = self._of(key, callers) if key in self._functions else 1
            if isinstance(size, str):
                return size
            count += size
            if count > self._most:
                return f"its functions stand for more than {self._most} nodes"
        return count

    def _of(self, key: Key, callers: Collection[Key]) -> int | str:
        if key in callers:
            return f"the function {key[0]}::{key[1]} calls itself"
        if len(callers) >= _DEEPEST:
            return f"more than {_DEEPEST} functions call each other in turn"
        if key not in self._known:
            self._known[key] = self.of_nodes(self._functions[key].node, (*callers, key))
        return self._known[key]


def _inline(model: ModelProto, chosen: list[Key]) -> ModelProto:
    """The graph with these functions written out; the inliner is told the names of constants only."""
    bare = ModelProto()
    bare.CopyFrom(model)
    held = [helper.make_tensor_value_info(tensor.name, tensor.data_type, None) for tensor in bare.graph.initializer]
    del bare.graph.initializer[:]
    bare.graph.input.extend(held)
    inlined = inliner.inline_selected_functions(bare, chosen)
    out = ModelProto()
    out.CopyFrom(model)
    replace_nodes(out, inlined.graph.node)
    del out.functions[:]
    out.functions.extend(inlined.functions)
    needed = {node.domain for node in walk_nodes(out.graph.node)} - {entry.domain for entry in out.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain in needed:
                needed.remove(entry.domain)
                out.opset_import.add().CopyFrom(entry)
    return out
