"""The page of a campaign: the data of its template, all from the store, and its pictures beside it."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwfault.campaigns.about import read_about, read_runs
from hwfault.campaigns.database import Database
from hwfault.campaigns.figures import Figure, Trials, counted_outcome
from hwfault.campaigns.kept import KeptTask, kept_tasks, runs_again, subject_name
from hwfault.campaigns.nesting.figures import TurnFigure
from hwfault.campaigns.nesting.kept import kept_turns
from hwfault.campaigns.nesting.told import not_nested_told
from hwfault.campaigns.page.cells import Flips, flips_of, heat_map
from hwfault.campaigns.page.classes import classes_told
from hwfault.campaigns.page.curves import Picture, Rate, curve_of, draw_curves, draw_heat_map
from hwfault.campaigns.page.facts import (
    failures_told,
    methods_told,
    numbers_table,
    profiles_told,
    reproduce,
    rule_told,
    technical,
)
from hwfault.campaigns.page.sentences import MEANINGS, Answered, answer, axis_of
from hwfault.campaigns.page.sites import SingleFlips, single_flips
from hwfault.campaigns.page.turns import answer_of, draw_turns, turns_told
from hwfault.campaigns.page.worst import Worst, worst_flips, worst_seeds
from hwfault.campaigns.study.kept_space import KeptSpace
from hwfault.campaigns.study.tasks import has_single_flips
from hwfault.files import write_atomically
from hwfault.report.pages import render

REPORT = "report.html"


class _Read(NamedTuple):
    """A task as the page needs it: its trials up to the last look, and what they come to."""

    task: KeptTask
    figure: Figure
    worst: Worst
    flips: Flips | None


def write_page(folder: Path, database: Database, hardening: Any = None) -> list[str]:
    """Leaves report.html and the pictures in a folder, and says which files these are.

    `hardening` is for the template hardening.html, whose section is left out without it. Raises FileError for a store
    that is damaged, and where a file cannot be written.
    """
    text, pictures = page(database, str(folder), hardening)
    write_atomically(folder / REPORT, text.encode())
    names = [REPORT]
    for picture in pictures:
        names += picture.write(folder)
    return names


def page(database: Database, folder: str, hardening: Any = None) -> tuple[str, list[Picture]]:
    """The page's HTML, and its pictures; names, which a store may have from anybody, are escaped."""
    tasks = kept_tasks(database)
    about = read_about(database)
    runs = read_runs(database)
    found = [one for task in tasks if (one := _read(task, database, folder)) is not None]
    turns = kept_turns(database)
    questions = _by_question(found)
    curves = _curves(questions) + draw_turns(turns)
    known = [one.task.name for one in found] + [figure.name for figure in turns]
    single = _single_flips(found)
    pictures = curves + [draw_heat_map(one.question, one.map) for one in single]
    text = render(
        "campaign.html",
        subject=subject_name(tasks),
        outcome=_outcome(tasks),
        answers=[(name, answer(answered)) for name, answered in questions.items()],
        turned=[(figure.question, answer_of(figure)) for figure in turns],
        turns=[turns_told(figure) for figure in turns],
        not_nested=not_nested_told({} if about is None else about.not_nested),
        unseen=[task.name for task in tasks if task.name not in known],
        date=runs[-1].started if runs else None,
        pictures=[_embedded(picture) for picture in curves],
        numbers=numbers_table([(one.task, one.figure) for one in found]),
        methods=methods_told([(one.task, one.figure) for one in found]),
        classes=classes_told(one.figure for one in found),
        single=single,
        worst=[(one.task.name, one.worst) for one in found if one.worst.trials or one.worst.images],
        harmless=[one.task.name for one in found if not (one.worst.trials or one.worst.images)],
        stopping=[_stopping(task, database) for task in tasks],
        failures=[(task.name, failures_told(database.failures(task.stored))) for task in tasks],
        silent=[(figure.name, figure.silent, figure.trials) for figure in _all_figures(found, turns)],
        technical=technical(tasks, about, runs),
        faults=_faults(tasks, about),
        digests=[(task.name, task.stored.identity.get("plan", "-"), task.stored.digest) for task in tasks],
        profiles=profiles_told(about),
        reproduce=reproduce(tasks, runs, folder),
        runs_again=runs_again(database),
        files=_files(found, pictures),
        hardening=hardening,
    )
    return text, pictures


def _files(found: Sequence[_Read], pictures: Sequence[Picture]) -> list[str]:
    """What lies beside the page, and the page."""
    classes = ["classes.csv"] if any(one.figure.classes for one in found) else []
    return [REPORT, "results.csv", "results.json", *classes, *(f"{picture.name}.svg" for picture in pictures)]


def _read(task: KeptTask, database: Database, folder: str) -> _Read | None:
    seen = task.seen(database)
    if seen is None:
        return None
    figure = task.figure_of(seen, database)
    if not has_single_flips(task.draw):
        return _Read(task, figure, worst_seeds(seen, folder, task.name, task.draw), None)
    flips = _flips(task, seen, str(database.path))
    return _Read(task, figure, worst_flips(seen, flips, folder, task.name), flips)


def _all_figures(found: Sequence[_Read], turns: Sequence[TurnFigure]) -> list[Figure | TurnFigure]:
    return [*(one.figure for one in found), *turns]


def _flips(task: KeptTask, seen: Trials, source: str) -> Flips:
    space = KeptSpace.of(task.stored.identity, source)
    subject = task.stored.identity.get("subject", {})
    samples = task.stored.samples if task.draw == "all" else int(subject.get("samples", 1))
    return flips_of(space, task.draw, seen, samples, task.strata, task.looks)


def _by_question(found: Iterable[_Read]) -> dict[str, Answered]:
    questions: dict[str, list[tuple[KeptTask, Figure]]] = {}
    for one in found:
        questions.setdefault(one.task.question, []).append((one.task, one.figure))
    return {name: tuple(answered) for name, answered in questions.items()}


def _curves(questions: dict[str, Answered]) -> list[Picture]:
    """Accuracy and SDC over each axis that a question sweeps; questions with the same axis share a picture."""
    by_axis: dict[str, list[Answered]] = {}
    for answered in questions.values():
        axis = axis_of(answered)
        if axis is not None:
            by_axis.setdefault(axis, []).append(answered)
    pictures = []
    rates: tuple[Rate, ...] = ("accuracy", "sdc")
    for axis, several in by_axis.items():
        for rate in rates:
            curves = [curve for one in several if (curve := curve_of(axis, one, rate)) is not None]
            if curves:
                pictures.append(draw_curves(axis, curves, rate))
    return pictures


def _single_flips(found: Sequence[_Read]) -> list[SingleFlips]:
    others = [one.task for one in found]
    told = []
    for one in found:
        if one.flips is not None:
            confidence = one.task.stop.confidence
            told.append(single_flips(one.task.question, one.flips, heat_map(one.flips, confidence), confidence, others))
    return told


def _embedded(picture: Picture) -> dict[str, str]:
    data = b64encode(picture.svg).decode()
    return {"title": picture.title, "alt": picture.alt, "data": f"data:image/svg+xml;base64,{data}"}


def _stopping(task: KeptTask, database: Database) -> tuple[str, str, str, str]:
    """The task, the looks made, its state and its rule."""
    looks = database.looks(task.stored)
    told = ", ".join(f"{trials:,}" for trials, _, _ in looks) or "none yet"
    told += " trials" if looks else ""
    why = looks[-1][2] if looks else "not looked at yet"
    return task.name, told, why, rule_told(task.stop, task.draw)


def _faults(tasks: Sequence[KeptTask], about: Any) -> list[tuple[str, str]]:
    """What strikes in each task, in words."""
    rows = []
    for task in tasks:
        told = () if about is None else about.faults.get(task.stored.digest, ())
        flips = task.stored.identity.get("faults", {}).get("flips")
        if task.draw == "listed":
            listed = task.stored.identity["faults"].get("listed")
            told = (f"{task.total or 0:,} trials that a file lists (SHA-256 {listed})",)
        if flips is not None:
            told = (f"flips: {flips}, of {task.total or 0:,} bits", *((task.note,) if task.note else ()))
        rows.append((task.name, "; ".join(told) or "not said in this store"))
    return rows


def _outcome(tasks: Sequence[KeptTask]) -> str:
    """What counts as a silent wrong answer here."""
    if not tasks:
        return ""
    name = counted_outcome(tasks[0].stored.masks)
    meaning = MEANINGS.get(name, "as the study's own code judges it")
    return f"{name}: {meaning}"
