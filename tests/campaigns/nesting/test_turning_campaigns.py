"""Campaigns about first turns: equal to the grid where answers stay turned, the same on any workers, and the grid."""

import numpy as np
import pytest

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.driver import Driver
from hwfault.campaigns.kept import kept_tasks, merge_into
from hwfault.campaigns.local_workers import LocalWorkers
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.nesting import trials
from hwfault.campaigns.nesting.kept import kept_turns
from hwfault.campaigns.nesting.turns import checked_samples
from hwfault.campaigns.study.records import read_study
from hwfault.campaigns.workers import Here, Job, run_job
from hwfault.errors import FileError, HwfaultError, ModelError
from tests.campaigns.wide.scripted import Scripted
from tests.campaigns.wide.small import kill, measured, rows_in, write_study
from tests.slowly import slow

MILD = [0.003, 0.0003, 0.001]
"""Of weights alone, whose answers stay turned; in no order."""
SAMPLES = 40
TWICE = [{"model": "bit_flips", "probability": 0.01}, {"model": "profile", "profile": "mcu", "sites": "*"}]
QUESTIONS = {
    "calm": {"sweep": {"ber": MILD}, "sites": {"kind": "weight"}, "first_turn": True},
    "harsh": {"sweep": {"ber": [0.003, 0.03]}, "first_turn": True},
}
STOP = {"max_trials": 20, "relative": 0.1}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return measured(write_study(folder, samples=SAMPLES, questions=QUESTIONS, stop=STOP))[1]


def drive(study, folder, workers=None, **rest):
    folder.mkdir(exist_ok=True)
    with Database(folder / FILE) as database:
        figures = Driver(study, database, workers or Here(study), **rest).run()
        return figures, kept_turns(database)


@pytest.fixture(scope="module")
def expected(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    return folder, *drive(study, folder)


def task_of(study, name):
    return next(task for task in study.tasks if task.name == name)


def grid(study, question, keys):
    """Which answers have turned at each point, from mild to harsh, run one by one: (points, trials, samples)."""
    points = sorted((task for task in study.tasks if task.stands_by and task.question == question), key=rate_of)
    names = list(study.masks)
    found = []
    for task in points:
        rows = [row.answers for row in study.run(task, keys)]
        found.append([row[names.index("top1")] | row[names.index("due")] for row in rows])
    return np.array(found)


def rate_of(task):
    return task.labels["ber"]


def test_points_are_ordered_from_mild_to_harsh_and_those_of_the_grid_stand_by(study):
    task = task_of(study, "calm first turn")
    assert [labels["ber"] for labels, _ in task.sweep] == sorted(MILD)
    assert [task.name for task in study.tasks][:2] == ["calm first turn", "harsh first turn"]
    assert [task.stands_by for task in study.tasks] == [False] * 2 + [True] * 5
    assert study.not_nested == {}


def test_what_is_not_nested_is_an_ordinary_question(tmp_path):
    asked = {"faults": TWICE, "sweep": {"event_probability": [1.0e-2, 1.0e-3]}, "first_turn": True}
    study = measured(write_study(tmp_path, questions={"two": asked}))[1]
    assert [task.name for task in study.tasks] == ["two event_probability=0.01", "two event_probability=0.001"]
    assert not any(task.stands_by or task.sweep for task in study.tasks)
    assert "2 processes strike the same words" in study.not_nested["two"]


@pytest.mark.parametrize("question", ["calm", "harsh"])
def test_first_turns_are_those_of_the_grid_where_answers_stay_turned(study, question):
    keys = range(12)
    truth = grid(study, question, keys)
    points = len(truth)
    stays = ~(truth[:-1] & ~truth[1:]).any(axis=0)
    for place, row in enumerate(study.run(task_of(study, f"{question} first turn"), keys)):
        turned, checked, back = row.answers[:points], row.answers[points], row.answers[points + 1]
        assert np.array_equal(checked, checked_samples(row.key, SAMPLES))
        first = points - turned.sum(0)
        of_grid = np.where(truth[:, place].any(0), truth[:, place].argmax(0), points)
        sure = stays[place] | checked
        assert np.array_equal(first[sure], of_grid[sure])
        assert np.array_equal(back, checked & ~stays[place])
    assert stays.mean() > 0.8
    assert (truth[-1] & ~truth[0] & stays).sum() > 5, "some turn in the middle of the sweep"


def test_figures_are_those_of_the_rows(study, expected):
    folder, figures, turns = expected
    calm = turns[0]
    rows = list(rows_of(study, folder, "calm first turn"))
    assert calm.trials == len(rows) == 20
    assert [point.turned.value for point in calm.points] == pytest.approx(
        [np.mean([row.answers[place] for row in rows]) for place in range(3)]
    )
    assert calm.check.pairs == sum(row.answers[3].sum() for row in rows)
    assert not calm.runs_grid
    assert all(figure.question != "calm" for figure in figures)


def rows_of(study, folder, name):
    with Database(folder / FILE, readonly=True) as database:
        yield from database.rows(database.find(study.stored_digest(task_of(study, name))))


def test_too_many_that_turn_back_have_the_grid_run(study, expected):
    _, figures, turns = expected
    harsh = turns[1]
    assert harsh.runs_grid
    assert "above 1%, so that the grid runs" in harsh.why
    assert harsh.check.back > 0.01 * harsh.check.pairs
    assert [figure.name for figure in figures if figure.question == "harsh"] == ["harsh ber=0.003", "harsh ber=0.03"]


def test_the_grid_is_that_of_an_ordinary_question(study, expected, tmp_path):
    plain = {"other": {"sweep": {"ber": [0.003, 0.03]}}}
    other = measured(write_study(tmp_path, samples=SAMPLES, questions=plain, stop=STOP))[1]
    workers = Scripted(other, 2)
    with Database(expected[0] / FILE) as database:
        before = database.said("tasks"), database.said("study")
        figures = Driver(other, database, workers).run()
        for key, value in zip(("tasks", "study"), before, strict=True):
            database.say(key, value)
    assert workers.seen == []
    mine = [figure for figure in expected[1] if figure.question == "harsh"]
    assert [one.sdc for one in figures] == [one.sdc for one in mine]


@pytest.mark.parametrize("count", [2, slow(5)])
def test_any_number_of_workers_gives_the_same(study, expected, tmp_path, count):
    figures, turns = drive(study, tmp_path, Scripted(study, count))
    assert (figures, turns) == expected[1:]
    assert rows_in(tmp_path) == rows_in(expected[0])


class _EndedError(Exception):
    """The driver was ended here."""


@pytest.mark.parametrize("moment", [slow(1), 4])
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
    assert drive(study, tmp_path, workers) == expected[1:]
    assert rows_in(tmp_path) == rows_in(expected[0])
    ran = sum(len(job.keys) for job in workers.seen)
    assert ran == sum(len(rows) for rows in rows_in(expected[0]).values()) - before


@pytest.mark.slow
def test_parts_are_merged_and_more_trials_are_added(study, expected, tmp_path):
    for part in range(2):
        drive(study, tmp_path / str(part), Scripted(study, 2), shard=(part, 2))
    (tmp_path / "all").mkdir()
    with Database(tmp_path / "all" / FILE) as into:
        for part in range(2):
            with Database(tmp_path / str(part) / FILE, readonly=True) as other:
                merge_into(into, other)
    assert drive(study, tmp_path / "all", Scripted(study, 2)) == expected[1:]
    grown = study.study.model_copy(update={"stop": study.study.stop.model_copy(update={"max_trials": 30})})
    more = measured_of(grown)
    workers = Scripted(more, 2)
    drive(more, tmp_path / "all", workers)
    assert {key for job in workers.seen if job.task == 0 for key in job.keys} <= set(range(20, 30))


def measured_of(study):
    return Measurement(study, Trust())


def test_the_store_tells_no_task_that_stands_by(study, expected):
    with Database(expected[0] / FILE, readonly=True) as database:
        names = [task.name for task in kept_tasks(database)]
        told = [task.progress(database) for task in kept_tasks(database)]
        assert all(task.figure(database) is None for task in kept_tasks(database) if task.draw == "turns")
    assert "calm ber=0.003" not in names
    assert names[:2] == ["calm first turn", "harsh first turn"]
    assert "harsh ber=0.03" in names
    assert "answers that ran at all points turned back" in told[0].state


def test_a_store_whose_sweep_is_damaged_says_so(study, tmp_path, expected):
    import shutil

    shutil.copy(expected[0] / FILE, tmp_path / FILE)
    with Database(tmp_path / FILE) as database:
        stored = database.find(study.stored_digest(task_of(study, "calm first turn")))
        database._connection.execute('UPDATE task SET masks = \'["a", "b"]\' WHERE id = ?', (stored.id,))
        with pytest.raises(FileError, match=r"the sweep of 'calm first turn' is damaged"):
            kept_turns(database)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({"sweep": {"ber": [0.1]}, "first_turn": True}, "expected two points, found 1"),
        ({"flips": 4, "first_turn": True}, "expected two points, found 0"),
        ({"sweep": {"ber": [0.1, 0.2]}, "first_turn": "yes"}, "first_turn"),
        ({"sweep": {"ber": [0.1, 0.2]}, "first_turn": True, "stop": {"require": "< 1e-3"}}, "tells no rate of SDC"),
    ],
)
def test_questions_that_are_none(tmp_path, question, told):
    with pytest.raises(ModelError) as raised:
        measured(write_study(tmp_path, questions={"q": question}))
    assert told in " ".join(str(raised.value).split())


def test_without_an_outcome_that_is_yes_or_no_no_answer_turns(tmp_path):
    from hwfault.campaigns.nesting.trials import counted_in

    with pytest.raises(HwfaultError, match=r"q first turn: no outcome of the study is yes or no of a sample"):
        counted_in(["correct"], "q first turn")
    assert counted_in(["correct", "top5", "due"], "q") == "top5"


VOLTAGE = {"faults": "bram28-kintex7-kc705b-undervolt", "sweep": {"voltage_v": [0.53, 0.55, 0.54]}, "first_turn": True}


@pytest.fixture(scope="module")
def specimens(tmp_path_factory):
    """A device for each seed, whose cells fail one by one as its voltage falls."""
    folder = tmp_path_factory.mktemp("specimens")
    return measured(write_study(folder, samples=SAMPLES, questions={"volts": VOLTAGE}, stop=STOP))[1]


@pytest.mark.slow
def test_a_specimen_for_each_seed_along_its_voltages(specimens):
    (task,) = [task for task in specimens.tasks if task.sweep]
    assert [labels["voltage_v"] for labels, _ in task.sweep] == [0.55, 0.54, 0.53]
    assert specimens.not_nested == {}
    points = {one.labels["voltage_v"]: one for one in specimens.tasks if one.stands_by}
    keys = range(30)
    names = list(specimens.masks)
    rows = [list(specimens.run(points[volts], keys)) for volts in (0.55, 0.54, 0.53)]
    truth = np.array([[row.answers[names.index("top1")] for row in one] for one in rows])
    for place, row in enumerate(specimens.run(task, keys)):
        stays = ~(truth[:-1, place] & ~truth[1:, place]).any(axis=0)
        assert np.array_equal(row.answers[:3, stays], np.maximum.accumulate(truth[:, place, stays], axis=0))


def test_a_specimen_whose_faults_are_not_nested_fails_with_a_reason(specimens, monkeypatch):
    place = next(place for place, task in enumerate(specimens.tasks) if task.sweep)
    monkeypatch.setattr(trials, "why_not_nested", lambda plans: "some of its faulty cells are gone")
    done = run_job(specimens, Job(place, (3,)))
    assert done.rows == []
    assert done.failed == "the faults of the specimen of seed 3 are not nested: some of its faulty cells are gone"


def test_one_device_is_one_trial_that_tells_all(tmp_path):
    asked = VOLTAGE | {"device": 3}
    study = measured(write_study(tmp_path, samples=SAMPLES, questions={"volts": asked}, stop=STOP))[1]
    _, (figure,) = drive(study, tmp_path)
    assert figure.trials == 1
    assert figure.why.startswith("every seed has the same faults, so that one trial tells all")
    assert [point.turned.ends for point in figure.points] == [None] * 3


@pytest.mark.slow
def test_processes_that_are_killed_change_nothing(tmp_path, study, expected):
    path = write_study(tmp_path, samples=SAMPLES, questions=QUESTIONS, stop=STOP)
    workers = LocalWorkers(read_study(path), Trust(), 2)
    killed = []

    def watch(_present):
        if len(killed) < 2:
            killed.append(workers._processes[0].process.pid)
            kill(killed[-1])

    try:
        assert drive(study, tmp_path, workers, progress=watch) == expected[1:]
    finally:
        workers.close()
    assert len(killed) == 2
    assert rows_in(tmp_path) == rows_in(expected[0])
