"""Pictures of profiles: the rate curve with its measured points, and fault maps as one sees them in a memory."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwfault.files import check_picture, replace_atomically
from hwfault.profiles.curve import look_up, point_interval
from hwfault.profiles.describe import QUANTITIES
from hwfault.profiles.profile import Profile
from hwfault.profiles.rates import Axis, RateCurve, RatePoint
from hwfault.report.colours import BLUE, DARK_GREY, GREEN, SERIES, VERMILION
from hwfault.stream.fault_map import FaultMap, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = SERIES
_KINDS = {
    Kind.FLIP: ("flip", GREEN),
    Kind.STUCK_AT_0: ("stuck at 0", BLUE),
    Kind.STUCK_AT_1: ("stuck at 1", VERMILION),
}
_ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1.0, 1.0),
    "ncols": 3,
    "frameon": False,
    "fontsize": 8,
    "borderpad": 0.1,
    "columnspacing": 1.0,
    "handletextpad": 0.1,
}
"""A legend above the panel, where it covers no cell."""
_SAMPLES = 200
_MOST_LINES = 6
_MOST_DOTS = 20_000
_MOST_BINS = 256

Panel = Callable[["Axes"], object]


def draw_profile(
    path: Path | str, profile: Profile, *, at: Mapping[str, float] | None = None, maps: Sequence[Panel] = ()
) -> None:
    """Writes a picture (by the path's suffix: .png, .svg, .pdf): the rate curve, and beside it what `maps` draw.

    The curve of a profile with free parameters is left out. `at` marks an operating point. Each of `maps` draws one
    panel, as `map_panels` makes them. Raises FileError if the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure  # slow to import, and only needed here

    curve = not profile.rate.free
    rows = max(len(maps), 1)
    columns = curve + bool(maps)
    figure = Figure(figsize=(5.8 * columns, 5.2), dpi=150, layout="constrained")
    figure.suptitle("\n".join(wrap(profile.title, 58 * columns)), fontsize=11)
    grid = figure.add_gridspec(rows, columns)
    if curve:
        draw_curve(figure.add_subplot(grid[:, 0]), profile.rate, at)
    for i, panel in enumerate(maps):
        panel(figure.add_subplot(grid[i, -1]))
    replace_atomically(path, lambda temporary: figure.savefig(temporary))


def draw_curve(axes: "Axes", curve: RateCurve, at: Mapping[str, float] | None = None) -> None:
    """The measured points with their 95 % intervals (bounds as arrows), the rate between them, and where none occurs.

    Of several axes the one with most measured values lies below; the others' values give a line each, the first six.
    """
    sizes = [len(values) for values in curve.values]
    i = sizes.index(max(sizes))
    axis = curve.axes[i]
    values_of = dict(zip(curve.names, curve.values, strict=True))
    others = [[(name, value) for value in values] for name, values in values_of.items() if name != axis.name]
    for line, colour in zip(islice(product(*others), _MOST_LINES), _COLOURS, strict=False):
        _draw_line(axes, curve, axis, dict(line), colour)
    if at:
        rate = look_up(curve, at).value
        x = at.get(axis.name, values_of[axis.name][0])  # an axis of a single value may be left out
        axes.plot([x], [rate], "o", markersize=13, markerfacecolor="none", color="black", label="the map beside")
    _label_curve(axes, curve, i)


def _draw_line(axes: "Axes", curve: RateCurve, axis: Axis, fixed: Mapping[str, float], colour: str) -> None:
    points = [p for p in curve.points if fixed.items() <= p.at.items()]
    name = ", ".join(f"{key} = {value:g}" for key, value in fixed.items())
    x = [p.at[axis.name] for p in points]
    if curve.interpolation != "exact" and len(points) > 1:
        # the measured values are among the line's, so that it runs through them and not past their corners
        line = {float(value) for value in np.linspace(min(x), max(x), _SAMPLES)}
        line.update(x)
        if axis.fail_free_from is not None:
            # the mildest point's rate holds up to the last value before the fail-free region
            line.add(float(np.nextafter(axis.fail_free_from, x[0])))
        along = sorted(line)
        rates = [look_up(curve, {**fixed, axis.name: value}).value for value in along]
        axes.plot(along, rates, color=colour, linewidth=1.2)
    _draw_points(axes, curve, axis, points, colour, name)


def _draw_points(
    axes: "Axes", curve: RateCurve, axis: Axis, points: Sequence[RatePoint], colour: str, name: str
) -> None:
    # points with counts have an interval
    counted = [p for p in points if p.n_faults]
    if counted:
        x = [p.at[axis.name] for p in counted]
        y = np.array([p.measured for p in counted])
        ends = np.array([point_interval(curve, p) for p in counted]).T
        label = name or "measured, 95 % interval"
        axes.errorbar(x, y, yerr=np.abs(ends - y), fmt="o", color=colour, markersize=5, capsize=3, label=label)
    # of others nothing but the rate is known
    stated = [p for p in points if p.n_faults is None]
    if stated:
        x = [p.at[axis.name] for p in stated]
        rates = [p.measured for p in stated]
        axes.plot(x, rates, "o", color=colour, markersize=5, label=name or "as published")
    # where none failed there is a bound, from which an arrow points down
    bounds = [p for p in points if p.upper_bound]
    if bounds:
        x = [p.at[axis.name] for p in bounds]
        most = [curve.drawn(p) for p in bounds]
        arrow: dict[str, Any] = {"uplims": True, "yerr": [0.5 * value for value in most], "capsize": 3}
        axes.errorbar(x, most, fmt="_", color=colour, markersize=9, label="none seen: at most 3/N", **arrow)


def _label_curve(axes: "Axes", curve: RateCurve, i: int) -> None:
    axis = curve.axes[i]
    values = curve.values[i]
    if curve.interpolation != "linear":
        axes.set_yscale("log")
    _shade(axes, axis, values)
    if curve.interpolation == "exact":
        axes.set_xticks(values)
    axes.set(xlabel=f"{axis.name} ({axis.unit})", ylabel=QUANTITIES[curve.quantity])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, framealpha=0.9)


def _shade(axes: "Axes", axis: Axis, values: Sequence[float]) -> None:
    """The fail-free region in green and the unusable one in grey, each with a name at its edge."""
    # the panel reaches a little beyond all that is named, so that the regions are seen
    edges = [v for v in (axis.fail_free_from, axis.crash_below, axis.crash_above) if v is not None]
    margin = 0.12 * ((max(values) - min(values)) or 1.0)
    low = min([*values, *edges]) - margin
    high = max([*values, *edges]) + margin
    if axis.direction(values) == "lower":
        mild, harsh = high, low
    else:
        mild, harsh = low, high
    if axis.fail_free_from is not None:
        _region(axes, axis.fail_free_from, mild, GREEN, "fail-free")
    for crash in (axis.crash_below, axis.crash_above):
        if crash is not None:
            _region(axes, crash, harsh, DARK_GREY, "crashes")
    axes.set_xlim(low, high)


def _region(axes: "Axes", edge: float, end: float, colour: str, name: str) -> None:
    axes.axvspan(edge, end, color=colour, alpha=0.15, linewidth=0)
    half_up = axes.get_xaxis_transform()  # x in values, y in parts of the panel's height
    middle = (edge + end) / 2
    axes.text(middle, 0.5, name, fontsize=8, color=colour, transform=half_up, rotation=90, ha="center", va="center")


def map_panels(fault_map: FaultMap, row_bits: int, block_rows: int | None = None) -> list[Panel]:
    """The panels of a memory's map: all its cells; or the faults of each block, and the cells of the worst one."""
    if block_rows is None or fault_map.words * fault_map.bit_width <= block_rows * row_bits:
        return [lambda axes: draw_map_picture(axes, fault_map, row_bits)]
    counts = block_counts(fault_map, row_bits, block_rows)
    worst = int(counts.argmax())
    return [
        lambda axes: draw_blocks(axes, counts),
        lambda axes: draw_map_picture(axes, fault_map, row_bits, block_rows, worst),
    ]


def block_counts(fault_map: FaultMap, row_bits: int, block_rows: int) -> NDArray[np.int64]:
    """The number of faulty cells of each block of `block_rows` rows."""
    row, _, _ = _cells(fault_map, row_bits)
    blocks = -(-fault_map.words * fault_map.bit_width // (row_bits * block_rows))
    return np.bincount(row // block_rows, minlength=blocks)


def draw_blocks(axes: "Axes", counts: NDArray[np.int64]) -> None:
    """The faults of each block as a heat map; blocks lie row by row in the order of their numbers."""
    width = int(np.ceil(np.sqrt(len(counts) * 2.2)))  # the panel is about 2.2 times as wide as high
    rows = -(-len(counts) // width)
    cells = np.full(rows * width, np.nan)  # neither blocks without faults nor the rest of the last row are coloured
    cells[: len(counts)] = np.where(counts > 0, counts, np.nan)
    top = max(int(counts.max(initial=0)), 2)
    axes.set_facecolor("#f2f2f2")
    image = axes.imshow(cells.reshape(-1, width), cmap="viridis_r", norm=_log(1, top), interpolation="nearest")
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= top]
    bar = axes.figure.colorbar(image, ax=axes, ticks=ticks, format="%d", fraction=0.05, pad=0.02)
    bar.minorticks_off()
    bar.set_label("faults", fontsize=8)
    axes.set(xticks=[], yticks=[], xlabel="blocks, in the order of their numbers")
    faulty = int((counts > 0).sum())
    axes.set_title(f"{int(counts.sum()):,} faults in {faulty:,} of {len(counts):,} blocks", fontsize=10)


def _log(vmin: float, vmax: float) -> Any:
    from matplotlib.colors import LogNorm

    return LogNorm(vmin=vmin, vmax=vmax)


def draw_map_picture(
    axes: "Axes", fault_map: FaultMap, row_bits: int, block_rows: int | None = None, block: int = 0
) -> None:
    """The faulty cells of a memory, or of its `block` of `block_rows` rows: rows to the right, columns upwards.

    Cells have the colour of their kind; of more than 20000 the density is drawn instead.
    """
    row, column, kind = _cells(fault_map, row_bits)
    rows = -(-fault_map.words * fault_map.bit_width // row_bits)
    title = ""
    if block_rows is not None:
        inside = row // block_rows == block
        row = row[inside] - block * block_rows
        column = column[inside]
        kind = kind[inside]
        rows = block_rows
        title = f"block {block}: "
    if len(row) > _MOST_DOTS:
        _draw_density(axes, row, column, (rows, row_bits))
    else:
        _draw_dots(axes, row, column, kind)
    axes.set(xlim=(-0.5, rows - 0.5), ylim=(-0.5, row_bits - 0.5), xlabel="row", ylabel="column (bit of the row)")
    axes.locator_params(axis="y", integer=True)
    axes.set_title(f"{title}{len(row):,} of {rows * row_bits:,} cells faulty", fontsize=10, loc="left")


def _draw_dots(axes: "Axes", row: NDArray[np.int64], column: NDArray[np.int64], kind: NDArray[np.uint8]) -> None:
    if not len(row):
        axes.text(0.5, 0.5, "no fault", transform=axes.transAxes, ha="center", va="center", color=DARK_GREY)
        return
    size = float(np.clip(4000 / len(row), 1.5, 14))
    for code, (name, colour) in _KINDS.items():
        of = kind == code
        if of.any():
            axes.scatter(row[of], column[of], s=size, marker="s", color=colour, linewidths=0, label=name)
    axes.legend(markerscale=max(1.0, 4 / size**0.5), **_ABOVE)


def _draw_density(axes: "Axes", row: NDArray[np.int64], column: NDArray[np.int64], size: tuple[int, int]) -> None:
    rows, columns = size
    bins = [min(_MOST_BINS, rows), min(_MOST_BINS, columns)]
    extent = [[-0.5, rows - 0.5], [-0.5, columns - 0.5]]
    counts, x, y = np.histogram2d(row, column, bins=bins, range=extent)
    cells_a_bin = rows * columns / bins[0] / bins[1]
    image = axes.pcolormesh(x, y, counts.T / cells_a_bin, cmap="Blues", vmin=0)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("share of faulty cells", fontsize=8)


def _cells(fault_map: FaultMap, row_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """(row, column, kind) of each faulty cell of a memory."""
    word, bit, kind = fault_map.cells()
    cell = word * fault_map.bit_width + bit
    return cell // row_bits, cell % row_bits, kind


def element_panel(fault_map: FaultMap, rows: int, columns: int) -> Panel:
    """The panel of an array of processing elements, each a word of the map: which of them are faulty."""

    def draw(axes: "Axes") -> None:
        y, x = np.divmod(fault_map.word, columns)
        size = max(2.5, 240 / max(rows, columns)) ** 2
        axes.scatter(x, y, s=size, marker="s", color=_COLOURS[0], linewidths=0)
        axes.set(xlabel="column", ylabel="row", aspect="equal", xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        if max(rows, columns) <= 32:
            axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
            axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
            axes.grid(which="minor", color="#dddddd", linewidth=0.6)
            axes.tick_params(which="minor", length=0)
        axes.set_title(f"{len(fault_map):,} of {rows * columns:,} processing elements faulty", fontsize=10)

    return draw
