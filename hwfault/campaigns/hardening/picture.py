"""The Pareto picture: what extra memory buys in silent wrong answers, and in right ones."""

import io
from typing import TYPE_CHECKING

from hwfault.campaigns.hardening.advice import Advice, Plan
from hwfault.campaigns.page.curves import Picture
from hwfault.campaigns.picture import label_decades, plain
from hwfault.report.colours import BLUE, DARK_GREY, SKY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_front(advice: Advice) -> Picture:
    """The plans that nothing beats, and the cheapest one under what is required, as PNG and SVG."""
    import matplotlib
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(5, 3.7), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _draw(axes, advice)
    # below the axes, where it lies over no line
    figure.legend(loc="outside lower center", ncol=1, fontsize=8)
    svg, png = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hwfault"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png")
    title = f"What memory buys: {advice.question}"
    return Picture("hardening", title, _words(advice), svg.getvalue(), png.getvalue())


def _draw(axes: "Axes", advice: Advice) -> None:
    x = [100 * (plan.memory - 1) for plan in advice.front]
    y = [_harm(plan) for plan in advice.front]
    axes.step(
        x,
        y,
        where="post",
        color=BLUE,
        linewidth=1.6,
        label="silent wrong answers: none is better in both",
        marker="o",
        markersize=5,
    )
    if advice.best is not None:
        place = 100 * (advice.best.memory - 1), _harm(advice.best)
        told = f"the cheapest plan: {place[0]:.3g} % more memory"
        axes.plot(*place, color=VERMILION, marker="D", markersize=8, linestyle="none", label=told)
    above = [value for value in x if value > 0]
    if above:
        # from nothing to a multiple: the small prices are of interest, and so is 0
        axes.set_xscale("symlog", linthresh=min(above), linscale=0.4)
        label_decades(axes.xaxis, min(above), max(above))
    harms = [value for value in y if value > 0]
    if harms:
        axes.set_yscale("symlog", linthresh=min(harms), linscale=0.4)
        axes.set_ylim(bottom=-0.2 * min(harms))
        label_decades(axes.yaxis, min(harms), max(harms))
    if advice.front_of_accuracy:
        along = [100 * (plan.memory - 1) for plan in advice.front_of_accuracy]
        lost = [max(_lost(plan), 0.0) for plan in advice.front_of_accuracy]
        told = "the same for right answers lost"
        axes.step(along, lost, where="post", color=SKY, linewidth=1.2, linestyle="--", label=told)
    axes.set_xlabel("extra memory in %")
    of = "one flip" if advice.rate is None else f"{advice.rate:g} flips for each bit"
    axes.set_ylabel(plain(f"share of answers, {of}"))
    axes.axhline(_harm(advice.baseline), color=DARK_GREY, linewidth=1, linestyle=(0, (1, 2)), label="no measure")
    axes.grid(alpha=0.3)


def _harm(plan: Plan) -> float:
    return plan.sdc.value if plan.expected_sdc is None else plan.expected_sdc


def _lost(plan: Plan) -> float:
    lost = plan.accuracy_lost if plan.expected_lost is None else plan.expected_lost
    return 0.0 if lost is None else lost


def _words(advice: Advice) -> str:
    """What the picture shows, for who does not see it."""
    last = advice.front[-1]
    told = f"{_harm(advice.baseline):.3g} without a measure, {_harm(last):.3g} for {last.memory - 1:.2%} more memory"
    return f"Silent wrong answers over extra memory, {len(advice.front)} plans that nothing beats: {told}."
