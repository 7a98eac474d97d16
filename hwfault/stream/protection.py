"""Protected memories in NumPy: the specification in code, slow on purpose (fault-stream specification).

A memory word has D data bits and C check bits, together n cells. Arrays of bits are uint8, (memory words, bits), lowest
first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import Codes
from hwfault.errors import ModelError, nearest
from hwfault.stream import reference
from hwfault.stream.tables import ALWAYS, accepts, encode_table

Kind = Literal["parity", "secded", "tmr"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Bits = NDArray[np.uint8]
Words = NDArray[np.int64]

MOST_BITS = 64
_MOST_SUB_WORDS = 1 << 36


def hamming_check_bits(data_bits: int) -> int:
    """The check bits of a Hamming code, without the overall parity: the smallest r with 2^r >= data_bits + r + 1."""
    return next(r for r in range(2, 8) if 1 << r >= data_bits + r + 1)


@dataclass(frozen=True)
class Memory:
    """A protected memory whose words hold `data_bits` (1 to 64) data bits; code words take a slot of `slot` bits each.

    `due` leaves the data of a detected word as they are read; otherwise they become 0. Raises ModelError for an unknown
    kind and for numbers out of range.
    """

    kind: Kind
    data_bits: int
    slot: int
    due: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ModelError(f"unknown protection {self.kind!r}: {nearest(str(self.kind), KINDS)}")
        for what, value in (("data_bits", self.data_bits), ("slot", self.slot)):
            if not 1 <= value <= MOST_BITS:
                raise ModelError(f"a protected memory's {what} is {value}, expected 1 to {MOST_BITS}")

    @property
    def check_bits(self) -> int:
        """Check bits of a memory word."""
        return {"parity": 1, "secded": hamming_check_bits(self.data_bits) + 1, "tmr": 2 * self.data_bits}[self.kind]

    @property
    def cells(self) -> int:
        """Cells of a memory word, data and check bits."""
        return self.data_bits + self.check_bits

    @property
    def sub_words(self) -> int:
        """How many sub-words a memory word takes: the power of two of 32 bits each that holds its cells."""
        return 1 << (-(-self.cells // 32) - 1).bit_length()

    @property
    def sub_word_bits(self) -> int:
        """Bits of a sub-word, the width of the fault program and of fault maps."""
        return min(self.cells, 32)

    def words(self, code_words: int) -> int:
        """Memory words of a sample of `code_words`; raises ModelError if they have more than 2^36 sub-words."""
        words = -(-code_words * self.slot // self.data_bits)
        if words * self.sub_words > _MOST_SUB_WORDS:
            raise ModelError(f"a memory of {words} words of {self.cells} cells, expected at most 2^36 sub-words")
        return words

    def sub_word_of(self, word: Words, cell: Words) -> tuple[Words, Words]:
        """(sub-word, bit) of cells of memory words."""
        return word * self.sub_words + cell // 32, cell % 32

    def program(self, site: int, p01: float, p10: float) -> tuple[int, ...]:
        """The fault program of one bit process on every cell: 0 reads 1 with p01, and 1 reads 0 with p10.

        Raises ModelError for probabilities that cannot be drawn.
        """
        h, accept01, accept10 = accepts(p01, p10)
        body = (accept01, accept10, *encode_table(h)) * self.sub_word_bits
        return (0, site, len(body), *body)


@dataclass(frozen=True)
class MapRows:
    """A fault map's rows of sub-words, and the activity of their cells: `threshold` 2^32 is always.

    Raises ModelError for rows of unequal lengths.
    """

    word: Words
    and_mask: Codes
    xor_mask: Codes
    threshold: int = ALWAYS
    site: int = 0

    def __post_init__(self) -> None:
        for name, dtype in (("word", np.int64), ("and_mask", np.uint32), ("xor_mask", np.uint32)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        if self.word.ndim != 1 or not self.word.shape == self.and_mask.shape == self.xor_mask.shape:
            shapes = self.word.shape, self.and_mask.shape, self.xor_mask.shape
            raise ModelError(f"word, and_mask and xor_mask have the shapes {shapes}, expected one length")


NO_MAP = MapRows(np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.uint32))


@dataclass(frozen=True)
class Layout:
    """Which memory word each row stands for (rows,), ascending, and the cells (rows, data_bits) that it holds.

    A cell is 32 word + bit of the sample's code words, listed at most once; -1 is a bit that stores 0. A memory word
    may come again, with other contents. Raises ModelError unless there is a number for each row of cells.
    """

    number: Words
    cells: Words

    def __post_init__(self) -> None:
        for name in ("number", "cells"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.int64))
        if self.number.ndim != 1 or self.cells.ndim != 2 or len(self.number) != len(self.cells):
            raise ModelError(
                f"numbers of shape {self.number.shape} for cells of shape {self.cells.shape}, expected rows"
            )


def linear_layout(memory: Memory, code_words: int, bit_width: int) -> Layout:
    """The layout of `code_words` slots one behind the other in one string of bits."""
    words = memory.words(code_words)
    word, bit = np.divmod(np.arange(words * memory.data_bits), memory.slot)
    cells = np.where((word < code_words) & (bit < bit_width), word * 32 + bit, -1)
    return Layout(np.arange(words), cells.reshape(words, memory.data_bits))


@cache
def code_positions(data_bits: int) -> Words:
    """The positions of a SECDED word's data bits, then of its Hamming check bits; the overall parity has none."""
    checks = 1 << np.arange(hamming_check_bits(data_bits))
    every = np.arange(1, data_bits + len(checks) + 1)
    return np.concatenate([np.setdiff1d(every, checks), checks])


def _syndrome(cells: Bits, data_bits: int) -> Words:
    """The XOR of the positions of all ones; cells past the positions are left out."""
    # of a word that is being stored only the data bits are there, whose positions come first
    positions = code_positions(data_bits)
    ones = cells[:, : len(positions)] * positions[: cells.shape[1]]
    return np.asarray(np.bitwise_xor.reduce(ones, axis=1, initial=0))


def _parity(cells: Bits) -> Bits:
    return np.asarray(np.bitwise_xor.reduce(cells, axis=1, keepdims=True))


def store(memory: Memory, data: Bits) -> Bits:
    """The cells (memory words, n) that hold data bits (memory words, D)."""
    if memory.kind == "parity":
        return np.hstack([data, _parity(data)])
    if memory.kind == "tmr":
        return np.hstack([data] * 3)
    # check bits stand at powers of two: the bits of the data's syndrome, which they bring to 0
    syndrome = _syndrome(data, memory.data_bits)
    checks = syndrome[:, None] >> np.arange(memory.check_bits - 1) & 1
    cells = np.hstack([data, checks.astype(np.uint8)])
    return np.hstack([cells, _parity(cells)])


CLEAN, CORRECTED, DETECTED = 0, 1, 2


def read(memory: Memory, cells: Bits) -> tuple[Bits, Bits]:
    """The data bits (memory words, D) that the decoder reads, and its verdicts: CLEAN, CORRECTED or DETECTED."""
    data = cells[:, : memory.data_bits]
    if memory.kind == "parity":
        return data, _parity(cells)[:, 0] * np.uint8(DETECTED)
    if memory.kind == "tmr":
        votes = cells.reshape(len(cells), 3, memory.data_bits).sum(axis=1)
        disagree = ((votes == 1) | (votes == 2)).any(axis=1)
        return (votes >= 2).astype(np.uint8), np.where(disagree, CORRECTED, CLEAN).astype(np.uint8)
    syndrome = _syndrome(cells, memory.data_bits)
    odd = _parity(cells)[:, 0] == 1
    # an odd number of wrong cells is taken for one, at the position that the syndrome names (0: the overall parity)
    corrected = odd & (syndrome < memory.cells)
    detected = ~corrected & (odd | (syndrome > 0))
    positions = code_positions(memory.data_bits)[: memory.data_bits]
    wrong = (syndrome[:, None] == positions) & odd[:, None]
    verdict = np.zeros(len(cells), np.uint8)  # CLEAN
    verdict[corrected] = CORRECTED
    verdict[detected] = DETECTED
    return data ^ wrong, verdict


def to_sub_words(memory: Memory, cells: Bits) -> Codes:
    """Cells (memory words, n) as sub-words (memory words, S)."""
    width = memory.sub_word_bits
    unused = memory.sub_words * width - memory.cells
    padded = np.pad(cells, ((0, 0), (0, unused)))
    bits = padded.reshape(len(cells), memory.sub_words, width).astype(np.uint32)
    return np.asarray(np.bitwise_or.reduce(bits << np.arange(width, dtype=np.uint32), axis=2))


def from_sub_words(memory: Memory, sub_words: Codes) -> Bits:
    """The cells (memory words, n) of sub-words (memory words, S)."""
    width = memory.sub_word_bits
    bits = sub_words[:, :, None] >> np.arange(width, dtype=np.uint32) & 1
    flat = bits.reshape(len(sub_words), memory.sub_words * width)
    return flat[:, : memory.cells].astype(np.uint8)


def _active_masks(rows: MapRows, seed: int, period: int) -> tuple[Codes, Codes]:
    """and_mask and xor_mask of every row, as much of them as is active in a period."""
    if rows.threshold >= ALWAYS:
        return rows.and_mask, rows.xor_mask
    word = np.repeat(rows.word, 32)
    bit = np.tile(np.arange(32), len(rows.word))
    drawn = reference.activity(seed=seed, site=rows.site, period=period, word=word, bit=bit)
    active = (drawn < rows.threshold).astype(np.uint32).reshape(-1, 32)
    cells = np.bitwise_or.reduce(active << np.arange(32, dtype=np.uint32), axis=1)
    # an inactive cell works: and 1, xor 0
    return rows.and_mask | ~cells, rows.xor_mask & cells


def _strike_map(memory: Memory, sub_words: Codes, number: Words, rows: MapRows, seed: int, period: int) -> Codes:
    """The sub-words (memory words, S) after a map; `number` says which memory words they are."""
    if not len(rows.word):
        return sub_words
    and_mask, xor_mask = _active_masks(rows, seed, period)
    name = number[:, None] * memory.sub_words + np.arange(memory.sub_words)
    # rows ascend, and most sub-words have none: the row found is theirs only if it bears their name
    row = np.minimum(np.searchsorted(rows.word, name), len(rows.word) - 1)
    faulty = (sub_words & and_mask[row]) ^ xor_mask[row]
    return np.where(rows.word[row] == name, faulty, sub_words)


def held_data(where: Layout, codes: Codes) -> Bits:
    """The data bits (memory words, D) that codes (words,) fill."""
    if not codes.size:
        return np.zeros(where.cells.shape, np.uint8)
    held = where.cells >= 0
    word = np.where(held, where.cells >> 5, 0)
    bit = (where.cells & 31).astype(np.uint32)
    stored = np.where(held, codes[word] >> bit, 0)
    return (stored & 1).astype(np.uint8)


def inverted(where: Layout, codes: Codes, wrong: Bits) -> Codes:
    """The codes (words,) with the data bits (memory words, D) inverted that are wrong."""
    cells = where.cells[where.cells >= 0]
    bits = wrong[where.cells >= 0].astype(np.uint32) << (cells & 31).astype(np.uint32)
    out = codes.copy()
    # `at`, as one code word may take bits from several data bits: out[...] ^= would keep the last of them only
    np.bitwise_xor.at(out, cells >> 5, bits)
    return out


def protect_codes(
    codes: Codes,
    memory: Memory,
    *,
    bit_width: int,
    program: Sequence[int] = (),
    seed: int = 0,
    sample: int = 0,
    rows: MapRows = NO_MAP,
    period: int = 0,
    layout: Layout | None = None,
) -> tuple[Codes, Words]:
    """The codes of one sample after the faults of its memory, and (corrected, detected, miscorrected) memory words.

    `program` has the width `memory.sub_word_bits`; `layout` is a table for a map alone, None the linear layout.
    """
    where = linear_layout(memory, codes.size, bit_width) if layout is None else layout
    data = held_data(where, codes)
    sub_words = to_sub_words(memory, store(memory, data))
    draw = {"seed": seed, "sample": sample, "bit_width": memory.sub_word_bits}
    struck = reference.inject_codes(sub_words.ravel(), program=program, **draw).reshape(sub_words.shape)
    struck = _strike_map(memory, struck, where.number, rows, seed, period)
    after, verdict = read(memory, from_sub_words(memory, struck))
    if not memory.due:
        after = np.where(verdict[:, None] == DETECTED, 0, after).astype(np.uint8)
    # codes are changed where data are, so that bits of theirs that no memory word holds stay as they are
    struck_codes = inverted(where, codes, data ^ after)
    wrong = (data != after).any(axis=1)
    return struck_codes, _counts(verdict, wrong)


def _counts(verdict: Bits, wrong: NDArray[np.bool_]) -> Words:
    """(corrected, detected, miscorrected) memory words, by the decoder's verdict and whether their data are wrong."""
    detected = verdict == DETECTED
    corrected = (verdict == CORRECTED) & ~wrong
    missed = wrong & ~detected
    return np.array([corrected.sum(), detected.sum(), missed.sum()], dtype=np.int64)
