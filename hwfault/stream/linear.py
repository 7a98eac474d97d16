"""A linear memory: words one behind the other as a run of bits, cut into rows."""

from dataclasses import dataclass

import numpy as np

from hwfault.stream.layouts import Ints, Layout


@dataclass(frozen=True)
class Run:
    """A tensor of `words` words of `bit_width` bits as one run of bits through rows of `row_bits` columns.

    Each word takes a slot of `slot` >= bit_width bits; the highest bit comes first if `msb_first`. Within a row the
    run's bits are dealt out over the columns in `interleave` parts, a divisor of row_bits.
    """

    words: int
    bit_width: int
    slot: int
    row_bits: int
    msb_first: bool
    interleave: int

    @property
    def rows(self) -> int:
        return -(-self.words * self.slot // self.row_bits)

    def place(self, word: Ints, bit: Ints) -> tuple[Ints, Ints]:
        run_bit = word * self.slot + self._turn(bit)
        row, logical = np.divmod(run_bit, self.row_bits)
        # bits that follow each other in the run lie `interleave` columns apart
        part, step = np.divmod(logical, self.row_bits // self.interleave)
        column = step * self.interleave + part
        return row, column

    def content(self, row: Ints, column: Ints) -> tuple[Ints, Ints]:
        step, part = np.divmod(column, self.interleave)
        logical = part * (self.row_bits // self.interleave) + step
        run_bit = row * self.row_bits + logical
        word, place = np.divmod(run_bit, self.slot)
        bit = self._turn(place)
        # neither the gaps of padded slots nor what is left of the last row store anything
        stored = (word < self.words) & (bit < self.bit_width)
        return np.where(stored, word, -1), np.where(stored, bit, -1)

    def _turn(self, bit: Ints) -> Ints:
        """From the number of a bit to its place in the slot, and back."""
        if self.msb_first:
            return self.slot - 1 - bit
        return bit


@dataclass(frozen=True, eq=False)
class LinearLayout(Layout):
    """Tensors in a linear memory."""

    def _address(self, row: int, column: int) -> str:
        inner = f"bit {column} of {self.row_bits}"
        if self.block_rows is None or self.repeat:
            return f"row {row}, {inner}"
        return f"block {row // self.block_rows}, row {row % self.block_rows}, {inner}"
