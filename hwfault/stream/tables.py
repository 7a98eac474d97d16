"""Count tables, accept thresholds and size tables: the integers that probabilities become (sections 3 and 4).

Both the reference and the kernels use these; nothing else in hwfault turns a probability into an integer.
"""

import math
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import lru_cache
from hashlib import blake2b

from hwfault.errors import ModelError

BLOCK = 1024
"""Words in a block."""
WORD_PLANE = 63
"""The plane of word processes."""
ACTIVITY_PLANE = 62
"""The plane from which the activity of intermittent faults is drawn."""
ALWAYS = 1 << 32
"""The activity threshold of permanent faults."""
SAMPLED = 1 << 33
"""What stands in place of an activity threshold where each row of a map strikes in one sample alone."""
SAMPLED_WORDS = 1 << 31
"""By this many words such a row's number grows from one sample to the next; a sample has fewer."""
ACCEPT_ALL = 1 << 22
"""The accept threshold that takes every hit."""

_EXACT = Context(prec=80, Emin=-999_999_999, Emax=999_999_999)

Table = tuple[int, ...]
"""A count table as kernels take it: its length and its thresholds; (0,) draws nothing, (-1,) hits every cell."""


def site_number(name: str, process: int) -> int:
    """The 32 bit number of process `process` (an index) of the site `name`: BLAKE2b-4 of `NAME#K`, little endian."""
    return int.from_bytes(blake2b(f"{name}#{process}".encode(), digest_size=4).digest(), "little")


def check_probability(p: float, what: str = "probability") -> float:
    """The probability itself, if it is one; raises ModelError outside [0, 1] and for NaN."""
    if not 0.0 <= p <= 1.0:
        raise ModelError(f"{what} is {p!r}, expected a number in [0, 1] (a rate of 3 % is written 0.03)")
    return float(p)


@lru_cache(maxsize=4096)
def count_table(h: float) -> tuple[int, ...]:
    """Thresholds T[i] = floor(2^32 P(N <= i)) of the Poisson count of hits in a block, for 0 < h < 1.

    Raises ModelError where the table is empty: h is too small for the stream's resolution (about 2.3e-13).
    """
    if not 0.0 < h < 1.0:
        raise ValueError(f"h is {h!r}, expected 0 < h < 1")
    # a cell is hit with probability h if hits fall on a block at a mean of -1024 ln(1 - h)
    ctx = _EXACT
    mean = ctx.multiply(Decimal(-BLOCK), ctx.ln(ctx.subtract(Decimal(1), Decimal(h))))
    unit = Decimal(1 << 32)
    term = ctx.exp(ctx.minus(mean))  # P(N = i)
    below = term  # P(N <= i)
    i = 0
    table: list[int] = []
    # until no count word is left beyond the threshold
    while ctx.multiply(unit, ctx.subtract(Decimal(1), below)) >= Decimal("0.5"):
        table.append(int(ctx.multiply(unit, below)))
        i += 1
        term = ctx.divide(ctx.multiply(term, mean), Decimal(i))
        below = ctx.add(below, term)
    if not table:
        raise ModelError(
            f"a probability of {h!r} is too small to be drawn: the stream resolves 2.3e-13 for a cell; "
            "give 0 or a larger probability"
        )
    return tuple(table)


@lru_cache(maxsize=4096)
def encode_table(h: float) -> Table:
    """The count table of any hit probability in [0, 1] as kernels take it."""
    check_probability(h)
    if h == 0.0:
        return (0,)
    if h == 1.0:
        return (-1,)
    table = count_table(h)
    return (len(table), *table)


def accepts(p01: float, p10: float) -> tuple[float, int, int]:
    """(h, accept01, accept10) of a bit that reads 1 for a stored 0 with p01, and 0 for a stored 1 with p10.

    Raises ModelError if one probability is 1 and the other strictly between 0 and 1: no hit rate gives both.
    """
    h = max(check_probability(p01, "p01"), check_probability(p10, "p10"))
    if h == 1.0 and 0.0 < min(p01, p10) < 1.0:
        raise ModelError(f"p01 = {p01!r} with p10 = {p10!r} cannot be drawn: where one is 1 the other must be 0 or 1")
    return h, _accept(p01, h), _accept(p10, h)


def _accept(p: float, h: float) -> int:
    if p == 0.0:
        return 0
    if p == h:
        return ACCEPT_ALL
    # hits on a cell are Poisson: of a mean of -ln(1 - h) a share of ln(1 - p) / ln(1 - h) is to count
    ctx = _EXACT
    one = Decimal(1)
    wanted = ctx.ln(ctx.subtract(one, Decimal(p)))
    drawn = ctx.ln(ctx.subtract(one, Decimal(h)))
    share = ctx.divide(wanted, drawn)
    accept = int(ctx.multiply(Decimal(ACCEPT_ALL), share).to_integral_value())
    if accept == 0:
        raise ModelError(f"a probability of {p!r} beside {h!r} is too small to be drawn: their ratio must exceed 2^-23")
    return accept


def size_table(sizes: Sequence[float]) -> tuple[int, ...]:
    """Thresholds C[j] of a cluster's size, from the probabilities of 1, 2, ... cells (ModelError: sum not 1)."""
    for j, p in enumerate(sizes):
        check_probability(p, f"the probability of cluster size {j + 1}")
    if not sizes or not math.isclose(math.fsum(sizes), 1.0, abs_tol=1e-9):
        raise ModelError(f"the cluster sizes' probabilities are {list(sizes)}, expected a list that sums to 1")
    # P(size <= 1), P(size <= 2), ...; that of all of them needs no threshold
    partial = [math.fsum(sizes[: j + 1]) for j in range(len(sizes) - 1)]
    return tuple(round(ACCEPT_ALL * min(p, 1.0)) for p in partial)
