"""Branches and loops: their bodies as nodes of the main level, as often as they run, where constants say how often.

A branch whose condition is a constant, and a loop of few rounds, are so written out. Of other bodies what quantizes
constants comes to the main level: that has the same outputs in every round, and does no harm where there is none.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from hwfault.graph import ops
from hwfault.graph.ops import DOMAIN, STANDARD_DOMAINS
from hwfault.graph.read.external import walk_nodes
from hwfault.graph.read.instances import Instances, copy_body, describe_renamed
from hwfault.graph.read.lifted import lift_quantizers, take_constants
from hwfault.graph.read.qonnxgraph import attribute, replace_nodes, standard_opset
from hwfault.graph.read.rounds import Fixed, LeftError, choose_branch, count_rounds, count_slices, one_each, read_body
from hwfault.graph.read.shapes import bodies_of

_MOST_NODES = 4_000
"""The most nodes that bodies of a graph are written out to."""
_MOST_BYTES = 1 << 28
"""The most bytes that the rounds of a loop are written out to."""
_AXES_ARE_INPUTS = 13
"""The first opset whose Unsqueeze takes its axes as an input."""


class Opened(NamedTuple):
    """A graph without such bodies, a sentence for each op whose are gone, and why others are left, by node's output.

    The graph is the given one where nothing was to be done.
    """

    model: ModelProto
    changes: list[str]
    left: dict[str, str]


def open_bodies(model: ModelProto) -> Opened:
    """The graph with what its branches and loops do as nodes of the main level, where constants tell what that is.

    Loops of more than `rounds.MOST_ROUNDS` rounds, or whose rounds the graph computes, stay, and so do branches that
    the graph chooses, and bodies that would become too many nodes. What quantizes constants in these is on the main
    level afterwards.
    """
    if not any(True for node in model.graph.node for _ in bodies_of(node)):
        return Opened(model, [], {})
    writer = _Writer(model)
    writer.write()
    if not writer.done:
        return Opened(model, [], writer.left)
    return Opened(writer.out, [f"{what}, {count} times" for what, count in sorted(writer.done.items())], writer.left)


class _Writer:
    """A graph on its way to one level, node by node in the order in which they run."""

    def __init__(self, model: ModelProto) -> None:
        self.out = ModelProto()
        self.out.CopyFrom(model)
        self.done: Counter[str] = Counter()
        self.left: dict[str, str] = {}
        self._opset = standard_opset(model)
        self._fixed = Fixed(model)
        self._instances = Instances(model)
        self._numbers: dict[tuple[bytes, tuple[int, ...], str], str] = {}
        self._written = 0

    def write(self) -> None:
        """Writes everything out that can be, in place."""
        nodes: list[NodeProto] = []
        waiting = deque(self.out.graph.node)
        while waiting:
            node = waiting.popleft()
            if not any(True for _ in bodies_of(node)):
                self._fixed.note(node)
                nodes.append(node)
                continue
            try:
                made = self._write_out(node)
            except LeftError as why:
                self.left[node.output[0] if node.output else node.name] = str(why)
                nodes += self._lift(node)
                nodes.append(node)
            else:
                waiting.extendleft(reversed(made))  # which may have bodies as well
        replace_nodes(self.out, nodes)

    def _write_out(self, node: NodeProto) -> list[NodeProto]:
        """What a node with bodies stands for; raises LeftError where that is not known, or too much."""
        kind = ops.of(node.op_type).bodies if node.domain in STANDARD_DOMAINS else ""
        if kind == "branches":
            made = self._write_branch(node)
        elif kind == "rounds":
            made = self._write_rounds(node, self._read_loop(node))
        elif kind == "slices":
            made = self._write_rounds(node, self._read_scan(node))
        else:
            raise LeftError("hwfault does not know how often it runs them")
        self.done[f"what the bodies of {node.op_type} stand for, in their place"] += 1
        return made

    def _write_branch(self, node: NodeProto) -> list[NodeProto]:
        body = choose_branch(node, self._fixed)
        _check_size(body, 1, self._written)
        for branch in bodies_of(node):
            self._instances.forget(branch)
        constants = take_constants(body, self.out, self._fixed, self._instances)
        copy, outputs = self._copy(constants.rest, constants.names)
        return [*constants.nodes, *copy, *_hand_on(outputs, node.output)]

    def _write_rounds(self, node: NodeProto, run: "_Run") -> list[NodeProto]:
        """The rounds of a loop one after the other, which share what is constant in all of them."""
        _check_size(run.body, run.rounds, self._written)
        self._instances.forget(run.body)
        constants = take_constants(run.body, self.out, self._fixed, self._instances)
        made = list(constants.nodes)
        carried = run.carried
        stacks: list[list[str]] = []
        for i in range(run.rounds):
            before, given = run.give(i)
            names = constants.names | given | dict(zip(run.states, carried, strict=True))
            copy, outputs = self._copy(constants.rest, names)
            made += [*before, *copy]
            outputs = outputs[run.leading :]
            carried = outputs[: len(run.states)]
            stacks.append(outputs[len(run.states) :])
        # states are what the last round has made of them, and what each round gives beside them lies side by side
        count = len(run.states)
        made += _hand_on(carried, node.output[:count])
        for at, output in enumerate(node.output[count:]):
            if output:
                pieces = [stack[at] for stack in stacks]
                made += self._join(pieces[::-1] if run.turned[at] else pieces, output, run.axes[at])
        return made

    def _read_loop(self, node: NodeProto) -> "_Run":
        body = read_body(node, "body")
        rounds = count_rounds(node, body, self._fixed)
        number, condition, *states = body.input
        count = len(body.output) - 1 - len(states)

        def give(i: int) -> tuple[list[NodeProto], dict[str, str]]:
            at = self._hold(np.array(i, np.int64), number)
            return [], {number.name: at, condition.name: self._hold(np.array(True), condition)}

        names = [info.name for info in states]
        return _Run(body, rounds, names, list(node.input[2:]), give, 1, [0] * count, [0] * count)

    def _read_scan(self, node: NodeProto) -> "_Run":
        body = read_body(node, "body")
        rounds = count_slices(node, body, self._fixed.shapes, self._opset)
        scanned = attribute(node, "num_scan_inputs", 0)
        axes = one_each(node, "scan_input_axes", scanned)
        turned = one_each(node, "scan_input_directions", scanned)
        names = [info.name for info in body.input]
        first = len(names) - scanned

        def give(i: int) -> tuple[list[NodeProto], dict[str, str]]:
            nodes = []
            given = {}
            for at, tensor in enumerate(node.input[first:]):
                index = self._hold(np.array(rounds - 1 - i if turned[at] else i, np.int64))
                given[names[first + at]] = piece = self._instances.take(f"{tensor}.slice")
                nodes.append(helper.make_node("Gather", [tensor, index], [piece], axis=axes[at]))
            return nodes, given

        count = len(body.output) - first
        axes_out = one_each(node, "scan_output_axes", count)
        turned_out = one_each(node, "scan_output_directions", count)
        return _Run(body, rounds, names[:first], list(node.input[:first]), give, 0, axes_out, turned_out)

    def _copy(self, body: GraphProto, names: dict[str, str]) -> tuple[list[NodeProto], list[str]]:
        """A body's nodes that read what is given for its inputs, and the tensors that its outputs are."""
        copy = copy_body(body, names, self._instances)
        describe_renamed(self.out, body, copy.names)
        self._written += sum(1 for _ in walk_nodes(copy.nodes))
        return copy.nodes, [copy.names.get(info.name, info.name) for info in body.output]

    def _join(self, pieces: list[str], output: str, axis: int) -> list[NodeProto]:
        """The nodes that put tensors side by side along a new axis."""
        parts = [self._instances.take(f"{output}.part") for _ in pieces]
        if self._opset < _AXES_ARE_INPUTS:
            made = [
                helper.make_node("Unsqueeze", [piece], [part], axes=[axis])
                for piece, part in zip(pieces, parts, strict=True)
            ]
        else:
            along = self._hold(np.array([axis], np.int64))
            made = [
                helper.make_node("Unsqueeze", [piece, along], [part]) for piece, part in zip(pieces, parts, strict=True)
            ]
        return [*made, helper.make_node("Concat", parts, [output], axis=axis)]

    def _hold(self, value: NDArray[Any], like: ValueInfoProto | None = None) -> str:
        """The name of a number as an initializer, which lies as an input of a body wants it: alone or in a list."""
        if like is not None and len(like.type.tensor_type.shape.dim) == 1:
            value = value.reshape(1)
        key = (value.tobytes(), value.shape, str(value.dtype))
        if key not in self._numbers:
            name = self._numbers[key] = self._instances.take(f"{DOMAIN}_number")
            tensor = numpy_helper.from_array(value, name)
            self.out.graph.initializer.append(tensor)
            self._fixed.hold(tensor)
        return self._numbers[key]

    def _lift(self, node: NodeProto) -> list[NodeProto]:
        """What quantizes constants in the bodies of a node that stays, which then read it of the main level."""
        lifted = lift_quantizers(node, self.out, self._fixed, self._instances)
        if lifted:
            self.done[f"what quantizes constants in the bodies of {node.op_type}, before it"] += 1
        return lifted


class _Run(NamedTuple):
    """How the body of a loop runs.

    `states` are the inputs of the body that a round hands on to the next, and `carried` the tensors that the first one
    is given for them; `give` are nodes, and the tensors that the others are in a round. Of its outputs the `leading`
    ones are of no concern, the states follow, and then what is put side by side along `axes`, the last one first where
    it is `turned`.
    """

    body: GraphProto
    rounds: int
    states: list[str]
    carried: list[str]
    give: Callable[[int], tuple[list[NodeProto], dict[str, str]]]
    leading: int
    axes: list[int]
    turned: list[int]


def _check_size(body: GraphProto, rounds: int, written: int) -> None:
    """Raises LeftError for a body that would be written out to too many nodes, or bytes."""
    nodes = sum(1 for _ in walk_nodes(body.node))
    if written + rounds * nodes > _MOST_NODES:
        raise LeftError(f"it stands for more than {_MOST_NODES} nodes")
    shared = sum(tensor.ByteSize() for tensor in body.initializer)
    if (rounds - 1) * (body.ByteSize() - shared) > _MOST_BYTES:
        raise LeftError(f"it stands for more than {_MOST_BYTES} bytes")


def _hand_on(tensors: Sequence[str], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes that give tensors the names that others know."""
    pairs = zip(tensors, outputs, strict=False)
    return [helper.make_node("Identity", [tensor], [output]) for tensor, output in pairs if output]
