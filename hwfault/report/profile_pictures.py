"""Pictures of profiles: the rate curve with its measured points, and fault maps as one sees them in a memory."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
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
from hwfault.stream.fault_map import FaultMap, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe-Ito: told apart by all
_KINDS = {Kind.FLIP: ("flip", "#009e73"), Kind.STUCK_AT_0: ("stuck at 0", "#0072b2")}
_KINDS |= {Kind.STUCK_AT_1: ("stuck at 1", "#d55e00")}
_ABOVE: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 3, "frameon": False}
_ABOVE |= {"fontsize": 8, "borderpad": 0.1, "columnspacing": 1.0, "handletextpad": 0.1}
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

    curve, rows = not profile.rate.free, max(len(maps), 1)
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
    others = [[(name, v) for v in values] for j, (name, values) in enumerate(_named(curve)) if j != i]
    for line, colour in zip(list(product(*others))[:_MOST_LINES], _COLOURS, strict=False):
        _draw_line(axes, curve, curve.axes[i], dict(line), colour)
    if at:
        value = look_up(curve, at).value
        x = {**{name: values[0] for name, values in _named(curve)}, **at}[curve.axes[i].name]
        axes.plot([x], [value], "o", markersize=13, markerfacecolor="none", color="black", label="the map beside")
    _label_curve(axes, curve, i)


def _named(curve: RateCurve) -> list[tuple[str, tuple[float, ...]]]:
    return [(axis.name, values) for axis, values in zip(curve.axes, curve.values, strict=True)]


def _draw_line(axes: "Axes", curve: RateCurve, axis: Axis, fixed: Mapping[str, float], colour: str) -> None:
    points = [p for p in curve.points if fixed.items() <= p.at.items()]
    name = ", ".join(f"{key} = {value:g}" for key, value in fixed.items())
    x = [p.at[axis.name] for p in points]
    if curve.interpolation != "exact" and len(points) > 1:
        line = [*np.linspace(min(x), max(x), _SAMPLES), *sorted(x)]
        line = sorted({float(value) for value in line} | _clamped(axis, x))
        axes.plot(line, [look_up(curve, {**fixed, axis.name: v}).value for v in line], color=colour, linewidth=1.2)
    _draw_points(axes, curve, axis, points, colour, name)


def _clamped(axis: Axis, x: Sequence[float]) -> set[float]:
    """The last value before the fail-free region begins, to which the mildest point's rate holds."""
    free = axis.fail_free_from
    return set() if free is None else {float(np.nextafter(free, x[0]))}


def _draw_points(
    axes: "Axes", curve: RateCurve, axis: Axis, points: Sequence[RatePoint], colour: str, name: str
) -> None:
    counted = [p for p in points if p.n_faults]
    if counted:
        y = np.array([p.measured for p in counted])
        between = np.array([point_interval(curve, p) for p in counted]).T
        x, label = [p.at[axis.name] for p in counted], name or "measured, 95 % interval"
        axes.errorbar(x, y, yerr=np.abs(between - y), fmt="o", color=colour, markersize=5, capsize=3, label=label)
    stated = [(p.at[axis.name], p.measured) for p in points if p.n_faults is None]
    if stated:
        axes.plot(*zip(*stated, strict=True), "o", color=colour, markersize=5, label=name or "as published")
    bounds = {p.at[axis.name]: curve.drawn(p) for p in points if p.upper_bound}
    if bounds:
        most = list(bounds.values())
        arrow: dict[str, Any] = {"uplims": True, "yerr": [0.5 * value for value in most], "capsize": 3}
        axes.errorbar(list(bounds), most, fmt="_", color=colour, markersize=9, label="none seen: at most 3/N", **arrow)


def _label_curve(axes: "Axes", curve: RateCurve, i: int) -> None:
    axis, values = curve.axes[i], curve.values[i]
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
    span = (max(values) - min(values)) or 1.0
    edges = [v for v in (axis.fail_free_from, axis.crash_below, axis.crash_above) if v is not None]
    low, high = min([*values, *edges]) - 0.12 * span, max([*values, *edges]) + 0.12 * span
    worse = axis.direction(values)
    mild, harsh = (high, low) if worse == "lower" else (low, high)
    if axis.fail_free_from is not None:
        _region(axes, axis.fail_free_from, mild, "#009e73", "fail-free")
    for crash in (axis.crash_below, axis.crash_above):
        if crash is not None:
            _region(axes, crash, harsh, "#555555", "crashes")
    axes.set_xlim(low, high)


def _region(axes: "Axes", edge: float, end: float, colour: str, name: str) -> None:
    axes.axvspan(edge, end, color=colour, alpha=0.15, linewidth=0)
    place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "rotation": 90, "ha": "center", "va": "center"}
    axes.text((edge + end) / 2, 0.5, name, fontsize=8, color=colour, **place)


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
    width = int(np.ceil(np.sqrt(len(counts) * 2.2)))
    cells = np.full(-(-len(counts) // width) * width, np.nan)
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
    rows, title = -(-fault_map.words * fault_map.bit_width // row_bits), ""
    if block_rows is not None:
        inside = row // block_rows == block
        row, column, kind = row[inside] - block * block_rows, column[inside], kind[inside]
        rows, title = block_rows, f"block {block}: "
    if len(row) > _MOST_DOTS:
        _draw_density(axes, row, column, (rows, row_bits))
    else:
        _draw_dots(axes, row, column, kind)
    axes.set(xlim=(-0.5, rows - 0.5), ylim=(-0.5, row_bits - 0.5), xlabel="row", ylabel="column (bit of the row)")
    axes.locator_params(axis="y", integer=True)
    axes.set_title(f"{title}{len(row):,} of {rows * row_bits:,} cells faulty", fontsize=10, loc="left")


def _draw_dots(axes: "Axes", row: NDArray[np.int64], column: NDArray[np.int64], kind: NDArray[np.uint8]) -> None:
    if not len(row):
        axes.text(0.5, 0.5, "no fault", transform=axes.transAxes, ha="center", va="center", color="#555555")
        return
    size = float(np.clip(4000 / len(row), 1.5, 14))
    for code, (name, colour) in _KINDS.items():
        of = kind == code
        if of.any():
            axes.scatter(row[of], column[of], s=size, marker="s", color=colour, linewidths=0, label=name)
    axes.legend(markerscale=max(1.0, 4 / size**0.5), **_ABOVE)


def _draw_density(axes: "Axes", row: NDArray[np.int64], column: NDArray[np.int64], size: tuple[int, int]) -> None:
    rows, columns = size
    bins, extent = [min(_MOST_BINS, rows), min(_MOST_BINS, columns)], [[-0.5, rows - 0.5], [-0.5, columns - 0.5]]
    counts, x, y = np.histogram2d(row, column, bins=bins, range=extent)
    image = axes.pcolormesh(x, y, counts.T / (rows * columns / bins[0] / bins[1]), cmap="Blues", vmin=0)
    axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).set_label("share of faulty cells", fontsize=8)


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
