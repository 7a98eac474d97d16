"""Two campaigns side by side: pairs by seed, flip and sample, known differences, and what cannot be paired."""

import csv
import json
import shutil

import numpy as np
import onnx
import pytest

from hwfault.campaigns.comparison import compare_campaigns
from hwfault.campaigns.comparison_told import comparison_table, verdict
from hwfault.campaigns.database import FILE, Database, Row
from hwfault.campaigns.driver import describe_tasks
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_difference
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.errors import HwfaultError
from hwfault.graph.export.of_network import export
from tests.campaigns.wide.small import measured, write_study
from tests.cli.conftest import good, hwfault
from tests.helpers.graph.networks import batch, fresh

QUESTIONS = {
    "curve": {"sweep": {"ber": [0.03]}},
    "drawn": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never", "stop": {"max_trials": 24}},
    "every": {"flips": "single", "sites": "4.bias_quant", "exhaustive": "always"},
}


def campaign(folder, *, changed=False, **given):
    """A campaign in folder/out, of the graph or of one with other weights."""
    folder.mkdir()
    path = write_study(folder, **({"questions": QUESTIONS, "stop": {"max_trials": 20}} | given))
    if changed:
        onnx.save(export(fresh("biased", 1), batch("biased")), folder / "graph.onnx")
    good("campaign", "run", path, "--out", folder / "out")
    return folder / "out"


def begun(folder, **given):
    """The folder of a campaign that has its tasks, and no trial yet."""
    folder.mkdir()
    _, measurement = measured(write_study(folder, **({"questions": QUESTIONS, "stop": {"max_trials": 20}} | given)))
    with Database(folder / FILE) as database:
        describe_tasks(measurement, database)
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return campaign(folder / "a"), campaign(folder / "b", changed=True)


def compared(both):
    with Database(both[0] / FILE, readonly=True) as one, Database(both[1] / FILE, readonly=True) as two:
        return compare_campaigns(one, two, ("a", "b"))


def wrong_in(folder, name):
    with Database(folder / FILE, readonly=True) as database:
        (task,) = [one for one in kept_tasks(database) if one.name == name]
        rows = list(database.rows(task.stored))
    order = list(task.stored.masks)
    answers = np.stack([row.answers for row in rows])
    return [row.key for row in rows], answers[:, order.index("top1")] & ~answers[:, order.index("due")]


def test_differences_are_those_of_the_pairs(both):
    found = {one.name: one for one in compared(both).compared}
    assert list(found) == ["curve ber=0.03", "drawn", "every"]
    for name, one in found.items():
        (keys, first), (others, second) = (wrong_in(folder, name) for folder in both)
        assert keys == others
        assert one.trials == len(keys)
        assert one.sdc == pytest.approx((first.mean(), second.mean()))
        assert one.sdc_difference.value == pytest.approx(second.mean() - first.mean())
    # seed by seed, at one of the looks that were planned
    (_, first), (_, second) = (wrong_in(folder, "curve ber=0.03") for folder in both)
    expected = estimate_difference(second.mean(1), first.mean(1), Looks.plan(20, 0.95))
    assert found["curve ber=0.03"].sdc_difference.ends == pytest.approx(expected.ends)
    # events: those that one of them has alone, each with half of the error
    (_, first), (_, second) = (wrong_in(folder, "drawn")[0:2] for folder in both)
    up = estimate_rate(int((second & ~first).sum()), 24, 0.975, sequential=True).ends
    down = estimate_rate(int((first & ~second).sum()), 24, 0.975, sequential=True).ends
    assert found["drawn"].sdc_difference.ends == pytest.approx((up[0] - down[1], up[1] - down[0]))
    # what is exact in both is exact
    assert found["every"].sdc_difference.ends is None
    assert found["every"].sdc_difference.by == "exact"


def test_a_campaign_beside_itself_has_no_difference(both):
    for one in compared((both[0], both[0])).compared:
        assert one.sdc_difference.value == 0
        assert one.accuracy_difference.value == 0
        assert verdict(one.sdc_difference) == ("equal" if one.name == "every" else "not told apart")


def test_the_command(both, tmp_path):
    done = good("campaign", "compare", *both, "--out", tmp_path / "c")
    assert "differences are b/out less a/out" in done.stdout
    assert "curve ber=0.03" in done.stdout
    assert "a/out: the graph " in done.stdout
    data = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert data == good("campaign", "compare", *both, "--json").json
    with (tmp_path / "c" / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["question"] for line in lines] == ["curve", "drawn", "every"]
    assert float(lines[0]["sdc_difference"]) == data["compared"][0]["sdc_difference"]["value"]
    page = (tmp_path / "c" / "comparison.html").read_text()
    assert "<dt>a/out</dt><dd>the graph " in page
    assert "What b/out has more or less than a/out" in page
    assert "data:image/svg+xml" in page
    assert (tmp_path / "c" / "comparison.png").stat().st_size > 1000


def test_what_only_one_has_is_named(both, tmp_path):
    other = begun(tmp_path / "c", questions={"every": QUESTIONS["every"], "more": {"flips": 2}})
    found = compared((both[0], other))
    assert found.left_out == (
        ("curve ber=0.03", "only in a"),
        ("drawn", "only in a"),
        ("more", "only in b"),
        ("every", "one of them was not looked at yet"),
    )
    assert comparison_table(found)[1] == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"samples": 11}, "have other samples, so that their trials are no pairs"),
        ({"outcomes": ["confidence10", "due"]}, "have other outcomes"),
        (
            {"questions": {"every": QUESTIONS["every"] | {"sites": "4.weight_quant"}}},
            "every: a and b have other faults",
        ),
        ({"questions": {"nothing": {"flips": 2}}}, "have no task in common"),
    ],
)
def test_what_cannot_be_paired(both, tmp_path, given, told):
    questions = {"questions": {"every": QUESTIONS["every"]}}
    other = begun(tmp_path / "c", **(questions | given))
    with pytest.raises(HwfaultError, match=told):
        compared((both[0], other))


def test_other_seeds_are_no_pairs(both, tmp_path):
    other = begun(tmp_path / "c", questions={"curve": {"sweep": {"ber": [0.03]}}}, seed=1000)
    with Database(other / FILE) as database:
        (task,) = database.tasks()
        database.put(task, [Row(1000, np.zeros((len(task.masks), 12), bool))])
        database.look(task, 1, False, "going on")
    found = compared((both[0], other))
    assert ("curve ber=0.03", "no trial of one is among those of the other (their seeds differ)") in found.left_out


def test_a_census_with_a_trial_that_failed_is_bounded(both, tmp_path):
    shutil.copytree(both[0], tmp_path / "b")
    with Database(tmp_path / "b" / FILE) as database:
        (task,) = [one.stored for one in kept_tasks(database) if one.name == "every"]
        database._connection.execute("DELETE FROM trial WHERE key = 3 AND task = ?", (task.id,))
        database.put(task, [Row(3, None, failed="it died")])
    found = compared((both[0], tmp_path / "b")).compared[-1]
    assert found.sdc_difference.ends == pytest.approx((-1 / 80, 1 / 80))
    assert found.trials == 79


def test_one_folder_twice_is_refused(both):
    assert "is given twice" in hwfault("campaign", "compare", both[0], both[0]).stderr
