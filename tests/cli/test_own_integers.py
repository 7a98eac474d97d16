"""The commands on a graph of ONNX' own integers, as onnxruntime's quantizer makes it."""

from html import unescape

import numpy as np
import onnx

from hwfault.graph.edit.carried import plan_of
from hwfault.graph.read.sites import sites
from hwfault.laws.models import bit_errors
from hwfault.plan.fault_plan import resolve
from tests.cli.conftest import good, hwfault
from tests.helpers.graph.qdq import by_reference, evaluate, inputs, quantized

TENSORS = {f"{name}.weight_quantized": f"{name}.weight" for name in ("conv", "fc1", "fc2")}


def test_a_graph_is_listed_struck_run_and_stripped(tmp_path):
    path, struck, out, bare = (tmp_path / name for name in ("q.onnx", "struck.onnx", "y.npy", "bare.onnx"))
    onnx.save(quantized("QDQ"), path)
    np.save(tmp_path / "x.npy", inputs(2))
    listed = good("sites", path).stdout
    assert "conv.weight" in listed
    assert "conv.bias: its words are integers as they are, and any struck code is held exactly" in listed
    assert "float32" not in listed
    good("insert", path, "--ber", 0.01, "--select", "*weight", "-o", struck)
    good("run", struck, "--input", tmp_path / "x.npy", "--seed", 5, "--output", out)
    strike = by_reference(plan_of(onnx.load(struck)), TENSORS, seed=5)
    np.testing.assert_array_equal(np.load(out), evaluate(quantized("QDQ"), inputs(2), strike)["y"])
    assert "flip" in good("faults", struck, "--site", "fc1.weight", "--seed", 5).stdout
    good("strip", struck, "-o", bare)
    assert bare.read_bytes() == path.read_bytes()


def test_sums_inside_ops_of_integers_are_refused(tmp_path):
    onnx.save(quantized("QOperator"), tmp_path / "q.onnx")
    told = hwfault(
        "insert", tmp_path / "q.onnx", "--ber", 0.01, "--select", "fc1*accumulator", "-o", tmp_path / "s.onnx"
    )
    assert told.code != 0
    assert "QGemm" in told.stderr
    assert "its sums cannot be struck" in told.stderr


def test_accuracy_under_faults_needs_the_graph_alone(tmp_path):
    """Golden run and trials are those of the oracle, seed by seed."""
    model, x = quantized("QDQ"), inputs(4)
    onnx.save(model, tmp_path / "q.onnx")
    golden = evaluate(model, x, lambda _, values: values)["y"].argmax(1)
    labels = golden.copy()
    labels[0] = (labels[0] + 1) % 5
    np.savez(tmp_path / "xy.npz", x=x, y=labels)
    told = ("evaluate", tmp_path / "q.onnx", "--data", tmp_path / "xy.npz", "--seeds", "3-6", "--select", "*weight")
    (found,) = good(*told, "--ber", 0.02, "--json").json
    plan = resolve(sites(model), bit_errors(0.02, "*weight"))
    strikes = (by_reference(plan, TENSORS, seed=seed) for seed in range(3, 7))
    right = [int((evaluate(model, x, strike)["y"].argmax(1) == labels).sum()) for strike in strikes]
    assert found["correct"] == right
    assert len(set(right)) > 1
    assert found["golden"] == 3
    low, high = found["interval"]
    assert low <= np.mean(right) / 4 <= high


def test_a_bundle_needs_the_graph_alone(tmp_path):
    """Of weights of 4 bits; the page and the terminal say that integers were compared."""
    onnx.save(quantized("QDQ 4 bits"), tmp_path / "q.onnx")
    np.savez(tmp_path / "x.npz", x=inputs(3))
    told = ("export", tmp_path / "q.onnx", "--bundle", "--data", tmp_path / "x.npz", "--ber", 0.01, "--seeds", 4)
    done = good(*told, "--select", "*weight", "--out", tmp_path / "b.zip")
    assert done.stdout.startswith(f"{tmp_path / 'b.zip'}: 3 samples, 1 seeds, 12 sites")
    words = "12 of 12 sites hold ONNX' own integers, compared bit for bit: 3 int32, 9 int8"
    done = good("replay", tmp_path / "b.zip", "--html", tmp_path / "r.html")
    assert words in done.stdout
    assert "Replay: pass." in done.stdout
    assert words in unescape((tmp_path / "r.html").read_text())
