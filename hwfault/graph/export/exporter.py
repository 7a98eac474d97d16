"""What PyTorch's exporter cannot do, in one sentence: which operator of which module, and what to do about it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hwfault.errors import GraphError
from hwfault.torch_ops.inside_torch import exporter_prints_to

_LOG = logging.getLogger("hwfault")
_LONGEST = 300
_OPERATOR = re.compile(r"operator '([\w:]+)'|operator (\w+),|unrecognized namespace ([\w:]+)")
_OPSET = re.compile(r"opset version (\d+)")
_SCRIPTED = re.compile(r"Tried to trace <__torch__\.([\w.]+) object")
# what TorchScript puts into the name of a class that it has compiled before
_COMPILED_AGAIN = re.compile(r"___torch_mangle_\d+\.")
_COMPLEX = re.compile(r"number type: complex|'aten::(view_as_)?complex'|\bComplex(Half|Float|Double)\b")
# what the exporter adds to its reasons: its own values and graph, and whom to ask
_ADDED = re.compile(r"\s*(\[Caused by the value|Please (feel free|open|try)|If you are trying|\n).*", re.DOTALL)


@contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """Raises GraphError of one sentence for any exception inside; what the exporter says at length is logged (debug).

    PyTorch's TorchScript exporter prints its whole graph to the standard output where it fails, whether one asks for
    it or not: within the block that goes to the log, too.
    """
    graphs: list[Any] = []
    try:
        with exporter_prints_to(lambda *said: _keep(graphs, said)):
            yield
    except Exception as error:
        _LOG.debug("the exporter's whole text: %s", error)
        raise GraphError(f"Brevitas and PyTorch cannot export the network: {_sentence(error, graphs)}") from error


def _keep(graphs: list[Any], said: tuple[Any, ...]) -> None:
    """Keeps the graphs among what the exporter prints, and logs all of it."""
    graphs.extend(part for part in said if isinstance(part, torch.Graph))
    _LOG.debug("%s " * len(said), *said)


def _sentence(error: Exception, graphs: list[Any]) -> str:
    """What could not be exported, where in the network, and what to do."""
    text = str(error)
    if _COMPLEX.search(text):
        return (
            "it computes with complex numbers, which ONNX does not have; compute with their real and imaginary parts "
            "as tensors of their own"
        )
    if scripted := _SCRIPTED.search(text):
        name = _COMPILED_AGAIN.sub("", scripted[1])
        return (
            f"it calls the scripted module {name!r}, which a trace cannot follow; put the plain module in its "
            "place, or leave it out of what is exported"
        )
    named = _OPERATOR.search(text)
    if named is None:
        return f"{_first_words(text) or type(error).__name__}; the log at debug level has all that the exporter says"
    operator = next(name for name in named.groups() if name)
    what = f"the operator {operator!r}{_module_of(operator, graphs)}"
    instead = "write it with operators that ONNX has, or leave it out of what is exported"
    if "unrecognized namespace" in text:
        return f"{what} is not one of PyTorch's own, and ONNX has none for it; {instead}"
    if opset := _OPSET.search(text):
        return f"ONNX of opset {opset[1]} has nothing for {what}; {instead}"
    return f"{what} cannot be written as it is used ({_first_words(text)}); {instead}"


def _first_words(text: str) -> str:
    """The first sentence of an exporter's reason, without what it adds to each."""
    words = _ADDED.sub("", text.strip()).rstrip(" .")
    return words if len(words) <= _LONGEST else words[:_LONGEST] + " ..."


def _module_of(operator: str, graphs: list[Any]) -> str:
    """ " of the module 'a.b'" of an operator in the exporter's graph; empty where the graph does not say."""
    kind = operator if "::" in operator else f"aten::{operator}"
    for graph in graphs:
        for node in graph.findAllNodes(kind):
            path = [scope.rpartition("::")[2] for scope in node.scopeName().split("/")[1:]]
            return f" of the module {'.'.join(path)!r}" if path else " of the network's own forward"
    return ""
