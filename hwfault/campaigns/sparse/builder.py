"""Puts a network's nodes together, and lets what happens to single values ride on the node before it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.campaigns.sparse.description import ELEMENTWISE, LAYER, MOVE, Axis, Node, Step


class Value(NamedTuple):
    """A tensor of the network as one of the graph's: its shape, with a batch of one, and whether it is read once.

    `last` says that its channels are the graph's last axis: here they lie in front of all others.
    """

    tensor: int
    shape: tuple[int, ...]
    alone: bool
    last: bool = False

    @property
    def lying(self) -> tuple[int, ...]:
        """The shape in which it lies."""
        return (self.shape[0], self.shape[-1], *self.shape[1:-1]) if self.last else self.shape

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


class Builder:
    """Nodes, constants and weights, growing."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._constants: list[NDArray[np.float32]] = []
        self._places: dict[bytes, int] = {}
        self._count = 0
        self._weights: list[NDArray[np.int16]] = []
        self._words = 0
        self._turned: dict[tuple[int, bool], Value] = {}

    @property
    def constants(self) -> NDArray[np.float32]:
        return np.concatenate([np.empty(0, np.float32), *self._constants])

    @property
    def weights(self) -> NDArray[np.int16]:
        return np.concatenate([np.empty(0, np.int16), *self._weights])

    def _place(self, numbers: NDArray[np.float32]) -> int:
        """Where numbers lie among the constants; the same ones lie there once."""
        key = numbers.tobytes()
        if key not in self._places:
            self._places[key] = self._count
            self._constants.append(numbers)
            self._count += numbers.size
        return self._places[key]

    def add(
        self,
        kind: int,
        inputs: Sequence[Value],
        shape: tuple[int, ...],
        name: str,
        numbers: list[int],
        *,
        last: bool = False,
    ) -> Value:
        """A new node whose output has this shape; with `last` it lies as `Value` says."""
        made = Value(len(self.nodes) + 1, shape, alone=True, last=last)
        channels, positions = _view(made.lying)
        tensors = tuple(value.tensor for value in inputs)
        self.nodes.append(Node(kind, tensors, channels, positions, name, numbers))
        return made

    def layer(
        self,
        value: Value,
        weights: NDArray[np.int64],
        largest: int,
        groups: int,
        axes: Sequence[Axis],
        shape: tuple[int, ...],
        name: str,
        *,
        last: bool = False,
    ) -> Value:
        """A layer; weights are (channels, depth, kernel...), `largest` the magnitude of any code of theirs."""
        numbers = [groups, weights.shape[1], largest, self._words, len(axes)]
        for axis in axes:
            numbers.extend(axis)
        self._weights.append(weights.astype(np.int16).reshape(-1))
        self._words += weights.size
        return self.add(LAYER, [value], shape, name, numbers, last=last)

    def move(self, values: Sequence[Value], table: NDArray[np.int64], name: str) -> Value:
        """The values that the table names, counted through all inputs; -1 is zero. Its shape is the table's."""
        return self.add(MOVE, values, table.shape, name, table.reshape(-1).tolist())

    def turned(self, value: Value, *, last: bool) -> Value:
        """The same values with their channels in front, or back where they were; moved once for all who ask."""
        if value.last == last or len(value.shape) < 3:
            return value._replace(last=last and len(value.shape) > 2)
        key = (value.tensor, last)
        if key not in self._turned:
            numbers = np.arange(value.size).reshape(value.lying)
            table = np.moveaxis(numbers, -1, 1) if last else np.moveaxis(numbers, 1, -1)
            moved = self.move([value], table, f"{self.nodes[value.tensor - 1].name}" if value.tensor else "input")
            self._turned[key] = moved._replace(shape=value.shape, last=last, alone=value.alone)
        return self._turned[key]

    def step(
        self,
        value: Value,
        kind: int,
        constants: Sequence[ArrayLike],
        name: str,
        *,
        least: int = 0,
        most: int = 0,
        rounding: int = 0,
    ) -> Value:
        """What a step makes of each value; its constants broadcast to the value's shape (ValueError if they do not)."""
        channels, positions = _view(value.lying)
        spread = [np.broadcast_to(np.asarray(n, np.float32), value.shape) for n in constants]
        if value.last:
            spread = [np.moveaxis(numbers, -1, 1) for numbers in spread]
        spread = [numbers.reshape(channels, -1) for numbers in spread]
        if all(np.all(numbers == numbers.flat[0]) for numbers in spread):
            each = False
            flat = [numbers.reshape(-1)[:1] for numbers in spread]
        elif all(np.all(numbers == numbers[:, :1]) for numbers in spread):
            each = True
            flat = [numbers[:, 0] for numbers in spread]
        else:  # every value has numbers of its own
            each = True
            channels, positions = value.size, 1
            flat = [numbers.reshape(-1) for numbers in spread]
        at = self._place(np.concatenate(flat)) if flat else 0
        step = Step(kind, each, at, least, most, rounding)

        node = self.nodes[value.tensor - 1] if value.tensor and value.alone else None
        if node is None or (each and (node.channels, node.positions) != (channels, positions)):
            value = self.add(ELEMENTWISE, [value], value.shape, name, [], last=value.last)
            node = self.nodes[-1]
            node.channels, node.positions = channels, positions
        node.steps.append(step)
        return value._replace(alone=True)


def _view(shape: tuple[int, ...]) -> tuple[int, int]:
    """The channels and positions of a tensor with a batch of one."""
    channels = shape[1] if len(shape) > 1 else 1
    return channels, int(np.prod(shape[2:]))
