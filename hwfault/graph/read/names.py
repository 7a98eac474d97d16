"""What each quantizer and layer of a graph is called: the path of its module, wherever the graph tells it.

A name comes, in this order, from the node's metadata `hwfault.site`, from the scopes that PyTorch's dynamo export notes
there, from the TorchScript scope in the node's name, or else is the node's name, or its output's.

A TorchScript scope holds only the modules that were *called* on the way: where a network calls the members of its
blocks one by one, `blocks.2.conv` is `conv`, as is every other block's. The names of parameters are whole paths
(`blocks.2.conv.weight`), and tell those of their own quantizers and of all that lies in a module with theirs. Where
they do not, quantizers that share a scope are named after their outputs: no two of them share their faults.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from onnx import ModelProto, NodeProto

from hwfault.graph import ops
from hwfault.graph.ops import FAULT_OPS, GRID_OPS
from hwfault.graph.read.qonnxgraph import SITE, called_path, dynamo_path, metadata, site_name
from hwfault.graph.read.shapes import Tensors

SUFFIX = ".accumulator"
"""What the name of a layer's accumulator ends with."""
_RUN = re.compile(r"_\d+$")


class _Scope(NamedTuple):
    """A scope in a TorchScript node's name, and the module's whole path where the graph tells it."""

    called: str
    path: str | None


class Names:
    """The names of a graph's quantizers and layers, before those that share one by accident are told apart."""

    def __init__(self, model: ModelProto, tensors: Tensors) -> None:
        self._tensors = tensors
        self._parameters = {tensor.name for tensor in model.graph.initializer}
        quantizers = [node for node in model.graph.node if node.op_type in GRID_OPS and node.output]
        self._scopes = {_output(node): self._scope(node) for node in quantizers if _has_scope(node)}
        self._modules = _modules(self._scopes.values())
        self._cut = any(scope.path not in (None, scope.called) for scope in self._scopes.values())
        self._names = {_output(node): self._told(node) for node in quantizers}
        self._name_after_outputs(quantizers)
        self._name_after_faults(model)

    def of(self, node: NodeProto) -> str:
        """The name of a quantizer."""
        return self._names.get(_output(node)) or site_name(node)

    def of_layer(self, node: NodeProto) -> str:
        """The name of a layer's accumulator."""
        own = metadata(node).get(SITE)
        if own is not None:
            return own
        name = site_name(node)
        called = called_path(node) if _has_scope(node) else None
        if called is not None:
            name = self._layer_of_weights(node, called) or name
        return name + SUFFIX

    def _scope(self, node: NodeProto) -> _Scope:
        """The scope of a quantizer; that of a parameter's with its path."""
        called = called_path(node) or ""
        parent, _, quantizer = called.rpartition(".")
        source = node.input[0] if node.input else ""
        path = _path(parent, source) if source in self._parameters else None
        return _Scope(called, None if path is None else f"{path}.{quantizer}")

    def _told(self, node: NodeProto) -> str:
        """The name of a quantizer by its own scope, or by that of parameters in the same module."""
        scope = self._scopes.get(_output(node))
        if scope is None or SITE in metadata(node):
            return site_name(node)
        if scope.path is not None:
            return scope.path
        around, paths = self._around(scope.called)
        if len(paths) != 1:
            return scope.called
        (path,) = paths
        inner = scope.called[len(around) :]
        return f"{path}{inner}"

    def _around(self, called: str) -> tuple[str, set[str]]:
        """The innermost module of a scope that has parameters in it, and which paths such a module has."""
        parts = called.split(".")
        for count in range(len(parts) - 1, 0, -1):
            around = ".".join(parts[:count])
            if around in self._modules:
                return around, self._modules[around]
        return "", set()

    def _name_after_outputs(self, quantizers: list[NodeProto]) -> None:
        """Gives activations of one scope their outputs' names unless they must be runs of one quantizer."""
        groups: dict[str, list[NodeProto]] = defaultdict(list)
        for node in quantizers:
            scope = self._scopes.get(_output(node))
            if scope is not None and scope.path is None:
                groups[scope.called].append(node)
        for called, nodes in groups.items():
            around, paths = self._around(called)
            # in a scope that several modules have
            several = len(paths) > 1 and (len(nodes) > 1 or around in paths)
            # in one of which nothing tells how many have it, where scopes are known to be cut short
            unknown = len(nodes) > 1 and not paths and self._cut
            # with scales of their own, as no quantizer's runs have
            constants = {tuple(node.input[1:]) for node in nodes}
            if not several and not unknown and len(constants) == 1:
                continue
            for node in nodes:
                if SITE not in metadata(node):
                    self._names[_output(node)] = _output(node)

    def _name_after_faults(self, model: ModelProto) -> None:
        """Gives quantizers that a transformation wrote anew, without a site's name, that of the faults behind them."""
        known = set(self._names.values())
        for node in model.graph.node:
            site = metadata(node).get(SITE)
            if node.op_type not in FAULT_OPS or site is None or site in known:
                continue
            *_, first = self._tensors.before(node.input[0], _says_worth)
            maker = self._tensors.makers.get(first)
            if first in self._names and maker is not None and SITE not in metadata(maker):
                self._names[first] = site

    def _layer_of_weights(self, node: NodeProto, called: str) -> str | None:
        """The path of a layer, which its weights tell where their quantizer lies in its scope."""
        if len(node.input) < 2:
            return None
        *_, first = self._tensors.before(node.input[1], lambda n: n.op_type not in GRID_OPS)
        scope = self._scopes.get(first)
        if scope is None or scope.path is None:
            return None
        layer, _, _ = scope.called.rpartition(".")
        # a layer's scope is numbered where it runs again, or where another one has the same
        if layer not in (called, _RUN.sub("", called)):
            return None
        path, _, _ = scope.path.rpartition(".")
        return path


def _modules(scopes: Iterable[_Scope]) -> dict[str, set[str]]:
    """The whole paths of the modules that parameters lie in, by the paths that scopes have of them."""
    found: dict[str, set[str]] = defaultdict(set)
    for called, path in scopes:
        if path is None:
            continue
        parts = called.split(".")[:-1]  # without the quantizer's own
        for count in range(1, len(parts) + 1):
            module = ".".join(parts[:count])
            inner = called[len(module) :]
            found[module].add(path.removesuffix(inner))
    return found


def _path(called: str, parameter: str) -> str | None:
    """The path of the module that a scope calls `called`, by the name of a parameter in it."""
    if not called:
        return None
    if parameter.startswith(f"{called}."):
        return called
    found = parameter.rfind(f".{called}.")
    if found < 0:
        return None
    return parameter[: found + 1 + len(called)]


def _says_worth(node: NodeProto) -> bool:
    """Whether a node may say what integers are worth, or counts of thresholds."""
    return ops.of(node.op_type).adds or node.op_type == "Mul" or node.op_type == "Transpose"


def _has_scope(node: NodeProto) -> bool:
    """Whether a node's name is a TorchScript scope, and no dynamo export tells more."""
    return dynamo_path(node) is None and called_path(node) is not None


def _output(node: NodeProto) -> str:
    return node.output[0] if node.output else ""
