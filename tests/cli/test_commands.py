"""Every command does its work, as a table and as JSON, and says what comes next."""

import csv
import json
import re

import numpy as np
import onnx
import pytest
import torch

import hwfault as package
from hwfault.cli import COMMANDS
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, bit_errors
from hwfault.network.sites import sites as sites_of
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.stream import hits
from hwfault.stream.tables import site_number
from hwfault.train import Epoch, TrainConfig, checkpoint
from hwfault.train.data import digits
from hwfault.train.folder import FILES
from hwfault.train.schedule import Schedule, ScheduledFault, schedule_faults
from tests.cli.conftest import good, hwfault

ACCUMULATORS = [f"{layer}.accumulator" for layer in ("features.0", "features.2", "features.4", "classifier")]
SITES = [
    "input.act_quant",
    "features.0.weight_quant",
    "features.1.act_quant",
    "features.2.weight_quant",
    "features.3.act_quant",
    "features.4.weight_quant",
    "features.5.act_quant",
    "classifier.weight_quant",
]
DIRECTED = """
faults:
  - {model: bit_flips, p01: 0.05, sites: "features.*act*"}
  - {model: word, probability: 0.02, effect: msb, sites: {kind: weight}}
  - {model: cluster, probability: 0.01, sizes: [0.5, 0.5], sites: classifier.weight_quant}
"""


@pytest.fixture
def yaml(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(DIRECTED)
    return path


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_help_and_version():
    assert good("--version").stdout == f"hwfault, version {package.__version__}\n"
    text = good("--help").stdout
    assert all(re.search(rf"^  {name} ", text, re.M) for name in COMMANDS)
    codes = "Exit codes: 0 good, 1 an error, 2 wrong usage or a wrong value, 3 a replay whose faults differ."
    assert codes in " ".join(text.split())
    for name in COMMANDS:
        assert good(name, "--help").stdout.startswith(f"Usage: hwfault {name} ")
        assert good(name, "-h").stdout == good(name, "--help").stdout


@pytest.mark.parametrize(
    "arguments", [["replays"], ["train"], ["sites"], ["export", "run"], ["faults", "x", "--bers", "1"]]
)
def test_wrong_usage(arguments):
    done = hwfault(*arguments)
    assert done.code == 2
    assert done.stdout == ""
    assert "Usage: hwfault" in done.stderr
    assert "Error: " in done.stderr


def test_train_leaves_a_checkpoint_its_configuration_and_its_history(tmp_path):
    out = tmp_path / "deep" / "run"
    done = good(
        "train", "--epochs", 1, "--ber", 0.02, "--select", "features.*", "--seed", 5, "--ramp-epochs", 3, "--out", out
    )
    assert listing(out) == sorted({*FILES, "tensorboard"} - {"best.safetensors"})
    model, config = checkpoint.load(out / "checkpoint.safetensors")
    (flips,) = bit_errors(0.02, "features.*")
    ramp = Schedule(ramp="linear", ramp_epochs=3)
    assert config == TrainConfig(epochs=1, faults=[ScheduledFault(fault=flips, schedule=ramp)], seed=5)
    assert config == TrainConfig.load(out / "config.json")
    assert not model.training
    assert re.search(r"^after 1 epochs: loss \d\.\d{4}, accuracy \d+\.\d% on the training data$", done.stdout, re.M)
    assert f"next: hwfault evaluate {out} --rates" in done.stdout
    assert "training digits_cnn" in done.stderr


def test_train_as_json_and_in_every_option(few, tmp_path):
    arguments = {
        "--epochs": 2, "--batch-size": 256, "--learning-rate": 0.01, "--weight-decay": 0.0, "--optimizer": "sgd",
        "--gradient": "straight_through", "--network": "digits_cnn", "--data": str(few), "--seed": 2**64 - 1,
        "--validation": 0.25, "--accumulate": 2, "--momentum": 0.8, "--warmup-epochs": 1, "--loss": "cross_entropy",
        "--label-smoothing": 0.1, "--loss-on": "average", "--draws": 2, "--clip-weights": 0.5, "--clip-gradient": 3.0,
        "--early-stopping": 4, "--monitor": "faulty_loss", "--precision": "bf16-mixed", "--accelerator": "cpu",
        "--devices": 1, "--checkpoint-every": 1, "--checkpoint-every-steps": 1, "--workers": 0,
    }  # fmt: skip
    more = ["--ber", 0.01, "--schedule", "step", "--set", "schedule.step_size=1", "--set", "freeze=[features.0]"]
    options = [part for pair in arguments.items() for part in pair]
    done = good("train", *options, *more, "--freeze-schedule", "--out", tmp_path / "run", "--json")
    assert [set(epoch) for epoch in done.json] == [set(Epoch.model_fields)] * 2
    assert [epoch["epoch"] for epoch in done.json] == [1, 2]
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [epoch["loss"] for epoch in done.json]
    config = TrainConfig.load(tmp_path / "run" / "config.json")
    for option, value in arguments.items():
        assert getattr(config, option[2:].replace("-", "_")) == value, option
    assert (config.freeze, config.freeze_schedule) == (("features.0",), True)
    assert (config.schedule.name, config.schedule.step_size) == ("step", 1)


def test_train_from_a_file_that_options_override(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("epochs: 1\nbatch_size: 512\nlearning_rate: 0.01\nfaults: [{model: bit_flips, probability: 0.5}]\n")
    good("train", "--config", path, "--batch-size", 256, "--ber", 0.01, "--out", tmp_path / "run")
    config = TrainConfig.load(tmp_path / "run" / "config.json")
    assert (config.batch_size, config.learning_rate, config.epochs) == (256, 0.01, 1)
    assert config.faults == schedule_faults(bit_errors(0.01))
    good("train", "--config", tmp_path / "run" / "config.json", "--out", tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "run" / "config.json").read_text()


def test_training_is_repeatable(tmp_path):
    for name in ("one", "two"):
        good("train", "--epochs", 1, "--ber", 0.02, "--out", tmp_path / name)
    one, two = (checkpoint.load(tmp_path / name / "checkpoint.safetensors")[0].state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_own_networks_and_data(tmp_path):
    own = ["--network", "tests.helpers.train.small:network", "--data", "tests.helpers.train.small:data"]
    run = tmp_path / "run"
    good("train", *own, "--epochs", 2, "--batch-size", 16, "--learning-rate", 0.01, "--out", run)
    done = good("evaluate", run, *own, "--ber", 0.01, "--seeds", "0-2", "--json")
    assert done.json[0]["samples"] == 48
    graph = tmp_path / "g.onnx"
    good("export", run, *own, "--ber", 0.01, "--out", graph)
    report = good("replay", graph, run, *own, "--seeds", 1, "--accept", "codes", "--json").json
    assert report["verdict"] != "faults differ"


def test_data_in_an_npz_file(tmp_path):
    data = digits()
    arrays = {
        "x_train": data.train_x[:100],
        "y_train": data.train_y[:100],
        "x_test": data.test_x[:20],
        "y_test": data.test_y[:20],
    }
    np.savez(tmp_path / "d.npz", **{key: t.numpy() for key, t in arrays.items()})
    good("train", "--data", tmp_path / "d.npz", "--epochs", 1, "--out", tmp_path / "run")
    assert good("evaluate", tmp_path / "run", "--seeds", 0, "--json").json[0]["samples"] == 20


def test_evaluate_without_faults(run):
    (point,) = good("evaluate", run, "--json").json
    assert {"seeds", "correct", "samples", "ber", "mean", "interval"} < set(point)
    assert point["labels"] == {"faults": "no faults"}
    assert (point["golden"], point["degradation"], point["std"]) == (point["correct"][0], 0, 0)
    assert len(set(point["correct"])) == 1
    assert point["seeds"] == list(range(20))
    model, _ = checkpoint.load(run / "checkpoint.safetensors")
    data = digits()
    with torch.no_grad():
        correct = int((model(data.test_x).argmax(1) == data.test_y).sum())
    assert point["correct"][0] == correct
    assert point["mean"] == correct / 360


def test_evaluate_under_faults_is_what_the_library_says(run):
    done = good("evaluate", run, "--ber", 0.02, "--seeds", "3,5", "--batch-size", 100, "--json").json[0]
    model, _ = checkpoint.load(run / "checkpoint.safetensors")
    data, correct = digits(), []
    with inject(model, bit_errors(0.02), seed=0) as injection, torch.no_grad():
        for seed in (3, 5):
            injection.seed, injection.first_sample = seed, 0
            correct.append(int((model(data.test_x).argmax(1) == data.test_y).sum()))
    assert done["correct"] == correct
    assert done["seeds"] == [3, 5]


def test_evaluate_a_sweep_as_table_files_and_json(run, tmp_path):
    arguments = ["evaluate", run, "--rates", "0,0.01,0.05", "--seeds", "0-4"]
    done = good(*arguments, "--out", tmp_path / "out")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:7] == ["BER", "accuracy", "std", "pp", "95", "%", "from"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "0.01", "0.05"]
    assert [line.split()[-2:] for line in lines[1:4]] == [["5", "360"]] * 3
    assert lines[4].startswith("golden run (no faults): ")
    assert listing(tmp_path / "out") == ["accuracy.png", "campaign.sqlite", "results.csv", "results.json"]
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = good(*arguments, "--json").json
    assert [float(row["ber"]) for row in rows] == [0, 0.01, 0.05]
    assert [float(row["accuracy"]) for row in rows] == [point["mean"] for point in points]
    assert {row["network"] for row in rows} == {str(run)}
    assert points[0]["mean"] > points[2]["mean"]


def test_evaluate_chosen_sites_and_a_file_of_faults(run, yaml, tmp_path):
    table = good("evaluate", run, "--faults", f"mine={yaml}", "--seeds", 1).stdout.splitlines()
    assert table[1].startswith("mine")
    assert good("evaluate", run, "--seeds", 1).stdout.splitlines()[1].startswith("no faults")
    only = good("evaluate", run, "--rates", "0.05", "--select", "input.*", "--seeds", "1-3", "--json").json[0]
    every = good("evaluate", run, "--rates", "0.05", "--seeds", "1-3", "--json").json[0]
    assert only["mean"] > every["mean"]
    good("evaluate", run, "--faults", yaml, "--seeds", 1, "--out", tmp_path)
    assert "results.csv" in listing(tmp_path)


def test_evaluate_takes_a_checkpoint_for_its_run(run):
    arguments = ["--ber", 0.02, "--seeds", 1, "--json"]
    assert good("evaluate", run / "checkpoint.safetensors", *arguments).json == good("evaluate", run, *arguments).json


def test_sites_of_a_network_a_run_a_checkpoint_and_graphs(made, run):
    found = {key: good("sites", source, "--json").json["sites"] for key, source in {
        "network": "digits_cnn", "run": run, "checkpoint": run / "checkpoint.safetensors",
        "clean": made / "clean.onnx", "faulted": made / "faulted.onnx",
    }.items()}  # fmt: skip
    keys = {"name", "kind", "bit_width", "signed", "layer", "shape"}
    for key, sites in found.items():
        sums = [s for s in sites if s["kind"] == "accumulator"]
        known = key != "network"  # where data or the graph shows what feeds a layer
        assert [s["name"] for s in sums] == (ACCUMULATORS if known else [])
        assert [s["bit_width"] for s in sums] == ([16, 16, 17, 16] if known else [])
        assert all(set(s) == keys | {"source", "weights", "worst_case"} for s in sums), key
        found[key] = sites = [s for s in sites if s not in sums]
        assert {s["name"] for s in sites} == set(SITES), key
        assert all(set(s) == keys for s in sites), key
    assert found["run"] == found["checkpoint"] == found["clean"] == found["faulted"]
    assert [s["name"] for s in found["run"]] == SITES
    assert found["run"][0]["shape"] == [1, 8, 8]
    assert found["network"][0]["shape"] is None
    stored = {
        key: {s["name"]: (s["bit_width"], s["signed"], s["kind"] == "weight") for s in v} for key, v in found.items()
    }
    assert all(entry == stored["run"] for entry in stored.values())


def test_sites_as_a_table(run):
    lines = good("sites", run).stdout.splitlines()
    assert lines[0].split() == ["site", "kind", "bits", "codes", "layer", "shape"]
    assert [line.split()[0] for line in lines[1:]] == SITES + ACCUMULATORS
    assert lines[2].strip().split(maxsplit=5) == [
        "features.0.weight_quant",
        "weight",
        "4",
        "signed",
        "QuantConv2d",
        "16 x 1 x 3 x 3",
    ]
    assert good("sites", "digits_cnn").stdout.splitlines()[1].split()[-1] == "?"


def test_faults_print_what_the_stream_says(run):
    name = "features.2.weight_quant"
    found = good("faults", run, "--ber", 0.01, "--site", name, "--seed", 2**64 - 1, "--json").json
    assert all(set(fault) == {"process", "word", "bit", "aux", "effect"} for fault in found)
    for plane in range(4):
        where, aux = hits(
            seed=2**64 - 1, site=site_number(name, 0), sample=0, words=32 * 16 * 9, plane=plane, probability=0.01
        )
        assert [(f["word"], f["aux"]) for f in found if f["bit"] == plane] == list(
            zip(where.tolist(), aux.tolist(), strict=True)
        )
    assert {f["effect"] for f in found} == {"flip"}
    table = good("faults", run, "--ber", 0.01, "--site", name, "--seed", 2**64 - 1).stdout.splitlines()
    assert table[0].split() == ["fault", "word", "bit", "aux", "effect"]
    assert len(table) == len(found) + 2
    assert table[-1].startswith(f"{len(found)} faults at {name}, seed {2**64 - 1}, sample 0; expected in a trial: ")
    assert [[int(c) for c in line.split()[:4]] for line in table[1:-1]] == [
        [f["process"], f["word"], f["bit"], f["aux"]] for f in found
    ]


def test_faults_are_those_that_strike_the_network(run):
    name = "features.1.act_quant"
    found = good("faults", run, "--ber", 0.01, "--site", name, "--seed", 3, "--sample", 2, "--json").json
    model, _ = checkpoint.load(run / "checkpoint.safetensors")
    seen = {}

    def observe(site, before, after, scale, zero_point):
        seen[site] = ((before / scale).int() ^ (after / scale).int()).flatten(1)[2]

    with inject(model, bit_errors(0.01), seed=3, observe=observe), torch.no_grad():
        model(digits().test_x[:4])
    expected = {}
    for fault in found:
        expected[fault["word"]] = expected.get(fault["word"], 0) | 1 << fault["bit"]
    struck = seen[name].nonzero().flatten().tolist()
    assert {word: int(seen[name][word]) for word in struck} == expected


def test_faults_of_a_plan_a_graph_and_a_file(made, run, yaml):
    plan = FaultPlan.load(made / "plan.json")
    one = ["--site", "classifier.weight_quant", "--seed", 4, "--json"]
    expected = good("faults", run, "--ber", 0.02, *one).json
    assert good("faults", made / "plan.json", *one).json == expected
    assert good("faults", made / "faulted.onnx", *one).json == expected
    assert good("faults", made / "clean.onnx", "--ber", 0.02, *one).json == expected
    assert FaultPlan.from_json(good("faults", made / "faulted.onnx", "--json").stdout) == plan
    assert good("faults", made / "plan.json").stdout == f"{plan}\n"
    effects = {f["effect"] for f in good("faults", run, "--faults", yaml, *one).json}
    assert effects <= {"xor 0x8", "flip", "flips 2 along bit"}
    assert len(effects) == 3
    directed = good("faults", run, "--faults", yaml, "--site", "features.1.act_quant", "--json").json
    assert {f["effect"] for f in directed} == {"0 reads 1"}


def test_faults_where_the_shape_is_not_known(run):
    arguments = ["faults", "digits_cnn", "--ber", 0.01, "--site", "input.act_quant", "--json"]
    done = hwfault(*arguments)
    assert done.code == 1
    assert "how many words a sample of 'input.act_quant' has is not known; give it (--words)" in done.stderr
    known = good("faults", run, *arguments[2:]).json
    assert good(*arguments, "--words", 64).json == known
    assert [f for f in known if f["word"] < 10] == good(*arguments, "--words", 10).json


def test_faults_saves_a_plan(run, tmp_path):
    good("faults", run, "--ber", 0.05, "--select", "features.*", "--save", tmp_path / "p.json")
    model, _ = checkpoint.load(run / "checkpoint.safetensors")
    expected = resolve(sites_of(model, digits().test_x[:1]), [BitFlips(probability=0.05, sites="features.*")])
    assert FaultPlan.load(tmp_path / "p.json") == expected


def test_export(made, run, tmp_path):
    clean = good("export", run, "--out", tmp_path / "c.onnx")
    assert clean.stdout == f"{tmp_path / 'c.onnx'}: clean\n"
    assert good("export", run, "--out", tmp_path / "c.onnx", "--json").json == {
        "graph": str(tmp_path / "c.onnx"), "sites": [], "plan": None,
    }  # fmt: skip
    plan = FaultPlan.load(made / "plan.json")
    text = good("export", run, "--plan", made / "plan.json", "--out", tmp_path / "f.onnx").stdout
    assert f"{tmp_path / 'f.onnx'}: faults at 8 sites, plan {plan.digest[:12]}" in text
    assert f"next: hwfault replay {tmp_path / 'f.onnx'} {run}" in text
    done = good("export", run, "--ber", 0.02, "--out", tmp_path / "g.onnx", "--json").json
    expected = done.pop("expected_faults")
    assert done == {"graph": str(tmp_path / "g.onnx"), "sites": SITES, "plan": plan.digest}
    assert all(low == high > 0 for low, high in (expected["in_a_trial"], expected["in_each_sample"]))
    graphs = [onnx.load(tmp_path / name) for name in ("f.onnx", "g.onnx")]
    assert graphs[0] == graphs[1]
    assert {i.name for i in graphs[0].graph.input} == {"input", "hwfault_seed", "hwfault_first_sample"}
    assert {i.name for i in onnx.load(tmp_path / "c.onnx").graph.input} == {"input"}


def test_replay_is_exact(made, run, tmp_path):
    done = good("replay", made / "faulted.onnx", run, "--seeds", "0,9", "--out", tmp_path / "r.json")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["run", "predictions", "differ", "outputs", "differ"]
    assert [line.split() for line in lines[1:3]] == [["run", "under", "seed", s, "360", "0", "0"] for s in "09"]
    assert lines[4].split() == ["site", "words", "faults", "recorded", "found", "differ", "other", "codes", "differ"]
    assert {line.split()[0] for line in lines[5:13]} == set(SITES)
    assert all(line.split()[4:] == ["0", "0"] for line in lines[5:13])
    assert lines[13].startswith("Replay: pass. 360 samples, 2 runs, 8 sites, onnxruntime ")
    assert "every code, output and prediction is the recorded one" in lines[13]
    report = json.loads((tmp_path / "r.json").read_text())
    again = good("replay", made / "faulted.onnx", run, "--seeds", "0,9", "--batch-size", 77, "--json").json
    assert again == report
    assert (report["format"], report["verdict"], report["samples"]) == ("hwfault-proof/1", "pass", 360)
    assert [(run["seed"], run["predictions"]) for run in report["runs"]] == [(0, 360), (9, 360)]
    for site in (site for run in report["runs"] for site in run["sites"]):
        assert site["faults_expected"] == site["faults_seen"] > 0
        assert site["faults_differ"] == site["codes_differ"] == 0
    assert {"engine", "plan_sha256", "versions", "recorded_with", "notes"} <= set(report)


def test_json_on_stdout_is_nothing_else(made, run):
    for arguments in (
        ["evaluate", run, "--rates", "0,0.1", "--seeds", 1],
        ["replay", made / "faulted.onnx", run, "--seeds", 1],
    ):
        done = good(*arguments, "--json")
        json.loads(done.stdout)
        assert done.stderr != ""  # the progress goes there
