"""How often the body of a node runs, where constants say it."""

from collections.abc import Container, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from hwfault.graph import ops
from hwfault.graph.ops import STANDARD_DOMAINS
from hwfault.graph.read.qonnxgraph import Constants, attribute
from hwfault.graph.read.shapes import Shape, bodies_of, inferred_shapes, stand_in_of

MOST_ROUNDS = 64
"""The most rounds of a loop that are written out."""
_WITHOUT_BATCHES = 9
"""The first opset whose Scan runs once, and not for each element of a batch."""
_LONGEST = 16
"""The most numbers, and steps, that a number is made of that shapes tell."""
_OVERRIDABLE = 4
"""The first version of ONNX' format in which an initializer that is an input, too, is only what that is by default."""


class LeftError(Exception):
    """Why a body is left where it is."""


class Fixed:
    """The constants of a graph's main level that are the same in every run; more are added as they come there."""

    def __init__(self, model: ModelProto) -> None:
        self._values = Constants(model)
        given = {info.name for info in model.graph.input} if model.ir_version >= _OVERRIDABLE else set()
        self._names = {tensor.name for tensor in model.graph.initializer} - given
        self._model = model
        self._makers: dict[str, NodeProto] = {}

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shapes of the graph as it was given that follow from those of its inputs, whatever it says of others."""
        return inferred_shapes(stand_in_of(self._model))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def hold(self, tensor: TensorProto) -> None:
        self._values.hold(tensor)
        self._names.add(tensor.name)

    def note(self, node: NodeProto) -> None:
        """Takes the outputs of a node for constants, if they are some; its shapes may tell others."""
        self._makers.update((name, node) for name in node.output)
        if is_constant(node, self._names):
            self._values.note(node)
            self._names.update(filter(None, node.output))

    def value(self, name: str) -> NDArray[Any] | None:
        """The one number of a constant, or of what shapes tell; None where the graph computes it, or it is none."""
        values = self._values.get(name) if name in self._names else None
        if values is not None:
            return values.reshape(()) if values.size == 1 else None
        told = self._told_by_shapes(name, _LONGEST)
        return np.array(told[0]) if told is not None and len(told) == 1 and told[0] is not None else None

    def _told_by_shapes(self, name: str, steps: int) -> list[int | None] | None:
        """The numbers of a tensor that is made of extents, each None where it is not known; None for other tensors."""
        if name in self._names:
            values = self._values.get(name)
            if values is None or values.dtype.kind not in "iu" or values.size > _LONGEST:
                return None
            return [int(value) for value in values.ravel()]
        node = self._makers.get(name)
        if node is None or node.domain not in STANDARD_DOMAINS or not steps or not node.input:
            return None
        if node.op_type == "Shape" and not node.attribute:
            shape = self.shapes.get(node.input[0])
            return None if shape is None else list(shape)
        given = [self._told_by_shapes(own, steps - 1) for own in node.input]
        first = given[0]
        if first is None:
            return None
        if ops.of(node.op_type).extent == "passes":  # the axes that are given, if any, move no number
            return first if attribute(node, "to", TensorProto.INT64) == TensorProto.INT64 else None
        if len(given) != 2 or given[1] is None or len(given[1]) != 1 or None in given[1]:
            return None
        (second,) = given[1]
        if node.op_type == "Gather" and second is not None and -len(first) <= second < len(first):
            return [first[second]]
        if node.op_type == "Equal" and len(first) == 1 and first[0] is not None:
            return [int(first[0] == second)]
        return None


def is_constant(node: NodeProto, *fixed: Container[str]) -> bool:
    """Whether a node makes the same in every run, of inputs that are all among the constants `fixed`."""
    if ops.of(node.op_type).random or any(True for _ in bodies_of(node)):
        return False
    return all(not name or any(name in names for names in fixed) for name in node.input)


def read_body(node: NodeProto, name: str) -> GraphProto:
    """A body of a node; raises LeftError for one that it does not have, or that has fewer outputs than the node."""
    body = attribute(node, name, None)
    if not isinstance(body, GraphProto):
        raise LeftError(f"it has no {name}")
    if body.sparse_initializer:
        raise LeftError("it holds sparse tensors")
    return body


def choose_branch(node: NodeProto, fixed: Fixed) -> GraphProto:
    """The branch that is taken in every run; raises LeftError where none is known to be."""
    condition = node.input[0] if node.input else ""
    value = fixed.value(condition)
    if value is None:
        raise LeftError(f"its condition {condition!r} is computed by the graph, expected a constant")
    body = read_body(node, "then_branch" if value else "else_branch")
    if len(body.output) != len(node.output):
        raise LeftError(f"its branch has {len(body.output)} outputs, expected {len(node.output)}")
    return body


def count_rounds(node: NodeProto, body: GraphProto, fixed: Fixed) -> int:
    """How many rounds a Loop has in every run; raises LeftError where that is not known, or too many."""
    most, condition, *carried = [*node.input, "", ""][: max(len(node.input), 2)]
    if len(body.input) != 2 + len(carried) or len(body.output) < 1 + len(carried):
        raise LeftError(f"its body has {len(body.input)} inputs, expected {2 + len(carried)}, and as many outputs")
    value = fixed.value(most)
    if value is None:
        raise LeftError(f"its number of rounds {most!r} is computed by the graph, expected a constant")
    first = fixed.value(condition) if condition else True
    others = _goes_on(body, fixed)
    if first is None or others is None:
        raise LeftError("whether there is another round is computed by the graph, expected a constant")
    rounds = int(value) if others else min(int(value), 1)
    if not first:
        rounds = 0
    if not 1 <= rounds <= MOST_ROUNDS:
        raise LeftError(f"it has {rounds} rounds, expected 1 to {MOST_ROUNDS}")
    return rounds


def _goes_on(body: GraphProto, fixed: Fixed) -> bool | None:
    """Whether the body of a Loop asks for another round, by its own condition or a constant; None: it computes that."""
    inner = ModelProto(graph=body)
    constants = Constants(inner)
    makers = {node.output[0]: node for node in body.node if node.output}
    name = body.output[0].name
    for _ in range(len(body.node) + 1):
        if name == body.input[1].name:
            return True
        held = constants.get(name)
        value = held if held is not None else fixed.value(name)
        if value is not None:
            return bool(value.all())
        node = makers.get(name)
        if node is None or node.op_type != "Identity" or not node.input:
            return None
        name = node.input[0]
    return None


def count_slices(node: NodeProto, body: GraphProto, shapes: Mapping[str, Shape], opset: int) -> int:
    """How many slices a Scan runs through; raises LeftError where that is not known, or too many."""
    if opset < _WITHOUT_BATCHES:
        raise LeftError(f"it is of opset {opset}, expected {_WITHOUT_BATCHES} or newer")
    scanned = attribute(node, "num_scan_inputs", 0)
    if not 1 <= scanned <= len(node.input) or len(body.input) != len(node.input):
        raise LeftError(f"its body has {len(body.input)} inputs, expected {len(node.input)}")
    extents = set()
    for name, axis in zip(node.input[-scanned:], one_each(node, "scan_input_axes", scanned), strict=True):
        shape = shapes.get(name, ())
        extents.add(shape[axis] if -len(shape) <= axis < len(shape) else None)
    if len(extents) != 1 or None in extents:
        raise LeftError("how many slices it runs through is not known before the graph runs")
    (extent,) = extents
    if extent is None or not 1 <= extent <= MOST_ROUNDS:
        raise LeftError(f"it runs through {extent} slices, expected 1 to {MOST_ROUNDS}")
    return extent


def one_each(node: NodeProto, name: str, count: int) -> list[int]:
    """An attribute of a Scan that has a number for each of `count` tensors, 0 where it says none."""
    numbers = [int(number) for number in attribute(node, name, [0] * count)]
    if len(numbers) != count:
        raise LeftError(f"its {name} are {len(numbers)}, expected {count}")
    return numbers
