"""A study made ready to run: its network or graph and samples, what is judged, what each task's trials depend on."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.classes import Labels
from hwfault.campaigns.database import Database, Row, differing, digest_of
from hwfault.campaigns.database import Task as Stored
from hwfault.campaigns.engines.engine import Engine, Numbers, Ran, Trial, changes_by_batch
from hwfault.campaigns.engines.sparse_flips import SparseFlips
from hwfault.campaigns.falls import any_fault_fell
from hwfault.campaigns.nesting.points import Asked, with_turns
from hwfault.campaigns.nesting.trials import Sweep, identity_of, run_sweep
from hwfault.campaigns.nesting.turns import mask_names
from hwfault.campaigns.outcomes import Answers, Judge
from hwfault.campaigns.plans import Plans
from hwfault.campaigns.study.records import Study
from hwfault.campaigns.study.space import FaultSpace
from hwfault.campaigns.study.tasks import Task, has_one_sample, keys_of, pair_of, plan_of, tasks_of
from hwfault.campaigns.weighing import Weighing, Weights
from hwfault.differences import MISSING
from hwfault.errors import FileError, HwfaultError
from hwfault.laws.files import Files
from hwfault.own_code import is_code
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.program.processes import SiteList
from hwfault.train.loading import RunOptions

if TYPE_CHECKING:
    from hwfault.campaigns.subject import Subject

_AFFORDABLE = 1_000_000_000
"""So many runs of one flip of a weight on one sample take the sparse engine minutes."""


@dataclass(frozen=True)
class Trust:
    """What the user vouches for on the command line: how a run is loaded, and criteria that are code of their own."""

    run: RunOptions = field(default_factory=RunOptions)
    criteria: tuple[str, ...] = ()


class Measurement:
    """A study with everything that it names loaded; one process has one of it. Raises what loading them raises.

    `weights` are those of strata that another process has found already (None: there are none yet). Where the network
    and its samples are there already, they are the `subject`, and `plans` makes what strikes them.
    """

    def __init__(
        self,
        study: Study,
        trust: Trust,
        weights: Weights | None = None,
        *,
        subject: "Subject | None" = None,
        plans: Plans | None = None,
    ) -> None:
        from hwfault.campaigns.subject import load_subject

        untold = [name for name in study.outcomes if is_code(name) and name not in trust.criteria]
        if untold:
            raise HwfaultError(
                f"the study's outcome {untold[0]!r} is code; code that a file names is not run, so name it yourself "
                f"(--criterion {untold[0]}) if you trust it"
            )
        self.study = study
        self.subject = load_subject(study, trust.run) if subject is None else subject
        self.engine: Engine = self.subject.engine
        about = {"subject": self.subject.identity, "arithmetic": study.arithmetic}
        self.weighing = Weighing(self.subject.score, about, self.engine.samples, study.seed, weights)
        self.files = Files() if plans is None else plans.files
        self._kept_plans: dict[int | None, Plans] = {} if plans is None else {plans.device: plans}

    @cached_property
    def sites(self) -> SiteList:
        """Where faults can strike."""
        return self.engine.sites

    @cached_property
    def tasks(self) -> list[Task]:
        """Every question of the study at every point, or along its sweep; those that stand by come last."""
        return self._asked.tasks

    @property
    def not_nested(self) -> dict[str, str]:
        """Of questions about first turns whose points run one by one: why."""
        return self._asked.not_nested

    @cached_property
    def _asked(self) -> Asked:
        points = tasks_of(self.study, self.sites, self.files, self._affords, self.weighing.strata)
        return with_turns(self.study, points, self.files, lambda task: self.plan(task, self.study.seed))

    @cached_property
    def judge(self) -> Judge:
        """What tells what a trial came to."""
        limit = None if self.study.due is None else self.study.due.range
        return Judge(self.study.outcomes, self.engine.golden(), self.subject.labels, limit)

    @property
    def labels(self) -> Labels | None:
        """The classes of the samples; None where there are no labels, or outputs are no classes."""
        if self.subject.labels is None or not self.judge.keeps_correct:
            return None
        return Labels(self.subject.labels, self.judge.golden.shape[1], self._golden.masks["correct"])

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
        return plan_of(task, key, self._plans(task), self.sites, self.engine.samples)

    def _plans(self, task: Task) -> Plans:
        device = self.study.questions[task.question].device
        if device not in self._kept_plans:
            self._kept_plans[device] = Plans(lambda: self.sites, device, self.files)
        return self._kept_plans[device]

    def keys(self, task: Task, count: int) -> Sequence[int]:
        """The keys of a task's first `count` trials, as far as there are so many."""
        return keys_of(self.study, task.question, task.draw, count)

    def names_seeds(self, task: Task) -> bool:
        """Whether the seeds of a task are named, so that all of them are run and no other."""
        return self.study.questions[task.question].seeds is not None

    def varies_not(self, task: Task) -> bool:
        """Whether every seed has the same faults, so that one trial tells all."""
        return task.point is not None and self._plans(task).same(task.point, self.study.seed)

    def total(self, task: Task) -> int | None:
        """How many bits the space of a task has; 1 where every seed has the same faults; None where there is no end."""
        if task.space is not None:
            return task.space.size
        if task.listed is not None:
            return task.listed.number
        return 1 if self.varies_not(task) else None

    def has_specimens(self, task: Task) -> bool:
        """Whether each seed has a specimen of its own."""
        return task.point is not None and self._plans(task).by_seed(task.point)

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
        plan = None
        if task.sweep:
            found |= identity_of(task, self.masks, self._plans(task), self.study.seed)
        elif task.point is not None:
            plan = self.plan(task, self.study.seed)
            found["plan"] = plan.digest
        criteria = {name: _digest_of_code(name) for name in self.study.outcomes if is_code(name)}
        if criteria:
            found["criteria"] = criteria
        if self.subject.by_engine:
            # sums of floats depend on who adds them, and in which order
            found["engine"] = [self.engine.name, self.engine.version, self.study.batch_size]
        elif plan is not None and changes_by_batch(plan):
            found["batch size"] = self.study.batch_size
        return found

    def claim(self, database: Database) -> None:
        """Has a store be about this network, these samples and these outcomes; raises FileError for one of others."""
        asked = {
            **self.subject.identity,
            "arithmetic": self.study.arithmetic,
            "outcomes": list(self.masks) + list(self.metrics),
        }
        said = database.said("subject")
        if said is None:
            database.say("subject", json.dumps(asked))
            return
        found = differing(json.loads(said), asked)
        if found:
            key, (there, now) = next(iter(found.items()))
            raise FileError(
                f"{database.path}: holds the trials of another study: {key} is {_brief(there)} there, "
                f"{_brief(now)} now; choose another folder with --out"
            )

    def stored_digest(self, task: Task) -> str:
        """The digest under which a store keeps the task."""
        return digest_of(self.identity(task))

    def stored(self, database: Database, task: Task) -> Stored:
        """The task in a store, made there if need be; a drawn pair has one answer, that of its sample."""
        if task.sweep:
            names = mask_names([labels for labels, _ in task.sweep])
            return database.task(self.identity(task), samples=self.engine.samples, masks=names)
        pairs = has_one_sample(task.draw)
        return database.task(
            self.identity(task),
            samples=1 if pairs else self.engine.samples,
            masks=self.masks,
            metrics=self.metrics,
            golden=None if pairs else self.golden_masks(),
        )

    # trials

    def run(self, task: Task, keys: Sequence[int], halvings: int = 0) -> Iterator[Row]:
        """One row for each key, in their order; raises what the engine and the user's criterion raise.

        The engine's batch is halved so often, for want of memory, where no answer depends on it.
        """
        with self._batch_halved(task, keys, halvings):
            yield from self._run(task, keys)

    @contextmanager
    def _batch_halved(self, task: Task, keys: Sequence[int], halvings: int) -> Iterator[None]:
        whole = self.engine
        if not halvings or not self.subject.exact or changes_by_batch(self.plan(task, keys[0])):
            yield
            return
        self.engine = whole.with_batch(max(1, whole.batch_size >> halvings))
        try:
            yield
        finally:
            self.engine = whole

    def _run(self, task: Task, keys: Sequence[int]) -> Iterator[Row]:
        if task.sweep:
            sweep = Sweep.of(task, self.masks, self._plans(task), self.engine, self.judge, exact=self.subject.exact)
            yield from run_sweep(sweep, keys)
            return
        if task.draw != "seeds" and self.sparse_for(task) is not None:
            yield from self._run_sparse(task, keys)
            return
        if has_one_sample(task.draw):
            yield from self._run_pairs(task, keys)
            return
        if task.point is not None and task.point.silent:
            golden = self._golden
            for key in keys:
                yield Row(key, _stacked(golden), _numbers(golden), 0)
            return
        # where the key has chosen the bits, nothing else is drawn
        trials = [Trial(self.plan(task, key), 0 if task.point is None else key) for key in keys]
        engine = self.engine_for(trials)
        for key, trial, ran in zip(keys, trials, engine.run(trials), strict=True):
            yield self._row(key, ran, self._count_faults(task, key, trial))

    def _count_faults(self, task: Task, key: int, trial: Trial) -> int | None:
        """How many faults fell in a trial, or at least: 0, or 1 for some; None where that is not to be told."""
        if task.space is not None:
            return task.flips or 1
        if task.listed is not None:
            return task.listed.count(key)
        if not self.subject.counts_faults:
            return None
        fell = any_fault_fell(trial.plan, trial.seed, self.engine.samples)
        return None if fell is None else int(fell)

    def _run_pairs(self, task: Task, keys: Sequence[int]) -> Iterator[Row]:
        for key in keys:
            _, sample = pair_of(task, key, self.engine.samples)
            images = np.array([sample], np.int64)
            (ran,) = self.engine.run([Trial(self.plan(task, key), 0)], images)
            yield self._row(key, ran, 1, images)

    def engine_for(self, trials: Sequence[Trial]) -> Engine:
        """The engine; PyTorch's where a memory tells what it detects, which graphs do not."""
        slow = self.subject.slow
        if slow is not None and self.study.engine == "auto" and any(_tells(trial.plan) for trial in trials):
            return slow
        return self.engine

    def sparse_for(self, task: Task) -> SparseFlips | None:
        """What runs the single flips of a task as sparse changes; None where it cannot be had, or is not wanted."""
        if task.space is None or task.flips is not None:
            return None
        made, why = self._carried(task.space)
        if why is not None and self.study.engine == "sparse":
            raise HwfaultError(f"{task.name}: single flips cannot be run by the sparse engine: {why}")
        return made if why is None else None

    def _carried(self, space: FaultSpace) -> tuple[SparseFlips | None, str | None]:
        """The sparse engine, and why the flips of a space are not run by it."""
        if self.study.engine not in ("auto", "sparse"):
            return None, f"engine: {self.study.engine} was asked for"
        made, why = self._sparse
        return made, why if made is None else made.why_not(space)

    def _affords(self, space: FaultSpace) -> bool:
        """Whether all flips of a space may be tried: by the sparse engine, within minutes."""
        made, why = self._carried(space)
        return made is not None and why is None and made.cost(space) * self.engine.samples <= _AFFORDABLE

    @cached_property
    def _sparse(self) -> tuple[SparseFlips | None, str | None]:
        return self.subject.make_sparse()

    def _run_sparse(self, task: Task, keys: Sequence[int]) -> Iterator[Row]:
        sparse = self.sparse_for(task)
        assert sparse is not None
        assert task.space is not None
        if has_one_sample(task.draw):
            pairs = [pair_of(task, key, self.engine.samples) for key in keys]
            images = np.array([sample for _, sample in pairs], np.int64)
            found = self.judge.judge(sparse.run_pairs(task.space, [cell for cell, _ in pairs], images), images)
            answers, numbers = _stacked(found), _numbers(found)
            for place, key in enumerate(keys):
                chosen = slice(place, place + 1)
                yield Row(key, answers[:, chosen], None if numbers is None else numbers[:, chosen], 1)
            return
        # what does not reach the outputs came to what the golden run comes to
        golden = self.golden_masks()
        answers = np.broadcast_to(golden, (len(keys), *golden.shape)).copy()
        kept = _numbers(self._golden)
        numbers = None if kept is None else np.broadcast_to(kept, (len(keys), *kept.shape)).copy()
        for part in sparse.reached(task.space, keys):
            found = self.judge.judge(part.outputs, part.image)
            answers[part.cell, :, part.image] = _stacked(found).T
            if numbers is not None:
                numbers[part.cell, :, part.image] = np.stack([*found.metrics.values()]).T
        for place, key in enumerate(keys):
            yield Row(key, answers[place], None if numbers is None else numbers[place], 1)

    def _row(self, key: int, ran: Ran, faults: int | None, images: Numbers | None = None) -> Row:
        answers = self.judge.judge(ran.outputs, images, detected=ran.detected)
        return Row(key, _stacked(answers), _numbers(answers), faults, ran.detected, seen=ran.seen)


def _brief(value: object) -> str:
    return "nothing" if value is MISSING else str(value)[:16]


def _stacked(answers: Answers) -> NDArray[np.bool_]:
    return np.stack([*answers.masks.values()])


def _numbers(answers: Answers) -> NDArray[np.float32] | None:
    return np.stack([*answers.metrics.values()]).astype(np.float32) if answers.metrics else None


def _tells(plan: FaultPlan) -> bool:
    """Whether a memory of the plan detects what counts as DUE."""
    return any(process.counts_as_due for entry in plan.sites for process in entry.processes)


def _digest_of_code(name: str) -> str:
    """SHA-256 of the file in which the user's code stands."""
    module = name.partition(":")[0]
    found = find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise HwfaultError(f"the file of {name!r} cannot be found, so what it says cannot be kept with its results")
    return sha256(Path(found.origin).read_bytes()).hexdigest()
