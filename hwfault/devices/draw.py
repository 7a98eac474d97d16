"""Drawing a device: which cells of a memory are faulty (docs/hardware-faults.md, "Maps of a device")."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from hwfault.devices.device import CELLS, KINDS, Ints, Memory, Words, bit_shares, column_of
from hwfault.devices.draw_blocks import draw_block_column
from hwfault.devices.events import event_probability
from hwfault.errors import ModelError
from hwfault.profiles.spatial import BlockColumn, Clusters, Independent, ProcessingElements, Rows, Spatial
from hwfault.stream.check import check_seed
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.tables import ACCEPT_ALL, check_probability, size_table

Shares = tuple[float, float, float]
"""(flip, stuck at 0, stuck at 1) of the faulty cells, in the order of Kind; they sum to 1."""

_MOST_FAULTS = 1 << 27
_MOST_CELLS = 1 << 36


def draw_map(
    spatial: Spatial,
    probability: float,
    *,
    rows: int,
    row_bits: int,
    shares: Shares,
    device: int,
    name: str,
    bit_weights: Sequence[float] | None = None,
) -> FaultMap:
    """The faulty cells of a memory of `rows` x `row_bits`, where a cell is faulty with the probability.

    `device` is an unsigned 64 bit number, `name` the memory's. Weight c mod n of the n `bit_weights` goes with column
    c. For processing elements `rows` is their number and `row_bits` the width of their register (at most 32), and the
    probability is an element's. Raises ModelError for a probability that the pattern cannot have and for sizes that do
    not fit it.
    """
    check_probability(probability)
    _check_size(rows, row_bits)
    expected = probability * rows * row_bits
    if expected > _MOST_FAULTS:
        raise ModelError(
            f"{rows} rows of {row_bits} bits would have some {expected:.2g} faulty cells, expected at most "
            f"{_MOST_FAULTS}; draw fewer rows"
        )
    memory = Memory(rows, row_bits, check_seed(device), name, bit_shares(bit_weights, row_bits))
    limits = _kind_limits(shares)
    cell, aux = _faults(spatial, probability, memory)
    bits = memory.word_bits
    word, bit = np.divmod(cell, bits)
    provenance = {
        "drawn": spatial.kind,
        "probability": repr(float(probability)),
        "device": str(device),
        "name": name,
        "row_bits": str(row_bits),
    }
    return FaultMap.from_cells(memory.cells // bits, bits, word, bit, _kinds(limits, aux), provenance)


def _check_size(rows: int, row_bits: int) -> None:
    if not (1 <= row_bits <= 1 << 20 and rows >= 1 and rows * row_bits <= _MOST_CELLS):
        raise ModelError(
            f"a memory of {rows} rows of {row_bits} bits, expected at least one cell, rows of at most 2^20 bits and at "
            "most 2^36 cells in all"
        )


def _kind_limits(shares: Shares) -> tuple[int, int]:
    """(A1, A0): a cell whose aux (22 bits) lies below A1 is stuck at 1, below A0 at 0, and others flip."""
    flip, at_0, at_1 = (Fraction(check_probability(s, "the share of an effect")) for s in shares)
    if abs(flip + at_0 + at_1 - 1) > Fraction(1, 10**9):
        raise ModelError(f"the shares of flip, stuck at 0 and stuck at 1 are {shares}, expected a sum of 1")
    return round(ACCEPT_ALL * at_1), round(ACCEPT_ALL * (at_0 + at_1))


def _kinds(limits: tuple[int, int], aux: Words) -> Ints:
    at_1, at_0 = limits
    kind = np.full(aux.shape, Kind.FLIP, np.int64)
    kind[aux < at_0] = Kind.STUCK_AT_0
    kind[aux < at_1] = Kind.STUCK_AT_1  # A1 <= A0, so this one goes last
    return kind


def _faults(spatial: Spatial, p: float, memory: Memory) -> tuple[Ints, Words]:
    """(cell, aux) of the faulty cells; a cell may come more than once, and then its first aux stands."""
    if isinstance(spatial, Independent):
        return _independent(p, memory)
    patterns: dict[type, Callable[..., Ints]] = {
        Rows: _rows,
        Clusters: _clusters,
        ProcessingElements: _elements,
        BlockColumn: draw_block_column,
    }
    cell = patterns[type(spatial)](spatial, p, memory)
    # a cell's own word, not its hit's: cells that are hit together still differ in what they do
    return cell, memory.own(KINDS, cell) >> np.uint32(10)


def _independent(p: float, memory: Memory) -> tuple[Ints, Words]:
    # the hits of one plane have one probability, so that a plane's cells must all have one weight
    bits = memory.word_bits
    if memory.shares != memory.shares[:bits] * (memory.row_bits // bits):
        raise ModelError(
            f"the bit weights differ between the words of {bits} bits of a row of {memory.row_bits}, expected a number "
            f"of weights that divides {bits}"
        )
    return memory.cell_hits([_at_most_one(Fraction(p) * v, "bit weights") for v in memory.shares[:bits]])


def _at_most_one(h: Fraction, why: str) -> float:
    if h > 1:
        raise ModelError(f"with its {why} a probability would be {float(h):g}, expected at most 1; give a lower rate")
    return float(h)


def _rows(spatial: Rows, p: float, memory: Memory) -> Ints:
    fill = Fraction(spatial.fill)
    bits = memory.row_bits
    h = _at_most_one(Fraction(p) / fill, f"fill of {spatial.fill:g}")
    _at_most_one(fill * max(memory.shares), "bit weights")
    # rows are hit as words of one bit are, and then each cell of one by its own word
    row, _ = memory.hits(memory.rows, 0, h)
    cell = (np.unique(row)[:, None] * bits + np.arange(bits)).ravel()
    below = np.array([int((1 << 32) * fill * v) for v in memory.shares], np.uint64)
    if below.min() == 1 << 32:
        return cell  # all of a row, without a draw
    inside: Ints = cell[memory.own(CELLS, cell) < below[cell % bits]]
    return inside


def _clusters(spatial: Clusters, p: float, memory: Memory) -> Ints:
    if len(set(memory.shares)) > 1:
        raise ModelError("bit weights do not go with spatial: {kind: clusters}; leave them out")
    bits = memory.row_bits
    along_row = spatial.along == "row"
    line = bits if along_row else memory.rows
    # events start anywhere, and end with their line at the latest
    h = event_probability(p, spatial.sizes, line)
    first, aux = memory.cell_hits([h] * memory.word_bits)
    thresholds = np.array(size_table(spatial.sizes), np.int64)
    size = 1 + np.searchsorted(thresholds, aux, side="right")
    place = first % bits if along_row else first // bits
    size = np.minimum(size, line - place)
    # 0, 1, ... size - 1 for each event in turn
    before = np.cumsum(size) - size
    step = np.arange(size.sum()) - np.repeat(before, size)
    cells: Ints = np.repeat(first, size) + step * (1 if along_row else bits)
    return cells


def _elements(spatial: ProcessingElements, p: float, memory: Memory) -> Ints:
    if memory.rows != spatial.rows * spatial.columns or memory.row_bits > 32:
        raise ModelError(
            f"{memory.rows} registers of {memory.row_bits} bits for an array of {spatial.rows} x {spatial.columns} "
            "elements, expected one of at most 32 bits for each element"
        )
    # of a faulty element one bit of its register is faulty, chosen by the element's own word
    hit, _ = memory.hits(memory.rows, 0, p)
    element: Ints = np.unique(hit)
    column = column_of(memory.own(CELLS, element), memory.shares)
    return element * memory.row_bits + column
