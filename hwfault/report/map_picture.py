"""The picture of a memory's map: faults of each block, how they spread, and the cells of the worst block."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwfault.files import check_picture, replace_atomically
from hwfault.report.colours import BLUE, VERMILION
from hwfault.report.profile_pictures import block_counts, draw_blocks, draw_map_picture
from hwfault.stream.fault_map import FaultMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SEEN, _EXPECTED = BLUE, VERMILION
_MOST_BARS = 24
_LEAST_EXPECTED = 1e-2


def draw_map_overview(
    path: Path | str, fault_map: FaultMap, row_bits: int, block_rows: int, *, title: str = ""
) -> None:
    """Writes a picture (by the path's suffix: .png, .svg, .pdf) of a memory of rows of `row_bits` bits.

    Above the faults of every block as a heat map, and how many blocks have how many beside the expectation for
    independent cells; below the cells of the worst block. Raises FileError if the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure  # slow to import, and only needed here

    counts = block_counts(fault_map, row_bits, block_rows)
    figure = Figure(figsize=(11.5, 6.4), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=12)
    grid = figure.add_gridspec(2, 2, height_ratios=(2.2, 1.0))
    draw_blocks(figure.add_subplot(grid[0, 0]), counts)
    draw_distribution(figure.add_subplot(grid[0, 1]), counts, block_rows * row_bits)
    draw_map_picture(figure.add_subplot(grid[1, :]), fault_map, row_bits, block_rows, int(counts.argmax()))
    replace_atomically(path, lambda temporary: figure.savefig(temporary))


def draw_distribution(axes: "Axes", counts: NDArray[np.int64], cells: int) -> None:
    """How many blocks (of `cells` cells) have how many faults, beside what independent cells would give: binomial."""
    from scipy.stats import binom

    edges = _edges(int(counts.max(initial=0)))
    seen, _ = np.histogram(counts, edges)
    probability = counts.mean() / cells
    below = binom.cdf(edges - 1, cells, probability)
    expected = len(counts) * np.diff(below)
    # the two stand side by side in every bin; expectations too small for the panel are left out
    x = np.arange(len(seen))
    axes.bar(x - 0.2, seen, 0.4, color=_SEEN, label="this map")
    shown = expected >= _LEAST_EXPECTED
    axes.bar(x[shown] + 0.2, expected[shown], 0.4, color=_EXPECTED, label="independent cells of the same rate")
    axes.set_yscale("log")
    axes.set_ylim(_LEAST_EXPECTED, 2 * max(float(seen.max()), float(expected.max())))
    labels = [_span(first, end) for first, end in pairwise(edges.tolist())]
    axes.set_xticks(x, labels, fontsize=7, rotation=45, ha="right")
    axes.set(xlabel="faults in a block", ylabel="blocks")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize=8)
    axes.set_title("how faults spread over blocks", fontsize=10)


def _edges(most: int) -> NDArray[np.int64]:
    """Where bins of counts begin, and the end: single counts at first, then wider ones so that no more than 24 are."""
    if most < _MOST_BARS:
        return np.arange(most + 2)
    wide = np.geomspace(8, most + 1, _MOST_BARS - 8)
    return np.unique(np.concatenate([np.arange(9), np.ceil(wide).astype(np.int64)]))


def _span(first: int, end: int) -> str:
    last = end - 1
    return str(first) if last == first else f"{first}-{last}"
