"""What a store says of its campaign beside the trials: who computed it, how exactly, when, by which command."""

import json
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from hwfault.campaigns.database import Database
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.points import Point
from hwfault.campaigns.study.tasks import Task
from hwfault.errors import FileError
from hwfault.laws.files import Files
from hwfault.plan.expected import expected_faults
from hwfault.plan.fault_plan import FaultPlan
from hwfault.records import Record
from hwfault.versions import installed_versions

ABOUT, RUNS = "about", "runs"


class SourceTold(Record):
    """One source of a profile's numbers, in words."""

    key: str
    citation: str
    locator: str | None = None
    status: str
    measured: bool


class ProfileTold(Record):
    """A fault profile that a question names: what it is, the digest of its file, where its numbers come from."""

    name: str
    title: str
    digest: str
    sources: tuple[SourceTold, ...] = ()


class About(Record):
    """The engine, whether its answers are exact and why, the faults of each task (by its digest), the profiles.

    `rates` are how often a bit of each site is struck on average in a sample, by the faults of each task (of its first
    seed); sites of unknown size are left out.
    """

    engine: str
    version: str
    exact: bool
    note: str
    faults: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    profiles: tuple[ProfileTold, ...] = ()
    not_nested: dict[str, str] = Field(default_factory=dict)
    """Why the points of a question about first turns ran one by one, by its name."""
    rates: dict[str, dict[str, float]] = Field(default_factory=dict)


class RunTold(Record):
    """One start of the driver: when (UTC, ISO 8601), by which command, with which versions; `ended` as it came to."""

    started: str
    ended: str | None = None
    command: str
    versions: dict[str, str]


def say_about(measurement: Measurement, database: Database) -> None:
    """Keeps what the trials are computed with and what strikes in each task, in the place of what was said before."""
    subject = measurement.subject
    faults: dict[str, tuple[str, ...]] = {}
    rates: dict[str, dict[str, float]] = {}
    for task in measurement.tasks:
        points: list[Point | None] = [task.point]
        if task.sweep:
            points = [point for _, point in task.sweep]
        told_of = [fault.describe() for point in points if point is not None for fault in point.models]
        if told_of:
            faults[measurement.stored_digest(task)] = tuple(told_of)
        if task.point is not None:
            plan = measurement.plan(task, measurement.keys(task, 1)[0])
            rates[measurement.stored_digest(task)] = _rates_of(plan)
    told = About(
        engine=measurement.engine.name,
        version=measurement.engine.version,
        exact=subject.exact,
        note=subject.note,
        faults=faults,
        profiles=tuple(_profiles_of(measurement.tasks, measurement.files)),
        not_nested=measurement.not_nested,
        rates=rates,
    )
    database.say(ABOUT, told.model_dump_json(exclude_defaults=True))


def _rates_of(plan: FaultPlan) -> dict[str, float]:
    """How often a bit of each site is struck on average in a sample; between the least and the most that codes tell."""
    found = {}
    for entry in plan.sites:
        words = entry.site.words
        if words:
            mean = expected_faults(plan, entry.site.name).in_trial(1)
            found[entry.site.name] = (mean.low + mean.high) / 2 / (words * entry.site.bit_width)
    return found


def _profiles_of(tasks: Iterable[Task], files: Files) -> list[ProfileTold]:
    """Each profile once, in the order of the tasks; those that a saved plan was made from may be gone."""
    found: dict[str, ProfileTold] = {}
    for task in tasks:
        for fault in () if task.point is None else task.point.faults:
            name = fault.profile_name
            if name is None or name in found:
                continue
            profile, digest = files.profile(name)
            keys = SourceTold.model_fields
            sources = tuple(SourceTold(**source.model_dump(include=set(keys))) for source in profile.sources)
            found[name] = ProfileTold(name=profile.name, title=profile.title, digest=digest, sources=sources)
    return list(found.values())


def note_start(database: Database) -> None:
    """Adds a run that begins now to the store's list."""
    run = RunTold(started=_now(), command=_command(), versions=installed_versions())
    _say_runs(database, [*read_runs(database), run])


def note_end(database: Database) -> None:
    """Keeps that the last run has come to its end."""
    *before, last = read_runs(database)
    _say_runs(database, [*before, last.model_copy(update={"ended": _now()})])


def read_about(database: Database) -> About | None:
    """What was said of engine and faults; None where nothing was. Raises FileError or ModelError for damage."""
    content = _parsed(database, ABOUT)
    return None if content is None else About.parse(content, str(database.path))


def read_runs(database: Database) -> list[RunTold]:
    """The runs, oldest first; raises FileError or ModelError for a damaged list."""
    content = _parsed(database, RUNS)
    if content is None:
        return []
    if not isinstance(content, list):
        raise FileError(f"{database.path}: its list of runs is no list; the file is damaged")
    return [RunTold.parse(one, str(database.path)) for one in content]


def merge_runs(into: Database, other: Database) -> None:
    """Adds another store's runs to those of this one, by their dates, each once."""
    runs = read_runs(into)
    runs += [run for run in read_runs(other) if run not in runs]
    if runs:
        _say_runs(into, sorted(runs, key=lambda run: run.started))


def _say_runs(database: Database, runs: Iterable[RunTold]) -> None:
    database.say(RUNS, json.dumps([run.model_dump(mode="json") for run in runs]))


def _parsed(database: Database, key: str) -> Any:
    text = database.said(key)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{database.path}: what it says of {key!r} cannot be read ({error}); it is damaged") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _command() -> str:
    """The command line, as a shell takes it."""
    name, *rest = sys.argv or ["python"]
    if Path(name).name in ("hwfault", "__main__.py"):
        name = "hwfault"
    return shlex.join([name, *rest])
