"""The driver of a campaign: it hands out trials, keeps them, and stops each task when its rule says so."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hwfault.campaigns.about import note_end, note_start, say_about
from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.database import Task as Stored
from hwfault.campaigns.exposure import fit_of
from hwfault.campaigns.figures import Figure, Trials, columns_of, decide, rates_of, rule_of
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.statistics.stopping import Decision
from hwfault.campaigns.study.tasks import Task
from hwfault.campaigns.workers import Done, Job, Workers
from hwfault.errors import HwfaultError

_JOB_SECONDS = 0.5
"""How long a job should take: long beside handing it out, short beside what a killed run loses."""
_MOST_TRIES = 2
_FIRST_LOOK = 20


class Present(NamedTuple):
    """Where a task is just now."""

    task: Task
    done: int
    until: int
    rate: float | None
    decision: Decision | None


Progress = Callable[[Present], object]


class Driver:
    """Runs the tasks of a measurement one after the other; each trial is in the database before it is counted."""

    def __init__(
        self,
        measurement: Measurement,
        database: Database,
        workers: Workers,
        progress: Progress = lambda _present: None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._measurement = measurement
        self._database = database
        self._workers = workers
        self._progress = progress
        self._shard = shard
        self._seconds = 0.01
        """What a trial takes, by those that were run."""

    def run(self) -> list[Figure]:
        """All tasks; what is in the store is not run again."""
        describe_tasks(self._measurement, self._database)
        note_start(self._database)
        figures = [self._run_task(place) for place in range(len(self._measurement.tasks))]
        note_end(self._database)
        return figures

    def _run_task(self, place: int) -> Figure:
        task = self._measurement.tasks[place]
        stored = self._measurement.stored(self._database, task)
        begin = time.monotonic()
        until = self._first_look(task)
        while True:
            self._fill(place, stored, until)
            minutes = (time.monotonic() - begin) / 60
            seen = self._columns(stored, task, until)
            decision = self._decide(stored, task, seen, minutes)
            self._database.look(stored, until, decision.stop, decision.why)
            self._progress(Present(task, until, until, None, decision))
            if decision.stop or decision.next_look is None or self._varies_not(task):
                return figure_of(self._measurement, task, seen, decision)
            until = min(decision.next_look, self._most(task))

    def _first_look(self, task: Task) -> int:
        if self._varies_not(task):
            return 1
        if task.draw == "all":
            assert task.space is not None
            return task.space.size
        return min(_FIRST_LOOK, self._most(task))

    def _most(self, task: Task) -> int:
        return task.stop.max_trials

    def _varies_not(self, task: Task) -> bool:
        return self._measurement.varies_not(task)

    def _columns(self, stored: Stored, task: Task, until: int) -> Trials:
        first = self._measurement.first_key(task)
        return columns_of(self._database.rows(stored), stored.masks, stored.samples, first + until)

    def _decide(self, stored: Stored, task: Task, seen: Trials, minutes: float) -> Decision:
        if not seen.number:
            why = next((row.failed for row in self._database.rows(stored) if row.failed is not None), "none was run")
            raise HwfaultError(f"{task.name}: none of {seen.failed} trials has an answer: {why}")
        total = task.space.size if task.space is not None and task.draw == "all" else None
        claim = self._measurement.study.samples.claim
        return decide(seen, task.stop, task.draw, claim, minutes, total)

    # handing out

    def _fill(self, place: int, stored: Stored, until: int) -> None:
        """Has every trial run whose key is among the first so many, and is not there yet."""
        first = self._measurement.first_key(self._measurement.tasks[place])
        there = self._database.keys(stored)
        missing = [key for key in range(first, first + until) if key not in there]
        mine = [key for key in missing if key % self._shard[1] == self._shard[0]]
        waiting = iter(mine)
        again: list[Job] = []
        running = 0
        done = until - len(missing)
        while True:
            while self._workers.free > 0:
                job = again.pop() if again else self._next_job(place, waiting)
                if job is None:
                    break
                self._workers.submit(job)
                running += 1
            if not running:
                return
            begin = time.monotonic()
            for finished in self._workers.collect():
                running -= 1
                kept, retry = self._take(stored, finished)
                again += retry
                done += kept
                self._learn(finished, time.monotonic() - begin)
            rate = 1 / self._seconds
            self._progress(Present(self._measurement.tasks[place], done, until, rate, None))

    def _next_job(self, place: int, waiting: Iterator[int]) -> Job | None:
        """The next trials, as many as take about half a second."""
        wanted = max(1, int(_JOB_SECONDS / self._seconds))
        keys = tuple(key for _, key in zip(range(wanted), waiting, strict=False))
        return Job(place, keys) if keys else None

    def _learn(self, finished: Done, seconds: float) -> None:
        if finished.rows:
            self._seconds = max(seconds / len(finished.rows), 1e-5)

    def _take(self, stored: Stored, finished: Done) -> tuple[int, list[Job]]:
        """Keeps what a job came to; how many trials that were, and what is to be tried again, elsewhere."""
        if finished.failed is None:
            self._database.put(stored, finished.rows)
            return len(finished.rows), []
        job = finished.job
        if len(job.keys) > 1:  # which of them it was is not known: half of them at a time, until it is
            half = len(job.keys) // 2
            return 0, [Job(job.task, job.keys[:half]), Job(job.task, job.keys[half:])]
        if job.tries + 1 < _MOST_TRIES:
            return 0, [Job(job.task, job.keys, job.tries + 1)]
        self._database.put(stored, [Row(job.keys[0], None, failed=finished.failed)])
        return 1, []


def describe_tasks(measurement: Measurement, database: Database) -> None:
    """Keeps the study and what its tasks are called, so that the store can be read without the network."""
    told = []
    for task in measurement.tasks:
        stored = measurement.stored(database, task)
        total = None if task.space is None else task.space.size
        told.append(
            {
                "question": task.question,
                "name": task.name,
                "labels": dict(task.labels),
                "digest": stored.digest,
                "draw": task.draw,
                "total": total,
                "stop": task.stop.model_dump(mode="json"),
            }
        )
    database.say("study", measurement.study.model_dump_json(exclude_defaults=True))
    database.say("tasks", json.dumps(told))
    say_about(measurement, database)


def figure_of(measurement: Measurement, task: Task, seen: Trials, decision: Decision) -> Figure:
    """A task in numbers."""
    golden = None
    if "correct" in measurement.masks and task.draw != "pairs":  # whose samples are drawn
        golden = float(measurement.golden_masks()[list(measurement.masks).index("correct")].mean())
    rates = rates_of(seen, task.stop, task.draw, decision)
    bits = None if task.space is None or task.draw == "seeds" else task.space.size
    return Figure(
        question=task.question,
        name=task.name,
        labels=task.labels,
        trials=seen.number,
        samples=seen.wrong.shape[1],
        golden_accuracy=golden,
        failed=seen.failed,
        silent=seen.silent,
        why=decision.why,
        stopped=decision.stop,
        fit=fit_of(rates["sdc"], task.labels, bits, measurement.study.fit_per_mbit),
        **rates,
    )


def check_rules(tasks: Sequence[Task]) -> None:
    """Raises ModelError for a task whose stopping rule is none, before any trial is run."""
    for task in tasks:
        rule_of(task.stop)
