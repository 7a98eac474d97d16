"""What a campaign came to, for people and for files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwfault.campaigns.evaluate import write_results, write_table
from hwfault.campaigns.intervals import COVERS, MEANING, Interval
from hwfault.campaigns.trials import Trials
from hwfault.campaigns.words import decimals, percent, points
from hwfault.files import write_atomically

_FORMAT = "hwfault-results/1"
_COLUMNS = (
    "accuracy", "std pp", "95 % from", "to", "by", "lost pp", "of golden", "worst", "its seed", "events",
    "trials", "samples",
)  # fmt: skip


def table(points: Sequence[Trials], names: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people: what tells the points apart (and a name each, if given), then the numbers."""
    labels = list(dict.fromkeys(key for point in points for key in point.labels))
    rates = any(point.ber is not None for point in points)
    columns = [*(["network"] if names else []), *labels, *(["BER"] if rates else []), *_COLUMNS]
    rows = []
    for i, point in enumerate(points):
        told = [_label(point.labels.get(key, "")) for key in labels]
        rate = [f"{point.ber:g}" if point.ber is not None else ""] if rates else []
        rows.append([*([names[i]] if names else []), *told, *rate, *_numbers(point)])
    return columns, rows


def _numbers(point: Trials) -> list[str]:
    by, ends = point.told
    if len(point.seeds) == 1 or ends is None:
        mean, low, high = f"{point.mean:.2%}", "-", "-"
    else:
        n = decimals((ends[0], point.mean, ends[1]))
        mean, low, high = (f"{value:.{n}%}" for value in (point.mean, *ends))
    worst, seed = point.worst
    losses = [points(point.degradation), percent(point.relative_degradation)]
    return [
        mean, points(point.std), low, high, by if low != "-" or by == "same" else "-", *losses, f"{worst:.2%}",
        str(seed), _events(point), str(len(point.seeds)), str(point.samples),
    ]  # fmt: skip


def _events(point: Trials) -> str:
    """How many trials the faults changed, and what share of the seeds may have such a trial."""
    most = point.event_share_at_most
    bound = "" if most is None else f" (≤ {most:.2g})"
    return "-" if point.events is None else f"{point.events}{bound}"


def legend(told: Iterable[Interval]) -> list[str]:
    """What the intervals of a table cover, and the words that say how each was found, a line each."""
    there = {interval.by for interval in told}
    found = [by for by in MEANING if by in there]
    return [f"95 % intervals of {COVERS}", *(f"  {by}: {MEANING[by]}" for by in found)]


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def write(folder: Path, network: str, points: Sequence[Trials], question: Mapping[str, Any]) -> None:
    """Writes results.csv, results.json and, where statistics were kept, statistics.csv, each atomically."""
    write_results(folder / "results.csv", {network: points})
    write_json(folder / "results.json", {"question": question, "points": [point.to_data() for point in points]})
    if any(point.statistics for point in points):
        write_table(folder / "statistics.csv", list(_statistics(points)))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a results file as JSON, atomically; raises FileError."""
    write_atomically(path, (json.dumps({"format": _FORMAT, **data}, indent=1) + "\n").encode())


def _statistics(points: Sequence[Trials]) -> Iterable[dict[str, object]]:
    for point in points:
        labels = point.labels | ({} if point.ber is None else {"ber": point.ber})
        for record in point.statistics:
            numbers = {key: value for key, value in record.to_data().items() if not isinstance(value, list)}
            planes = {f"bit {k}": flips for k, flips in enumerate(record.flips)}
            yield {**labels, **numbers, **planes}
