"""The picture of a sweep: accuracy against bit error rate, with interval bands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwfault.campaign.trials import Trials
from hwfault.files import replace_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe-Ito: told apart by all
_MARKERS = "osD^vP"


def draw_accuracy(path: Path | str, curves: Mapping[str, Sequence[Trials]], *, title: str = "") -> None:
    """Writes a picture (by the path's suffix: .png, .svg, .pdf) of mean accuracy and 95 % band for each network.

    The rates' axis is logarithmic, with room for 0. Each of the trials must have a `ber`. Raises FileError.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, (name, points) in enumerate(curves.items()):
        _draw_curve(axes, name, points, _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
    _label(axes, sorted({trials.ber or 0.0 for points in curves.values() for trials in points}), title)
    replace_atomically(path, lambda temporary: figure.savefig(temporary))


def _draw_curve(axes: "Axes", name: str, points: Sequence[Trials], colour: str, marker: str) -> None:
    points = sorted(points, key=lambda trials: trials.ber or 0.0)
    rates = [trials.ber or 0.0 for trials in points]
    low, high = zip(*(trials.interval for trials in points), strict=True)
    axes.fill_between(rates, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(rates, [trials.mean for trials in points], color=colour, marker=marker, markersize=5, label=name)


def _label(axes: "Axes", rates: list[float], title: str) -> None:
    smallest = min((rate for rate in rates if rate > 0), default=1e-3)
    axes.set_xscale("symlog", linthresh=smallest, linscale=0.5)
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.02)
    axes.set(xlabel="bit error rate (probability of each stored bit)", ylabel="accuracy", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", title="mean and 95 % interval over fault seeds")
