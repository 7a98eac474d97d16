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


def folded(k: Ints, others: tuple[int, ...]) -> Ints:
    """FINN's number of a weight's input: from k in C order of (Ci, kernel) to C order of (kernel, Ci)."""
    taps = math.prod(others[1:])
    channel, tap = np.divmod(k, taps)
    return tap * others[0] + channel


def unfolded(position: Ints, others: tuple[int, ...]) -> Ints:
    """The inverse of `folded`."""
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
        fold, lane = np.divmod(folded(k, self.tensor.others), self.simd)
        address = n // self.pe * self.folds + fold
        return n % self.pe * self.depth + address, lane * self.tensor.bit_width + bit

    def content(self, row: Ints, column: Ints) -> tuple[Ints, Ints]:
        pe, address = np.divmod(row, self.depth)
        lane, bit = np.divmod(column, self.tensor.bit_width)
        outer, fold = np.divmod(address, self.folds)
        stored = lane < self.simd
        k = unfolded(fold * self.simd + np.where(stored, lane, 0), self.tensor.others)
        return np.where(stored, self.tensor.join(outer * self.pe + pe, k), -1), np.where(stored, bit, -1)


@dataclass(frozen=True, eq=False)
class UnitLayout(Layout):
    """Weights in FINN matrix-vector units, a unit for each."""

    pe: int = 1
    simd: int = 1

    @property
    def elements(self) -> tuple[int, int]:
        return 1, self.pe

    def _pe(self, tensor: Stored, word: Ints) -> Ints:
        return tensor.split(word)[0] % self.pe

    def _address(self, row: int, column: int) -> str:
        at = int(self._tensor_at(np.array([row]))[0])
        tensor, unit = self.tensors[at], Unit(self.tensors[at], self.pe, self.simd)
        pe, address = divmod(row - int(self._starts[at]), unit.depth)
        lane, bit = divmod(column, tensor.bit_width)
        inner = f"lane {lane}, bit {bit}" if lane < self.simd else f"column {column}, not used"
        prefix = f"{tensor.name}: " if len(self.tensors) > 1 else ""
        return f"{prefix}PE {pe}, address {address}, {inner}"


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
        return -(-math.prod(self.tensor.others) // self.array[0])

    @property
    def rows(self) -> int:
        return self._down * -(-self.tensor.channels // self.array[1]) * self.array[0]

    def place(self, word: Ints, bit: Ints) -> tuple[Ints, Ints]:
        n, m = self.tensor.split(word)
        tile = n // self.array[1] * self._down + m // self.array[0]
        return tile * self.array[0] + m % self.array[0], n % self.array[1] * self.width + bit

    def content(self, row: Ints, column: Ints) -> tuple[Ints, Ints]:
        tile, r = np.divmod(row, self.array[0])
        c, bit = np.divmod(column, self.width)
        right, down = np.divmod(tile, self._down)
        n, m = right * self.array[1] + c, down * self.array[0] + r
        stored = (n < self.tensor.channels) & (m < math.prod(self.tensor.others)) & (bit < self.tensor.bit_width)
        return np.where(stored, self.tensor.join(n, m), -1), np.where(stored, bit, -1)


@dataclass(frozen=True, eq=False)
class ArrayLayout(Layout):
    """Matrices in the registers of a systolic array of `array` = (R, C) elements, or tile after tile before it."""

    array: tuple[int, int] = (1, 1)

    @property
    def elements(self) -> tuple[int, int]:
        return self.array

    def _pe(self, tensor: Stored, word: Ints) -> Ints:
        n, m = tensor.split(word)
        return m % self.array[0] * self.array[1] + n % self.array[1]

    def _address(self, row: int, column: int) -> str:
        tile, r = divmod(row, self.array[0])
        c, bit = divmod(column, self.row_bits // self.array[1])
        return f"PE ({r}, {c}), {'' if self.repeat else f'tile {tile}, '}bit {bit}"
