"""First turns through the command: plan, run, status, report, page, tables, explain, verify."""

import csv
import json
import re

import numpy as np
import pytest
import yaml

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.nesting.turns import checked_samples
from tests.campaigns.wide.small import write_study
from tests.cli.conftest import good, refused
from tests.proof.test_page import Tags

SAMPLES = 40
BERS = [0.03, 0.001, 0.01]
TWICE = [{"model": "bit_flips", "probability": 0.01}, {"model": "profile", "profile": "mcu", "sites": "*"}]
QUESTIONS = {
    "calm": {"sweep": {"ber": [0.0003, 0.003]}, "sites": {"kind": "weight"}, "first_turn": True},
    "harsh": {"sweep": {"ber": BERS}, "first_turn": True},
}
TWO = {"two": {"faults": TWICE, "sweep": {"event_probability": [1.0e-3, 1.0e-2]}, "first_turn": True}}


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A folder with answers, and what the command printed."""
    folder = tmp_path_factory.mktemp("study")
    study = write_study(folder, samples=SAMPLES, questions=QUESTIONS, stop={"max_trials": 20})
    done = good("campaign", "run", study, "--out", folder / "out")
    return folder / "out", done.stdout


def test_run_says_what_was_bisected_what_was_checked_and_where_the_grid_ran(answered):
    _, text = answered
    assert re.search(r"calm first turn +ber=0\.0003 +20 ", text)
    assert re.search(r"calm first turn: .* of \d+ answers that ran at all points turned back \(", text)
    assert re.search(r"harsh first turn: .*above 1%, so that the grid runs", text)
    table = text.split("point ")[0]
    assert "harsh ber=0.03 " in table
    assert "calm" not in table, "first turns are in no column of SDC"


@pytest.mark.slow
def test_report_says_what_run_said(answered):
    folder, _ = answered
    before = json.loads((folder / "results.json").read_text())
    assert good("campaign", "report", folder, "--json").json == before


def test_status_shows_the_check_and_nothing_that_stands_by(answered):
    folder, _ = answered
    text = good("campaign", "status", folder).stdout
    assert "turned back, of answers checked" in text
    assert "calm ber" not in text


def test_files_hold_them_in_columns_of_their_own(answered, tmp_path):
    folder, _ = answered
    with (folder / "results.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["question"] == "calm"]
    assert [line["ber"] for line in lines] == ["0.0003", "0.003"]
    assert all(line["sdc"] == "" and 0 <= float(line["turned"]) <= 1 for line in lines)
    assert all(float(line["turned_back_low"]) <= float(line["turned_back_high"]) for line in lines)
    (calm,) = [one for one in json.loads((folder / "results.json").read_text()) if one["name"] == "calm first turn"]
    assert "sdc" not in calm
    assert calm["check"]["answers"] == int(lines[0]["checked"]) == sum(map(checked, range(20)))
    good("campaign", "export", folder, "--out", tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open() as file:
        trials = [line for line in csv.DictReader(file) if line["trials_are"] == "turns" and line["question"] == "calm"]
    assert [int(line["checked"]) for line in trials] == list(map(checked, range(20)))
    turned = sum(int(line["turned by ber=0.003"]) for line in trials)
    assert float(lines[1]["turned"]) == pytest.approx(turned / (20 * SAMPLES))


def checked(seed):
    return int(checked_samples(seed, SAMPLES).sum())


def test_the_page_tells_first_turns_beside_sdc(answered):
    folder, _ = answered
    Tags.VOID = ("meta", "img")
    tags = Tags((folder / "report.html").read_text(encoding="utf-8"))
    assert "These are first turns, no rates of SDC." in tags.text
    assert "First turns, from mild to harsh: calm first turn" in tags.text
    assert "the points were run one by one, and their rates are what counts" in tags.text
    alts = [own["alt"] for tag, own in tags.tags if tag == "img"]
    assert any(alt.startswith("Answers that have turned (first turns, no SDC) over ber") for alt in alts)
    assert any(alt.startswith("Silent wrong answers over ber") for alt in alts)
    assert (folder / "turned-ber.png").exists()
    assert tags.open == []
    assert "Not looked at yet" not in tags.text


def test_plan_tells_the_ways_and_keeps_nothing(tmp_path):
    path = write_study(tmp_path, samples=2, questions=QUESTIONS | TWO)
    before = sorted(tmp_path.iterdir())
    told = good("campaign", "plan", path, "--json").json
    names = [one["name"] for one in told]
    assert names == ["calm first turn", "harsh first turn", "two event_probability=0.001", "two event_probability=0.01"]
    assert told[1]["way"] == "a fault seed along the sweep"
    assert "its 3 points are nested: an answer runs at 2 of them at most, by bisection" in told[1]["why"]
    assert "2% of all run at every point, and where over 1% turn back the grid runs" in told[1]["why"]
    assert sorted(tmp_path.iterdir()) == before


NOT_NESTED = "two: the faults of its sweep are not nested, so that no first turn is found by bisection and every point"


@pytest.mark.slow
def test_what_is_not_nested_is_said_wherever_it_is_told(tmp_path):
    path = write_study(tmp_path, samples=2, questions=TWO, stop={"max_trials": 20})
    for command in (("plan", path), ("run", path, "--out", tmp_path / "out"), ("report", tmp_path / "out")):
        text = good("campaign", *command).stdout
        assert NOT_NESTED in text
        assert "2 processes strike the same words" in text
    Tags.VOID = ("meta", "img")
    assert NOT_NESTED in Tags((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text


def test_explain_wants_one_point_and_counts_as_status_does(answered):
    folder, _ = answered
    words = ["one at each of its points", "'calm ber=0.003'"]
    refused("campaign", "explain", folder, "calm first turn", 0, 0, words=words)
    assert good("campaign", "explain", folder, "calm ber=0.003", 0, 0, "--json").json["task"] == "calm ber=0.003"
    listed = [one["name"] for one in good("campaign", "status", folder, "--json").json]
    place = listed.index("harsh ber=0.01")
    assert good("campaign", "explain", folder, place + 1, 0, 0, "--json").json["task"] == "harsh ber=0.01"


def test_trials_run_anew_are_the_same(answered):
    told = good("campaign", "verify", answered[0], "--fraction", 0.05, "--json").json
    assert [one["name"] for one in told][:2] == ["calm first turn", "harsh first turn"]
    assert all(one["differ"] == [] for one in told)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
@pytest.mark.parametrize("sites", ["*", {"kind": "weight"}, {"kind": "activation"}, "features.1.*"])
def test_each_first_turn_of_the_digits_is_that_of_all_points(run, tmp_path, engine, sites):
    """Trial by trial against the grid through the command; answers that turn back are told by the grid alone."""
    asked = {"sweep": {"ber": BERS}, "sites": sites}
    questions = {"turns": {**asked, "first_turn": True}, "grid": asked}
    study = {"network": str(run), "samples": {"first": 60}, "questions": questions, "engine": engine}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study | {"stop": {"max_trials": 6}}))
    good("campaign", "run", path, "--out", tmp_path / "out")
    with Database(tmp_path / "out" / FILE, readonly=True) as database:
        tasks = {json.dumps(task.identity["labels"]): task for task in database.tasks()}
        turns = list(database.rows(tasks["{}"]))
        points = [list(database.rows(tasks[json.dumps({"ber": ber})])) for ber in sorted(BERS)]
        masks = tasks[json.dumps({"ber": BERS[0]})].masks
    truth = np.array([[row.answers[masks.index("top1")] for row in rows] for rows in points])
    stays = ~(truth[:-1] & ~truth[1:]).any(axis=0)
    for place, row in enumerate(turns):
        sure = stays[place] | row.answers[3]
        first = 3 - row.answers[:3].sum(0)
        of_grid = np.where(truth[:, place].any(0), truth[:, place].argmax(0), 3)
        assert np.array_equal(first[sure], of_grid[sure])
        assert np.array_equal(row.answers[4], row.answers[3] & ~stays[place])
    assert len(turns) == 6
    assert (truth[-1] & ~truth[0]).any()
