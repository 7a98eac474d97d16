"""A folder of results of `hwfault evaluate` is read by `hwfault campaign`, and is none of its own studies."""

import csv
import re

import pytest

from tests.cli.conftest import good, refused


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_results_is_one_of_a_campaign(run, tmp_path):
    out = tmp_path / "out"
    few = ["--seeds", "5,2", "--samples", 40, "--json"]
    point, _ = good("evaluate", run, "--rates", "0.05,0.1", *few, "--out", out).json
    status = good("campaign", "status", out).stdout
    assert status.count("2 seeds, as they were named") == 2
    figure = good("campaign", "report", out, "--json").json[0]
    assert (figure["labels"], figure["trials"]) == ({"ber": 0.05}, 2)
    assert figure["accuracy"]["value"] == pytest.approx(point["mean"])
    good("campaign", "export", out, "--out", tmp_path / "trials.csv")
    lines = rows_of(tmp_path / "trials.csv")
    assert {(line["ber"], line["key"], int(line["correct"])) for line in lines if line["ber"] == "0.05"} == {
        ("0.05", str(seed), correct) for seed, correct in zip((5, 2), point["correct"], strict=True)
    }
    page = (out / "report.html").read_text()
    assert "Worst seeds" in page
    assert not re.search("campaign (explain|verify|resume)", page)  # which are refused there
    for command in (["resume", out], ["verify", out], ["explain", out, 0, 5, 0]):
        refused("campaign", *command, words=["holds the trials of hwfault evaluate or compare", "goes on there"])


def test_a_folder_of_a_campaign_is_none_of_results(run, tmp_path):
    study = tmp_path / "study.yaml"
    asked = "samples: {first: 8}\nstop: {max_trials: 2}\nquestions: {q: {sweep: {ber: [0.1]}}}\n"
    study.write_text(f"network: {run}\n{asked}")
    good("campaign", "run", study, "--out", tmp_path / "out")
    refused("evaluate", run, "--ber", 0.1, "--out", tmp_path / "out", words="is a campaign of `hwfault campaign run`")
    good("evaluate", run, "--ber", 0.1, "--seeds", 0, "--samples", 8, "--out", tmp_path / "other")
    refused("campaign", "run", study, "--out", tmp_path / "other", words="holds the trials of another study")
