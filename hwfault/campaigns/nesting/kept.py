"""First turns as a store tells them, without the network."""

from collections.abc import Mapping
from typing import Any

from hwfault.campaigns.database import Database
from hwfault.campaigns.kept import KeptTask, kept_tasks
from hwfault.campaigns.nesting.figures import TurnFigure, decide_turns, figure_of_turns, turned_of
from hwfault.campaigns.study.tasks import keys_of
from hwfault.errors import FileError


def kept_turns(database: Database) -> list[TurnFigure]:
    """What each sweep came to up to its last look, in the order of the study; those without a look are left out.

    Raises FileError for a store that is damaged.
    """
    found = []
    for task in kept_tasks(database):
        if task.draw == "turns":
            figure = _figure(task, database)
            if figure is not None:
                found.append(figure)
    return found


def _figure(task: KeptTask, database: Database) -> TurnFigure | None:
    looks = database.looks(task.stored)
    if not looks:
        return None
    trials, stopped, why = looks[-1]
    labels = _labels(task, database)
    asked = keys_of(task.study, task.question, task.draw, trials)
    seen = turned_of(database.rows(task.stored), len(labels), task.stored.samples, asked)
    if not seen.number:
        return None
    claim = task.study.samples.claim
    decision = decide_turns(seen, task.stop, claim, 0.0, task.total)._replace(stop=stopped, why=why)
    return figure_of_turns(task.question, task.name, labels, seen, task.stop, claim, task.total, decision)


def _labels(task: KeptTask, database: Database) -> list[Mapping[str, Any]]:
    """The labels of the points, from mild to harsh."""
    try:
        labels = [point["labels"] for point in task.stored.identity["faults"]["sweep"]]
        if len(labels) + 2 != len(task.stored.masks) or not all(isinstance(one, dict) for one in labels):
            raise TypeError("its points are not its masks")
    except (KeyError, TypeError) as error:
        raise FileError(f"{database.path}: the sweep of {task.name!r} is damaged ({error!r})") from None
    return labels
