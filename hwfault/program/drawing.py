"""What hits of the fault stream and cells of fault maps do: the draws of each kind of process."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.program.draws import Draws, Ints, PlaneHits, When, in_every_row, join_draws
from hwfault.program.kinds import Kind
from hwfault.program.periods import Refresh
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.fault_map import Kind as CellKind
from hwfault.stream.reference import activity, mask_flips, previous_words
from hwfault.stream.tables import ACCEPT_ALL, ALWAYS, BLOCK, WORD_PLANE, Table


class Drawing(NamedTuple):
    """What the planes of a process share: its kind, what it is made of (by the names of its operands), and words."""

    kind: Kind
    operands: dict[str, Any]
    words: int
    bit_width: int


def draw_stream(
    drawing: Drawing, site_number: int, tables: Sequence[Table], numbers: Ints, seed: int, hits: PlaneHits
) -> Draws:
    """The hits that the stream draws in each of the samples with these `numbers`; `tables` are one for each plane."""
    found = []
    for row, sample in enumerate(numbers.tolist()):
        for i, table in enumerate(tables):
            plane = i if drawing.kind.strikes == "bits" else WORD_PLANE
            word, aux = hits(seed, site_number, sample, drawing.words, plane, table)
            bit = np.full(len(word), i if drawing.kind.strikes == "bits" else -1)
            hit = {"row": np.full(len(word), row), "word": word, "bit": bit, "aux": aux.astype(np.int64)}
            found.append(Draws(**hit, **_EFFECTS[drawing.kind.name](drawing, i, hit["word"], hit["aux"])))
    return join_draws(found)


Effect = dict[str, Any]
"""What hits do, as columns of `Draws`."""


def _bit(drawing: Drawing, plane: int, word: Ints, aux: Ints) -> Effect:
    accept01, accept10 = (drawing.operands[name][plane] for name in ("accept01", "accept10"))
    return {
        "zeros": np.where(aux < accept01, 1 << plane, 0),
        "ones": np.where(aux >= ACCEPT_ALL - accept10, 1 << plane, 0),
    }


def _cluster(drawing: Drawing, plane: int, word: Ints, aux: Ints) -> Effect:
    size = 1 + np.searchsorted(np.array(drawing.operands["sizes"], np.int64), aux, side="right")
    if drawing.operands["axis"] == "bit":
        size = np.minimum(size, drawing.bit_width - plane)
        flips = ((1 << size) - 1) << plane
        return {"zeros": flips, "ones": flips}
    # along words it ends with the block, or with the sample
    end = np.minimum((word // BLOCK + 1) * BLOCK, drawing.words)
    return {"zeros": 1 << plane, "ones": 1 << plane, "length": np.minimum(size, end - word)}


def _mask(drawing: Drawing, _plane: int, _word: Ints, _aux: Ints) -> Effect:
    zeros, ones = mask_flips(drawing.operands["mask"], drawing.bit_width)
    return {"zeros": zeros, "ones": ones}


def _random(drawing: Drawing, _plane: int, _word: Ints, aux: Ints) -> Effect:
    others = (1 << drawing.bit_width) - 1
    return {"added": 1 + (aux * others >> 32)}


def _late(drawing: Drawing, _plane: int, word: Ints, _aux: Ints) -> Effect:
    before = previous_words(word, *drawing.operands["elements"])
    return {"kept": drawing.operands["mask"], "before": before}


_EFFECTS: dict[str, Callable[[Drawing, int, Ints, Ints], Effect]] = {
    "bit": _bit,
    "cluster": _cluster,
    "mask": _mask,
    "random": _random,
    "late": _late,
}


class Activity(NamedTuple):
    """When the cells of a map show their fault."""

    threshold: int
    refresh: Refresh
    site_number: int


def active_cells(rows: FaultMap, shown: Activity, seed: int, period: int) -> tuple[Ints, Ints, Ints]:
    """(word, bit, kind) of the cells of a map that show their fault in a period."""
    word, bit, kind = rows.cells()
    if shown.threshold < ALWAYS:
        on = activity(seed=seed, site=shown.site_number, period=period, word=word, bit=bit) < shown.threshold
        word, bit, kind = word[on], bit[on], kind[on]
    return word, bit, kind.astype(np.int64)


def draw_cells(rows: FaultMap, shown: Activity, when: When, batched: bool) -> Draws:
    """The cells of a map that show their fault in each row; a cell's own bit is 1 << `bit`."""
    periods = when.periods(shown.refresh, batched)
    if shown.threshold >= ALWAYS:
        periods = np.zeros_like(periods)  # the same in all of them
    by_period = {}
    for period in set(periods.tolist()):
        by_period[period] = cell_draws(*active_cells(rows, shown, when.seed, period))
    return in_every_row(by_period, periods)


def cell_draws(word: Ints, bit: Ints, kind: NDArray[Any]) -> Draws:
    """The cells of a map as hits in one row."""
    own = 1 << bit
    zeros, ones = np.where(kind != CellKind.STUCK_AT_0, own, 0), np.where(kind != CellKind.STUCK_AT_1, own, 0)
    nowhere = np.zeros_like(word)
    return Draws(nowhere, word, bit, nowhere - 1, zeros=zeros, ones=ones)
