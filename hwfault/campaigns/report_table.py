"""What a campaign found as a table, as JSON and as files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwfault.campaigns.by_class import lines_of
from hwfault.campaigns.figures import Figure
from hwfault.campaigns.nesting.figures import TurnFigure
from hwfault.campaigns.nesting.told import turns_flat, turns_to_data
from hwfault.campaigns.statistics.classes import ClassRate
from hwfault.campaigns.statistics.estimates import METHODS, Estimate
from hwfault.campaigns.tables import write_table
from hwfault.campaigns.words import cell
from hwfault.files import write_atomically

Table = tuple[list[str], list[list[str]]]


def table(figures: Sequence[Figure]) -> Table:
    """Columns and rows for people; rates with their intervals."""
    columns = ["task", "trials", "SDC", "DUE", "accuracy", "no fault fell", "worst", "failed"]
    # most studies do not say how often bits flip
    told_fit = any(figure.fit is not None for figure in figures)
    if told_fit:
        columns.append("FIT of SDC")
    rows = []
    for figure in figures:
        worst = "-" if figure.worst is None else f"{figure.worst[1]:.2%} ({figure.worst_of} {figure.worst[0]})"
        silent = "-" if figure.silent is None else f"{figure.silent:,}"
        rates = [cell(figure.sdc), cell(figure.due), cell(figure.accuracy)]
        row = [figure.name, f"{figure.trials:,}", *rates, silent, worst, f"{figure.failed:,}"]
        rows.append([*row, cell(figure.fit)] if told_fit else row)
    return columns, rows


def to_data(figure: Figure) -> dict[str, Any]:
    """A figure as JSON tells it."""
    data = figure._asdict()
    for key in ("sdc", "due", "accuracy", "fit"):
        estimate = data[key]
        data[key] = None if estimate is None else estimate._asdict() | {"method": METHODS[estimate.by]}
    data["labels"] = dict(figure.labels)
    data["classes"] = [_class_data(one) for one in figure.classes]
    worst = figure.worst
    worst_of = data.pop("worst_of")
    data["worst"] = None if worst is None else {worst_of: worst[0], "sdc": worst[1]}
    return data


def _class_data(one: ClassRate) -> dict[str, Any]:
    rate = None if one.rate is None else one.rate._asdict()
    return one._asdict() | {"rate": rate}


def whole_data(figures: Sequence[Figure], turns: Sequence[TurnFigure]) -> list[dict[str, Any]]:
    """All that a campaign found as JSON tells it, first turns behind the others."""
    return [to_data(figure) for figure in figures] + [turns_to_data(figure) for figure in turns]


def write_results(folder: Path, figures: Sequence[Figure], turns: Sequence[TurnFigure] = ()) -> None:
    """Leaves results.json, results.csv and, where classes are told, classes.csv in a folder; raises FileError.

    Each is written atomically.
    """
    whole = whole_data(figures, turns)
    write_atomically(folder / "results.json", (json.dumps(whole, indent=1) + "\n").encode())
    lines = [_flat(figure) for figure in figures]
    for figure in turns:
        lines += turns_flat(figure)
    write_table(folder / "results.csv", lines)
    if any(figure.classes for figure in figures):
        write_table(folder / "classes.csv", lines_of(figures))


def _flat(figure: Figure) -> dict[str, object]:
    """A figure as one line."""
    line: dict[str, object] = {"question": figure.question, **figure.labels, "trials": figure.trials}
    for key in ("sdc", "due", "accuracy", "fit"):
        estimate: Estimate | None = getattr(figure, key)
        if estimate is None:
            continue
        low, high = estimate.ends or (None, None)
        line |= {key: estimate.value, f"{key}_low": low, f"{key}_high": high, f"{key}_by": estimate.by}
    line |= {"golden": figure.golden_accuracy, "failed": figure.failed, "no_fault_fell": figure.silent}
    if figure.worst is not None:
        line |= {f"worst_{figure.worst_of}": figure.worst[0], "worst_sdc": figure.worst[1]}
    return line | {"why": figure.why}
