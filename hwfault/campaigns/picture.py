"""Pictures of campaigns: accuracy against a rate or an operating point, and what each site, bit or fault list costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwfault.campaigns.statistics.means import Basis, Interval
from hwfault.campaigns.trials import Trials
from hwfault.files import check_picture, replace_atomically
from hwfault.report.colours import BLUE, SERIES, VERMILION
from hwfault.terminal import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_COLOURS = SERIES
_MARKERS = "osD^vP"
_DASHES = ("-", "--", "-.", ":")
_MOST_BARS = 60
_MOST_TICKS = 8
_LEGEND = "mean over fault seeds, these samples; band: 95 % interval (t),\nwhisker: 95 % bound, too few trials differ"
_LOW, _HIGH = VERMILION, BLUE


def draw_accuracy(
    path: Path | str,
    curves: Mapping[str, Sequence[Trials]],
    *,
    title: str = "",
    axis: str | None = None,
    axis_label: str | None = None,
) -> None:
    """Writes a picture (by the path's suffix: .png, .svg, .pdf) of mean accuracy and 95 % band for each curve.

    The band is Student's interval; where too few trials differ a whisker is the bound instead, and where every seed has
    the same faults there is neither. Against the trials' `ber` on a logarithmic axis with room for 0, or against their
    label `axis` on a linear one, with `axis_label` below. Golden accuracies are marked on the left where they are
    known. Raises FileError.
    """
    check_picture(path)
    from matplotlib.figure import Figure  # slow to import, and only needed here

    def x_of(trials: Trials) -> float:
        return (trials.ber or 0.0) if axis is None else float(trials.labels[axis])

    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, (name, points) in enumerate(curves.items()):
        _draw_curve(axes, i, name, sorted(points, key=x_of), x_of)
    every: list[Trials] = []
    for points in curves.values():
        every.extend(points)
    if axis is None:
        label_rates(axes, sorted({x_of(trials) for trials in every}))
    else:
        axes.set_xlabel(axis_label or axis)
    _fit(axes, every)
    axes.set(ylabel=_measured(every), title=plain(title))
    axes.grid(alpha=0.3)
    axes.legend(title=_LEGEND, fontsize=8, title_fontsize=8)
    replace_atomically(path, lambda temporary: figure.savefig(temporary))


def _measured(trials: Sequence[Trials]) -> str:
    """What the trials tell, for an axis."""
    return "agreement with the golden run" if any(one.measures == "agreement" for one in trials) else "accuracy"


def _draw_curve(axes: "Axes", i: int, name: str, points: Sequence[Trials], x_of: Callable[[Trials], float]) -> None:
    colour = _COLOURS[i % len(_COLOURS)]
    # Student's intervals make a band; bounds stand alone, as nothing says that those between them would be alike
    x, low, high = _ends(points, "t", x_of)
    if x:
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    x, low, high = _ends(points, "bound", x_of)
    if x:
        axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=1)
    # marker and colour change from curve to curve, and dashes where the colours begin again
    marker = _MARKERS[i % len(_MARKERS)]
    dashes = _DASHES[i // len(_COLOURS) % len(_DASHES)]
    x = [x_of(trials) for trials in points]
    means = [trials.mean for trials in points]
    axes.plot(x, means, color=colour, marker=marker, linestyle=dashes, markersize=5, label=name)
    golden = next((trials.reference for trials in points if trials.reference is not None), None)
    if golden is not None:
        axes.axhline(golden, color=colour, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)


def _ends(
    points: Sequence[Trials], by: Basis, x_of: Callable[[Trials], float]
) -> tuple[list[float], list[float], list[float]]:
    """Where the intervals of one kind lie, their lower and their upper ends."""
    x: list[float] = []
    low: list[float] = []
    high: list[float] = []
    for trials in points:
        interval = _interval_to_draw(trials)
        if interval.by == by and interval.ends is not None:
            x.append(x_of(trials))
            low.append(interval.ends[0])
            high.append(interval.ends[1])
    return x, low, high


def _interval_to_draw(trials: Trials) -> Interval:
    """The interval to draw; none of one trial, which tells nothing about the spread."""
    if len(trials.seeds) == 1:
        return Interval("same", None)
    return trials.told


def label_decades(axis: "Axis", smallest: float, largest: float) -> None:
    """Names 0 and the decades of an axis that is linear below its smallest number, where names would overlap."""
    first, last = math.ceil(math.log10(smallest)), math.floor(math.log10(largest))
    axis.set_ticks([0.0, *(10.0**power for power in range(first, last + 1))])


def label_rates(axes: "Axes", rates: list[float]) -> None:
    """Makes a logarithmic axis of bit error rates, with room for 0, and names it."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    # logarithmic from the smallest rate on, and linear from there to 0, which has no logarithm
    smallest = min((rate for rate in rates if rate > 0), default=1e-3)
    axes.set_xscale("symlog", linthresh=smallest, linscale=0.5)
    if len(rates) <= _MOST_TICKS:
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    if rates:
        left = -0.3 * smallest if rates[0] == 0 else rates[0] / 1.3
        right = max(rates[-1], smallest) * 1.3
        axes.set_xlim(left, right)
    axes.set_xlabel("bit error rate (probability of each stored bit)")


def _fit(axes: "Axes", trials: Sequence[Trials]) -> None:
    """From 0 to 1, or closer where all that is drawn lies in the upper half."""
    seen: list[float] = []
    for one in trials:
        seen.extend(_interval_to_draw(one).ends or (one.mean,))
    lowest = min(seen, default=0.0)
    bottom = 0.0
    if lowest >= 0.5:
        bottom = int((lowest - 0.01) * 20) / 20  # the multiple of 0.05 below it
    axes.set_ylim(bottom, 1 + 0.02 * (1 - bottom))


def draw_losses(path: Path | str, bars: Mapping[str, Trials], *, title: str = "") -> None:
    """Writes a picture with a horizontal bar for each name, in their order from the top: from golden to mean accuracy.

    Lines are the 95 % intervals, dotted where they are bounds. Of more than 60 those are drawn that lose most. Each of
    the trials must have been run beside a golden run. Raises FileError.
    """
    check_picture(path)
    from matplotlib.figure import Figure  # slow to import, and only needed here

    names = list(bars)
    if len(names) > _MOST_BARS:
        worst = set(sorted(names, key=lambda name: bars[name].mean)[:_MOST_BARS])
        title += f"\nthe {_MOST_BARS} of {len(names)} that lose most"
        names = [name for name in names if name in worst]
    width = 5.2 + 0.065 * max(map(len, names), default=0)
    figure = Figure(figsize=(width, 1.4 + 0.24 * len(names)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(names):
        _draw_bar(axes, i, bars[name])
    axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _frame(axes, [bars[name] for name in names])
    axes.set_xlabel(
        f"{_measured(list(bars.values()))}\n"
        "bar: lost against the golden run, line: 95 % interval of the mean over fault seeds, these samples\n"
        "(dotted: a bound, too few trials differ)",
        fontsize=9,
    )
    axes.set_title(plain(title), pad=18, fontsize=11)  # above the word on the golden run
    replace_atomically(path, lambda temporary: figure.savefig(temporary))


def plain(text: str) -> str:
    """A name as it is: a dollar would begin a formula, and what a terminal obeys has no shape in any font."""
    return shown(text).replace("$", r"\$")


def _draw_bar(axes: "Axes", y: int, trials: Trials) -> None:
    golden = trials.reference or 0.0
    colour = _LOW if trials.mean < golden else _HIGH
    axes.barh(y, trials.mean - golden, left=golden, height=0.7, color=colour, alpha=0.85)
    by, ends = _interval_to_draw(trials)
    if ends is not None:
        style = "-" if by == "t" else ":"
        axes.plot(ends, [y, y], style, color="black", linewidth=1.2, solid_capstyle="butt")
    axes.plot([trials.mean], [y], "|", color="black", markersize=7)


def _frame(axes: "Axes", trials: Sequence[Trials]) -> None:
    golden = trials[0].reference or 0.0
    seen = [golden]
    for one in trials:
        seen.append(one.mean)
        seen.extend(_interval_to_draw(one).ends or ())
    low = min(seen)
    high = max(seen)
    room = max(high - low, 0.005) * 0.06
    # with room behind an accuracy of 1 too, whose mark would lie on the frame
    right = high + room if high + room < 1 else 1.0 + room
    axes.set_xlim(max(0.0, low - room), right)
    axes.axvline(golden, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
    axes.annotate(
        f"golden {golden:.1%}", (golden, 1.0), xycoords=("data", "axes fraction"), xytext=(-3, 3),
        textcoords="offset points", ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    axes.grid(axis="x", alpha=0.3)
