"""The files of lines in which 0.4.0 kept trials: read, tried again in part, and taken over into a store.

Their first line says for which question, each other one has a trial: how many answers were right, and what else was
seen. The file itself is never written.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from hwfault.campaigns.database import Database
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.question import Asked, other_question
from hwfault.campaigns.study.tasks import Task
from hwfault.campaigns.trials import Trial
from hwfault.differences import differences
from hwfault.errors import FileError, ModelError
from hwfault.injection.site_statistics import ProtectionCounts, SiteStatistics
from hwfault.inputs import read_regular
from hwfault.plan.fault_plan import FaultPlan

_FORMAT = "hwfault-trials/1"
_LARGEST = 1 << 32
_TAKEN = "lines"
_TRIED = 3
"""So many trials of a file are run again before it is believed."""


class Lines(NamedTuple):
    """What a file of lines holds: its question, its trials by point and seed, and the SHA-256 of all of it."""

    path: Path
    question: Asked
    trials: Mapping[tuple[str, int], Trial]
    digest: str

    def check(self, asked: Asked) -> None:
        """Raises FileError unless the file is about the question `asked`, told as the file tells its own."""
        if differences(dict(self.question), json.loads(json.dumps(asked))):
            raise other_question(str(self.path), self.question, asked)

    @property
    def of_0_4_0(self) -> bool:
        """Whether 0.4.0 wrote the file, which did not say which fault stream it has."""
        return "fault stream" not in self.question


def plan_of_0_4_0(plan: FaultPlan) -> FaultPlan:
    """A plan as 0.4.0 told it: without notes, and without the digests of the files that its faults name."""
    faults = []
    for fault in plan.faults:
        named = "digest" in type(fault).model_fields
        faults.append(fault.model_copy(update={"digest": None}) if named else fault)
    rest = {"factors": plan.factors, "device": plan.device, "stream": plan.stream}
    return FaultPlan(faults=tuple(faults), sites=plan.sites, tables=plan.tables, **rest)


def read_lines(path: Path) -> Lines | None:
    """The trials in a file of lines; None where there is no such file, or nothing whole in it.

    A last line that a killed process left unfinished is left out. Raises FileError for any other line that is no trial,
    by its number.
    """
    if not path.exists():
        return None
    content = read_regular(path, _LARGEST, "trials of hwfault evaluate")
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    if not lines:
        begun = json.dumps({"format": _FORMAT, "question": {}}).encode()[:-2]
        if content.startswith(begun) or begun.startswith(content):
            return None  # a process was killed at its very beginning
        raise _foreign(path)
    header = _parsed(path, 1, lines[0])
    if not isinstance(header, dict) or header.get("format") != _FORMAT or not isinstance(header.get("question"), dict):
        raise _foreign(path)
    trials = dict(_trial(path, number, line) for number, line in enumerate(lines[1:], 2))
    return Lines(path, header["question"], trials, sha256(content).hexdigest())


def take_over(lines: Lines, database: Database, measurement: Measurement) -> None:
    """Keeps all trials of a file in the store, once, after some of them have been run again and came to the same.

    Raises FileError for a trial that comes to something else.
    """
    if database.said(_TAKEN) == lines.digest:
        return
    tasks = {task.point.key: task for task in measurement.tasks if task.point is not None}
    for key, trial in _telling(lines, measurement):
        _try_again(lines.path, database, measurement, tasks[key], trial)
    for key, task in tasks.items():
        theirs = [trial for (point, _), trial in lines.trials.items() if point == key]
        database.put(measurement.stored(database, task), [trial.to_row() for trial in theirs])
    database.say(_TAKEN, lines.digest)


def _telling(lines: Lines, measurement: Measurement) -> Iterator[tuple[str, Trial]]:
    """The first trials, before all others those that faults have changed."""
    golden = int(measurement.golden_masks()[measurement.masks.index("correct")].sum())
    every = [(key, trial) for (key, _), trial in lines.trials.items()]
    every.sort(key=lambda one: one[1].correct == golden)  # which leaves the rest in its order
    yield from every[:_TRIED]


def _try_again(path: Path, database: Database, measurement: Measurement, task: Task, trial: Trial) -> None:
    """Runs one trial, compares it with the one in the file, and keeps it."""
    (row,) = measurement.run(task, [trial.seed])
    stored = measurement.stored(database, task)
    found = differences(trial.model_dump(mode="json"), Trial.of_row(row, stored.masks).model_dump(mode="json"))
    if found:
        key, (there, now) = next(iter(found.items()))
        raise FileError(
            f"{path}: the trial of {dict(task.labels)} under seed {trial.seed} came to {key} {there} there and comes "
            f"to {now} now, so that its trials cannot be gone on with; choose another folder with --out"
        )
    database.put(stored, [row])


def _trial(path: Path, number: int, line: bytes) -> tuple[tuple[str, int], Trial]:
    data = _parsed(path, number, line)
    try:
        key = data.pop("point")
        if data.get("protection") is not None:
            data["protection"] = ProtectionCounts(**data["protection"])
        data["statistics"] = tuple(SiteStatistics.from_data(site) for site in data.get("statistics", ()))
        trial = Trial.parse(data, "its trial")
    except (AttributeError, KeyError, TypeError, ModelError) as error:
        raise _unreadable(path, number, error) from None
    return (str(key), trial.seed), trial


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, number, error) from None


def _unreadable(path: Path, number: int, error: Exception) -> FileError:
    return FileError(
        f"{path}: line {number} is no trial of hwfault evaluate ({error}); remove the file, or choose another "
        "folder with --out"
    )


def _foreign(path: Path) -> FileError:
    return FileError(f"{path}: does not hold trials of hwfault evaluate; choose another folder with --out")
