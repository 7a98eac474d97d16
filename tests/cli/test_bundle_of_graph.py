"""`hwfault export --bundle` and `replay` of a graph alone, with its samples from a file."""

import numpy as np
import onnx
import pytest

from hwfault.proof.storage import Bundle
from tests.cli.conftest import good, hwfault, refused
from tests.helpers.graph.classifier import classifier, samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Graphs of an open and of a fixed batch, and samples."""
    folder = tmp_path_factory.mktemp("graphs")
    onnx.save(classifier(), folder / "any.onnx")
    onnx.save(classifier(4), folder / "four.onnx")
    np.savez(folder / "xy.npz", x=samples(18), y=np.arange(18) % 3)
    return folder


def exported(folder, name, *more):
    return ("export", folder / name, "--bundle", "--data", folder / "xy.npz", *more)


def test_a_bundle_of_a_graph_is_written_and_proved(folder, tmp_path):
    done = good(*exported(folder, "any.onnx", "--ber", 0.02, "--seeds", "5,6", "--out", tmp_path / "b.zip"))
    assert done.stdout.splitlines()[0].startswith(f"{tmp_path / 'b.zip'}: 16 samples, 2 seeds, 4 sites")
    report = good("replay", tmp_path / "b.zip", "--html", tmp_path / "r.html", "--json").json
    assert (report["verdict"], report["samples"], len(report["runs"])) == ("pass", 16, 3)
    assert report["recorded_with"].keys() == {"hwfault", "onnxruntime", "onnx"}
    assert all(run["correct_recorded"] == run["correct_found"] for run in report["runs"])
    page = (tmp_path / "r.html").read_text()
    assert "Replay of a bundle" in page
    assert "Accuracy" in page


def test_what_another_graph_does_is_told(folder, tmp_path):
    """A clean graph with one weight changed."""
    good(*exported(folder, "any.onnx", "--ber", 0.02, "--seeds", 5, "--samples", 4, "--out", tmp_path / "b"))
    graph = onnx.load(tmp_path / "b" / "clean.onnx")
    weights = next(tensor for tensor in graph.graph.initializer if tensor.name == "conv.weight")
    changed = onnx.numpy_helper.to_array(weights).copy()
    changed.flat[3] -= 0.5
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    onnx.save(graph, tmp_path / "other.onnx")
    done = hwfault("replay", tmp_path / "b", "--graph", tmp_path / "other.onnx")
    assert done.code == 3
    assert "Replay: codes differ." in done.stdout
    assert "First difference, in the clean run: " in done.stdout
    assert "conv.weight_quant" in done.stdout


def test_batches_of_a_graph_of_a_fixed_size(folder, tmp_path):
    good(*exported(folder, "four.onnx", "--out", tmp_path / "clean"))
    manifest = Bundle.open(tmp_path / "clean").manifest
    assert (manifest.samples, manifest.batch_size, manifest.seeds) == (16, 4, ())
    words = "the graph takes exactly 4 samples at a time, given 6 samples; expected a multiple (4, say)"
    refused(*exported(folder, "four.onnx", "--samples", 6, "--out", tmp_path / "b"), words=words)


def test_what_does_not_go_with_a_graph_is_refused(folder, tmp_path):
    out = ("--out", tmp_path / "out")
    words = "a graph is exported as a --bundle only; `hwfault insert` puts faults into it"
    refused("export", folder / "any.onnx", "--data", folder / "xy.npz", *out, words=words, code=2)
    refused("export", folder / "any.onnx", "--bundle", *out, words="a graph holds no data; give --data", code=2)
    words = "--arithmetic goes with a run or checkpoint, given was a graph"
    refused(*exported(folder, "any.onnx", "--arithmetic", "integer", *out), words=words, code=2)
    words = "--seeds goes with faults"
    refused(*exported(folder, "any.onnx", "--seeds", "1", *out), words=words, code=2)
    whole = classifier()
    whole.graph.node.insert(0, onnx.helper.make_node("Cast", ["x8"], ["x"], to=onnx.TensorProto.FLOAT))
    whole.graph.input[0].name = "x8"
    whole.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(whole, tmp_path / "bytes.onnx")
    np.savez(tmp_path / "x.npz", x=np.round(samples(3)).astype(np.uint8))
    words = "the graph's input 'x8' takes uint8, but a bundle's samples are float32"
    refused("export", tmp_path / "bytes.onnx", "--bundle", "--data", tmp_path / "x.npz", *out, words=words)
    assert not (tmp_path / "out").exists()
