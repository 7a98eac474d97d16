"""`--arithmetic integer` through the commands: export, replay, evaluate, and what they refuse."""

import pytest

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.campaigns.evaluate import evaluate
from hwfault.graph.read.integer import is_integer
from hwfault.graph.run.session import load_model
from hwfault.laws.models import bit_errors
from hwfault.proof.check import bundled_graph
from hwfault.proof.manifest import FAULTED_GRAPH
from hwfault.proof.storage import Bundle
from hwfault.train import TrainConfig, build, checkpoint
from hwfault.train.data import digits
from tests.cli.conftest import good, hwfault, refused
from tests.helpers.train.small import half_quantized, not_quantized


def saved(folder, function):
    """A checkpoint of a network of one's own, and the option that trusts it."""
    spec = f"tests.helpers.train.small:{function.__name__}"
    checkpoint.save(folder / "own.safetensors", build(spec), TrainConfig(network=spec))
    return folder / "own.safetensors", "--network", spec


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """A run with float scales, 8 bits and normalisations."""
    out = tmp_path_factory.mktemp("integer") / "run"
    bits = ("--set", "network_args.weight_bits=8", "--set", "network_args.act_bits=8")
    channels = ("--set", "network_args.channels=1")
    good("train", "--network", "tiny_cnn", *bits, *channels, "--epochs", 1, "--out", out)
    return out


def test_export_and_replay(floats, tmp_path):
    graph = tmp_path / "g.onnx"
    done = good("export", floats, "--ber", 0.01, "--arithmetic", "integer", "--out", graph)
    assert done.stdout.splitlines()[0].endswith(", integer arithmetic")
    assert done.stderr == ""
    assert is_integer(load_model(graph))
    report = good("replay", graph, floats, "--seeds", 0, "--json").json
    found = [site for run in report["runs"] for site in run["sites"]]
    assert sum(site["words"] for site in found) > 10**6
    assert all(site["codes_differ"] == site["faults_differ"] == 0 for site in found)
    assert all(run["outputs_differ"] == 0 for run in report["runs"])
    assert sum(site["faults_seen"] for site in found) > 10**4


def test_a_bundle(floats, tmp_path):
    asked = ("--samples", 4, "--seeds", "0,1", "--out", tmp_path / "b.zip")
    good("export", floats, "--ber", 0.01, "--arithmetic", "integer", "--bundle", *asked)
    assert is_integer(bundled_graph(Bundle.open(tmp_path / "b.zip"), FAULTED_GRAPH))
    report = good("replay", tmp_path / "b.zip", "--json").json
    assert all(site["codes_differ"] == site["faults_differ"] == 0 for run in report["runs"] for site in run["sites"])
    assert sum(site["faults_seen"] for run in report["runs"] for site in run["sites"]) > 10**3


def test_faults_put_in_and_out(floats, few, tmp_path):
    """insert and strip, and the same sites as those of the run."""
    names = ("clean", "faulted", "stripped")
    clean, faulted, stripped = (tmp_path / f"{name}.onnx" for name in names)
    good("export", floats, "--arithmetic", "integer", "--out", clean)
    assert good("sites", clean, "--json").json == good("sites", floats, "--json").json
    good("insert", clean, "--ber", 0.01, "-o", faulted)
    (only,) = good("replay", faulted, floats, "--data", few, "--seeds", "0", "--json").json["runs"]
    assert only["outputs_differ"] == 0
    good("strip", faulted, "-o", stripped)
    assert stripped.read_bytes() == clean.read_bytes()


def test_a_clean_graph(floats, tmp_path):
    done = good("export", floats, "--arithmetic", "integer", "--out", tmp_path / "g.onnx")
    assert done.stdout == f"{tmp_path / 'g.onnx'}: clean, integer arithmetic\n"
    done = good("export", floats, "--out", tmp_path / "g.onnx", "--json")
    assert "arithmetic" not in done.json
    assert not is_integer(load_model(tmp_path / "g.onnx"))


def test_evaluate(floats, tmp_path):
    asked = ("evaluate", floats, "--ber", 0.01, "--seeds", "0-2", "--samples", 40, "--json")
    one, other = good(*asked).json, good(*asked, "--arithmetic", "integer", "--out", tmp_path / "out").json
    assert [len(point["correct"]) for point in (*one, *other)] == [3, 3]
    model, _ = checkpoint.load(floats / "checkpoint.safetensors")
    x, y = digits().test_x[:40], digits().test_y[:40]
    with integer_arithmetic(model):
        expected = evaluate(model, x, y, bit_errors(0.01), seeds=range(3))
    assert other[0]["correct"] == list(expected.correct)
    again = good(*asked, "--arithmetic", "integer", "--out", tmp_path / "out").json
    assert again == other
    refused(*asked, "--out", tmp_path / "out", words="arithmetic")


def test_what_is_left_is_told(tmp_path):
    own = saved(tmp_path, half_quantized)
    done = good("export", *own, "--arithmetic", "integer", "--out", tmp_path / "g.onnx")
    assert done.stderr.startswith("left as it is: 1: its inputs are on no known grid: no quantizer")
    said = good("export", *own, "--arithmetic", "integer", "--out", tmp_path / "g.onnx", "--json").json
    assert list(said["left"]) == ["1"]
    assert said["arithmetic"] == "integer"
    assert "left as it is: 1: " in good("evaluate", *own, "--samples", 5, "--arithmetic", "integer").stderr


def test_refusals(tmp_path, out):
    own = saved(tmp_path, not_quantized)
    words = ["no layer of the network computes on integers", "(1: its inputs are on no known grid", "or export it with"]
    refused("export", *own, "--arithmetic", "integer", "--out", out / "g.onnx", words=words)
    wrong = hwfault("export", *own, "--arithmetic", "fixed", "--out", out / "g.onnx")
    assert wrong.code == 2
    assert "'fixed' is not one of 'float', 'integer'" in wrong.stderr
