"""Pictures of a campaign: accuracy and SDC over the axis of its sweeps, and heat maps; as PNG and SVG."""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from hwfault.campaigns.page.cells import HeatMap
from hwfault.campaigns.page.sentences import Answered
from hwfault.campaigns.page.words import SPACE, share
from hwfault.campaigns.picture import label_decades, label_rates, plain
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.files import write_atomically
from hwfault.report.colours import DARK_GREY, INK, LIGHT_GREY, PAPER, SCALE, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

_MARKERS = "osD^vP"
_DASHES = ("-", "--", "-.", ":")
_WIDE_RANGE = 20
_AXES = {
    "ber": "bit error rate (probability of each stored bit)",
    "voltage_v": "supply voltage in V",
    "temperature_c": "temperature in °C",
}
_CALLED = {"ber": "the bit error rate", "voltage_v": "the supply voltage", "temperature_c": "the temperature"}
Rate = Literal["accuracy", "sdc", "turned"]
_NAMES: dict[Rate, str] = {
    "accuracy": "accuracy (share)",
    "sdc": "silent wrong answers (share)",
    "turned": "answers that have turned (share)",
}
_TITLES: dict[Rate, str] = {
    "accuracy": "Accuracy",
    "sdc": "Silent wrong answers",
    "turned": "Answers that have turned (first turns, no SDC)",
}


class Picture(NamedTuple):
    """A picture as SVG and PNG, what it is called in a folder, what it shows in one line, and in words."""

    name: str
    title: str
    alt: str
    svg: bytes
    png: bytes

    def write(self, folder: Path) -> list[str]:
        """Leaves both in a folder; raises FileError. Answers with their names."""
        for suffix, content in ((".svg", self.svg), (".png", self.png)):
            write_atomically(folder / f"{self.name}{suffix}", content)
        return [f"{self.name}.svg", f"{self.name}.png"]


class Curve(NamedTuple):
    """One question along an axis: where, the rates there, and the golden run's accuracy."""

    question: str
    x: tuple[float, ...]
    rates: tuple[Estimate, ...]
    golden: float | None


def curve_of(axis: str, tasks: Answered, rate: Rate) -> Curve | None:
    """The curve of a question; None where that rate is not known at each of two points."""
    ordered = sorted(tasks, key=lambda one: float(one[0].labels[axis]))
    x: list[float] = []
    rates: list[Estimate] = []
    for task, figure in ordered:
        found = getattr(figure, rate)
        if found is not None:
            x.append(float(task.labels[axis]))
            rates.append(found)
    if not x:
        return None
    golden = ordered[0][1].golden_accuracy if rate == "accuracy" else 0.0
    return Curve(ordered[0][0].question, tuple(x), tuple(rates), golden)


def draw_curves(axis: str, curves: Sequence[Curve], rate: Rate) -> Picture:
    """One rate of some questions over an axis, with whiskers (dotted: a bound) and the golden run's line."""
    from matplotlib.figure import Figure as Drawing  # slow to import, and only needed here

    figure = Drawing(figsize=(5, 3.7), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    lines: list[float] = []
    for place, curve in enumerate(curves):
        _draw(axes, place, curve, lines)
    every = sorted({x for curve in curves for x in curve.x})
    if axis == "ber":
        label_rates(axes, every)
    axes.set_xlabel(_AXES.get(axis, plain(axis)))
    if rate == "accuracy":
        axes.set_ylim(top=1.01)
    else:
        _fit_sdc(axes, curves)
    axes.set_ylabel(_NAMES[rate])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    what = _TITLES[rate]
    title = f"{what} over {_CALLED.get(axis, plain(axis))}"
    return _picture(figure, f"{rate}-{axis}", title, _words(axis, curves, what))


def _draw(axes: "Axes", place: int, curve: Curve, lines: list[float]) -> None:
    colour = SERIES[place % len(SERIES)]
    marker = _MARKERS[place % len(_MARKERS)]
    dashes = _DASHES[place // len(SERIES) % len(_DASHES)]
    values = [rate.value for rate in curve.rates]
    axes.plot(curve.x, values, color=colour, marker=marker, linestyle=dashes, markersize=6, label=plain(curve.question))
    for x, rate in zip(curve.x, curve.rates, strict=True):
        if rate.ends is not None:
            style = ":" if rate.by.endswith("bound") else "-"
            axes.plot([x, x], rate.ends, color=colour, linestyle=style, linewidth=1.6, marker="_", markersize=8)
    # the golden run of all questions is one, as a rule, and then so is its line
    if curve.golden is not None and curve.golden not in lines:
        label = "golden run" if not lines else None
        axes.axhline(curve.golden, color=DARK_GREY, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1, label=label)
        lines.append(curve.golden)


def _fit_sdc(axes: "Axes", curves: Sequence[Curve]) -> None:
    """From 0 on; where the rates reach over more than a decade or so logarithmic down to the smallest one."""
    values = [rate.value for curve in curves for rate in curve.rates]
    above = [value for value in values if value > 0]
    if above and max(above) > _WIDE_RANGE * min(above):
        axes.set_yscale("symlog", linthresh=min(above), linscale=0.5)
        top = 1.4 * max(axes.dataLim.y1, max(above))
        axes.set_ylim(bottom=-0.3 * min(above), top=top)
        label_decades(axes.yaxis, min(above), top)
        return
    axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])


def _words(axis: str, curves: Sequence[Curve], what: str) -> str:
    """What a curve shows, for who does not see it; the numbers stand in the table."""
    told = []
    for curve in curves:
        first, last = curve.rates[0].value, curve.rates[-1].value
        told.append(f"{curve.question}: {first:.3g} at {curve.x[0]:g}, {last:.3g} at {curve.x[-1]:g}")
    return f"{what} over {axis}, with intervals. {'; '.join(told)}. All numbers are in the table."


def draw_heat_map(question: str, found: HeatMap) -> Picture:
    """Site x bit of single flips: darker is worse; hatched is not seen, with its upper bound."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure as Drawing

    rows, columns = len(found.names), len(found.bits)
    longest = max(map(len, found.names))
    figure = Drawing(figsize=(1.6 + 0.07 * longest + 0.6 * columns, 1.3 + 0.34 * rows), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    levels = np.full((rows, columns), np.nan)
    for row, column in np.ndindex(rows, columns):
        cell = found.cells[row][column]
        level = None if cell is None else level_of(cell.value, found.largest)
        if level is not None:
            levels[row, column] = level
        if cell is not None:
            _draw_cell(axes, row, column, cell, level)
    colours = ListedColormap([colour for colour, _ in SCALE])
    drawn = axes.imshow(levels, cmap=colours, vmin=-0.5, vmax=len(SCALE) - 0.5, aspect="auto")
    axes.set_xticks(range(columns), [str(bit) for bit in found.bits])
    axes.set_yticks(range(rows), [plain(name) for name in found.names], fontsize=8)
    axes.set_xlabel("bit (the lowest is 0); numbers in % of answers; hatched: none seen, empty: not tried")
    if found.largest > 0:
        bar = figure.colorbar(drawn, ax=axes, ticks=range(len(SCALE)))
        bar.ax.set_yticklabels(scale_told(found.largest), fontsize=8)
    title = f"Silent wrong answers for one flip: {question}"
    return _picture(figure, f"heatmap-{question}", title, f"{title}, by site and bit. All numbers are in the table.")


def _draw_cell(axes: "Axes", row: int, column: int, rate: Estimate, level: int | None) -> None:
    """The number in a cell, or the upper bound on hatching."""
    from matplotlib.patches import Rectangle

    text, colour = _percent(rate.value), INK if level is None else SCALE[level][1]
    if level is None:
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, hatch="////", facecolor=PAPER, edgecolor=LIGHT_GREY, linewidth=0))
        text = "0" if rate.ends is None else f"<{_percent(rate.ends[1])}"
    axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=8)


def _percent(value: float) -> str:
    """The number of a percentage without its sign."""
    return share(value, 2).removesuffix(f"{SPACE}%")


def level_of(value: float, largest: float) -> int | None:
    """The class of a rate in the scale, each three times the one below; None for 0."""
    if value <= 0:
        return None
    below = int(np.floor(np.log(largest / value) / np.log(3) + 1e-9))
    return max(0, len(SCALE) - 1 - below)


def scale_told(largest: float) -> list[str]:
    """What each class of the scale holds."""
    ends = [largest / 3**step for step in reversed(range(len(SCALE)))]
    texts = [f"up to {share(ends[0], 2)}"]
    for low, high in pairwise(ends):
        texts.append(f"{_percent(low)} to {share(high, 2)}")
    return texts


def _picture(figure: "Drawing", name: str, title: str, alt: str) -> Picture:
    import matplotlib

    svg, png = io.BytesIO(), io.BytesIO()
    # the same campaign gives the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "hwfault"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png")
    safe = "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in name)
    return Picture(safe, title, alt, svg.getvalue(), png.getvalue())
