"""`hwfault campaign harden` on a network: advice, faults that other commands take, and trials of the measures."""

import json

import numpy as np
import pytest
import torch
import yaml

import hwfault as hf
from hwfault.campaigns.database import FILE, Database
from hwfault.laws.models import load_faults
from hwfault.train.data import digits
from tests.cli.conftest import good, made, refused, run  # noqa: F401 (fixtures)

SAMPLES = 16


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):  # noqa: F811
    where = tmp_path_factory.mktemp("harden")
    content = {
        "network": str(run),
        "samples": {"first": SAMPLES},
        "questions": {"critical": {"flips": "single", "sites": "features.0.weight_quant", "exhaustive": "always"}},
        "hardening": {"rate": 0.05, "require": {"sdc": "< 1e-9", "due": "< 0.5"}},
        "fit_per_mbit": 950,
        "stop": {"max_trials": 20},
    }
    (where / "study.yaml").write_text(yaml.safe_dump(content))
    good("campaign", "run", where / "study.yaml", "--out", where / "out")
    return where / "out"


def test_advice_and_its_faults(folder, run, tmp_path):  # noqa: F811
    told = good("campaign", "harden", folder, "--json").json
    with Database(folder / FILE, readonly=True) as database:
        (task,) = database.tasks()
        wrong = np.stack([row.answers[task.masks.index("top1")] for row in database.rows(task)])
    assert told["baseline"]["sdc"]["value"] == pytest.approx(wrong.mean())
    assert told["best"]["sdc"]["value"] == 0
    # the network struck by the file's faults runs, and the graph carries them
    faults = load_faults(folder / "hardening.yaml")
    network, _ = hf.load(run / "checkpoint.safetensors")
    x = digits().test.inputs(torch.arange(4))
    with hf.inject(network.eval(), faults, seed=1, example=x[:1]):
        network(x)
    good("export", run, "--faults", folder / "hardening.yaml", "--out", tmp_path / "hardened.onnx")
    study = {"network": str(run), "samples": {"first": 4}, "stop": {"max_trials": 2}}
    study["questions"] = {"next": {"faults": str(folder / "hardening.yaml")}}
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(study))
    good("campaign", "run", tmp_path / "next.yaml", "--out", tmp_path / "next")


def test_report_tells_it_too(folder):
    text = good("campaign", "report", folder).stdout
    assert "FIT of SDC" in text
    (result,) = json.loads((folder / "results.json").read_text())
    assert result["fit"]["value"] == pytest.approx(950 * 576 / 2**20 * result["sdc"]["value"])
    assert "The cheapest plan" in (folder / "report.html").read_text()


def test_trials_of_the_measures(folder, run):  # noqa: F811
    told = good("campaign", "harden", folder, "--verify", "--trials", 24, "--json").json
    names = [one["name"] for one in told["tried"]]
    assert names[0] == "baseline"
    assert {one["trials"] for one in told["tried"]} == {24}
    # the baseline by the public way, and the differences by seed
    with Database(folder / "hardening" / FILE, readonly=True) as database:
        shares = []
        for task in database.tasks():
            masks = np.stack([row.answers for row in database.rows(task)])
            silent = masks[:, task.masks.index("top1")] & ~masks[:, task.masks.index("due")]
            shares.append(silent.mean(1))
    network, _ = hf.load(run / "checkpoint.safetensors")
    network.eval()
    x = digits().test.inputs(torch.arange(SAMPLES))
    golden = network(x).argmax(1)
    faults = hf.BitFlips(probability=0.05, sites={"name": "features.0.weight_quant"})
    with hf.inject(network, faults, seed=3, example=x[:1]):
        assert shares[0][3] == pytest.approx((network(x).argmax(1) != golden).double().mean())
    for one, own in zip(told["tried"], shares, strict=True):
        assert one["sdc"]["value"] == pytest.approx(own.mean())
        if one["removed"] is not None:
            assert one["removed"]["value"] == pytest.approx((shares[0] - own).mean())
    again = good("campaign", "harden", folder, "--verify", "--trials", 24, "--json").json
    assert again["tried"] == told["tried"]


def test_text(folder):
    text = good("campaign", "harden", folder, "--rate", "0.001", "--require", "sdc < 0.5").stdout
    assert "what is required holds without any measure" in text
    assert "two or more faults have the probability" in text
    assert "not told here: bypassed elements" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--question", "critcal"], "did you mean 'critical'?"),
        (["--require", "accuracy > 1"], "expected 'sdc < 1e-5'"),
        (["--rate", "2"], "rate"),
    ],
)
def test_refused(folder, arguments, words):
    refused("campaign", "harden", folder, *arguments, words=words)
