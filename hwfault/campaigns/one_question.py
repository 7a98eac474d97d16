"""A campaign of one question: given points, each under given seeds, of what an engine runs."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwfault.campaigns.database import Database
from hwfault.campaigns.driver import Driver, Present
from hwfault.campaigns.engines.engine import Engine, changes_by_batch
from hwfault.campaigns.lines import Lines, plan_of_0_4_0, read_lines, take_over
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.plans import Plans
from hwfault.campaigns.points import Point
from hwfault.campaigns.question import claim_question
from hwfault.campaigns.study.records import Question, Study
from hwfault.campaigns.study.tasks import Task
from hwfault.campaigns.subject import Subject
from hwfault.campaigns.trials import Trial, Trials
from hwfault.campaigns.workers import AsItIs
from hwfault.errors import HwfaultError
from hwfault.laws.files import Files
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.stream.check import check_seed

_QUESTION = "evaluate"
_OUTCOMES = ("top1", "due")


class Kept(NamedTuple):
    """Where trials are kept: the file of the store, one of lines that 0.4.0 may have left, and names for people."""

    store: Path
    lines: Path | None = None
    told: Mapping[str, Any] = {}


class OneQuestion(ABC):
    """Points under seeds on the samples of an `engine`; what differs between networks and graphs is told by each.

    Faults that belong to a device are those of `device`, or with None of another one for each seed: its number. The
    profiles and maps that faults name are read once, or taken as `files` has read them.
    """

    def __init__(self, engine: Engine, *, device: int | None, files: Files | None, statistics: bool = False) -> None:
        self.engine: Engine = engine
        self.device = device
        self.statistics = statistics
        self.plans = Plans(lambda: self.engine.sites, device, files)

    @property
    @abstractmethod
    def subject(self) -> Subject:
        """What runs and its samples, as a study has them."""

    @property
    @abstractmethod
    def said(self) -> Mapping[str, Any]:
        """What the campaign's study says beside its question, by its keys: what runs, and in which engine."""

    @abstractmethod
    def check_fits(self, plan: FaultPlan) -> None:
        """Raises PlanError for a plan that does not fit what runs."""

    @property
    def samples(self) -> int:
        """How many samples each trial classifies."""
        return self.engine.samples

    @property
    def batch_size(self) -> int:
        """How many samples run at a time."""
        return self.engine.batch_size

    def plan(self, point: Point, seed: int = 0) -> FaultPlan:
        """The plan of a point under a seed; raises what resolving its faults raises."""
        return self.plans.of(point, seed)

    def whole_plan(self, point: Point, seed: int = 0) -> FaultPlan:
        """The plan of all faults of a point, also where it wants a part of them."""
        return self.plans.whole(point, seed)

    def run(self, point: Point, seeds: Sequence[int]) -> Trials:
        """One trial for each seed under a point's faults; raises as `measure`."""
        (trials,) = self.measure([point], seeds)
        return trials

    def measure(
        self,
        points: Sequence[Point],
        seeds: Sequence[int],
        *,
        kept: Kept | None = None,
        progress: Callable[[], object] = lambda: None,
    ) -> list[Trials]:
        """One trial for each seed under the faults of each point; those that are kept are not run again.

        `progress` is called after each trial. Raises HwfaultError without a seed, PlanError for a plan that does not
        fit the network, FileError for a store of another question.
        """
        if not seeds:
            raise HwfaultError("given no seeds, expected at least one of them: a trial each")
        for point in points:
            if point.plan is not None:
                self.check_fits(point.part(point.plan))
        once = {point.key: point for point in points}
        each = tuple(dict.fromkeys(map(check_seed, seeds)))
        measurement = self._measurement(Question(points=tuple(once.values()), seeds=each, device=self.device))
        lines = None if kept is None else self._lines(list(once.values()), kept)
        with Database.in_memory() if kept is None else Database(kept.store) as database:
            if kept is not None:
                claim_question(database, measurement, self.question(list(once.values()), kept.told))
            if lines is not None:
                take_over(lines, database, measurement)
            Driver(measurement, database, AsItIs(measurement), _each_trial(progress)).run()
            trials = (self._trials(measurement, database, task, seeds) for task in measurement.tasks)
            found = dict(zip(once, trials, strict=True))
        return [found[point.key] for point in points]

    def _measurement(self, asked: Question) -> Measurement:
        """The campaign's study, made ready to run."""
        # of a network whose own outputs are not finite, it can still be told which are right
        finite = np.isfinite(self.engine.golden()).all()
        study = Study(
            **self.said,
            questions={_QUESTION: asked},
            outcomes=_OUTCOMES if finite else ("due",),
            batch_size=self.batch_size,
        )
        return Measurement(study, Trust(), subject=self.subject, plans=self.plans)

    def _lines(self, points: Sequence[Point], kept: Kept) -> Lines | None:
        """What a file of lines has of these points; raises FileError for one of another question."""
        lines = None if kept.lines is None else read_lines(kept.lines)
        if lines is None:
            return None
        known = {point.key: point for point in points}
        theirs = [known.get(key) for key in lines.question.get("points", ())]
        # of a sweep that has grown since, the file asks a part
        same = [point for point in theirs if point is not None]
        if len(same) < len(theirs):
            same = list(points)
        lines.check(self.question(same, kept.told, of_0_4_0=lines.of_0_4_0))
        return lines

    def _trials(self, measurement: Measurement, database: Database, task: Task, seeds: Sequence[int]) -> Trials:
        """What the trials of a point came to, in the order of the seeds."""
        assert task.point is not None
        point = task.point
        stored = measurement.stored(database, task)
        knows = "correct" in stored.masks
        wanted = set(seeds)
        found = {row.key: Trial.of_row(row, stored.masks) for row in database.rows(stored) if row.key in wanted}
        return Trials.of(
            [found[seed] for seed in seeds],
            samples=self.samples,
            measures="accuracy" if knows else "agreement",
            golden=int(measurement.golden_masks()[measurement.masks.index("correct")].sum()) if knows else None,
            ber=point.ber,
            labels=point.labels,
            notes=self.plan(point, seeds[0]).notes or (),
            same_faults=self.plans.same(point, seeds[0]),
        )

    def question(self, points: Sequence[Point], told: Mapping[str, Any], *, of_0_4_0: bool = False) -> dict[str, Any]:
        """What the trials of points depend on, for people: `told` (names), network, samples, and faults.

        With `of_0_4_0` it is told as that version did.
        """
        plans = [self.whole_plan(point) for point in points]
        if of_0_4_0:
            plans = [plan_of_0_4_0(plan) for plan in plans]
        different = {plan.digest: plan for plan in plans}  # points that are parts of the same faults share a plan
        identity = self.subject.identity
        # what a plan's faults do to a network has changed with the version, also where the plan has not
        stream = {} if of_0_4_0 else {"fault stream": spec_of("1.1")}
        found: dict[str, Any] = {
            **told,
            **stream,
            **{f"{kind} digest": identity[kind] for kind in ("network", "graph") if kind in identity},
            "samples": identity["samples"],
            "samples digest": identity["samples digest"],
            "device": self.device,
            "statistics": self.statistics,
        }
        # where faults change with batches, they depend on where these begin
        if any(map(changes_by_batch, different.values())):
            found["batch size"] = self.batch_size
        notes: dict[str, None] = {}
        for plan in different.values():
            notes.update(dict.fromkeys(plan.notes or ()))
        if notes:
            found["notes"] = list(notes)
        found["points"] = [point.key for point in points]
        found["faults"] = [[fault.to_data() for fault in plan.faults] for plan in different.values()]
        found["plans digest"] = sha256("".join(plan.digest for plan in plans).encode()).hexdigest()[:16]
        return found


def _each_trial(progress: Callable[[], object]) -> Callable[[Present], object]:
    """Calls `progress` once for each trial that a driver tells of."""
    done: dict[str, int] = {}

    def tell(present: Present) -> None:
        key = json.dumps(dict(present.task.labels))
        for _ in range(done.get(key, 0), present.done):
            progress()
        done[key] = present.done

    return tell
