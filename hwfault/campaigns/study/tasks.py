"""The tasks of a study: each question at each point of its sweep, with all that its trials depend on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hwfault.campaigns.labels import Label
from hwfault.campaigns.plans import Plans
from hwfault.campaigns.points import Point, at_operating_points, at_rates
from hwfault.campaigns.study.listed import Listed, read_listed
from hwfault.campaigns.study.records import FaultFile, Goal, Question, Stop, Study
from hwfault.campaigns.study.space import FaultSpace, draw_pair, drawn_flips, fault_space
from hwfault.campaigns.study.strata import Strata, least_trials
from hwfault.errors import HwfaultError
from hwfault.laws.cells import CellFaults
from hwfault.laws.files import Files
from hwfault.laws.models import FaultModel, named_faults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site, SiteList

Draw = Literal["seeds", "pairs", "strata", "all", "listed", "turns"]
"""What the key of a trial is: the seed of faults that strike all samples; the number of a drawn pair of a single flip
and a sample, uniform over all of them, or from the strata, site by bit, that it is the turn of; the number of a cell
whose flip strikes all samples, of which every one is to be tried; the place of a trial in a list, all of which are; the
seed of nested faults along a whole sweep, of which it is asked at which point each answer first turns."""

Affordable = Callable[[FaultSpace], bool]
Weigh = Callable[[FaultSpace], Strata | str]
"""The strata of a space, with weights fixed beforehand; or why there are none."""


@dataclass(frozen=True)
class Task:
    """A question at one point: `labels` tell it from the others of its question; `draw` says what its trials are.

    The faults are those of a `point`; or `flips` bits of a `space`, drawn anew for each seed; or each single bit of it.
    Along a `sweep` of nested faults they are those of its (labels, point), from mild to harsh, the last of which is the
    task's `point`. A task that `stands_by` runs only where too many answers turn back along its sweep.
    `note` says why single flips are drawn as they are.
    """

    question: str
    stop: Stop
    labels: Mapping[str, Label] = field(default_factory=dict)
    point: Point | None = None
    space: FaultSpace | None = None
    flips: int | None = None
    goal: Goal = "estimate"
    draw: Draw = "seeds"
    sweep: tuple[tuple[Mapping[str, Label], Point], ...] = ()
    stands_by: bool = False
    strata: Strata | None = None
    listed: Listed | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The task in a few words: curve ber=0.001, or curve first turn."""
        if self.sweep:
            return f"{self.question} first turn"
        return " ".join([self.question, *(f"{key}={_short(value)}" for key, value in self.labels.items())])

    def faults(self) -> dict[str, Any]:
        """Which faults strike, as it stands in the identity of the task."""
        if self.space is not None:
            of = [[site.name, site.words, site.bit_width] for site in self.space.sites]
            told: dict[str, Any] = {"flips": self.flips or "single", "sites": of, "trials": self.draw}
            if self.strata is not None:
                told |= {"weights": list(self.strata.weights), "first": self.strata.first}
            return told
        if self.listed is not None:
            return {"listed": self.listed.digest, "trials": self.draw}
        if self.sweep:
            return {"sweep": [{"labels": dict(labels), **_models(point)} for labels, point in self.sweep]}
        assert self.point is not None
        return _models(self.point)


def tasks_of(
    study: Study,
    sites: SiteList,
    files: Files,
    affordable: Affordable = lambda _space: False,
    weigh: Weigh = lambda _space: "nothing scores them",
) -> list[Task]:
    """Every question of a study at every point; raises what names no site, no profile and no axis raise.

    `affordable` says of a fault space whether all of its flips may be tried though there are more than trials allowed,
    `weigh` where harm is expected in it.
    """
    found: list[Task] = []
    for name, question in study.questions.items():
        stop = study.stop_of(question)
        if question.seeds is not None:
            stop = stop.model_copy(update={"max_trials": len(question.seeds)})
        if isinstance(question.flips, FaultFile):
            listed = read_listed(question.flips.file, files, sites)
            found.append(Task(name, stop, draw="listed", listed=listed))
            continue
        if question.flips is not None:
            flips = None if question.flips == "single" else question.flips
            space = fault_space(sites, question.sites)
            task = Task(name, stop, {}, None, space, flips, question.goal)
            found.append(task if flips is not None else _of_single_flips(task, question, affordable, weigh))
            continue
        for point in _points(name, question, files):
            found.append(Task(name, stop, point.told, point))
    return found


def keys_of(study: Study, question: str, draw: Draw, count: int) -> Sequence[int]:
    """The keys of a task's first `count` trials: cells, the seeds that are named, or those from the study's seed on."""
    seeds = study.questions[question].seeds
    if seeds is not None:
        return seeds[:count]
    first = 0 if is_exhaustive(draw) else study.seed
    return range(first, first + count)


def draw_of(question: Question, stop: Stop, space: FaultSpace, affordable: Affordable) -> Draw:
    """Whether every single flip is tried: where that is asked for, allowed by the number of trials, or affordable."""
    if question.exhaustive == "auto":
        return "all" if space.size <= stop.max_trials or affordable(space) else "pairs"
    return "all" if question.exhaustive == "always" else "pairs"


def _of_single_flips(task: Task, question: Question, affordable: Affordable, weigh: Weigh) -> Task:
    """The task with its trials drawn: all of them, from strata where harm is expected, or uniformly, and why."""
    assert task.space is not None
    draw = draw_of(question, task.stop, task.space, affordable)
    if draw == "all":
        return replace(task, draw=draw)
    strata = _strata_of(task, task.space, weigh)
    if isinstance(strata, str):
        return replace(task, draw=draw, note=f"drawn uniformly: {strata}")
    count = len(strata.weights)
    return replace(task, draw="strata", strata=strata, note=f"drawn from {count} strata, site by bit, {SCORED}")


SCORED = "in numbers fixed beforehand by a first-order score: the square of a flip's step times the loss's gradient"
"""How many trials a stratum has."""


def _strata_of(task: Task, space: FaultSpace, weigh: Weigh) -> Strata | str:
    """The strata of sampled single flips, or why they are drawn uniformly."""
    if task.goal == "bound":
        return "goal: bound, and the bound from uniform trials is the tightest"
    if task.stop.require is not None:
        return "a requirement asks for a bound, and that from uniform trials is the tightest"
    least = least_trials(space)
    if task.stop.max_trials < least:
        return f"max_trials ({task.stop.max_trials:,}) are fewer than two for each stratum, site by bit ({least:,})"
    return weigh(space)


def _points(name: str, question: Question, files: Files) -> list[Point]:
    """The points of a question that names faults, or rates."""
    if question.sweeps_rates:
        assert question.sweep is not None
        return at_rates(question.sweep["ber"], question.sites)
    if question.points is not None:
        return list(question.points)
    faults = _faults_of(question, files)
    if question.sweep is None:
        return [Point.of(faults)]
    ((axis, values),) = question.sweep.items()
    return at_operating_points({name: faults}, axis, values, files)


def _faults_of(question: Question, files: Files) -> tuple[FaultModel, ...]:
    if isinstance(question.faults, str):
        return named_faults(question.faults, files)
    if question.faults is None:
        raise HwfaultError("a question without faults has no point")
    return question.faults


def plan_of(task: Task, key: int, plans: Plans, sites: Sequence[Site], samples: int) -> FaultPlan:
    """The plan of a task's trial; raises what resolving its faults raises."""
    if task.listed is not None:
        return resolve(sites, (task.listed.faults(key),))
    if task.space is None:
        assert task.point is not None
        return plans.of(task.point, key)
    if task.flips is not None:
        return resolve(sites, (drawn_flips(task.space, task.flips, key),))
    cell = key if task.draw == "all" else pair_of(task, key, samples)[0]
    return resolve(sites, (CellFaults(cells=(task.space.cell(cell),)),))


def _models(point: Point) -> dict[str, Any]:
    """The fault models of a point, as JSON."""
    return {"models": [_told(fault) for fault in point.models]}


def _told(fault: FaultModel) -> dict[str, Any]:
    """A fault without what is as it is by default, but for the kinds of its mappings, each of which has its own."""
    told: dict[str, Any] = fault.model_dump(mode="json", exclude_defaults=True)
    for name, value in fault:
        kind = getattr(value, "kind", None)
        if kind is not None and isinstance(told.get(name), dict):
            told[name] = {"kind": kind} | told[name]
    return told


def pair_of(task: Task, key: int, samples: int) -> tuple[int, int]:
    """The cell and the sample of a trial of a task whose trials are such pairs."""
    if task.strata is not None:
        return task.strata.pair(key)
    assert task.space is not None
    return draw_pair(task.space, samples, key)


def is_exhaustive(draw: Draw) -> bool:
    """Whether every trial that there is is run, so that nothing is estimated."""
    return draw in ("all", "listed")


def has_single_flips(draw: Draw) -> bool:
    """Whether a trial is one flip of one bit."""
    return draw in ("pairs", "strata", "all")


def has_one_sample(draw: Draw) -> bool:
    """Whether a trial is of one sample, which was drawn for it."""
    return draw in ("pairs", "strata")


def _short(value: Label) -> str:
    return value if isinstance(value, str) else f"{value:g}"
