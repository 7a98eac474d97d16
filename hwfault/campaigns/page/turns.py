"""First turns on a campaign's page: sentences, a table, a curve beside those of SDC."""

from collections.abc import Sequence
from typing import NamedTuple

from hwfault.campaigns.nesting.figures import CHECKED_TOLD, TurnFigure
from hwfault.campaigns.nesting.told import point_told
from hwfault.campaigns.page.curves import Curve, Picture, draw_curves
from hwfault.campaigns.page.words import at_most, confidence, number_of, share, told


class FirstTurns(NamedTuple):
    """A question about first turns, ready for the template."""

    name: str
    rows: list[tuple[str, ...]]
    check: str
    earliest: list[str]


def turns_told(figure: TurnFigure) -> FirstTurns:
    """A question's points in rows, what its check came to, and the images that turn earliest."""
    rows: list[tuple[str, ...]] = []
    for point in figure.points:
        rows.append((point_told(point.labels), told(point.turned), share(point.here)))
    images = []
    for sample, part in figure.earliest:
        images.append(f"image {sample}: turned under {share(part)} of seeds by the last point")
    return FirstTurns(figure.name, rows, check_sentence(figure), images)


def answer_of(figure: TurnFigure) -> str:
    """Where answers first turn, in one sentence, and how many of them turn back."""
    first, last = figure.points[0], figure.points[-1]
    so_far = "" if figure.stopped else "So far, "
    ends = []
    for point in (first, last):
        turned = told(point.turned)
        if point.turned.value == 0 and point.turned.ends is not None:
            turned = f"none seen (at most {at_most(point.turned)})"
        ends.append(f"{turned} by {point_told(point.labels)}")
    basis = f"in {number_of(figure.trials, 'trial')} on {number_of(figure.samples, 'image')}"
    sentence = f"{so_far}answers have turned: {ends[0]}, {ends[1]}, {basis} ({confidence(last.turned)})."
    return f"{sentence[:1].upper()}{sentence[1:]} These are first turns, no rates of SDC. {check_sentence(figure)}"


def check_sentence(figure: TurnFigure) -> str:
    """How far the bisection is to be trusted."""
    check = figure.check
    if check.share is None:
        return f"No answer was drawn to run at all points ({CHECKED_TOLD})."
    sentence = (
        f"Of {number_of(check.pairs, 'answer')} that ran at all points ({CHECKED_TOLD}) {check.turned:,} turned, and "
        f"{check.back:,} turned back later: {told(check.share)}. By so much, and no more, shares of first turns may be "
        "too low."
    )
    if figure.runs_grid:
        sentence += " That is too much: the points were run one by one, and their rates are what counts."
    return sentence


def draw_turns(figures: Sequence[TurnFigure]) -> list[Picture]:
    """The share of answers that have turned by each point, over each axis that is swept; questions may share one."""
    by_axis: dict[str, list[Curve]] = {}
    for figure in figures:
        found = _curve(figure)
        if found is not None:
            axis, curve = found
            by_axis.setdefault(axis, []).append(curve)
    return [draw_curves(axis, curves, "turned") for axis, curves in by_axis.items()]


def _curve(figure: TurnFigure) -> tuple[str, Curve] | None:
    axis = next(iter(figure.points[0].labels), None)
    if axis is None:
        return None
    ordered = sorted((float(point.labels[axis]), point.turned) for point in figure.points)
    x, rates = zip(*ordered, strict=True)
    return axis, Curve(figure.question, x, rates, None)
