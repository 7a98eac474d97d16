"""Single flips from strata through the command: what is drawn, estimated, told, kept and resumed."""

import json

import numpy as np
import pytest

import hwfault as hf
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.page.page import _read
from hwfault.campaigns.statistics.strata import gamma_ends
from hwfault.campaigns.study.kept_space import KeptSpace
from hwfault.campaigns.study.records import Study, kept_study
from hwfault.campaigns.study.space import fault_space
from hwfault.campaigns.study.tasks import tasks_of
from hwfault.laws.cells import CellFaults
from hwfault.laws.files import Files
from hwfault.program.processes import Site, SiteList
from hwfault.program.selectors import Select
from hwfault.train.data import digits
from tests.campaigns.test_studies import by_injection, np_index, write
from tests.cli.conftest import good

TRIALS = 140
QUESTIONS = {"one": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never"}}


@pytest.fixture(scope="module")
def sampled(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strata")
    study = write(folder, run, questions=QUESTIONS, stop={"max_trials": TRIALS})
    good("campaign", "run", study, "--out", folder / "out")
    return folder / "out", study


def test_each_trial_strikes_one_cell_of_its_stratum_on_one_sample(sampled, run):
    folder, _ = sampled
    network, _ = hf.load(run / "checkpoint.safetensors")
    network.eval()
    split = digits().test
    space = fault_space(hf.sites(network, split.inputs(np_index([0]))), [Select(kind="weight")])
    with Database(folder / FILE, readonly=True) as database:
        (task,) = kept_tasks(database)
        rows = list(database.rows(task.stored))
    assert task.draw == "strata"
    assert [row.key for row in rows] == list(range(5, 5 + TRIALS))
    for row in rows[::35]:
        cell, sample = task.strata.pair(row.key)
        correct, wrong = by_injection(network, split, CellFaults(cells=(space.cell(cell),)), 0, [sample])
        assert np.array_equal(row.answers[:2], [correct, wrong])


def test_the_rate_is_weighted_by_what_the_strata_hold(sampled):
    folder, _ = sampled
    with Database(folder / FILE, readonly=True) as database:
        (task,) = kept_tasks(database)
        seen = task.seen(database)
        read = _read(task, database, str(folder))
    where = task.strata.of_keys(seen.keys)
    sizes = task.strata.sizes
    trials = np.bincount(where, minlength=len(sizes))
    events = np.bincount(where, weights=seen.wrong[:, 0], minlength=len(sizes))
    assert trials.min() >= 2
    weights = sizes / sizes.sum() / trials
    found = json.loads((folder / "results.json").read_text())[0]["sdc"]
    assert found["value"] == pytest.approx((weights * events).sum())
    # two looks, after 128 and 140 trials, each with half of the error
    low, high = gamma_ends(events, weights, 1 - 0.05 / 2)
    assert found["ends"] == pytest.approx([low, min(high, 1.0)])
    assert (found["by"], found["confidence"]) == ("gamma", 0.95)
    # a cell of the heat map is a stratum
    space = KeptSpace.of(task.stored.identity, "store")
    site, _, bit = space.places(read.flips.cells)
    assert np.array_equal(where, np.cumsum([0, *space.widths])[site] + bit)


@pytest.mark.slow
def test_the_plan_the_report_and_the_page_say_how_flips_are_drawn(sampled):
    folder, study = sampled
    (told,) = good("campaign", "plan", study, "--json").json
    assert "from 16 strata, site by bit, in numbers fixed beforehand by a first-order score" in told["why"]
    assert (told["way"], told["least"], told["most"]) == ("a flip and a sample", 128, TRIALS)
    page = (folder / "report.html").read_text()
    assert "drawn from 16 strata" in page
    assert "looks at doubling numbers of trials" in page
    assert "They are drawn site by bit" in page
    assert f"{TRIALS} flips, each on one sample, drawn from strata" in good("campaign", "harden", folder).stdout


@pytest.mark.slow
def test_the_weights_are_those_of_the_store(sampled):
    folder, _ = sampled

    def elsewhere(sites):
        return np.arange(1.0, 17.0)

    with Database(folder / FILE, readonly=True) as database:
        study = kept_study(database.said("study"), str(folder))
        (kept,) = kept_tasks(database)
        here = Measurement(study, Trust())
        here.weighing._score = elsewhere
        here.weighing.recall(database)
        assert here.stored_digest(here.tasks[0]) == kept.stored.digest
        other = Measurement(study, Trust())
        other.weighing._score = elsewhere
        assert other.stored_digest(other.tasks[0]) != kept.stored.digest


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({"goal": "bound"}, "drawn uniformly: goal: bound"),
        ({"stop": {"max_trials": TRIALS, "require": "< 0.1"}}, "drawn uniformly: a requirement asks for a bound"),
        ({"stop": {"max_trials": 5}}, "drawn uniformly: max_trials (5) are fewer than two for each stratum"),
        ({}, "drawn uniformly: there are no gradients"),
    ],
)
def test_where_flips_are_drawn_uniformly(question, told):
    study = Study.parse({"network": "run", "questions": {"one": QUESTIONS["one"] | question}}, "study")
    sites = SiteList([Site(name="w", kind="weight", bit_width=4, signed=True, layer="x", shape=(30,))])
    (task,) = tasks_of(study, sites, Files(), weigh=lambda _space: "there are no gradients")
    assert (task.draw, task.strata) == ("pairs", None)
    assert task.note.startswith(told)
    assert "weights" not in task.faults()


@pytest.mark.slow
def test_workers_have_the_weights_of_the_driver(sampled, tmp_path):
    folder, study = sampled
    good("campaign", "run", study, "--out", tmp_path / "two", "--workers", "2")
    with Database(folder / FILE, readonly=True) as one, Database(tmp_path / "two" / FILE, readonly=True) as two:
        (its,), (theirs,) = kept_tasks(one), kept_tasks(two)
        rows, others = list(one.rows(its.stored)), list(two.rows(theirs.stored))
    assert its.stored.digest == theirs.stored.digest
    assert [(row.key, row.answers.tobytes()) for row in rows] == [(row.key, row.answers.tobytes()) for row in others]
