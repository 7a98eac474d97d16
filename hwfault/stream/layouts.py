"""Tensors laid out in a memory: from (tensor, word, bit) to the physical cell and back."""

import math
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.errors import ModelError, nearest
from hwfault.stream.fault_map import FaultMap

Ints = NDArray[np.int64]
_MOST_CELLS = 1 << 62


@dataclass(frozen=True)
class Stored:
    """A tensor as it is stored: one sample of a site (a weight as a whole), `bit_width` (1 to 32) bits a word.

    `channel_axis` is the axis of `shape` that counts output channels: 0 for weights and for outputs of convolutions,
    -1 for outputs of linear layers on sequences. Only processing elements ask for it. Raises ModelError for a shape
    without words or a width or axis out of range.
    """

    name: str
    shape: tuple[int, ...]
    bit_width: int
    channel_axis: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))
        if any(length < 1 for length in self.shape):
            raise ModelError(f"{self.name!r} has the shape {self.shape}, expected at least one word to lay out")
        if not 1 <= self.bit_width <= 32:
            raise ModelError(f"{self.name!r} has words of {self.bit_width} bits, expected 1 to 32")
        axes = max(len(self.shape), 1)
        if not -axes <= self.channel_axis < axes:
            raise ModelError(f"{self.name!r} of shape {self.shape} has no axis {self.channel_axis} for its channels")

    @property
    def words(self) -> int:
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Output channels N."""
        return self.shape[self.channel_axis] if self.shape else 1

    @property
    def others(self) -> tuple[int, ...]:
        """The lengths of all other axes, in order."""
        axis = self.channel_axis % max(len(self.shape), 1)
        return self.shape[:axis] + self.shape[axis + 1 :]

    def split(self, word: Ints) -> tuple[Ints, Ints]:
        """(n, m) of words: the output channel, and the number in C order along all other axes."""
        inner = self._inner
        outer, rest = np.divmod(word, inner * self.channels)
        return rest // inner, outer * inner + rest % inner

    def join(self, n: Ints, m: Ints) -> Ints:
        """The words of (n, m), the inverse of `split`."""
        outer, rest = np.divmod(m, self._inner)
        return (outer * self.channels + n) * self._inner + rest

    @property
    def _inner(self) -> int:
        axis = self.channel_axis % max(len(self.shape), 1)
        return math.prod(self.shape[axis + 1 :])


class Placement(Protocol):
    """Where one tensor lies in a run of `rows` memory rows of its own. All arrays are int64 (n,)."""

    @property
    def rows(self) -> int: ...
    def place(self, word: Ints, bit: Ints) -> tuple[Ints, Ints]:
        """(row, column) of cells of the tensor."""
        ...

    def content(self, row: Ints, column: Ints) -> tuple[Ints, Ints]:
        """(word, bit) stored there; both are -1 where the tensor stores nothing."""
        ...


class Places(NamedTuple):
    """What lies in some cells: which of the cells asked for (its index), the tensor's index, word and bit, (n,) each.

    Ascending by `asked`; a cell has no row (nothing is stored there), one, or several (a buffer that is used again).
    """

    asked: Ints
    tensor: Ints
    word: Ints
    bit: Ints


@dataclass(frozen=True, eq=False)
class Layout(ABC):
    """Tensors one behind the other in a memory whose rows hold `row_bits` cells: cell = row * row_bits + column.

    Each tensor begins on a new row. The memory comes in blocks of `block_rows` rows, as many as are needed; under
    `repeat` it has one such block, and rows run round in it. Without `block_rows` it has as many rows as are needed.
    Raises ModelError for no tensors, tensors of one name, or more than 2^62 cells.
    """

    tensors: tuple[Stored, ...]
    placements: tuple[Placement, ...]
    row_bits: int
    block_rows: int | None = None
    repeat: bool = False

    def __post_init__(self) -> None:
        if max(self.rows, self._needed_rows) * self.row_bits > _MOST_CELLS:
            raise ModelError(f"a memory of {self.rows} rows of {self.row_bits} bits, expected at most 2^62 cells")

    @property
    def rows(self) -> int:
        """Rows of the whole memory."""
        if self.block_rows is None:
            return self._needed_rows
        if self.repeat:
            return self.block_rows
        blocks = -(-self._needed_rows // self.block_rows)
        return blocks * self.block_rows

    @property
    def size(self) -> int:
        """Cells of the whole memory."""
        return self.rows * self.row_bits

    def cells(self, name: str, word: ArrayLike, bit: ArrayLike) -> Ints:
        """The cell of each (word, bit) of a tensor, int64 of their broadcast shape; -1 where the tensor has none.

        Raises ModelError for an unknown name.
        """
        at = self._index(name)
        tensor = self.tensors[at]
        w, b = np.broadcast_arrays(np.asarray(word, dtype=np.int64), np.asarray(bit, dtype=np.int64))
        inside = (w >= 0) & (w < tensor.words) & (b >= 0) & (b < tensor.bit_width)
        # cells that the tensor has not are placed as its first: a placement's formulas hold inside only
        row, column = self.placements[at].place(np.where(inside, w, 0), np.where(inside, b, 0))
        row = row + self._starts[at]
        if self.repeat:
            row = row % self.rows
        return np.where(inside, row * self.row_bits + column, -1)

    def places(self, cell: ArrayLike) -> Places:
        """Everything stored in the cells (n,), the inverse of `cells`; nothing is stored in cells outside."""
        given = np.asarray(cell, dtype=np.int64).ravel()
        index = np.flatnonzero((given >= 0) & (given < self.size))
        row, column = np.divmod(given[index], self.row_bits)
        # a buffer that is used again holds other words in every turn: its rows count on from one to the next
        turns = -(-self._needed_rows // self.rows)
        row = (row[:, None] + np.arange(turns, dtype=np.int64) * self.rows).ravel()
        index = np.repeat(index, turns)
        column = np.repeat(column, turns)
        tensor, word, bit = self._content(row, column)
        stored = word >= 0
        return Places(index[stored], tensor[stored], word[stored], bit[stored])

    def lay_over(self, device_map: FaultMap) -> dict[str, FaultMap]:
        """The faults of each tensor, by name, that a fault map of the memory causes there.

        The map's cells are numbered word * bit_width + bit; it may be larger than the memory. Time and space grow
        with the faulty cells (and how often each is used), not with the memory. Raises ModelError for a map smaller
        than the memory.
        """
        self._check_map(device_map)
        at, bit, kind = device_map.cells()
        found = self.places(at * device_map.bit_width + bit)
        kind = kind[found.asked]
        maps = {}
        for i, tensor in enumerate(self.tensors):
            mine = found.tensor == i
            cells = found.word[mine], found.bit[mine], kind[mine]
            maps[tensor.name] = FaultMap.from_cells(tensor.words, tensor.bit_width, *cells, device_map.provenance)
        return maps

    def address(self, cell: int) -> str:
        """The place of a cell as people call it; raises ModelError for a cell outside the memory."""
        if not 0 <= cell < self.size:
            raise ModelError(f"the cell {cell} lies outside a memory of {self.rows} rows of {self.row_bits} bits")
        return self._address(*divmod(cell, self.row_bits))

    @property
    def elements(self) -> tuple[int, int] | None:
        """(rows, columns) of the array of processing elements, None for a plain memory."""
        return None

    def pe_of(self, name: str, word: ArrayLike) -> Ints:
        """The processing element of each word, int64 of their shape: row * columns + column.

        Raises ModelError for an unknown name, a word outside the tensor, or a memory without processing elements.
        """
        tensor = self.tensors[self._index(name)]
        at = np.asarray(word, dtype=np.int64)
        outside = at[(at < 0) | (at >= tensor.words)]
        if outside.size:
            raise ModelError(f"the word {outside.flat[0]} lies outside {name!r} of {tensor.words} words")
        return self._pe(tensor, at)

    @abstractmethod
    def _address(self, row: int, column: int) -> str: ...

    def _pe(self, tensor: Stored, word: Ints) -> Ints:
        raise ModelError("a linear memory has no processing elements; expected a mapping onto an array of them")

    @cached_property
    def _starts(self) -> Ints:
        """The first row of each tensor, and the row behind the last."""
        return np.cumsum([0, *(placement.rows for placement in self.placements)], dtype=np.int64)

    @cached_property
    def _needed_rows(self) -> int:
        return sum(placement.rows for placement in self.placements)

    def _tensor_at(self, row: Ints) -> Ints:
        """The index of the tensor to which rows belong, rows counted on where the memory repeats."""
        return np.asarray(np.searchsorted(self._starts, row, side="right") - 1, dtype=np.int64)

    def _content(self, row: Ints, column: Ints) -> tuple[Ints, Ints, Ints]:
        """(tensor, word, bit) at rows counted on; word and bit are -1 where nothing is stored."""
        tensor = self._tensor_at(row)
        word = np.full_like(row, -1)
        bit = np.full_like(row, -1)
        for i in np.unique(tensor[row < self._needed_rows]).tolist():
            mine = np.flatnonzero(tensor == i)
            own_row = row[mine] - self._starts[i]
            word[mine], bit[mine] = self.placements[i].content(own_row, column[mine])
        return tensor, word, bit

    def _index(self, name: str) -> int:
        names = [tensor.name for tensor in self.tensors]
        if name not in names:
            raise ModelError(f"no tensor {name!r} is laid out: {nearest(name, names)}")
        return names.index(name)

    def _check_map(self, m: FaultMap) -> None:
        if m.words * m.bit_width < self.size:
            raise ModelError(
                f"the memory has {self.rows} rows of {self.row_bits} bits ({self.size} cells), but its fault map "
                f"{m.words} words of {m.bit_width} bits ({m.words * m.bit_width} cells); expected a map of the whole "
                "memory: take a larger device, fewer tensors, or a buffer that is used again (tile: repeat)"
            )


def check_tensors(tensors: Sequence[Stored]) -> tuple[Stored, ...]:
    """The tensors to lay out; raises ModelError if there are none or two have one name."""
    names = [tensor.name for tensor in tensors]
    if not names:
        raise ModelError("there is no tensor to lay out, expected at least one")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ModelError(f"two tensors are named {twice[0]!r}, expected a name for each")
    return tuple(tensors)


def divisors(number: int) -> list[int]:
    """The divisors of a number from 1, ascending."""
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    high = [number // d for d in reversed(low) if d * d != number]  # a square's root is there already
    return low + high


def nearest_divisors(number: int, wrong: int) -> str:
    """The divisors of a number on both sides of one that is none, as text."""
    known = divisors(number)
    at = bisect(known, wrong)
    near = known[max(at - 1, 0) : at + 1]
    return " or ".join(map(str, near))
