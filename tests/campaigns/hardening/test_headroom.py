"""Clipped ranges chosen by trials alone: activations with headroom, whose high bits turn into large values."""

import json

import numpy as np
import pytest
import torch
import yaml

import hwfault as hf
from hwfault.campaigns.database import FILE, Database
from hwfault.laws.models import load_faults
from hwfault.train.data import digits
from tests.cli.conftest import good

OWN = "--network", "tests.helpers.campaigns.headroom:headroom"
SITE = "features.1.act_quant"
SAMPLES = 100
TRIALS = 160
RATE = 2e-5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def advised(tmp_path_factory):
    """A census of one activation's bits, and what `harden --verify` makes of it under half of its harm."""
    folder = tmp_path_factory.mktemp("headroom")
    good("train", *OWN, "--epochs", 4, "--out", folder / "run")
    study = {
        "network": str(folder / "run"),
        "samples": {"first": SAMPLES},
        "questions": {"bits": {"flips": "single", "sites": SITE, "exhaustive": "always"}},
        "hardening": {"rate": RATE},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    good("campaign", "run", folder / "study.yaml", *OWN, "--out", folder / "out")
    harm = good("campaign", "harden", folder / "out", "--json").json["baseline"]["expected_sdc"]
    required = "--require", f"sdc < {0.5 * harm}", "--require", "due < 1e-9"
    told = good("campaign", "harden", folder / "out", *OWN, *required, "--verify", "--trials", TRIALS, "--json").json
    return folder, told


def golden_range(folder):
    """The least and the largest integer of the site, by the public way."""
    network, _ = hf.load(folder / "run" / "checkpoint.safetensors", network=OWN[1])
    x = digits().test.inputs(torch.arange(SAMPLES))
    seen = []

    def look(name, _before, _after, _scale, _zero, codes_before, codes_after):
        if name == SITE:
            assert torch.equal(codes_before, codes_after)
            seen.append(codes_before)

    with hf.inject(network.eval(), hf.BitFlips(probability=0), example=x[:1], observe=look):
        network(x)
    return int(seen[0].min()), int(seen[0].max())


def test_the_plan_is_one_clipped_range(advised):
    """By trials of this network alone: two integers, where nothing that single flips show is as cheap."""
    folder, told = advised
    low, high = golden_range(folder)
    assert high < 128, "the highest bit of no word is needed"
    (taken,) = told["best"]["measures"]
    assert taken["measure"] == f"clipped activation range of {SITE}"
    assert taken["gain"] == f"measured in {TRIALS} paired trials, not proved"
    assert told["best"]["laws"] == [{"model": "clipped", "sites": [{"name": SITE}], "low": low, "high": high}]
    assert told["price"] == 16 < told["bound"]
    assert told["best"]["expected_sdc"] < 0.5 * told["baseline"]["expected_sdc"]
    # the intervals of all ranges that were tried hold at once
    alone = [one for one in told["tried"] if one["name"].startswith("clipped-site")]
    assert len(alone) >= 2
    assert {one["removed"]["confidence"] for one in told["tried"] if one["laws"]} == {0.95}


def test_the_gain_is_that_of_injection(advised):
    """The first seeds, with and without the range, by the public way."""
    folder, told = advised
    network, _ = hf.load(folder / "run" / "checkpoint.safetensors", network=OWN[1])
    x = digits().test.inputs(torch.arange(SAMPLES))
    golden = network.eval()(x).argmax(1)
    flips = hf.BitFlips(probability=RATE, sites={"name": SITE})
    faults = load_faults(folder / "out" / "hardening.yaml")
    assert faults[0] == flips
    mine = [one["told"] for one in told["tried"]].index(f"clipped activation range of {SITE}")
    with Database(folder / "out" / "hardening" / FILE, readonly=True) as database:
        tasks = database.tasks()
        rows = [list(database.rows(tasks[place])) for place in (0, mine)]
        top1 = tasks[0].masks.index("top1")
    differ = 0
    for seed in range(12):
        for models, own in zip(([flips], faults), rows, strict=True):
            with hf.inject(network, models, seed=seed, example=x[:1]):
                wrong = (network(x).argmax(1) != golden).numpy()
            assert own[seed].key == seed
            assert np.array_equal(own[seed].answers[top1], wrong)
        differ += not np.array_equal(rows[0][seed].answers[top1], rows[1][seed].answers[top1])
    assert differ


def test_a_campaign_of_its_own_finds_it_so(advised):
    """The plan's file under other seeds than those by which it was chosen."""
    folder, told = advised
    flips = [{"model": "bit_flips", "probability": RATE, "sites": SITE}]
    study = {"network": str(folder / "run"), "samples": {"first": SAMPLES}, "seed": 50_000}
    study["questions"] = {"plain": {"faults": flips}, "plan": {"faults": str(folder / "out" / "hardening.yaml")}}
    study["stop"] = {"max_trials": 640, "relative": 0.05}
    (folder / "next.yaml").write_text(yaml.safe_dump(study))
    good("campaign", "run", folder / "next.yaml", *OWN, "--out", folder / "next")
    plain, plan = json.loads((folder / "next" / "results.json").read_text())
    high = plan["sdc"]["ends"][1]
    assert high < 0.5 * told["baseline"]["expected_sdc"]
    assert plain["sdc"]["ends"][0] > high
