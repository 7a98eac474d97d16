"""Whatever becomes of workers and in whatever order they answer, a campaign comes to the same trials."""

import random

import pytest

from hwfault.campaigns import driver as driver_module
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.driver import Driver, describe_tasks, tried_again
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.workers import Done, Here, Job
from hwfault.errors import FileError, HwfaultError
from tests.campaigns.wide.scripted import Scripted
from tests.campaigns.wide.small import measured, rows_in, write_study

FEW = {"curve": {"sweep": {"ber": [0.02, 0.05, 0.08]}}}
STOP = {"max_trials": 50, "relative": 0.2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study, loaded."""
    return measured(write_study(tmp_path_factory.mktemp("study"), questions=FEW, stop=STOP))[1]


@pytest.fixture(scope="module")
def expected(study, tmp_path_factory):
    """The folder of an undisturbed run on one worker, and its figures."""
    folder = tmp_path_factory.mktemp("expected")
    return folder, drive(study, folder, Here(study))


def drive(study, folder, workers, **rest):
    with Database(folder / FILE) as database:
        return Driver(study, database, workers, **rest).run()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_any_number_of_workers_in_any_order_gives_the_same(study, expected, tmp_path, count):
    figures = drive(study, tmp_path, Scripted(study, count))
    assert figures == expected[1]
    assert rows_in(tmp_path) == rows_in(expected[0])


def test_workers_that_die_at_random_change_nothing(study, expected, tmp_path):
    draw = random.Random(5)
    deaths = [0]

    def deadly(job):
        # a single trial is not killed a third time
        dies = job.tries < 2 and draw.random() < 0.6
        deaths[0] += dies
        return dies

    figures = drive(study, tmp_path, Scripted(study, 3, deadly=deadly, leaving=lambda job: draw.random() < 0.2))
    assert deaths[0] > 3
    assert figures == expected[1]
    assert rows_in(tmp_path) == rows_in(expected[0])


def test_a_trial_that_kills_its_workers_is_recorded_and_the_others_run(study, expected, tmp_path):
    workers = Scripted(study, 2, deadly=lambda job: 7 in job.keys and job.task == 0)
    figures = drive(study, tmp_path, workers)
    rows = rows_in(tmp_path)
    first = study.stored_digest(study.tasks[0])
    assert [row for row in rows[first] if row[3] is not None] == [(7, None, None, "its worker was ended")]
    assert figures[0].failed == 1
    # it was tried at three workers at least, alone at the end, and always with smaller batches
    tried = [job for job in workers.seen if job.task == 0 and 7 in job.keys]
    assert [job.keys for job in tried[-2:]] == [(7,), (7,)]
    assert [job.halvings for job in tried] == list(range(len(tried)))
    for digest, kept in rows_in(expected[0]).items():
        there = {row[0]: row for row in rows[digest] if row[3] is None}
        assert len(there) >= 19
        assert all(there[row[0]] == row for row in kept if row[0] in there)


def test_an_error_of_one_trial_fails_that_one_without_a_second_try(study, tmp_path):
    workers = Scripted(study, 2, raising=lambda job: 3 in job.keys)
    figures = drive(study, tmp_path, workers)
    assert [figure.failed for figure in figures] == [1, 1, 1]
    assert sum(job.keys == (3,) for job in workers.seen) <= len(figures)


def test_many_failed_trials_end_a_task_and_do_not_keep_it_for_ever(study, tmp_path):
    figures = drive(study, tmp_path, Scripted(study, 2, raising=lambda job: any(key % 3 for key in job.keys)))
    for figure in figures:
        assert figure.stopped
        assert figure.trials + figure.failed <= STOP["max_trials"]
        assert figure.failed > figure.trials
    assert "failed" in figures[-1].why


def test_a_task_without_any_answer_says_why(study, tmp_path):
    with pytest.raises(HwfaultError, match=r"none of 20 trials has an answer: it raised"):
        drive(study, tmp_path, Scripted(study, 2, raising=lambda job: True))


class _EndedError(Exception):
    """The driver was ended here."""


@pytest.mark.parametrize("moment", [1, 4, 9])
def test_a_driver_that_ends_anywhere_goes_on(study, expected, tmp_path, moment):
    calls = [0]

    def end(_present):
        calls[0] += 1
        if calls[0] == moment:
            raise _EndedError

    with pytest.raises(_EndedError):
        drive(study, tmp_path, Scripted(study, 2), progress=end)
    before = sum(len(rows) for rows in rows_in(tmp_path).values())
    workers = Scripted(study, 3)
    assert drive(study, tmp_path, workers) == expected[1]
    assert rows_in(tmp_path) == rows_in(expected[0])
    ran = sum(len(job.keys) for job in workers.seen)
    assert ran == sum(len(rows) for rows in rows_in(expected[0]).values()) - before


def test_a_full_disk_loses_nothing(tmp_path):
    study = measured(write_study(tmp_path, samples=2000, questions={"curve": {"sweep": {"ber": [0.05]}}}, stop=STOP))[1]
    with Database(tmp_path / FILE) as database:
        describe_tasks(study, database)  # what the study and its samples take, so that trials are what finds no room
        pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
        database._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(FileError, match=r"full.*make room, and the same command goes on"):
            Driver(study, database, Scripted(study, 2)).run()
    assert 0 < sum(len(rows) for rows in rows_in(tmp_path).values()) < 20
    (tmp_path / "here").mkdir()
    assert drive(study, tmp_path, Scripted(study, 2)) == drive(study, tmp_path / "here", Here(study))
    assert rows_in(tmp_path) == rows_in(tmp_path / "here")


def test_a_sweep_that_grows_runs_what_is_new(study, expected, tmp_path):
    grown = {"curve": {"sweep": {"ber": [0.02, 0.05, 0.08, 0.1]}}}
    (tmp_path / "graph").mkdir()
    other = measured(write_study(tmp_path / "graph", questions=grown, stop=STOP))[1]
    drive(study, tmp_path, Here(study))
    workers = Scripted(other, 2)
    figures = drive(other, tmp_path, workers)
    assert {other.tasks[job.task].name for job in workers.seen} == {"curve ber=0.1"}
    assert [one for one in figures if one.name != "curve ber=0.1"] == expected[1]


@pytest.mark.parametrize("minutes", [0.02, 1e-6])
def test_time_that_is_up_ends_a_task_between_looks(tmp_path, minutes):
    stop = {"max_trials": 10_000, "relative": 0.001, "max_minutes": minutes}
    one = measured(write_study(tmp_path, questions={"curve": {"sweep": {"ber": [0.08]}}}, stop=stop))[1]
    (figure,) = drive(one, tmp_path, Here(one))
    assert 0 < figure.trials < 10_000
    assert "minutes, as long as was allowed" in figure.why
    with Database(tmp_path / FILE, readonly=True) as database:
        (kept,) = [task.figure(database) for task in kept_tasks(database)]
        assert kept.trials == figure.trials


def test_a_later_look_of_another_rule_is_forgotten(tmp_path):
    asked = {"curve": {"sweep": {"ber": [0.08]}}}
    for relative in (0.01, 0.9):
        one = measured(write_study(tmp_path, questions=asked, stop={**STOP, "relative": relative}))[1]
        (figure,) = drive(one, tmp_path, Here(one))
        with Database(tmp_path / FILE, readonly=True) as database:
            (kept,) = [task.figure(database) for task in kept_tasks(database)]
        assert (kept.trials, kept.why) == (figure.trials, figure.why)
    assert figure.trials < STOP["max_trials"]


def test_jobs_are_as_long_as_a_second_and_shared_at_the_end(study, tmp_path, monkeypatch):
    monkeypatch.setattr(driver_module, "_LEAST_SECONDS", 0.0)
    workers = Scripted(study, 4)
    drive(study, tmp_path, workers)
    # 20 trials before the first look: the first alone, the others in parts for four
    sizes = [len(job.keys) for job in workers.seen if job.task == 0 and max(job.keys) < 20]
    assert sum(sizes) == 20
    assert max(sizes) <= 5


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (Done(Job(0, (1, 2, 3)), [], "x", died=True), [Job(0, (1, 2, 3), 1, 1)]),
        (Done(Job(0, (1, 2, 3), 1, 1), [], "x", died=True), [Job(0, (1,), 1, 2), Job(0, (2, 3), 1, 2)]),
        (Done(Job(0, (1,), 1, 2), [], "x", died=True), [Job(0, (1,), 2, 3)]),
        (Done(Job(0, (1,), 2, 3), [], "x", died=True), []),
        (Done(Job(0, (1, 2)), [], "x"), [Job(0, (1,)), Job(0, (2,))]),
        (Done(Job(0, (1,)), [], "x"), []),
        (Done(Job(0, (1,), 2, 3), [], "x", died=True, lost=True), [Job(0, (1,), 2, 3)]),
    ],
)
def test_what_is_tried_again(done, expected):
    assert tried_again(done) == expected
