"""The driver of a campaign: it hands out trials, keeps them, and stops each task when its rule says so."""

import json
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

from hwfault.campaigns.about import note_end, note_start, say_about
from hwfault.campaigns.by_class import keep_labels, with_classes
from hwfault.campaigns.course import Course, Shard
from hwfault.campaigns.covered import cut_told
from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.expected import expected_in_sample
from hwfault.campaigns.figures import Asked, Figure, Trials, columns_of, decide, make_figure, rule_of
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.nesting.figures import Turned, check_of, decide_turns, turned_of
from hwfault.campaigns.statistics.stopping import Decision
from hwfault.campaigns.study.tasks import Task, has_one_sample
from hwfault.campaigns.workers import Done, Job, Workers
from hwfault.errors import HwfaultError

_JOB_SECONDS = 1.0
"""How long a job should take: long beside handing it out and keeping it, short beside what a killed run loses."""
_LEAST_SECONDS = 0.2
"""How long one takes at least, where there are so few trials that the workers share them."""
_MOST_TRIES = 3
_RATE_SECONDS = 10.0


class Present(NamedTuple):
    """Where a task is just now: trials done, until when, how many a second (of all tasks), what its rule said last."""

    task: Task
    done: int
    until: int
    rate: float | None
    decision: Decision | None


Progress = Callable[[Present], object]


class Driver:
    """Runs the tasks of a measurement; each trial is in the database before it is counted.

    Tasks come one after the other; workers that would wait for a look at one begin the next. Only trials that are
    needed whatever the others come to are handed out, so that the same are run on one worker and on many.
    """

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
        self._shard = Shard(*shard)
        self._rate = _Rate()
        self._courses: dict[int, Course] = {}

    def run(self) -> list[Figure]:
        """All tasks; what is in the store is not run again."""
        describe_tasks(self._measurement, self._database)
        note_start(self._database)
        self._courses = {}
        self._begin(lambda task: not task.stands_by)
        while not all(course.ended for course in self._courses.values()):
            self._hand_out()
            if self._look():  # which ended a task, or wants more trials of it
                continue
            for finished in self._workers.collect():
                self._take(finished)
        note_end(self._database)
        return [course.figure for course in self._courses.values() if course.figure is not None]

    def _begin(self, chosen: Callable[[Task], bool]) -> None:
        for place, task in enumerate(self._measurement.tasks):
            if chosen(task):
                self._courses[place] = Course.begin(self._measurement, self._database, place, self._shard)

    def _begin_grid(self, question: str) -> None:
        """Has the points of a sweep run one by one, which have stood by so far."""
        self._begin(lambda task: task.stands_by and task.question == question)
        describe_tasks(self._measurement, self._database, self._courses)

    # handing out

    def _hand_out(self) -> None:
        """Gives every free worker a job, of the first task that has one."""
        while self._workers.free > 0:
            job = self._next_job()
            if job is None:
                return
            self._courses[job.task].hand(job)
            self._workers.submit(job)

    def _next_job(self) -> Job | None:
        for course in self._courses.values():
            job = course.next_job(self._workers.count, _LEAST_SECONDS, _JOB_SECONDS)
            if job is not None:
                return job
        return None

    def _take(self, finished: Done) -> None:
        """Keeps what a job came to, or notes what of it is to be tried again."""
        course = self._courses[finished.job.task]
        course.take(finished, self._workers.count)
        rows = finished.rows
        if finished.failed is not None:
            again = tried_again(finished)
            course.again.extend(again)
            rows = [] if again else [Row(finished.job.keys[0], None, failed=finished.failed)]
        if rows:
            self._database.put(course.stored, rows)
            course.done += len(rows)
            self._rate.count(len(rows))
            self._tell(course)

    def _tell(self, course: Course) -> None:
        self._progress(Present(course.task, course.done, course.until, self._rate.value, course.decision))

    # looking

    def _look(self) -> bool:
        """Looks at all tasks whose trials up to the next look are there; whether there were any."""
        due = [course for course in self._courses.values() if not course.ended and course.has_all]
        for course in due:
            self._look_at(course)
        return bool(due)

    def _look_at(self, course: Course) -> None:
        seen = self._columns(course)
        if not seen.number and self._shard.of > 1:  # the other parts have all there are
            course.ended = True
            return
        if not (seen.number or seen.failed) and self._has_all_named(course):
            # they come from a file of 0.4.0, which kept no answers that rates could be made of
            self._tell(course)
            course.ended = True
            return
        decision = self._decide(course, seen)
        course.decision = decision
        self._database.look(course.stored, course.until, decision.stop, decision.why)
        self._tell(course)
        if decision.stop:
            course.ended = True
            if isinstance(seen, Trials):
                course.figure = figure_of(self._measurement, course.task, seen, decision)
            elif check_of(seen, course.task.stop).is_too_much:
                self._begin_grid(course.task.question)
        else:
            # looks come after so many answers, and a trial that failed has none
            failed = seen.failed * self._shard.of
            course.extend((decision.next_look or course.most) + failed)

    def _columns(self, course: Course) -> Trials | Turned:
        rows = self._shard.mine(self._database.rows(course.stored))
        if course.task.sweep:
            return turned_of(rows, len(course.task.sweep), course.stored.samples, course.asked)
        return columns_of(rows, course.stored.masks, course.stored.samples, course.asked)

    def _decide(self, course: Course, seen: Trials | Turned) -> Decision:
        """Whether a task has enough trials; a part of a campaign takes its own for a picture of all."""
        if not seen.number:
            rows = self._database.rows(course.stored)
            why = next((row.failed for row in rows if row.failed is not None), "none was run")
            raise HwfaultError(f"{course.task.name}: none of {seen.failed} trials has an answer: {why}")
        found = self._judge(course, seen)
        if self._has_all_named(course):
            return found._replace(stop=True, why=f"{course.most:,} seeds, as they were named")
        if self._shard.of > 1:
            whole = self._judge(course, self._shard.fill_up(seen, course.until))
            why = f"{self._shard}, which tells from its own trials whether {course.until:,} of all parts are enough"
            found = found._replace(stop=whole.stop, next_look=whole.next_look, why=f"{why}; merge them, then resume")
        if not found.stop and (course.until >= course.most or course.was_cut):
            tried = f"{seen.number + seen.failed:,} trials, as many as were allowed"
            why = found.why if self._shard.of > 1 else f"{tried}; {seen.failed:,} of them failed"
            return found._replace(stop=True, why=why)
        return self._told_if_cut(course, seen, found)

    def _has_all_named(self, course: Course) -> bool:
        """Whether the seeds of a task are named, and all of them have been run."""
        return self._measurement.names_seeds(course.task) and not course.was_cut

    def _told_if_cut(self, course: Course, seen: Trials | Turned, found: Decision) -> Decision:
        """The decision on a census that is not whole, which says what it does not cover."""
        space = course.task.space
        if (
            isinstance(seen, Turned)
            or course.task.draw != "all"
            or space is None
            or seen.number >= space.size
            or self._shard.of > 1
        ):
            return found
        limit = course.task.stop.max_minutes if course.was_cut else None
        return found._replace(why=cut_told(seen, space, found.estimate, limit))

    def _judge(self, course: Course, seen: Trials | Turned) -> Decision:
        task = course.task
        total = self._measurement.total(task)
        claim = self._measurement.study.samples.claim
        if isinstance(seen, Turned):
            return decide_turns(seen, task.stop, claim, course.minutes, total)
        return decide(seen, task.stop, task.draw, claim, course.minutes, total, task.strata)


def tried_again(finished: Done) -> list[Job]:
    """The jobs that take the place of one that failed; none where it is a single trial that has failed for good.

    A job whose worker died is tried elsewhere with half the batch, then in halves, until the trial is found that does
    it. One that raised an error is tried trial by trial, each once: it would raise it anywhere.
    """
    job = finished.job
    if finished.lost:
        return [job]
    several = len(job.keys) > 1
    if not finished.died:
        return [job._replace(keys=(key,)) for key in job.keys] if several else []
    later = job._replace(tries=job.tries + 1, halvings=job.halvings + 1)
    if job.tries == 0:
        return [later]
    if several:
        half = len(job.keys) // 2
        return [later._replace(keys=keys, tries=1) for keys in (job.keys[:half], job.keys[half:])]
    return [later] if later.tries < _MOST_TRIES else []


class _Rate:
    """How many trials a second came, over the last ten seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def count(self, trials: int) -> None:
        """So many trials have come."""
        now = time.monotonic()
        self._seen.append((now, trials))
        while len(self._seen) > 2 and self._seen[1][0] < now - _RATE_SECONDS:
            self._seen.popleft()

    @property
    def value(self) -> float | None:
        """Trials a second; None before there are any."""
        counted = sum(trials for _, trials in list(self._seen)[1:])
        passed = self._seen[-1][0] - self._seen[0][0]
        return counted / passed if counted and passed > 0 else None


def describe_tasks(measurement: Measurement, database: Database, begun: Container[int] = ()) -> None:
    """Keeps the study and what its tasks are called, so that the store can be read without the network.

    Of those that stand by only the `begun` are told, by their places.
    """
    told = []
    for place, task in enumerate(measurement.tasks):
        if task.stands_by and place not in begun:
            continue
        stored = measurement.stored(database, task)
        total = measurement.total(task)
        told.append(
            {
                "question": task.question,
                "name": task.name,
                "labels": dict(task.labels),
                "digest": stored.digest,
                "draw": task.draw,
                "total": total,
                "note": task.note,
                "expected": expected_in_sample(measurement, task),
                "stop": task.stop.model_dump(mode="json"),
            }
        )
    measurement.weighing.keep(database)
    keep_labels(database, measurement.labels)
    database.say("study", json.dumps(measurement.study.to_data()))
    database.say("tasks", json.dumps(told))
    say_about(measurement, database)


def figure_of(measurement: Measurement, task: Task, seen: Trials, decision: Decision) -> Figure:
    """A task in numbers."""
    golden = None
    if "correct" in measurement.masks and not has_one_sample(task.draw):  # whose samples are drawn
        golden = float(measurement.golden_masks()[list(measurement.masks).index("correct")].mean())
    study = measurement.study
    asked = Asked(
        question=task.question,
        name=task.name,
        labels=task.labels,
        draw=task.draw,
        total=measurement.total(task),
        strata=task.strata,
        ends=None if task.space is None else task.space.ends,
        stop=task.stop,
        claim=study.samples.claim,
        fit_per_mbit=study.fit_per_mbit,
    )
    return with_classes(make_figure(asked, seen, decision, golden), asked, seen, measurement.labels)


def check_rules(tasks: Sequence[Task]) -> None:
    """Raises ModelError for a task whose stopping rule is none, before any trial is run."""
    for task in tasks:
        rule_of(task.stop)
