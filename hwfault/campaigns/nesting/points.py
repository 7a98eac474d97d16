"""Questions about first turns: their points from mild to harsh, and whether faults are nested along these."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from hwfault.campaigns.points import Point
from hwfault.campaigns.study.records import Study
from hwfault.campaigns.study.tasks import Task
from hwfault.errors import HwfaultError
from hwfault.laws.files import Files
from hwfault.laws.models import bind
from hwfault.laws.profile import rate_of_cells
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.nesting import why_not_nested

PlanOf = Callable[[Task], FaultPlan]


class Asked(NamedTuple):
    """The tasks of a study, and why the sweeps of some questions are not nested."""

    tasks: list[Task]
    not_nested: dict[str, str]


def with_turns(study: Study, tasks: Sequence[Task], files: Files, plan_of: PlanOf) -> Asked:
    """The tasks; for each question about first turns one along its whole sweep, in the place of those at its points.

    These come last and stand by: they run where too many answers turn back. Where faults are not nested
    they keep their place, and run. `plan_of` is the plan of a task under the first seed.
    """
    asked: list[Task] = []
    standing_by: list[Task] = []
    not_nested: dict[str, str] = {}
    for name, question in study.questions.items():
        own = [task for task in tasks if task.question == name]
        if not question.first_turn:
            asked += own
            continue
        ordered = sorted(own, key=lambda task: _severity(task, files))
        why = why_not_nested([plan_of(task) for task in ordered])
        if why is not None:
            not_nested[name] = why
            asked += own
            continue
        asked.append(_along(ordered))
        standing_by += [replace(task, stands_by=True) for task in own]
    return Asked(asked + standing_by, not_nested)


def _along(ordered: Sequence[Task]) -> Task:
    """One task along a whole sweep, which is that of its harshest point but for what its trials are."""
    sweep = tuple((task.labels, _point(task)) for task in ordered)
    return replace(ordered[-1], labels={}, sweep=sweep, draw="turns")


def _severity(task: Task, files: Files) -> float:
    """How often the faults of a point fall, beside others of its sweep."""
    point = _point(task)
    if point.ber is not None:
        return point.ber
    return sum(rate_of_cells(one) for one in bind(point.faults, files))


def _point(task: Task) -> Point:
    if task.point is None:
        raise HwfaultError(f"{task.name}: has no point along a sweep")
    return task.point
