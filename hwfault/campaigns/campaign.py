"""A campaign of one question about a network that is there already: given points, each under given seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from hwfault.campaigns.database import Database
from hwfault.campaigns.driver import Driver, Present
from hwfault.campaigns.engines.engine import changes_by_batch
from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.campaigns.lines import Lines, plan_of_0_4_0, read_lines, take_over
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.plans import Plans
from hwfault.campaigns.points import Point
from hwfault.campaigns.question import claim_question
from hwfault.campaigns.samples import order_of
from hwfault.campaigns.study.records import Question, Study
from hwfault.campaigns.study.tasks import Task
from hwfault.campaigns.subject import Subject, subject_of
from hwfault.campaigns.trials import Trial, Trials
from hwfault.campaigns.workers import AsItIs
from hwfault.errors import HwfaultError
from hwfault.laws.files import Files
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.stream.check import check_seed
from hwfault.train.data import Split

_QUESTION = "evaluate"
_OUTCOMES = ("top1", "due")


class Kept(NamedTuple):
    """Where trials are kept: the file of the store, one of lines that 0.4.0 may have left, and names for people."""

    store: Path
    lines: Path | None = None
    told: Mapping[str, Any] = {}


class Campaign:
    """A network and the samples that it classifies in every trial: those of a data set's split.

    Sample i of the fault stream is the split's i-th, whatever the batch size, and also where `indices` name some of
    them, in any order. Faults that belong to a device are those of `device`, or with None of another one for each seed:
    its number. The profiles and maps that faults name are read once, or taken as `files` has read them. `workers` read
    samples that do not lie in memory. With `statistics` it is kept what the faults do at each site. `said` is what the
    campaign's study says of the network beside, by its keys. The network runs in evaluation mode, on its own device,
    and is left as it was. Raises HwfaultError where there is no sample.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        *,
        indices: Sequence[int] | Tensor | None = None,
        device: int | None = None,
        batch_size: int = 512,
        workers: int = 0,
        statistics: bool = False,
        files: Files | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.statistics = statistics
        self._said = {"network": type(model).__qualname__} if said is None else said
        self._split = split
        self._order = order_of(split, indices)
        if not self.samples or batch_size < 1:
            raise HwfaultError(f"given {self.samples} samples, batches of {batch_size}; expected at least one of each")
        self.engine = TorchEngine(model, split, self._order, batch_size, readers=workers, statistics=statistics)
        self.plans = Plans(lambda: self.engine.sites, device, files)

    @property
    def samples(self) -> int:
        """How many samples each trial classifies."""
        return len(self._order)

    @cached_property
    def subject(self) -> Subject:
        """The network and its samples, as a study has them."""
        return subject_of(self.model, self._split, self._order, self.engine, statistics=self.statistics)

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
                self.engine.check_fits(point.part(point.plan))
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
            **{"network": type(self.model).__qualname__, **self._said},
            questions={_QUESTION: asked},
            outcomes=_OUTCOMES if finite else ("due",),
            engine="torch",
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
        wanted = set(seeds)
        found = {row.key: Trial.of_row(row, stored.masks) for row in database.rows(stored) if row.key in wanted}
        return Trials.of(
            [found[seed] for seed in seeds],
            samples=self.samples,
            golden=int(measurement.golden_masks()[measurement.masks.index("correct")].sum()),
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
            "network digest": identity["network"],
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
