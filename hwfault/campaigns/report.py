"""What a campaign came to, for people and for files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwfault.campaigns.statistics.means import MEAN_COVERS, MEANING, Interval
from hwfault.campaigns.tables import write_results, write_table
from hwfault.campaigns.trials import Trials
from hwfault.campaigns.words import decimals, percent, points
from hwfault.files import write_atomically

_FORMAT = "hwfault-results/1"
_COLUMNS = (
    "std pp", "95 % from", "to", "by", "lost pp", "of golden", "worst", "its seed", "events",
    "trials", "samples",
)  # fmt: skip


def table(points: Sequence[Trials], names: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people: what tells the points apart (and a name each, if given), then the numbers."""
    # columns that no point has anything for are left out
    labels: dict[str, None] = {}
    for point in points:
        labels.update(dict.fromkeys(point.labels))
    rates = any(point.ber is not None for point in points)
    columns = list(labels)
    if names:
        columns.insert(0, "network")
    if rates:
        columns.append("BER")
    columns.extend([points[0].measures if points else "accuracy", *_COLUMNS])

    rows = []
    for i, point in enumerate(points):
        row = [_label(point.labels.get(key, "")) for key in labels]
        if names:
            row.insert(0, names[i])
        if rates:
            row.append("" if point.ber is None else f"{point.ber:g}")
        row.extend(_numbers(point))
        rows.append(row)
    return columns, rows


def _numbers(point: Trials) -> list[str]:
    """A point's cells: its accuracy, and what stands under _COLUMNS."""
    found_by, ends = point.told
    by: str = found_by
    if len(point.seeds) == 1 or ends is None:
        mean = f"{point.mean:.2%}"
        low = high = "-"
        if by != "same":
            by = "-"  # of one trial nothing is known
    else:
        n = decimals((ends[0], point.mean, ends[1]))
        mean, low, high = (f"{value:.{n}%}" for value in (point.mean, *ends))
    worst, seed = point.worst
    return [
        mean,
        points(point.std),
        low,
        high,
        by,
        points(point.degradation),
        percent(point.relative_degradation),
        f"{worst:.2%}",
        str(seed),
        _events(point),
        str(len(point.seeds)),
        str(point.samples),
    ]


def _events(point: Trials) -> str:
    """How many trials the faults changed, and what share of the seeds may have such a trial."""
    if point.events is None:
        return "-"
    most = point.event_share_at_most
    if most is None:
        return str(point.events)
    return f"{point.events} (≤ {most:.2g})"


def legend(told: Iterable[Interval]) -> list[str]:
    """What the intervals of a table cover, and the words that say how each was found, a line each."""
    there = {interval.by for interval in told}
    lines = [f"95 % intervals of {MEAN_COVERS}"]
    for by, meaning in MEANING.items():
        if by in there:
            lines.append(f"  {by}: {meaning}")
    return lines


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
        labels: dict[str, object] = dict(point.labels)
        if point.ber is not None:
            labels["ber"] = point.ber
        for record in point.statistics:
            numbers = {key: value for key, value in record.to_data().items() if not isinstance(value, list)}
            # a table has no lists: each plane is a column
            planes = {f"bit {k}": flips for k, flips in enumerate(record.flips)}
            yield {**labels, **numbers, **planes}
