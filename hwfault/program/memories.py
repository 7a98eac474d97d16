"""What is one memory: when the words that several quantizers make of one parameter are the same ones."""

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Reading(NamedTuple):
    """How one quantizer reads a parameter; `scale` and `zero_point` are None where they are not known.

    `parameter` is equal for readings of one parameter, `grid` whatever else must be equal (bit width, signedness, ...).
    """

    name: str
    parameter: Hashable
    grid: Hashable
    scale: NDArray[Any] | None
    zero_point: NDArray[Any] | None


class Memories(NamedTuple):
    """`first` is the name of the memory of each reading that is not the first of its own; `notes` are by name.

    `open` are the names of those that may be one memory with others, as their scales are not known.
    """

    first: dict[str, str]
    notes: dict[str, str]
    open: frozenset[str]

    def aliases(self, name: str) -> tuple[str, ...] | None:
        """The other names of a memory, None where it has none."""
        return tuple(alias for alias, first in self.first.items() if first == name) or None


def one_memory(one: Reading, other: Reading) -> bool | None:
    """Whether two readings are of the same words; None where that cannot be told, as a scale is not known."""
    if (one.parameter, one.grid) != (other.parameter, other.grid):
        return False
    if one.scale is None or other.scale is None or one.zero_point is None or other.zero_point is None:
        return None
    return np.array_equal(one.scale, other.scale) and np.array_equal(one.zero_point, other.zero_point)


def memories(readings: Iterable[Reading]) -> Memories:
    """The memories of a network's parameters, by the names of their readings, in the network's order.

    Readings whose scales are not known are memories of their own, which a note says.
    """
    parameters: dict[Hashable, list[Reading]] = {}
    for reading in readings:
        parameters.setdefault(reading.parameter, []).append(reading)
    first: dict[str, str] = {}
    notes: dict[str, str] = {}
    undecided: set[str] = set()
    for group in parameters.values():
        own: list[Reading] = []
        for reading in group:
            same = next((held for held in own if one_memory(held, reading)), None)
            if same is not None:
                first[reading.name] = same.name
                continue
            unsure = [held for held in own if one_memory(held, reading) is None]
            undecided.update(held.name for held in (*unsure, reading) if unsure)
            own.append(reading)
        if len(own) > 1:
            _note(own, undecided, notes)
    return Memories(first, notes, frozenset(undecided))


def _note(own: list[Reading], undecided: set[str], notes: dict[str, str]) -> None:
    for reading in own:
        others = ", ".join(repr(held.name) for held in own if held is not reading)
        if reading.name in undecided:
            notes[reading.name] = (
                f"its parameter is read by {others}, too, with a scale that only a forward shows: whether they are one "
                "memory is known with an example of the inputs"
            )
        else:
            notes[reading.name] = (
                f"its parameter is read as other integers by {others}: each is a memory with faults of its own"
            )
