"""How faults crowd in a memory: blocks, columns and bit positions, with tests of whether chance would explain it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwfault.profiles.spatial import BlockColumn

Ints = NDArray[np.int64]

_PERIODS = (1, 2, 4)
_FEWEST_PAIRS = 10
_SAME = 0.75
"""Share of pairs that stay together when columns are split once more: 1/2 by chance, 1 where the split is real."""
_FEWEST_IN_A_COLUMN = 5
_BY_CHANCE = 1e-3


@dataclass(frozen=True)
class Test:
    """A statistic that is chi-squared with `freedom` degrees of freedom under the hypothesis, and its p-value."""

    statistic: float
    freedom: int
    p: float


@dataclass(frozen=True)
class Blocks:
    """Faults counted by block."""

    counts: Ints
    cells: int
    """Cells of a block."""

    @property
    def faulty(self) -> int:
        return int((self.counts > 0).sum())

    @property
    def mean(self) -> float:
        return float(self.counts.mean())

    @property
    def variance(self) -> float:
        """With the divisor n."""
        return float(self.counts.var())

    @property
    def dispersion(self) -> float | None:
        """k = mean^2 / (variance - mean), that of a negative binomial by its moments; None if it varies no more."""
        excess = self.variance - self.mean
        return self.mean**2 / excess if excess > 0 else None

    def share_of_top(self, share: float) -> float:
        """Which share of all faults the worst `share` of the blocks hold."""
        worst = np.sort(self.counts)[::-1][: int(share * len(self.counts))]
        return float(worst.sum() / max(self.counts.sum(), 1))

    def independence(self) -> Test:
        """Fisher's index of dispersion against binomial counts, as independent cells of one probability have them.

        sum (n - m)^2 / (m (1 - m / cells)) is chi-squared with blocks - 1 degrees of freedom; the upper tail is taken
        (R. A. Fisher, Statistical Methods for Research Workers, section 19). With no fault p is 1.
        """
        from scipy.stats import chi2

        freedom = len(self.counts) - 1
        m = self.mean
        if not freedom or not 0 < m < self.cells:
            return Test(0.0, freedom, 1.0)
        squares = ((self.counts - m) ** 2).sum()
        binomial_variance = m * (1 - m / self.cells)
        statistic = float(squares / binomial_variance)
        return Test(statistic, freedom, float(chi2.sf(statistic, freedom)))


@dataclass(frozen=True)
class Columns:
    """Faults counted by column: the cells of one block and bit with one remainder of the row modulo `period`."""

    counts: Ints
    period: int
    least: int
    """How many faults make a column a clustered one."""
    lone_crowd: bool
    """Whether faults outside clustered columns share columns more often than their blocks explain."""

    @property
    def clustered(self) -> int:
        return int((self.counts >= self.least).sum())

    @property
    def share(self) -> float:
        """The share of all faults in clustered columns."""
        in_clustered = self.counts[self.counts >= self.least].sum()
        return float(in_clustered / max(self.counts.sum(), 1))

    @property
    def lone_share(self) -> float:
        """The share of all faults that are alone in their column."""
        alone = (self.counts == 1).sum()
        return float(alone / max(self.counts.sum(), 1))


def count_blocks(row: Ints, rows: int, row_bits: int, block_rows: int) -> Blocks:
    """The faults of each whole block; rows behind the last whole one are left out."""
    whole = rows // block_rows
    block = row // block_rows
    return Blocks(np.bincount(block[block < whole], minlength=whole), block_rows * row_bits)


def count_columns(
    row: Ints, column: Ints, rows: int, row_bits: int, block_rows: int, like: Columns | None = None
) -> Columns:
    """The faults of each column of the whole blocks, with the period (1, 2 or 4) that the data show, or as `like`."""
    whole_blocks = rows // block_rows
    inside = row < whole_blocks * block_rows
    row = row[inside]
    column = column[inside]
    if like is not None:
        # drawn devices are counted as the measured one was: what they show themselves is no matter
        return replace(like, counts=_column_counts(row, column, rows, row_bits, (block_rows, like.period)))
    by_period = {p: _column_counts(row, column, rows, row_bits, (block_rows, p)) for p in _PERIODS}
    period = _period(by_period, block_rows)
    counts = by_period[period]
    least = _least(float(counts.mean()))
    return Columns(counts, period, least, _lone_crowd(counts, least, row_bits * period))


def _column_counts(row: Ints, column: Ints, rows: int, row_bits: int, shape: tuple[int, int]) -> Ints:
    block_rows, period = shape
    block, row_in_block = np.divmod(row, block_rows)
    number = (block * row_bits + column) * period + row_in_block % period
    counts: Ints = np.bincount(number, minlength=rows // block_rows * row_bits * period)
    return counts


def _pairs(counts: Ints) -> int:
    """How many pairs of faults share a column (or whatever was counted)."""
    return int((counts * (counts - 1) // 2).sum())


def _period(by_period: dict[int, Ints], block_rows: int) -> int:
    """The finest period that leaves most pairs of one column together."""
    period = _PERIODS[0]
    for finer in _PERIODS[1:]:
        if block_rows % finer:
            break  # columns would not be of one height
        pairs = _pairs(by_period[period])
        if pairs < _FEWEST_PAIRS:
            break  # too few to tell a real split from chance
        if _pairs(by_period[finer]) < _SAME * pairs:
            break
        period = finer
    return period


def _least(mean: float) -> int:
    """The least number, from 5, that less than one fault in 1000 would be in a column with by chance."""
    from scipy.stats import poisson

    least = _FEWEST_IN_A_COLUMN
    while poisson.sf(least - 2, mean) > _BY_CHANCE:  # the other faults of a fault's column are Poisson too
        least += 1
    return least


def _lone_crowd(counts: Ints, least: int, columns: int) -> bool:
    """Whether pairs outside clustered columns fall on one column more than three times as often as on any other."""
    few = np.where(counts < least, counts, 0)
    together = _pairs(few)
    in_block = _pairs(few.reshape(-1, columns).sum(1))
    # by chance one in `columns` of a block's pairs falls on one column
    return in_block >= _FEWEST_PAIRS and together * columns > 3 * in_block


@dataclass(frozen=True)
class BitPositions:
    """Faults counted by column of the row, and whether they differ by more than chance.

    `naive` takes faults for independent; `test` divides its statistic by the design effect of faults that come in
    columns, sum n^2 / sum n (first-order correction of Rao and Scott, JASA 76, 1981).
    """

    counts: Ints
    naive: Test
    design_effect: float
    test: Test

    @property
    def differ(self) -> bool:
        """Whether weights are called for: p below 0.001, after the correction."""
        return self.test.p < _BY_CHANCE


def count_bits(column: Ints, row_bits: int, columns: Columns) -> BitPositions:
    """The faults of each bit of a row, and the chi-squared test of whether all bits are alike."""
    from scipy.stats import chi2

    def test(statistic: float) -> Test:
        return Test(statistic, row_bits - 1, float(chi2.sf(statistic, row_bits - 1)))

    counts = np.bincount(column, minlength=row_bits)
    faults = int(counts.sum())
    statistic = 0.0
    if faults:
        mean = faults / row_bits
        statistic = float(((counts - mean) ** 2).sum() / mean)
    n = columns.counts.astype(float)
    effect = 1.0
    if n.sum():
        effect = float((n**2).sum() / n.sum())
    return BitPositions(counts, test(statistic), effect, test(statistic / effect))


def block_column(blocks: Blocks, columns: Columns, row_bits: int, block_rows: int) -> BlockColumn | None:
    """The pattern with these statistics; None where counts of blocks vary no more than by chance."""
    k = blocks.dispersion
    rate = blocks.mean / blocks.cells
    if k is None or not 0 < rate < 1:
        return None
    return BlockColumn(
        block_rows=block_rows,
        row_bits=row_bits,
        column_period=columns.period,
        block_share=_digits(blocks.faulty / len(blocks.counts)),
        dispersion=_digits(min(max(k, 1e-6), 1e6)),
        column_share=_digits(columns.share),
        lone_share=_digits(columns.lone_share) if columns.lone_crowd else None,
        min_per_column=columns.least,
        at_rate=_digits(rate),
    )


def _digits(x: float) -> float:
    return float(f"{x:.4g}")


Statistics = dict[str, float]

STATISTICS: dict[str, tuple[str, Callable[[Blocks, Columns], float]]] = {
    "faults": ("faults", lambda b, c: float(b.counts.sum())),
    "block_share": ("share of blocks with a fault", lambda b, c: b.faulty / len(b.counts)),
    "dispersion": ("dispersion k of faults per block", lambda b, c: b.dispersion or float("inf")),
    "top_10_percent": ("share of faults in the worst 10 % of blocks", lambda b, c: b.share_of_top(0.1)),
    "top_5_percent": ("share of faults in the worst 5 % of blocks", lambda b, c: b.share_of_top(0.05)),
    "column_share": ("share of faults in clustered columns", lambda b, c: c.share),
    "lone_share": ("share of faults alone in their column", lambda b, c: c.lone_share),
    "most_in_a_block": ("most faults in one block", lambda b, c: float(b.counts.max(initial=0))),
}
"""What is compared between a measured and drawn devices: its name for people, and how it is counted."""


def statistics(blocks: Blocks, columns: Columns) -> Statistics:
    """All STATISTICS of one device; the dispersion is infinite where counts vary no more than by chance."""
    return {key: count(blocks, columns) for key, (_, count) in STATISTICS.items()}


def interval(values: Sequence[float], share: float = 0.98) -> tuple[float, float]:
    """The central interval that holds `share` of the values."""
    low, high = np.quantile(np.asarray(values), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
