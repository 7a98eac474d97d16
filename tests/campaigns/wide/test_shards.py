"""Parts of a campaign that run apart, are merged and resumed come to what one run comes to."""

import pytest

from hwfault.campaigns.course import Shard
from hwfault.campaigns.database import FILE, Database, Row
from hwfault.campaigns.driver import Driver
from hwfault.campaigns.kept import merge_into
from hwfault.campaigns.merging import merge
from hwfault.campaigns.workers import Here
from tests.campaigns.wide.scripted import Scripted
from tests.campaigns.wide.small import measured, rows_in, write_study
from tests.slowly import slow

QUESTIONS = {
    "curve": {"sweep": {"ber": [0.02, 0.05, 0.08]}},
    "all": {"flips": "single", "sites": ["4.weight_quant"], "stop": {"max_trials": 100_000}},
    "some": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never", "stop": {"max_trials": 8}},
}
"""Pairs are slow in a graph, as each has a plan of its own; a few of them are enough here."""


def ran(study, folder, shard=(0, 1)):
    folder.mkdir(exist_ok=True)
    with Database(folder / FILE) as database:
        workers = Scripted(study, 2)
        return Driver(study, database, workers, shard=shard).run(), workers


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    few = {name: given for name, given in QUESTIONS.items() if name != "all"}
    stop = {"max_trials": 150, "relative": 0.15}
    return measured(write_study(tmp_path_factory.mktemp("study"), questions=few, stop=stop))[1]


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return ran(study, folder)[0], folder


@pytest.mark.parametrize("of", [3, slow(2), slow(8)])
def test_parts_merged_and_resumed_are_one_run(study, whole, tmp_path, of):
    figures, folder = whole
    parts = [ran(study, tmp_path / f"part{part}", (part, of)) for part in range(of)]
    with Database(tmp_path / FILE) as into:
        for part in range(of):
            with Database(tmp_path / f"part{part}" / FILE, readonly=True) as other:
                merge_into(into, other)
    merged = sum(len(rows) for rows in rows_in(tmp_path).values())
    # nothing was run in two parts
    assert merged == sum(len(job.keys) for _, workers in parts for job in workers.seen)
    resumed, workers = ran(study, tmp_path)
    assert resumed == figures
    assert rows_in(tmp_path, counted_only=True) == rows_in(folder, counted_only=True)
    # the parts guessed nearly right: little was missing, little too much
    least = sum(len(rows) for rows in rows_in(folder).values())
    assert sum(len(job.keys) for job in workers.seen) <= least
    assert merged <= 3 * least


def test_a_part_ends_by_itself_and_says_that_it_is_one(study, tmp_path):
    figures, workers = ran(study, tmp_path, (1, 2))
    assert all("part 2 of 2" in figure.why and "merge" in figure.why for figure in figures)
    assert all(key % 2 == 1 for job in workers.seen for key in job.keys)
    assert any(figure.trials < 75 for figure in figures if figure.question == "curve")
    # the interval is that of its own trials, not of as many as it stands for
    for figure in figures:
        assert figure.trials == sum(len(job.keys) for job in workers.seen if study.tasks[job.task].name == figure.name)


def test_a_part_merged_into_another_leaves_no_look_that_is_not_of_all(study, whole, tmp_path):
    ran(study, tmp_path / "a", (0, 2))
    ran(study, tmp_path / "b", (1, 2))
    with Database(tmp_path / "a" / FILE) as into, Database(tmp_path / "b" / FILE, readonly=True) as other:
        merge_into(into, other)
    assert ran(study, tmp_path / "a")[0] == whole[0]
    assert rows_in(tmp_path / "a", counted_only=True) == rows_in(whole[1], counted_only=True)


@pytest.mark.slow
def test_every_flip_in_parts(tmp_path):
    study = measured(write_study(tmp_path, questions={"all": QUESTIONS["all"]}))[1]
    (tmp_path / "whole").mkdir()
    with Database(tmp_path / "whole" / FILE) as database:
        whole = Driver(study, database, Here(study)).run()
    with Database(tmp_path / FILE) as into:
        for part in range(3):
            ran(study, tmp_path / f"part{part}", (part, 3))
            with Database(tmp_path / f"part{part}" / FILE, readonly=True) as other:
                merge_into(into, other)
    resumed, workers = ran(study, tmp_path)
    assert workers.seen == []
    assert resumed == whole
    assert whole[0].why.startswith("exact, all")


def test_a_shard_takes_its_own_trials_for_all(study, whole):
    shard = Shard(1, 3)
    assert [key for key in range(9) if shard.has(key)] == [1, 4, 7]
    assert str(shard) == "part 2 of 3"


@pytest.mark.parametrize("failed_first", [True, False])
def test_a_trial_that_failed_in_one_part_is_taken_from_the_other(study, whole, tmp_path, failed_first):
    rows = rows_in(whole[1])
    digest = study.stored_digest(study.tasks[0])
    with Database(tmp_path / FILE) as into, Database(tmp_path / "other.sqlite") as other:
        mine, theirs = (study.stored(database, study.tasks[0]) for database in (into, other))
        with Database(whole[1] / FILE, readonly=True) as source:
            task = next(task for task in source.tasks() if task.digest == digest)
            good = next(iter(source.rows(task)))
        bad = Row(good.key, None, failed="no memory")
        into.put(mine, [bad if failed_first else good])
        other.put(theirs, [good if failed_first else bad])
        assert merge(into, other) == int(failed_first)
    assert rows_in(tmp_path)[digest] == rows[digest][:1]
