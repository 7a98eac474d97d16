"""Where Python decides by a network's inputs while it is traced: the graph has the way that the example took.

PyTorch's tracer warns of every tensor that becomes a Python number, whatever that hangs on, and its warnings do not
say which tensor it was. Here the trace itself is asked. What comes of values of the inputs is a decision; parameters
and constants are the same for all inputs of a graph, and so are extents, but for the number of samples: whether that is
among them is seen at another one.
"""

import linecache
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hwfault.errors import GraphError
from hwfault.network.inputs import Inputs, tensors_in
from hwfault.notices import tell_once
from hwfault.torch_ops.inside_torch import traced_for_onnx, traced_value

_ASKS = frozenset(
    (
        *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__array__"),
        *("item", "tolist", "numpy", "is_nonzero", "equal", "allclose"),
    )
)
"""Functions of torch that make Python's values of what a tensor holds."""
_COUNTS = frozenset(("__iter__", "unbind"))
"""Functions that answer with as many tensors as an axis is long."""
_MAKE = frozenset(("tensor", "as_tensor", "new_tensor"))
"""Functions that make constants of what tensors in a list hold; a tensor alone they follow."""
_OF_SHAPES = frozenset(
    f"aten::{name}"
    for name in (
        *("size", "sym_size", "dim", "numel", "len", "_shape_as_tensor", "is_floating_point"),
        *("ones_like", "zeros_like", "empty_like", "new_ones", "new_zeros", "new_empty"),
    )
)
"""Nodes of a trace that read the shape or type of their inputs alone."""
_TORCH = str(Path(torch.__file__).parent)


class Extent(NamedTuple):
    """Where Python took a number that comes of shapes, and which it was."""

    place: str
    number: str


class Decisions(TorchFunctionMode):
    """Notes where Python asks for what depends on the inputs of a network, as long as that is traced."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.of_values: dict[str, None] = {}
        """Where it depends on values of the inputs, in words."""
        self.of_shapes: list[Extent] = []
        """Where it depends on shapes, in the last forward."""
        self._modules = {id(module): name for name, module in network.named_modules()}
        self._inputs: set[int] = set()

    def begin(self, tensors: Sequence[Tensor]) -> None:
        """Notes the inputs at the beginning of a forward."""
        self.of_shapes = []
        if traced_for_onnx():
            self._inputs = {traced_value(tensor).unique() for tensor in tensors}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if not (self._inputs and traced_for_onnx()):
            return func(*args, **kwargs)
        reached = {self._reached_from(tensor) for tensor in _asked(name, (*args, *kwargs.values()))}
        if "values" in reached:
            self.of_values[self._place()] = None
        answer = func(*args, **kwargs)
        if name == "__iter__":
            answer = list(answer)
        if name in _COUNTS:
            self.of_shapes.append(Extent(self._place(), str(len(answer))))
        elif "shapes" in reached:
            self.of_shapes.append(Extent(self._place(), repr(answer)))
        return iter(answer) if name == "__iter__" else answer

    def _reached_from(self, tensor: Tensor) -> str:
        """Whether a tensor comes of "values" of an input, else of "shapes", or of neither."""
        waiting, seen, found = [traced_value(tensor)], set(), ""
        while waiting:
            value = waiting.pop()
            number = value.unique()
            if number in self._inputs:
                return "values"
            if number in seen:
                continue
            seen.add(number)
            node = value.node()
            if node.kind() in _OF_SHAPES:
                found = "shapes"
            else:
                waiting += _read_by(node)
        return found

    def _place(self) -> str:
        """The module and the line of Python that asks."""
        line, frame = "", sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            if not line and not code.co_filename.startswith(_TORCH):
                text = linecache.getline(code.co_filename, frame.f_lineno).strip()
                line = f"{code.co_filename}:{frame.f_lineno}" + (f": {text}" if text else "")
            name = self._modules.get(id(frame.f_locals.get("self")))
            if name is not None:
                whose = f"the module {name!r}" if name else "the network's own forward"
                return f"{whose} ({line})"
            frame = frame.f_back  # type: ignore[assignment]
        return f"the network ({line})"


def _asked(name: str, given: Sequence[Any]) -> list[Tensor]:
    """The tensors of whose values a function of torch makes Python's, or constants."""
    if name in _ASKS:
        return list(tensors_in(given))
    if name in _MAKE:
        return list(tensors_in([part for part in given if not isinstance(part, Tensor)]))
    return []


def _read_by(node: Any) -> list[Any]:
    """What a node of a trace reads, those inside of it included."""
    found = list(node.inputs())
    for block in node.blocks():
        for inner in block.nodes():
            found += _read_by(inner)
    return found


def check_decisions(network: nn.Module, inputs: Inputs, found: Decisions, *, as_traced: bool) -> None:
    """Raises GraphError where Python decided by the inputs; says it only, where a graph is taken as traced.

    The network takes the tensors of its inputs alone, as it was exported.
    """
    if found.of_values:
        told, instead = _by_values(list(found.of_values)), "compute every way and choose with torch.where"
    else:
        told, instead = _by_samples(network, inputs, found), "compute with tensors"
    if told and not as_traced:
        raise GraphError(f"{told}; {instead}, or, where that is meant, export with as_traced=True (--as-traced)")
    if told:
        tell_once([told])


def _by_values(places: Sequence[str]) -> str:
    """What is said of decisions by values."""
    more = f" (and {len(places) - 1} more places)" if len(places) > 1 else ""
    return (
        f"{places[0]}{more} makes Python's value of one that depends on the inputs, so that the graph has the way that "
        "the example took, whatever its inputs are"
    )


def _by_samples(network: nn.Module, inputs: Inputs, found: Decisions) -> str:
    """What is said of decisions by the number of samples; nothing where there are none."""
    if not found.of_shapes:
        return ""
    samples = inputs.samples
    try:
        # one sample alone is what Python looks for, if anything
        ours, theirs = (_extents(network, inputs.batch(n), found) for n in (samples, 2 if samples == 1 else 1))
    except Exception:  # a network may have no other size of a batch, which its sites tell
        return ""
    for mine, other in zip_longest(ours, theirs):
        if mine != other:
            place = (mine or other).place
            return (
                f"{place} makes Python's number of one that depends on how many samples there are, so that the graph "
                f"is for {samples}, as in the example, whatever its batch is"
            )
    return ""


@torch.no_grad()
def _extents(network: nn.Module, inputs: Inputs, found: Decisions) -> list[Extent]:
    """The numbers that come of shapes in a forward on other inputs."""
    network.requires_grad_(False)  # a trace takes parameters as constants here
    trace: Any = torch.jit.trace
    with warnings.catch_warnings(), found:
        warnings.simplefilter("ignore")
        trace(lambda *tensors: network(*tensors), tuple(inputs.tensors), check_trace=False, strict=False)
    return found.of_shapes
