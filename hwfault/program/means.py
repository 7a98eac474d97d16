"""How many cells and words a process changes on average, from the integers that engines use as they are."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from hwfault.stream.tables import ACCEPT_ALL, BLOCK, Table


class Mean(NamedTuple):
    """A mean over seeds, from the least to the most that the codes stored can make of the hits."""

    low: float
    high: float


def exactly(number: float) -> Mean:
    """A mean that does not depend on the codes stored."""
    return Mean(number, number)


def add_means(means: Iterable[Mean]) -> Mean:
    """The mean of all of them together."""
    every = list(means)
    return Mean(math.fsum(mean.low for mean in every), math.fsum(mean.high for mean in every))


def hit_probability(table: Table) -> float:
    """The probability that a cell is hit, as a count table draws it.

    A block of 1024 cells has N throws with P(N > i) = 1 - T[i] / 2^32, so that a cell stays free with
    exp(-mean / 1024).
    """
    if table == (0,):
        return 0.0
    if table == (-1,):
        return 1.0
    mean = math.fsum(1 - threshold / (1 << 32) for threshold in table[1:])
    return -math.expm1(-mean / BLOCK)


def taken_probability(table: Table, accept: int) -> float:
    """The probability that a cell is hit, and by a hit that one direction takes."""
    free: float = (1 - hit_probability(table)) ** (accept / ACCEPT_ALL)
    return 1 - free


def mean_accepted(cells: int, table: Table, accept01: int, accept10: int) -> Mean:
    """The cells that are hit and change: a share of the throws does where 0 is stored, another where 1 is."""
    least, most = sorted(cells * taken_probability(table, accept) for accept in (accept01, accept10))
    return Mean(least, most)
