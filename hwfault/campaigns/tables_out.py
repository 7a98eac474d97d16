"""A campaign's trials as a table for other programs: CSV, or Parquet with pyarrow."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwfault.campaigns.database import Database, Row, pack
from hwfault.campaigns.kept import KeptTask, kept_tasks
from hwfault.campaigns.merging import count_correct
from hwfault.campaigns.tables import write_table
from hwfault.errors import HwfaultError
from hwfault.files import replace_atomically

SUFFIXES = (".csv", ".parquet")


def write_trials(database: Database, path: Path) -> int:
    """Writes every trial as a line, atomically, and says how many there are.

    A line has the question and labels of its task, the trial's key, how many faults fell, whether a memory detected
    some, why it failed, and for each outcome in how many samples it is so (`top1`) and its bit mask, sample 0 the
    highest bit of the first byte, in hexadecimal (`top1_mask`); for a metric its mean over the samples. Raises
    HwfaultError for another suffix than .csv and .parquet, and without pyarrow for the latter; FileError.
    """
    if path.suffix not in SUFFIXES:
        raise HwfaultError(f"{path}: trials are written as {' or '.join(SUFFIXES)}, by the name's ending")
    lines = list(_lines(database))
    if path.suffix == ".csv":
        write_table(path, lines)
    else:
        _write_parquet(path, lines)
    return len(lines)


def _lines(database: Database) -> Iterator[dict[str, Any]]:
    for task in kept_tasks(database):
        for row in database.rows(task.stored):
            yield _line(task, row)


def _line(task: KeptTask, row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"question": task.question, **task.labels, "trials_are": task.draw, "key": row.key}
    line |= {"faults": row.faults, "detected": row.detected, "failed": row.failed}
    if row.answers is not None:
        for name, mask in zip(task.stored.masks, row.answers, strict=True):
            line[name] = int(mask.sum())
            line[f"{name}_mask"] = pack(mask[np.newaxis]).hex()
    elif row.failed is None:
        line["correct"] = count_correct(row, task.stored.masks)
    if row.numbers is not None:
        for name, numbers in zip(task.stored.metrics, row.numbers, strict=True):
            line[name] = float(numbers.mean())
    return line


def _write_parquet(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise HwfaultError(
            f"{path}: Parquet needs pyarrow; run `pip install 'hwfault[parquet]'`, or write a .csv"
        ) from None
    names: dict[str, None] = {}
    for line in lines:
        names.update(dict.fromkeys(line))
    columns = {name: [line.get(name) for line in lines] for name in names}
    table = pyarrow.table({name: _column(pyarrow, name, values) for name, values in columns.items()})
    replace_atomically(path, lambda temporary: parquet.write_table(table, temporary))


def _column(pyarrow: Any, name: str, values: list[Any]) -> Any:
    """One column; keys are seeds, of which the largest do not fit signed integers."""
    return pyarrow.array(values, pyarrow.uint64() if name == "key" else None)
