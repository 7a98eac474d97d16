"""Runs side by side: names for them, what their configurations have otherwise, and differences of their accuracies."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from hwfault.campaigns.trials import Difference, Trials, paired
from hwfault.differences import MISSING, differences
from hwfault.errors import HwfaultError
from hwfault.records import Record


def names_of(runs: Sequence[Path]) -> tuple[str, ...]:
    """A short name for each run: the end of its path, as long as it must be for no two to be alike.

    Raises HwfaultError for a run that is given twice.
    """
    whole = [PurePath(run.resolve()) for run in runs]
    for i, run in enumerate(runs):
        if whole[i] in whole[:i]:
            raise HwfaultError(f"the run {run} is given twice, expected each once")
    return tuple(_shortest(path, [other for other in whole if other != path]) for path in whole)


def _shortest(path: PurePath, others: Sequence[PurePath]) -> str:
    for length in range(1, len(path.parts) + 1):
        end = path.parts[-length:]
        if all(other.parts[-length:] != end for other in others):
            return "/".join(end)
    return str(path)


def otherwise(configurations: Mapping[str, Record]) -> dict[str, tuple[str, ...]]:
    """The keys (joined by dots where they are nested) whose values differ between runs, with each run's value as text.

    A key that a run does not have is "-".
    """
    records = list(configurations.values())
    # what differs is found in what is stored, and told from the records, which know what has its default
    stored = [record.model_dump(mode="json", exclude_none=True) for record in records]
    keys: dict[str, None] = {}
    for other in stored[1:]:
        keys.update(dict.fromkeys(differences(stored[0], other)))
    return {key: tuple(_text(_at(record, key)) for record in records) for key in keys}


def _at(value: Any, key: str) -> Any:
    """What a dotted key leads to; names in a mapping may have dots too, so that longer parts are tried."""
    parts = key.split(".")
    for length in range(1, len(parts) + 1):
        inner = _inner(value, ".".join(parts[:length]))
        if inner is MISSING:
            continue
        if length == len(parts):
            return inner
        return _at(inner, ".".join(parts[length:]))
    return MISSING


def _inner(value: Any, name: str) -> Any:
    if isinstance(value, Record):
        return getattr(value, name, MISSING)
    if isinstance(value, list | tuple):
        if name.isdecimal() and int(name) < len(value):
            return value[int(name)]
        return MISSING
    if isinstance(value, dict):
        return value.get(name, MISSING)
    return MISSING


def _text(value: Any) -> str:
    if value is MISSING or value is None or value in ((), [], {}):
        return "-"
    if isinstance(value, str):
        return value
    return json.dumps(_brief(value))


def _brief(value: Any) -> Any:
    """A value as JSON can tell it, records without what has its default, but for the model's name."""
    if isinstance(value, Record):
        told = {}
        for key, field in type(value).model_fields.items():
            if key == "model" or _differs(value, key, field):
                told[key] = _brief(getattr(value, key))
        return told
    if isinstance(value, list | tuple):
        return [_brief(inner) for inner in value]
    return value


def _differs(value: Record, key: str, field: Any) -> bool:
    return bool(getattr(value, key) != field.get_default(call_default_factory=True))


class Compared(Record):
    """One run's trials at each point, the data they were run on, and how much more accurate it is than the first run.

    `beyond` has a difference for each point; it is empty for the first run itself.
    """

    name: str
    data: str
    points: tuple[Trials, ...]
    beyond: tuple[Difference, ...] = ()

    @property
    def golden_accuracy(self) -> float | None:
        return self.points[0].golden_accuracy if self.points else None

    def rows(self) -> list[dict[str, object]]:
        """The run's lines of a results file."""
        found = []
        for i, point in enumerate(self.points):
            row: dict[str, object] = {"network": self.name, "data": self.data, **point.summary()}
            if self.beyond:
                beyond = self.beyond[i]
                low, high = beyond.interval or (None, None)
                row["difference"] = beyond.mean
                row["difference_low"] = low
                row["difference_high"] = high
                row["difference_by"] = beyond.by
            found.append(row)
        return found

    def to_data(self) -> dict[str, Any]:
        """Everything as JSON tells it."""
        points = [point.to_data() for point in self.points]
        for point, difference in zip(points, self.beyond, strict=False):
            point["difference"] = difference.model_dump(mode="json")
        return {"name": self.name, "data": self.data, "points": points}


def compared(runs: Mapping[str, tuple[str, Sequence[Trials]]]) -> tuple[Compared, ...]:
    """Runs (name: data and points) beside the first of them, point by point under the same seeds."""
    found: list[Compared] = []
    for name, (data, points) in runs.items():
        beyond: tuple[Difference, ...] = ()
        if found:
            first = found[0].points
            beyond = tuple(paired(mine, its) for mine, its in zip(points, first, strict=True))
        found.append(Compared(name=name, data=data, points=tuple(points), beyond=beyond))
    return tuple(found)
