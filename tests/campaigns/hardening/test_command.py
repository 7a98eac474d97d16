"""`hwfault campaign harden` on a network: advice, faults that other commands take, and trials of the measures."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

import hwfault as hf
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.hardening.kept_proof import keep_proofs, read_proofs
from hwfault.laws.models import load_faults
from hwfault.locks import locked_folder
from hwfault.train.data import digits
from tests.cli.conftest import good, refused

SAMPLES = 16
TRIALS = 20
ARRAY = {"kind": "weight_stationary", "rows": 8, "columns": 8}
UNEVEN = [{"model": "bit_flips", "probability": 0.05, "sites": "features.0.weight_quant"}]
STUCK = {"model": "stuck_element", "element": [1, 2], "bit": 9, "value": 1, "mapping": ARRAY}


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    where = tmp_path_factory.mktemp("harden")
    content = {
        "network": str(run),
        "samples": {"first": SAMPLES},
        "questions": {
            "critical": {"flips": "single", "sites": "features.0.weight_quant", "exhaustive": "always"},
            "uneven": {"faults": UNEVEN, "stop": {"max_trials": 2}},
        },
        "hardening": {"rate": 0.05, "require": {"sdc": "< 1e-9", "due": "< 0.5"}},
        "fit_per_mbit": 950,
        "stop": {"max_trials": 20},
    }
    (where / "study.yaml").write_text(yaml.safe_dump(content))
    good("campaign", "run", where / "study.yaml", "--out", where / "out")
    return where / "out"


def test_advice_and_its_faults(folder, run, tmp_path):
    told = good("campaign", "harden", folder, "--json").json
    with Database(folder / FILE, readonly=True) as database:
        task = database.tasks()[0]
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
    result = json.loads((folder / "results.json").read_text())[0]
    assert result["fit"]["value"] == pytest.approx(950 * 576 / 2**20 * result["sdc"]["value"])
    assert "The cheapest plan" in (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def verified(folder):
    """What --verify says; what was tried stays in the folder's store."""
    return good("campaign", "harden", folder, "--verify", "--trials", TRIALS, "--json").json


def test_trials_of_the_measures(folder, run, verified):
    told = verified
    names = [one["name"] for one in told["tried"]]
    assert names[0] == "baseline"
    assert {one["trials"] for one in told["tried"]} == {TRIALS}
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
    again = good("campaign", "harden", folder, "--verify", "--trials", TRIALS, "--json").json
    assert again["tried"] == told["tried"]


@pytest.mark.slow
def test_clipped_activations_are_tried_and_their_faults_are_taken(folder, run, verified, tmp_path):
    """The ranges are those of the clean network; the file's faults are the same in PyTorch, graph and next study."""
    clipped = next(one for one in verified["tried"] if one["name"] == "clipped")
    assert clipped["removed"] is not None
    assert clipped["regained"] is not None
    (proof,) = verified["proofs"]
    assert proof["several"]
    file = folder / "hardening-critical-clipped.yaml"
    faults = load_faults(file)
    ranges = [fault for fault in faults if fault.model == "clipped"]
    network, _ = hf.load(run / "checkpoint.safetensors")
    network.eval()
    x = digits().test.inputs(torch.arange(SAMPLES))
    seen = {}

    def look(name, _before, _after, _scale, _zero, codes_before, codes_after):
        assert torch.equal(codes_before, codes_after)
        seen[name] = int(codes_before.min()), int(codes_before.max())

    acts = [site for site in hf.sites(network, x[:1]) if site.kind in ("activation", "input")]
    with hf.inject(network, hf.BitFlips(probability=0), example=x[:1], observe=look):
        golden = network(x)
    assert ranges
    for site in acts:
        if not site.signed:
            mine = [(one.low, one.high) for one in ranges if one.sites[0].name == site.name]
            whole = seen[site.name] == (0, (1 << site.bit_width) - 1)
            assert mine == ([] if whole else [seen[site.name]])
    # nothing of the clean network changes
    with hf.inject(network, ranges, example=x[:1]):
        assert torch.equal(network(x), golden)
    # the same faults in the graph, and in a study that takes them
    graph = tmp_path / "clipped.onnx"
    good("export", run, "--faults", file, "--out", graph)
    report = hf.replay(network, graph, [x], seeds=[5])
    assert {(site.codes_differ, site.faults_differ) for site in report.sites} == {(0, 0)}
    study = {"network": str(run), "samples": {"first": SAMPLES}, "stop": {"max_trials": TRIALS, "relative": 1e-6}}
    study["questions"] = {"next": {"faults": str(file)}}
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(study))
    good("campaign", "run", tmp_path / "next.yaml", "--out", tmp_path / "next")
    (result,) = json.loads((tmp_path / "next" / "results.json").read_text())
    assert result["sdc"]["value"] == pytest.approx(clipped["sdc"]["value"])


def test_what_was_tried_is_told_by_every_report(folder, verified):
    good("campaign", "report", folder)
    assert "clipped activation ranges" in (folder / "report.html").read_text()
    assert json.loads((folder / "hardening.json").read_text())["tried"] == verified["tried"]


def test_a_second_writer_is_refused(folder):
    with locked_folder(folder):
        refused("campaign", "harden", folder, "--verify", "--trials", TRIALS, words="another process")
        good("campaign", "harden", folder)


@pytest.fixture(scope="module")
def array(run, tmp_path_factory):
    """A study of one stuck element, without single flips."""
    where = tmp_path_factory.mktemp("array")
    content = {"network": str(run), "samples": {"first": SAMPLES}, "questions": {"stuck": {"faults": [STUCK]}}}
    (where / "study.yaml").write_text(yaml.safe_dump(content))
    good("campaign", "run", where / "study.yaml", "--out", where / "out")
    return where / "out"


@pytest.mark.slow
def test_faulty_elements_are_bypassed(array, run):
    told = good("campaign", "harden", array, "--verify", "--json").json
    (proof,) = told["proofs"]
    names = [one["name"] for one in proof["tried"]]
    assert names[:2] == ["baseline", "bypassed"]
    assert {one["trials"] for one in proof["tried"]} == {1}
    # every seed has the same faults: one run of each tells all
    network, _ = hf.load(run / "checkpoint.safetensors")
    network.eval()
    x = digits().test.inputs(torch.arange(SAMPLES))
    golden = network(x).argmax(1)
    faults = load_faults(array / "hardening-stuck-bypassed.yaml")
    for one, models in zip(proof["tried"], ([hf.StuckElement.parse(STUCK, "x")], faults), strict=False):
        with hf.inject(network, models, example=x[:1]):
            wrong = (network(x).argmax(1) != golden).double().mean().item()
        assert one["sdc"]["value"] == pytest.approx(wrong)
        assert one["sdc"]["by"] == "exact"
    removed = proof["tried"][1]["removed"]["value"]
    assert removed == pytest.approx(proof["tried"][0]["sdc"]["value"] - proof["tried"][1]["sdc"]["value"])
    assert "Tried: stuck: its own faults" in (array / "report.html").read_text()
    refused("campaign", "harden", array, words="has no single flips to read")


def test_rates_of_a_question(folder):
    """The store knows how often its faults strike the site: here as often as at one rate for all bits."""
    own = good("campaign", "harden", folder, "--rates-of", "uneven", "--json").json
    one = good("campaign", "harden", folder, "--json").json
    assert own["rate"] == pytest.approx(0.05, rel=1e-3)
    assert own["baseline"]["expected_sdc"] == pytest.approx(one["baseline"]["expected_sdc"], rel=1e-3)
    assert own["best"]["measures"] == one["best"]["measures"]
    refused("campaign", "harden", folder, "--rates-of", "unevn", words="did you mean 'uneven'?")
    refused("campaign", "harden", folder, "--rates-of", "uneven", "--rate", "0.1", words="expected one of the two")


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


@pytest.mark.slow
def test_the_plan_takes_what_was_measured(folder, run, verified, tmp_path):
    """The ranges that were tried become the plan where they remove enough; other commands take its file."""
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    # on these digits they remove nothing that is told apart from nothing
    told = good("campaign", "harden", out, "--json").json
    assert not told["best"]["laws"]
    clipped = next(one for one in told["measured"] if one["measure"] == "clipped activation ranges")
    assert clipped["removed"]["ends"][0] <= 0
    assert "not told apart from nothing" in clipped["why"]
    # the same with other numbers, as of a network whose harm they remove
    harm = told["baseline"]["expected_sdc"]
    with Database(out / FILE) as database:
        (proof,) = read_proofs(database)
        tried = []
        for one in proof.tried:
            if one.name == "clipped":
                removed = one.removed._replace(value=0.9 * harm, ends=(0.5 * harm, harm))
                one = one._replace(sdc=one.sdc._replace(value=0.0), removed=removed, extra_bytes=1.0)
            tried.append(one)
        keep_proofs(database, [proof._replace(tried=tuple(tried))])
    required = "--require", f"sdc < {0.6 * harm}", "--require", "due < 1e-9"
    told = good("campaign", "harden", out, *required, "--json").json
    gain = f"measured in {TRIALS} paired trials, not proved"
    assert [one["gain"] for one in told["best"]["measures"]] == [gain]
    assert told["price"] == 8 < told["bound"]
    text = good("campaign", "harden", out, *required).stdout
    assert f"activations: clipped activation ranges ({len(told['best']['laws'])}), {gain}" in text
    assert "its price, measured, not proved: 8" in text
    assert gain in (out / "report.html").read_text()
    # its file is that of the candidate that was tried, and is taken
    faults = load_faults(out / "hardening.yaml")
    assert faults == load_faults(out / "hardening-critical-clipped.yaml")
    network, _ = hf.load(run / "checkpoint.safetensors")
    x = digits().test.inputs(torch.arange(4))
    with hf.inject(network.eval(), faults, seed=1, example=x[:1]):
        network(x)
    good("export", run, "--faults", out / "hardening.yaml", "--out", tmp_path / "hardened.onnx")
    study = {"network": str(run), "samples": {"first": 4}, "stop": {"max_trials": 2}}
    study["questions"] = {"next": {"faults": str(out / "hardening.yaml")}}
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(study))
    good("campaign", "run", tmp_path / "next.yaml", "--out", tmp_path / "next")
