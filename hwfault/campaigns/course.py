"""How far the tasks of a campaign are while they run: what is handed out and waited for, and a shard's part of it."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.database import Task as Stored
from hwfault.campaigns.figures import Figure, Trials
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.nesting.figures import Turned
from hwfault.campaigns.statistics.stopping import Decision
from hwfault.campaigns.study.tasks import Task, is_exhaustive
from hwfault.campaigns.workers import Done, Job

_FIRST_LOOK = 20
_FIRST_JOB = 1
"""How many trials are run before it is known how long one takes."""


class Shard(NamedTuple):
    """The part of a campaign that runs here: number `part` (from 0) of `of`; the others run elsewhere."""

    part: int = 0
    of: int = 1

    def has(self, key: int) -> bool:
        """Whether a trial is of this part."""
        return key % self.of == self.part

    def mine(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The trials of this part; merged stores hold others, too."""
        return (row for row in rows if self.has(row.key))

    def fill_up(self, trials: Trials | Turned, until: int) -> Trials | Turned:
        """This part's trials, over and over, as a picture of the first `until` trials of all parts."""
        wanted = max(trials.number, until - trials.failed * self.of)
        return trials.take(np.arange(wanted) % trials.number)

    def __str__(self) -> str:
        return f"part {self.part + 1} of {self.of}"


@dataclass
class Course:
    """How far a task is: trials `until` its next look are handed out, those `waiting` first, then what failed `again`.

    `keys` are those of all trials that there can be, `seconds` what one takes, `minutes` the time that all workers
    together have spent on it, each as the part that it is of them.
    """

    place: int
    task: Task
    stored: Stored
    keys: Sequence[int]
    shard: Shard
    there: set[int]
    until: int = 0
    waiting: deque[int] = field(default_factory=deque)
    again: deque[Job] = field(default_factory=deque)
    handed: dict[Job, float] = field(default_factory=dict)
    done: int = 0
    seconds: float | None = None
    minutes: float = 0.0
    was_cut: bool = False
    decision: Decision | None = None
    figure: Figure | None = None
    ended: bool = False

    @classmethod
    def begin(cls, measurement: Measurement, database: Database, place: int, shard: Shard) -> "Course":
        """A task with the trials that the store has of it."""
        task = measurement.tasks[place]
        stored = measurement.stored(database, task)
        most = task.stop.max_trials
        look = min(_FIRST_LOOK if task.strata is None else task.strata.first_look, most)
        if measurement.names_seeds(task):
            look = most
        elif measurement.varies_not(task):
            most = look = 1
        elif is_exhaustive(task.draw):
            most = look = measurement.total(task) or 1
        there = database.keys(stored)
        course = cls(place, task, stored, measurement.keys(task, most), shard, there)
        course.extend(look)
        return course

    @property
    def most(self) -> int:
        """How many trials there can be."""
        return len(self.keys)

    @property
    def asked(self) -> Sequence[int]:
        """The keys of the trials before the next look."""
        return self.keys[: self.until]

    @property
    def has_all(self) -> bool:
        """Whether all trials before the next look are there."""
        return not (self.waiting or self.again or self.handed)

    @property
    def is_time_up(self) -> bool:
        """Whether as many minutes were spent as are allowed."""
        limit = self.task.stop.max_minutes
        return limit is not None and self.minutes >= limit

    def extend(self, until: int) -> None:
        """Has more trials run: the first so many, at least one more and no more than there can be."""
        before = self.until
        self.until = min(max(until, before + 1), self.most)
        mine = [key for key in self.keys[before : self.until] if self.shard.has(key)]
        self.waiting.extend(key for key in mine if key not in self.there)
        self.done += sum(key in self.there for key in mine)

    def cut_short(self) -> None:
        """Hands out no more trials: the next look is at those before the first that is waiting."""
        if self.waiting:
            self.until = self.keys.index(self.waiting[0])
            self.was_cut = True
            self.waiting.clear()

    def next_job(self, workers: int, least: float, most: float) -> Job | None:
        """The next trials of so many seconds; where few are left, each worker's part, if that is not too short."""
        if self.again:
            return self.again.popleft()
        if self.is_time_up:
            self.cut_short()
        if not self.waiting:
            return None
        count = _FIRST_JOB
        if self.seconds is not None:
            share = -(-len(self.waiting) // max(1, workers))
            count = max(1, min(int(most / self.seconds), max(share, int(least / self.seconds))))
        keys = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        return Job(self.place, tuple(keys))

    def take(self, finished: Done, workers: int) -> None:
        """A job has come back; how long that took is learned from it."""
        passed = time.monotonic() - self.handed.pop(finished.job)
        self.minutes += passed / 60 / max(1, workers)
        if finished.rows:
            self.seconds = max(finished.seconds / len(finished.rows), 1e-5)
            self.there.update(row.key for row in finished.rows)

    def hand(self, job: Job) -> None:
        """A job is given to a worker."""
        self.handed[job] = time.monotonic()
