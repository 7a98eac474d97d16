"""The law behind `block_column`: parameters from statistics, means from probabilities ("Maps of a device").

A column's hits are a background's (negative binomial) and, where the column is weak, a geometric number more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwfault.devices.events import decimal, least
from hwfault.errors import ModelError
from hwfault.profiles.spatial import BlockColumn
from hwfault.stream.regions import EXACT

Floats = NDArray[np.float64]
_SHARES = 256
_LARGEST_SHAPE = 1e6
_MOST_HITS = 1 << 20  # of a cell, on average


@dataclass(frozen=True)
class Law:
    """Parameters: s, the weak columns' share of hits; K, a whole block's shape; w, how many columns are weak."""

    weak_share: Decimal
    block_shape: Decimal
    weak: Decimal
    columns: int
    by_column: bool

    @property
    def background_shape(self) -> Decimal:
        """The shape k of one background region, a column or a whole block."""
        if self.by_column:
            # sums of negative binomials of one odds add their shapes up: a block has that of its columns together
            return EXACT.divide(self.block_shape, Decimal(self.columns))
        return self.block_shape

    def background(self, hits_per_cell: Decimal) -> Decimal:
        """Mean background hits of a cell."""
        return EXACT.multiply(hits_per_cell, EXACT.subtract(Decimal(1), self.weak_share))

    def in_weak_columns(self, hits_per_cell: Decimal) -> Decimal:
        """Mean hits of a cell of a weak column, beside the background's."""
        return EXACT.multiply(hits_per_cell, EXACT.divide(self.weak_share, self.weak))


@dataclass(frozen=True)
class Statistics:
    """What a law gives at the rate where the record's statistics hold (scalars, or arrays over many laws)."""

    block_share: Floats
    dispersion: Floats
    column_share: Floats
    lone_share: Floats


def law(spatial: BlockColumn, row_bits: int) -> Law:
    """The law whose statistics come nearest to the record's, for blocks of `row_bits` bits a row."""
    # where the pattern holds is of no account here, and its operating points cannot be hashed
    return _law(spatial.model_copy(update={"holds_at": None, "elsewhere": None}), row_bits)


@lru_cache(maxsize=256)
def _law(spatial: BlockColumn, row_bits: int) -> Law:
    columns, mean = _size(spatial, row_bits)
    s, a = _candidates(columns, mean, spatial.dispersion)
    shape = _shape(s, a, columns, mean, spatial.dispersion)
    found = _statistics(spatial, columns, mean, (s, a, shape))
    best = int(np.argmin(_miss(spatial, found)))
    return _exact(spatial, columns, mean, Fraction(s[best]), Fraction(str(a[best])))


def _miss(spatial: BlockColumn, found: Statistics) -> Floats:
    """How far each law is from the record: the numbers are the specification's, so that all find one law."""
    blocks = (found.block_share / spatial.block_share - 1) ** 2
    columns = (found.column_share - spatial.column_share) ** 2
    miss = blocks + columns
    if spatial.lone_share is not None:
        miss = miss + 9 * (found.lone_share - spatial.lone_share) ** 2
    return miss


def statistics(spatial: BlockColumn, row_bits: int) -> Statistics:
    """The statistics that the record's law gives: the dispersion is the record's, the shares are as near as it can."""
    columns, mean = _size(spatial, row_bits)
    found = law(spatial, row_bits)
    s = np.array([float(found.weak_share)])
    w = np.array([float(found.weak)])
    shape = np.array([float(found.block_shape)])
    # without weak columns s is 0, and any a will do
    a = np.divide(s * float(mean), columns * w, out=np.ones(1), where=w > 0)
    return _statistics(spatial, columns, mean, (s, a, shape))


def block_share(spatial: BlockColumn, row_bits: int, probability: float) -> float:
    """The share of blocks with a fault that devices have where a cell is faulty with the probability (above 0).

    That of whole blocks as the record measured them, bits of a row all alike.
    """
    found = law(spatial, row_bits)
    bits = spatial.row_bits or row_bits
    x = hits_per_cell(found, probability, (Fraction(1),))
    # a negative binomial of shape k and mean m is 0 with probability (1 + m / k)^-k
    mean = float(found.background(x)) * (spatial.block_rows * bits)
    shape = float(found.block_shape)
    background: float = (1 + mean / shape) ** -shape
    if not found.weak:
        return 1 - background
    # a column is spared unless it is weak and its geometric number is above 0
    weak = float(found.weak)
    tall = spatial.block_rows // spatial.column_period
    weak_and_spared = weak / (1 + float(found.in_weak_columns(x)) * tall)
    spared: float = (1 - weak + weak_and_spared) ** found.columns
    return 1 - background * spared


def _size(spatial: BlockColumn, row_bits: int) -> tuple[int, Fraction]:
    """n, the columns of a measured block, and M, its mean number of faults."""
    bits = spatial.row_bits or row_bits
    return bits * spatial.column_period, Fraction(spatial.at_rate) * spatial.block_rows * bits


def _candidates(columns: int, mean: Fraction, dispersion: float) -> tuple[Floats, Floats]:
    """(s, a) of the pairs that the specification lists, in its order, and allows."""
    # a has three digits, from 1.00 to 9990; divided and multiplied as the specification says, for the same doubles
    digits = np.arange(100, 1000)
    grid_a = np.concatenate([digits / 100, digits / 10, digits / 1, digits * 10.0])
    grid_s = np.arange(1, _SHARES) / _SHARES
    pairs = np.meshgrid(grid_s, grid_a, indexing="ij")
    s = pairs[0].ravel()
    a = pairs[1].ravel()

    m = float(mean)
    left = 1 / dispersion + s * s / columns - 2 * s * a / m  # (1 - s)^2 / K, what the background has to bring
    no_more_than_all_are_weak = s * m <= columns * a
    shape_is_bounded = left * _LARGEST_SHAPE > (1 - s) ** 2
    background_is_the_milder = m * left <= a * (1 - s)
    good = no_more_than_all_are_weak & shape_is_bounded & background_is_the_milder
    # s = 0, a law without weak columns, comes first
    return np.concatenate([[0.0], s[good]]), np.concatenate([[1.0], a[good]])


def _shape(s: Floats, a: Floats, columns: int, mean: Fraction, dispersion: float) -> Floats:
    shape: Floats = (1 - s) ** 2 / (1 / dispersion + s * s / columns - 2 * s * a / float(mean))
    return shape


def _statistics(
    spatial: BlockColumn, columns: int, mean: Fraction, parameters: tuple[Floats, Floats, Floats]
) -> Statistics:
    """The first lines of "From the statistics to the parameters" for arrays of (s, a, K)."""
    s, a, shape = parameters
    m = float(mean)
    w = s * m / (columns * a)
    background_spares = (1 + (1 - s) * m / shape) ** -shape
    columns_spare = (1 - w + w / (1 + a)) ** columns
    none = background_spares * columns_spare
    inverse = (1 - s) ** 2 / shape + 2 * s * a / m - s * s / columns
    # a record that tells of lone faults has backgrounds that are independent from column to column
    k = shape
    if spatial.lone_share is not None:
        k = shape / columns
    per_column = (1 - s) * m / columns
    few = _faults_in_small_columns(spatial.min_per_column, (k, per_column), (w, a))
    one = _faults_in_small_columns(2, (k, per_column), (w, a))
    return Statistics(
        block_share=1 - none,
        dispersion=1 / inverse,
        column_share=1 - few * columns / m,
        lone_share=one * columns / m,
    )


def _faults_in_small_columns(t: int, background: tuple[Floats, Floats], weak: tuple[Floats, Floats]) -> Floats:
    """Sum over j < t of j P(H = j)."""
    k, m = background
    w, a = weak
    total = np.zeros_like(m)
    some: list[Floats] = []  # P(background = 0), P(background = 1), ...
    extra: list[Floats] = []  # P(weak column's = 0), ...: geometric, and 0 where the column is not weak
    p = (1 + m / k) ** -k
    for j in range(t):
        some.append(p)
        p = p * (k + j) / (j + 1) * m / (k + m)
        geometric = w * (a / (1 + a)) ** j / (1 + a)
        extra.append(geometric + (1 - w if j == 0 else 0))
        both = sum(some[j - i] * extra[i] for i in range(j + 1))
        total += j * both
    return total


def _exact(spatial: BlockColumn, columns: int, mean: Fraction, s: Fraction, a: Fraction) -> Law:
    """The law of s and a in fractions: drawing turns it into integers, which must be the same everywhere."""
    left = 1 / Fraction(spatial.dispersion) + s * s / columns - 2 * s * a / mean
    shape = (1 - s) ** 2 / left
    weak = s * mean / (columns * a)
    by_column = spatial.lone_share is not None
    return Law(decimal(s), decimal(shape), decimal(weak), columns, by_column)


@lru_cache(maxsize=256)
def hits_per_cell(law: Law, probability: float, weights: tuple[Fraction, ...]) -> Decimal:
    """x: how many hits a cell needs on average so that it is faulty with the probability, 0 < probability < 1.

    `weights` are v(c) of the bits of a row. Raises ModelError where no rate of hits is high enough.
    """
    # bits of one weight are alike: each weight's share is worked out once
    distinct = [(Decimal(weights.count(v)), decimal(v)) for v in dict.fromkeys(weights)]
    healthy = EXACT.multiply(Decimal(len(weights)), EXACT.subtract(Decimal(1), Decimal(probability)))

    def enough(x: Decimal) -> bool:
        missed = Decimal(0)
        for many, v in distinct:
            missed_here = _missed(law, EXACT.multiply(x, v))
            missed = EXACT.add(missed, EXACT.multiply(many, missed_here))
        return missed <= healthy

    # no formula gives x: the probability of all weights together has no inverse in closed form
    low, high = _bound(enough, probability)
    return least(enough, low, high)


def _missed(law: Law, x: Decimal) -> Decimal:
    """The probability that no hit falls on a cell."""
    one = Decimal(1)
    k = law.background_shape
    growth = EXACT.ln(EXACT.add(one, EXACT.divide(law.background(x), k)))
    background = EXACT.exp(EXACT.minus(EXACT.multiply(k, growth)))
    if not law.weak:
        return background
    spared = EXACT.divide(law.weak, EXACT.add(one, law.in_weak_columns(x)))
    not_weak = EXACT.subtract(one, law.weak)
    return EXACT.multiply(background, EXACT.add(not_weak, spared))


def _bound(enough: Callable[[Decimal], bool], probability: float) -> tuple[Decimal, Decimal]:
    """A number that is not enough and, twice as large, one that is."""
    low, high = Decimal(0), Decimal(probability)
    while not enough(high):
        low, high = high, EXACT.multiply(high, Decimal(2))
        if high > _MOST_HITS:
            raise ModelError(
                f"a pattern of blocks and columns cannot make cells faulty with probability {probability!r}: too many "
                "lie in blocks and columns without faults; give a lower rate or spatial: {kind: independent}"
            )
    return low, high
