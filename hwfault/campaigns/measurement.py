"""A study made ready to run: its network or graph, its samples, what is judged, and what each task's trials depend on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.database import Task as Stored
from hwfault.campaigns.engines.engine import Engine, Outputs, Ran, Trial
from hwfault.campaigns.outcomes import Answers, Judge
from hwfault.campaigns.plans import Plans
from hwfault.campaigns.study.records import Study
from hwfault.campaigns.study.tasks import Task, plan_of, tasks_of
from hwfault.errors import HwfaultError
from hwfault.laws.files import Files
from hwfault.own_code import is_code
from hwfault.plan.expected import expected_faults
from hwfault.plan.fault_plan import spec_of
from hwfault.plan.listing import faults_at
from hwfault.program.processes import SiteList
from hwfault.train.loading import RunOptions

_SURELY = 50.0
"""Where so many faults are expected in a trial, none at all has a probability below 1e-21, and is not looked for."""


@dataclass(frozen=True)
class Trust:
    """What the user vouches for on the command line: how a run is loaded, and criteria that are code of their own."""

    run: RunOptions = field(default_factory=RunOptions)
    criteria: tuple[str, ...] = ()


class Measurement:
    """A study with everything that it names loaded; one process has one of it. Raises what loading them raises."""

    def __init__(self, study: Study, trust: Trust) -> None:
        from hwfault.campaigns.subject import load_subject

        untold = [name for name in study.outcomes if is_code(name) and name not in trust.criteria]
        if untold:
            raise HwfaultError(
                f"the study's outcome {untold[0]!r} is code; code that a file names is not run, so name it yourself "
                f"(--criterion {untold[0]}) if you trust it"
            )
        self.study = study
        self.subject = load_subject(study, trust.run)
        self.engine: Engine = self.subject.engine
        self._files = Files()

    @cached_property
    def sites(self) -> SiteList:
        """Where faults can strike."""
        return self.engine.sites

    @cached_property
    def tasks(self) -> list[Task]:
        """Every question of the study at every point."""
        return tasks_of(self.study, self.sites, self._files)

    @cached_property
    def judge(self) -> Judge:
        """What tells what a trial came to."""
        limit = None if self.study.due is None else self.study.due.range
        return Judge(self.study.outcomes, self.engine.golden(), self.subject.labels, limit)

    @cached_property
    def _golden(self) -> Answers:
        return self.judge.judge(self.judge.golden)

    @property
    def masks(self) -> tuple[str, ...]:
        """The outcomes that are yes or no of a sample, in the order in which they are kept."""
        return tuple(self._golden.masks)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The outcomes that are numbers of a sample."""
        return tuple(self._golden.metrics)

    def golden_masks(self) -> NDArray[np.bool_]:
        """What the golden run itself comes to: (masks, samples)."""
        return _stacked(self._golden)

    def plan(self, task: Task, key: int) -> Any:
        """The plan of a task's trial of that key, which is its seed."""
        return plan_of(task, key, self._plans(task), self.sites)

    def _plans(self, task: Task) -> Plans:
        device = self.study.questions[task.question].device
        if device not in self._kept_plans:
            self._kept_plans[device] = Plans(lambda: self.sites, device, self._files)
        return self._kept_plans[device]

    @cached_property
    def _kept_plans(self) -> dict[int | None, Plans]:
        return {}

    # what trials depend on

    def identity(self, task: Task) -> dict[str, Any]:
        """All that the answers of a task's trials depend on, but for their keys."""
        question = self.study.questions[task.question]
        found: dict[str, Any] = {
            "format": 1,
            "fault stream": spec_of("1.1"),
            "subject": self.subject.identity,
            "arithmetic": self.study.arithmetic,
            "outcomes": list(self.masks) + list(self.metrics),
            "faults": task.faults(),
            "labels": dict(task.labels),
        }
        if self.study.due is not None:
            found["due"] = self.study.due.range
        if question.device is not None:
            found["device"] = question.device
        if task.space is None:
            found["plan"] = self.plan(task, self.study.seed).digest
        criteria = {name: _digest_of_code(name) for name in self.study.outcomes if is_code(name)}
        if criteria:
            found["criteria"] = criteria
        if not self.subject.exact:
            # sums of floats depend on who adds them, and in which order
            found["engine"] = [self.engine.name, self.engine.version, self.study.batch_size]
        return found

    def stored(self, database: Database, task: Task) -> Stored:
        """The task in a store, made there if need be."""
        return database.task(
            self.identity(task),
            samples=self.engine.samples,
            masks=self.masks,
            metrics=self.metrics,
            golden=self.golden_masks(),
        )

    # trials

    def run(self, task: Task, keys: Sequence[int]) -> Iterator[Row]:
        """One row for each key, in their order; raises what the engine and the user's criterion raise."""
        trials = [Trial(self.plan(task, key), key) for key in keys]
        if task.flips is not None or task.single:
            # the seed has chosen the bits; nothing else is drawn
            trials = [Trial(trial.plan, 0) for trial in trials]
        for key, trial, ran in zip(keys, trials, self.engine.run(trials), strict=True):
            yield self._row(task, key, trial, ran)

    def _row(self, task: Task, key: int, trial: Trial, ran: Ran) -> Row:
        answers = self.judge.judge(ran.outputs, detected=ran.detected)
        numbers = np.stack([*answers.metrics.values()]) if answers.metrics else None
        faults = (task.flips or 1) if task.space is not None else self._count_faults(trial)
        return Row(key, _stacked(answers), numbers, faults, ran.detected)

    def _count_faults(self, trial: Trial) -> int | None:
        """How many faults fell in a trial, where it may be none; None where there are surely some."""
        expected = expected_faults(trial.plan).in_trial(self.engine.samples)
        if expected.low > _SURELY:
            return None
        count = 0
        for entry in trial.plan.sites:
            if entry.site.words is None or trial.plan.idle(entry.site.name):
                continue
            samples = range(self.engine.samples) if entry.site.batched else range(1)
            for sample in samples:
                count += len(faults_at(trial.plan, entry.site.name, seed=trial.seed, sample=sample))
        return count


def _stacked(answers: Answers) -> NDArray[np.bool_]:
    return np.stack([*answers.masks.values()])


def _digest_of_code(name: str) -> str:
    """SHA-256 of the file in which the user's code stands."""
    module = name.partition(":")[0]
    found = find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise HwfaultError(f"the file of {name!r} cannot be found, so what it says cannot be kept with its results")
    return sha256(Path(found.origin).read_bytes()).hexdigest()


def outputs_digest(outputs: Outputs) -> str:
    """SHA-256 of outputs, their type and their shape."""
    head = f"{outputs.dtype.str} {outputs.shape}\n".encode()
    return sha256(head + np.ascontiguousarray(outputs).tobytes()).hexdigest()


