"""The whole loop, once, as a user runs it; the quick tests share one that trains and measures less."""

import csv
import json
import re
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from hwfault import demo as the_demo
from hwfault.cli import main
from hwfault.demo import RATES, REPLAY_SEEDS, SEEDS
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.run.session import run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.train import TrainConfig, checkpoint
from hwfault.train.data import digits
from hwfault.train.schedule import Schedule, ScheduledFault
from tests.slowly import slow

FILES = [
    "accuracy.png",
    "checkpoint.safetensors",
    "config.json",
    "model.faulted.onnx",
    "model.qonnx.onnx",
    "plan.json",
    "replay.json",
    "results.csv",
]


class Ran(NamedTuple):
    """A run of the command: its folder, what it printed, and what it was to do."""

    folder: Path
    out: str
    err: str
    seeds: tuple[int, ...]
    replay_seeds: tuple[int, ...]
    epochs: int


def ran(folder, seeds, replay_seeds, epochs):
    result = CliRunner().invoke(main, ["demo", "--out", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return Ran(folder, result.stdout, result.stderr, seeds, replay_seeds, epochs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("demo") / "whole", SEEDS, REPLAY_SEEDS, TrainConfig().epochs)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Hardly trained, and measured under few seeds."""
    seeds, replay_seeds = SEEDS[:3], SEEDS[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(the_demo, "TrainConfig", partial(TrainConfig, epochs=1))
        patch.setattr(the_demo, "SEEDS", seeds)
        patch.setattr(the_demo, "REPLAY_SEEDS", replay_seeds)
        return ran(tmp_path_factory.mktemp("demo") / "short", seeds, replay_seeds, 1)


@pytest.fixture(params=["short", slow("whole")])
def demo(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def rows(demo):
    return rows_of(demo)


def rows_of(demo):
    with (demo.folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def accuracy(rows, network, rate):
    return next(float(r["accuracy"]) for r in rows if r["network"].startswith(network) and float(r["ber"]) == rate)


CLEAN, FAULTY = "trained clean", "trained at BER 0.03"


def test_every_file_and_no_other(demo):
    assert sorted(path.name for path in demo.folder.iterdir()) == FILES
    assert all(path.stat().st_size > 0 for path in demo.folder.iterdir())


def test_results(demo, rows):
    assert list(rows[0])[:7] == ["network", "ber", "trials", "samples", "accuracy", "low", "high"]
    assert list(rows[0])[7:10] == ["interval_by", "events", "event_share_at_most"]
    assert list(rows[0])[10:] == ["std", "worst", "worst_seed", "golden", "degradation", "relative_degradation"]
    assert [(row["network"], float(row["ber"])) for row in rows] == [(n, r) for n in (CLEAN, FAULTY) for r in RATES]
    assert RATES == (0.0, 0.001, 0.003, 0.01, 0.03, 0.05)
    for row in rows:
        assert int(row["trials"]) == len(demo.seeds)
        assert int(row["samples"]) == 360
        if float(row["ber"]) == 0:  # nothing varies, so that there is no interval
            assert (row["low"], row["high"], row["interval_by"]) == ("", "", "same")
            continue
        low, mean, high = (float(row[key]) for key in ("low", "accuracy", "high"))
        assert 0 <= low <= mean <= high <= 1
        assert low < high


@pytest.mark.slow
def test_results_are_narrow(whole):
    assert len(SEEDS) >= 20
    for row in rows_of(whole):
        if float(row["ber"]) != 0:
            assert float(row["high"]) - float(row["low"]) < (0.15 if row["interval_by"] == "t" else 0.3)
    assert all(line.count("±") >= 3 for line in whole.out.splitlines()[1:3])


@pytest.mark.slow
def test_fault_aware_training_pays(whole):
    rows = rows_of(whole)
    assert accuracy(rows, CLEAN, 0) > 0.96
    assert accuracy(rows, FAULTY, 0) > 0.96
    assert accuracy(rows, FAULTY, 0.03) > accuracy(rows, CLEAN, 0.03) + 0.1
    assert accuracy(rows, FAULTY, 0.03) > 0.8
    for name in (CLEAN, FAULTY):
        means = [accuracy(rows, name, rate) for rate in RATES]
        assert all(one > other - 0.01 for one, other in pairwise(means))


def test_the_replay_is_exact(demo):
    report = json.loads((demo.folder / "replay.json").read_text())
    assert report["format"] == "hwfault-proof/1"
    assert report["verdict"] == "pass"
    assert report["samples"] == 360
    assert [entry["seed"] for entry in report["runs"]] == list(demo.replay_seeds)
    for entry in report["runs"]:
        assert entry["predictions"] == 360
        assert entry["predictions_differ"] == entry["outputs_differ"] == entry["outputs_changed_by_observation"] == 0
        assert entry["outputs_max_difference"] == 0
    names = {site.name for site in sites(checkpoint.load(demo.folder / "checkpoint.safetensors")[0])}
    assert {site["name"] for site in report["runs"][0]["sites"]} == names
    for site in (site for entry in report["runs"] for site in entry["sites"]):
        assert site["faults_differ"] == site["codes_differ"] == 0
        assert site["first"] is None
        # eight bits at the input, four elsewhere: a word is struck with 1 - (1 - 0.03)^bits
        expected = 1 - 0.97 ** (8 if site["name"].startswith("input") else 4)
        sigma = (expected * (1 - expected) / site["words"]) ** 0.5
        assert site["faults_seen"] == site["faults_expected"]
        assert abs(site["faults_seen"] / site["words"] - expected) < 5 * sigma
    assert set(report["versions"]) == {"hwfault", "onnxruntime"}
    assert {"hwfault", "torch"} <= set(report["recorded_with"])


def test_what_is_printed(demo):
    folder, out, err = demo[:3]
    lines = out.splitlines()
    assert lines[0].split() == ["accuracy", "at", "BER", "0", "0.001", "0.003", "0.01", "0.03", "0.05"]
    assert lines[1].startswith(CLEAN)
    assert lines[2].startswith(FAULTY)
    assert all(
        len(re.findall(r"\d+\.\d+%(?: ±\d+\.\d+| \(\d+\.\d+% to \d+\.\d+%\)|)", line)) == 6 for line in lines[1:3]
    )
    assert not re.search(r"±0(\.0*)?(?![\d.])", out)
    assert lines[3].startswith("95 % intervals of the mean over fault seeds on these samples")
    assert re.fullmatch(
        rf"Replay: pass\. 360 samples, {len(demo.replay_seeds)} runs, 8 sites, onnxruntime [\d.]+, [\d,]+ words, "
        r"[\d,]+ of them faulty: every code, output and prediction is the recorded one\.",
        lines[-2],
    )
    assert lines[-1] == f"Everything is in {folder}/: see accuracy.png and replay.json."
    assert 6 <= len(lines) <= 9
    for what in ("training: trained clean", "training: trained at BER 0.03", "measuring", "exporting and replaying"):
        assert what in err


def test_the_numbers_in_the_table_are_those_of_the_file(demo, rows):
    means = r"(\d+\.\d+)%(?= ±| \(|  |$)"
    cells = [re.findall(means, line.rstrip()) for line in demo.out.splitlines()[1:3]]
    expected = [100 * float(row["accuracy"]) for row in rows]
    assert [float(cell) for line in cells for cell in line] == pytest.approx(expected, abs=0.0501)


def test_configuration_and_checkpoint(demo, rows):
    config = TrainConfig.load(demo.folder / "config.json")
    ramp = Schedule(ramp="linear", ramp_epochs=13)
    faults = [ScheduledFault(fault=bit_errors(0.03)[0], schedule=ramp)]
    assert config == TrainConfig(faults=faults, epochs=demo.epochs)
    model, stored = checkpoint.load(demo.folder / "checkpoint.safetensors")
    assert stored == config
    data = digits()
    with torch.no_grad():
        correct = int((model(data.test_x).argmax(1) == data.test_y).sum())
    assert correct / 360 == accuracy(rows, FAULTY, 0)


def test_the_plan_and_the_graphs(demo):
    folder = demo.folder
    model, _ = checkpoint.load(folder / "checkpoint.safetensors")
    plan = FaultPlan.load(folder / "plan.json")
    assert plan == resolve(sites(model, digits().test_x[:1]), bit_errors(0.03))
    clean, faulted = (onnx.load(folder / f"model.{kind}.onnx") for kind in ("qonnx", "faulted"))
    assert plan_of(faulted) == plan
    assert not [node for node in clean.graph.node if node.domain == "hwfault"]
    assert len([node for node in faulted.graph.node if node.op_type == "TransientFaults"]) == 8
    x = digits().test_x[:50]
    with torch.no_grad(), inject(model, plan, seed=77) as injection:
        injection.first_sample = 10
        expected = model(x).numpy()
    assert np.array_equal(run(session(faulted), x.numpy(), seed=77, first_sample=10)[0], expected)
    with torch.no_grad():
        assert np.array_equal(run(session(clean), x.numpy())[0], model(x).numpy())


def test_the_clean_graph_serves_qonnx(demo):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.util.cleanup import cleanup_model

    x = digits().test_x[:2]
    wrapped = cleanup_model(ModelWrapper(str(demo.folder / "model.qonnx.onnx")), override_inpsize=len(x))
    wrapped = wrapped.transform(InferShapes())
    assert wrapped.get_tensor_shape(wrapped.graph.output[0].name) == [2, 10]
    model, _ = checkpoint.load(demo.folder / "checkpoint.safetensors")
    out = execute_onnx(wrapped, {wrapped.graph.input[0].name: x.numpy()})[wrapped.graph.output[0].name]
    with torch.no_grad():
        assert np.array_equal(out, model(x).numpy())


def test_the_faulted_graph_runs_in_any_host(demo):
    """Nothing of hwfault's Python: onnxruntime and the library's path."""
    import hwfault

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(hwfault.onnxruntime_library())
    path = str(demo.folder / "model.faulted.onnx")
    host = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"input": digits().test_x[:3].numpy(), "hwfault_seed": np.int64(-1), "hwfault_first_sample": np.int64(0)}
    out = host.run(None, {key: np.asarray(value) for key, value in feeds.items()})[0]
    assert np.array_equal(out, run(session(path), feeds["input"], seed=2**64 - 1)[0])


def test_the_picture(demo):
    content = (demo.folder / "accuracy.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert width > 600
    assert height > 400
