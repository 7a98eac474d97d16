"""Tables of trials as CSV files."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hwfault.campaigns.trials import Trials
from hwfault.files import write_atomically


def write_results(path: Path | str, results: Mapping[str, Iterable[Trials]]) -> None:
    """Writes a CSV file with a line (`Trials.summary`) for each network and point, atomically; raises FileError."""
    rows: list[dict[str, object]] = []
    for name, points in results.items():
        rows.extend({"network": name, **point.summary()} for point in points)
    write_table(path, rows)


def write_table(path: Path | str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows as a CSV file, with the columns of all of them, atomically; raises FileError."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(names) or ["network"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, text.getvalue().encode())
