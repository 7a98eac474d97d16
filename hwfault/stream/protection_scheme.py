"""What protects the words of a memory, and how often its decoder is right: parity, SECDED, TMR."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from hwfault.records import Record
from hwfault.stream.protection import KINDS, Kind, Memory, code_positions
from hwfault.stream.tables import check_probability

__all__ = ["KINDS", "Kind", "Outcomes", "Protection", "majority_error", "word_errors"]


class Protection(Record):
    """A memory's words of `data_bits` (1 to 64) with check bits.

    `on_detected` says what becomes of words that the decoder finds wrong and cannot correct: their data read as zero
    ("zero"), or stay as they are and the run counts as detected and unrecoverable ("due").
    """

    kind: Kind
    data_bits: Annotated[StrictInt, Field(ge=1, le=64)] = 64
    on_detected: Literal["zero", "due"] = "zero"

    def memory(self, slot: int) -> Memory:
        """The memory in which a code word takes `slot` bits: its own width packed, a power of two padded."""
        return Memory(self.kind, self.data_bits, slot, self.on_detected == "due")

    @property
    def check_bits(self) -> int:
        """Check bits of a memory word: 1 for parity, 8 for SECDED of 64 data bits, twice the data bits for TMR."""
        return self.memory(1).check_bits

    def outcomes(self, p: float) -> "Outcomes":
        """What becomes of a memory word whose cells are each wrong with probability p, independently.

        Exact for SECDED too, from the numbers of error patterns of each weight that it detects (MacWilliams' identity
        of the code and its dual; MacWilliams and Sloane, "The Theory of Error-Correcting Codes", 1977, chapter 5).
        Raises ModelError for p outside [0, 1].
        """
        check_probability(p)
        return {"parity": _parity, "secded": _secded, "tmr": _tmr}[self.kind](self.data_bits, p)


class Outcomes(NamedTuple):
    """Probabilities of a memory word's outcomes; the rest is a word without an error."""

    corrected: float
    detected: float
    miscorrected: float
    """Read wrong without being detected, whether the decoder corrected falsely or saw nothing."""


def word_errors(p: float, cells: int) -> tuple[float, float, float]:
    """P(exactly 1), P(exactly 2) and P(3 or more) wrong of `cells` that are each wrong with probability p."""
    pmf = _binomial(check_probability(p), cells)
    pmf.append(0.0)  # a memory word of one cell has no two wrong ones
    return pmf[1], pmf[2], math.fsum(pmf[3:])


def majority_error(p: float) -> float:
    """P(the majority of three is wrong) = 3 p^2 - 2 p^3 (Lyons and Vanderkulk, IBM Journal 6, 1962)."""
    return p * p * (3 - 2 * check_probability(p))


def _weighted(patterns: Sequence[int], p: float) -> float:
    """P(a pattern of wrong cells is one of so many of each weight 0, 1, ... n)."""
    n = len(patterns) - 1
    return math.fsum(count * p**k * (1 - p) ** (n - k) for k, count in enumerate(patterns))


def _binomial(p: float, n: int) -> list[float]:
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


def _parity(data_bits: int, p: float) -> Outcomes:
    pmf = _binomial(p, data_bits + 1)
    # one parity bit sees odd numbers of wrong cells and none of the even ones
    detected = math.fsum(pmf[1::2])
    missed = math.fsum(pmf[2::2])
    return Outcomes(corrected=0.0, detected=detected, miscorrected=missed)


def _tmr(data_bits: int, p: float) -> Outcomes:
    # (1-q)^D - (1-p)^(3D) without the difference of near numbers: 1 - q = (1-p)^2 (1 + 2p)
    disagree = math.expm1(data_bits * math.log1p(2 * p)) + _any(data_bits, p)
    corrected = (1 - p) ** (2 * data_bits) * disagree
    outvoted = _any(data_bits, majority_error(p))
    return Outcomes(corrected, detected=0.0, miscorrected=outvoted)


def _any(n: int, p: float) -> float:
    """P(at least one of n), to full precision for small p."""
    if p >= 1:
        return 1.0  # log1p(-1) is no number
    return -math.expm1(n * math.log1p(-p))


def _secded(data_bits: int, p: float) -> Outcomes:
    detected = _detected_patterns(data_bits)
    n = len(detected) - 1
    # the code has distance 4: one wrong cell is always corrected, and what is not detected of more is read wrong
    corrected = [0] * (n + 1)
    corrected[1] = n
    missed = [0] * (n + 1)
    for k in range(2, n + 1):
        missed[k] = math.comb(n, k) - detected[k]
    return Outcomes(_weighted(corrected, p), _weighted(detected, p), _weighted(missed, p))


@cache
def _detected_patterns(data_bits: int) -> tuple[int, ...]:
    """How many patterns of 0, 1, ... n wrong cells a SECDED decoder detects.

    The patterns of weight k with a syndrome s are 2^-m sum over u of (-1)^(u.s) K_k(weight of u H), with H the check
    matrix of m rows and K the Krawtchouk polynomials.
    """
    positions = code_positions(data_bits)
    m = len(positions) - data_bits + 1
    # a syndrome has the overall parity as its highest bit, which every cell's column of H sets
    odd = 1 << (m - 1)
    columns = np.append(positions, 0) | odd
    n = len(columns)
    # detected are even patterns with a syndrome, and odd ones that name a position which no cell has
    every = np.arange(1 << m)
    even_error = (every > 0) & (every < odd)
    nowhere = every - odd > len(positions)
    detected = every[even_error | nowhere]

    # many u have one weight: their signs are summed first, in Python's integers, which do not overflow below
    weight = _parities(every, columns).sum(axis=1)
    sign = (1 - 2 * _parities(every, detected)).sum(axis=1)
    share = {int(w): int(sign[weight == w].sum()) for w in np.unique(weight)}
    patterns = []
    for k in range(n + 1):
        total = sum(signs * _krawtchouk(n, k, w) for w, signs in share.items())
        patterns.append(total >> m)
    return tuple(patterns)


def _parities(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The parity of row & column, (rows, columns)."""
    both = rows[:, None] & columns  # of at most 8 bits, the syndromes of 64 data bits
    for shift in (4, 2, 1):
        both = both ^ both >> shift
    return both & 1


def _krawtchouk(n: int, k: int, w: int) -> int:
    return sum((-1) ** j * math.comb(w, j) * math.comb(n - w, k - j) for j in range(min(w, k) + 1))
