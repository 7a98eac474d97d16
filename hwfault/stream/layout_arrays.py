"""Weights and outputs in arrays of processing elements: FINN matrix-vector units and systolic arrays."""

import math
from dataclasses import dataclass

import numpy as np

from hwfault.errors import ModelError
from hwfault.stream.layouts import Ints, Layout, Stored, nearest_divisors


def check_weight(tensor: Stored, hardware: str) -> None:
    """Raises ModelError unless a tensor has the two or more axes of a weight."""
    if len(tensor.shape) < 2:
        raise ModelError(
            f"{hardware} stores weights with an axis of outputs and one or more of inputs, but {tensor.name!r} has the "
            f"shape {tensor.shape}; select weights only (sites: {{kind: weight}})"
        )


def check_folding(tensor: Stored, pe: int, simd: int) -> None:
    """Raises ModelError unless PE divides the output channels of a weight, and SIMD its inputs (taps * channels)."""
    check_weight(tensor, "a FINN matrix-vector unit")
    whole = (("pe", pe, tensor.channels, "output channels"), ("simd", simd, math.prod(tensor.others), "inputs"))
    for key, number, length, what in whole:
        if length % number:
            raise ModelError(
                f"{key}: {number} does not divide the {length} {what} of {tensor.name!r}; the nearest divisors: "
                f"{nearest_divisors(length, number)}"
            )


def fold_input(k: Ints, others: tuple[int, ...]) -> Ints:
    """FINN's number of a weight's input: from k in C order of (Ci, kernel) to C order of (kernel, Ci)."""
    taps = math.prod(others[1:])
    channel, tap = np.divmod(k, taps)
    return tap * others[0] + channel


def unfold_input(position: Ints, others: tuple[int, ...]) -> Ints:
    """The inverse of `fold_input`."""
    tap, channel = np.divmod(position, others[0])
    return channel * math.prod(others[1:]) + tap


@dataclass(frozen=True)
class Unit:
    """A weight in the memories of a FINN matrix-vector unit: PE after PE, WMEM rows of SIMD lanes each.

    Output channel n lies in PE n mod PE, input p (in FINN's order) on lane p mod SIMD, at address
    (n div PE) * (inputs / SIMD) + p div SIMD; lane 0 takes the lowest columns.
    Source: qonnx `interleave_matrix_outer_dim_from_partitions`, FINN `get_hw_compatible_weight_tensor`.
    """

    tensor: Stored
    pe: int
    simd: int

    @property
    def folds(self) -> int:
        """Addresses that one output channel takes."""
        return math.prod(self.tensor.others) // self.simd

    @property
    def depth(self) -> int:
        """Rows of one PE's memory, WMEM."""
        return self.tensor.channels // self.pe * self.folds

    @property
    def rows(self) -> int:
        return self.pe * self.depth

    def place(self, word: Ints, bit: Ints) -> tuple[Ints, Ints]:
        n, k = self.tensor.split(word)
        outer, pe = np.divmod(n, self.pe)
        fold, lane = np.divmod(fold_input(k, self.tensor.others), self.simd)
        address = outer * self.folds + fold
        row = pe * self.depth + address
        column = lane * self.tensor.bit_width + bit
        return row, column

    def content(self, row: Ints, column: Ints) -> tuple[Ints, Ints]:
        pe, address = np.divmod(row, self.depth)
        outer, fold = np.divmod(address, self.folds)
        lane, bit = np.divmod(column, self.tensor.bit_width)
        # the memory is as wide as its widest tensor needs: a narrower one leaves columns behind its last lane
        stored = lane < self.simd
        position = fold * self.simd + np.where(stored, lane, 0)
        k = unfold_input(position, self.tensor.others)
        word = self.tensor.join(outer * self.pe + pe, k)
        return np.where(stored, word, -1), np.where(stored, bit, -1)


@dataclass(frozen=True, eq=False)
class UnitLayout(Layout):
    """Weights in FINN matrix-vector units, a unit for each."""

    pe: int = 1
    simd: int = 1

    @property
    def elements(self) -> tuple[int, int]:
        return 1, self.pe

    def _pe(self, tensor: Stored, word: Ints) -> Ints:
        n, _ = tensor.split(word)
        return n % self.pe

    def _address(self, row: int, column: int) -> str:
        at = int(self._tensor_at(np.array([row]))[0])
        tensor = self.tensors[at]
        unit = Unit(tensor, self.pe, self.simd)
        pe, address = divmod(row - int(self._starts[at]), unit.depth)
        lane, bit = divmod(column, tensor.bit_width)
        inner = f"lane {lane}, bit {bit}"
        if lane >= self.simd:
            inner = f"column {column}, not used"
        where = f"PE {pe}, address {address}, {inner}"
        # every unit has a PE 0: with several weights its name says which one
        return f"{tensor.name}: {where}" if len(self.tensors) > 1 else where


@dataclass(frozen=True)
class Tiles:
    """A matrix (m, n) in tiles of R x C registers of `width` bits: element (m mod R, n mod C) of its tile.

    Tile (n div C) * ceil(M / R) + m div R takes R rows; n is the output channel, m the number along all other axes.
    """

    tensor: Stored
    array: tuple[int, int]
    width: int

    @property
    def _down(self) -> int:
        """Tiles from the matrix's top to its bottom, ceil(M / R)."""
        return -(-math.prod(self.tensor.others) // self.array[0])

    @property
    def _across(self) -> int:
        """Tiles from its left to its right, ceil(N / C)."""
        return -(-self.tensor.channels // self.array[1])

    @property
    def rows(self) -> int:
        return self._across * self._down * self.array[0]

    def place(self, word: Ints, bit: Ints) -> tuple[Ints, Ints]:
        n, m = self.tensor.split(word)
        right, c = np.divmod(n, self.array[1])
        down, r = np.divmod(m, self.array[0])
        tile = right * self._down + down
        row = tile * self.array[0] + r
        column = c * self.width + bit
        return row, column

    def content(self, row: Ints, column: Ints) -> tuple[Ints, Ints]:
        tile, r = np.divmod(row, self.array[0])
        right, down = np.divmod(tile, self._down)
        c, bit = np.divmod(column, self.width)
        n = right * self.array[1] + c
        m = down * self.array[0] + r
        # tiles at the matrix's edges are not full, and registers have the width of the widest tensor
        inside = (n < self.tensor.channels) & (m < math.prod(self.tensor.others))
        stored = inside & (bit < self.tensor.bit_width)
        return np.where(stored, self.tensor.join(n, m), -1), np.where(stored, bit, -1)


@dataclass(frozen=True, eq=False)
class ArrayLayout(Layout):
    """Matrices in the registers of a systolic array of `array` = (R, C) elements, or tile after tile before it."""

    array: tuple[int, int] = (1, 1)

    @property
    def elements(self) -> tuple[int, int]:
        return self.array

    def _pe(self, tensor: Stored, word: Ints) -> Ints:
        rows, columns = self.array
        n, m = tensor.split(word)
        return m % rows * columns + n % columns

    def _address(self, row: int, column: int) -> str:
        rows, columns = self.array
        tile, r = divmod(row, rows)
        c, bit = divmod(column, self.row_bits // columns)
        if self.repeat:
            return f"PE ({r}, {c}), bit {bit}"  # all tiles lie in these registers
        return f"PE ({r}, {c}), tile {tile}, bit {bit}"
