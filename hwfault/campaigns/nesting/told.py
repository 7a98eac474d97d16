"""First turns as tables, sentences, JSON and lines of CSV."""

from collections.abc import Mapping, Sequence
from typing import Any

from hwfault.campaigns.labels import Label
from hwfault.campaigns.nesting.figures import Check, TurnFigure
from hwfault.campaigns.statistics.estimates import METHODS, Estimate
from hwfault.campaigns.words import cell

Table = tuple[list[str], list[list[str]]]

NOT_SDC = "first turns along the sweep, found by bisection; no rate of SDC at these points"


def turns_table(figures: Sequence[TurnFigure]) -> Table:
    """Columns and rows for people: of each point which share of answers has turned by it, and what the check says."""
    rows = []
    for figure in figures:
        for point in figure.points:
            where = point_told(point.labels)
            turned = cell(point.turned)
            rows.append(
                [figure.name, where, f"{figure.trials:,}", turned, f"{point.here:.3g}", check_told(figure.check)]
            )
    return ["task", "point", "trials", "turned by it", "first turn there", "turned back, of answers checked"], rows


def point_told(labels: Mapping[str, Label]) -> str:
    """A point of a sweep: ber=0.001."""
    return " ".join(f"{key}={value if isinstance(value, str) else format(value, 'g')}" for key, value in labels.items())


def check_told(check: Check) -> str:
    """How many answers turned back, of those that ran at all points: 3 of 1,234 (0.00243, 0.0004 to 0.0078)."""
    if check.share is None:
        return "none checked"
    return f"{check.back:,} of {check.pairs:,} ({cell(check.share)})"


def not_nested_told(not_nested: Mapping[str, str]) -> list[str]:
    """Why the points of some questions about first turns run one by one, a sentence each."""
    return [
        f"{question}: the faults of its sweep are not nested, so that no first turn is found by bisection and every "
        f"point runs ({why})"
        for question, why in not_nested.items()
    ]


def turns_to_data(figure: TurnFigure) -> dict[str, Any]:
    """A sweep as JSON tells it."""
    points = [
        {"labels": dict(point.labels), "turned": _estimate(point.turned), "first_turn_there": point.here}
        for point in figure.points
    ]
    found = figure.check
    share = None if found.share is None else _estimate(found.share)
    check = {"answers": found.pairs, "turned": found.turned, "turned_back": found.back, "share": share}
    data = figure._asdict() | {"what": NOT_SDC, "points": points, "check": check, "runs_grid": figure.runs_grid}
    data["earliest"] = [{"sample": sample, "turned": share} for sample, share in figure.earliest]
    return data


def turns_flat(figure: TurnFigure) -> list[dict[str, object]]:
    """A sweep as lines, one a point, in columns that are none of SDC's."""
    lines: list[dict[str, object]] = []
    check = figure.check
    for point in figure.points:
        low, high = point.turned.ends or (None, None)
        line: dict[str, object] = {"question": figure.question, **point.labels, "trials": figure.trials}
        line |= {"turned": point.turned.value, "turned_low": low, "turned_high": high, "turned_by": point.turned.by}
        line |= {"first_turn_there": point.here, "checked": check.pairs, "turned_back": check.back}
        if check.share is not None and check.share.ends is not None:
            line |= {"turned_back_low": check.share.ends[0], "turned_back_high": check.share.ends[1]}
        lines.append(line | {"failed": figure.failed, "no_fault_fell": figure.silent, "why": figure.why})
    return lines


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return estimate._asdict() | {"method": METHODS[estimate.by]}
