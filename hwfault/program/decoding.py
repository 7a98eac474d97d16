"""What the decoder of a protected memory makes of the cells that are hit there, for codes that are stored."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import Codes
from hwfault.program.draws import Draws, Ints
from hwfault.stream.protection import (
    CORRECTED,
    DETECTED,
    Layout,
    Memory,
    held_data,
    inverted,
    linear_layout,
    read,
    store,
)

Verdict = NDArray[np.str_]
"""Of each memory word: "" (no error), "corrected", "detected" or "miscorrected"."""


class Read(NamedTuple):
    """What was read: the codes (words,), which hits (hits,) made a wrong cell, and the verdict on their memory word."""

    codes: Codes
    changes: NDArray[np.bool_]
    verdicts: Verdict


def read_through(draws: Draws, memory: Memory, layout: Layout | None, codes: Codes, bit_width: int) -> Read:
    """One sample's `codes` (words,) as they are read where the cells of `draws` are hit.

    A memory word that is used again, each time with other contents, is struck each time: a hit makes a wrong cell if it
    does in any of them, and the worst verdict stands.
    """
    where = linear_layout(memory, codes.size, bit_width) if layout is None else layout
    data = held_data(where, codes)
    cells = store(memory, data)
    row, hit = _rows_of_hits(draws, where)
    cell = draws.bit[hit]
    flips = np.where(cells[row, cell] == 0, draws.zeros[hit], draws.ones[hit]).astype(np.uint8)
    wrong = np.zeros_like(cells)
    np.bitwise_or.at(wrong, (row, cell), flips)
    after, verdict = read(memory, cells ^ wrong)
    if not memory.due:
        after = np.where(verdict[:, None] == DETECTED, 0, after).astype(np.uint8)
    changes = np.zeros(len(draws), bool)
    np.logical_or.at(changes, hit, flips > 0)
    outcome = _outcome(verdict, (data != after).any(axis=1))
    worst = np.zeros(len(draws), np.int64)
    np.maximum.at(worst, hit, outcome[row])
    return Read(inverted(where, codes, data ^ after), changes, np.array(_OUTCOMES)[worst])


_OUTCOMES = ("", "corrected", "detected", "miscorrected")


def _outcome(verdict: NDArray[np.uint8], wrong: NDArray[np.bool_]) -> Ints:
    """What became of each memory word, as an index into _OUTCOMES."""
    told = np.where(verdict == DETECTED, 2, np.where(wrong, 3, np.where(verdict == CORRECTED, 1, 0)))
    return told.astype(np.int64)


def _rows_of_hits(draws: Draws, where: Layout) -> tuple[Ints, Ints]:
    """The rows of the layout that hits strike, and the hit that strikes each."""
    first = np.searchsorted(where.number, draws.word, side="left")
    count = np.searchsorted(where.number, draws.word, side="right") - first
    hit = np.repeat(np.arange(len(draws)), count)
    along = np.arange(len(hit)) - np.repeat(np.cumsum(count) - count, count)
    return first[hit] + along, hit
