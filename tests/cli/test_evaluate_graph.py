"""`hwfault evaluate` of a graph alone, with its samples from a file."""

import csv
import sys

import numpy as np
import onnx
import pytest
from PIL import Image

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import load_model, run, session
from hwfault.laws.models import bit_errors
from hwfault.plan.fault_plan import resolve
from tests.cli.conftest import good, refused
from tests.helpers.graph.classifier import classifier, samples

X = samples(6)
LABELS = np.array([0, 1, 2, 2, 1, 0])
SEEDS = ("--seeds", "3-6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Graphs of an open and of a fixed batch, samples with labels and without."""
    folder = tmp_path_factory.mktemp("graphs")
    onnx.save(classifier(3), folder / "three.onnx")
    onnx.save(classifier(), folder / "any.onnx")
    np.savez(folder / "xy.npz", x=X, y=LABELS)
    np.savez(folder / "x.npz", x=X)
    return folder


def answers(path, plan, seed):
    """The classes of all samples, each run alone, in a session of its own as it stands in the file."""
    graph = load_model(path)
    made = session(graph if plan is None else insert_faults(graph, plan))
    outputs = [run(made, X[i : i + 1], seed=seed, first_sample=i)[0] for i in range(len(X))]
    return np.concatenate(outputs).argmax(1)


@pytest.fixture(scope="module")
def expected(folder):
    """The answers under BER 0.02 of each seed, and those of the golden run."""
    path = folder / "any.onnx"
    plan = resolve(sites(load_model(path)), bit_errors(0.02))
    return np.stack([answers(path, plan, seed) for seed in (3, 4, 5, 6)]), answers(path, None, 0)


def evaluate(folder, name, data, *more):
    return good("evaluate", folder / name, "--data", folder / data, *SEEDS, *more)


@pytest.mark.parametrize("name", ["any.onnx", "three.onnx"])
def test_accuracy_is_that_of_each_sample_alone(folder, expected, name):
    (found,) = evaluate(folder, name, "xy.npz", "--ber", 0.02, "--json").json
    faulty, golden = expected
    assert found["correct"] == (faulty == LABELS).sum(1).tolist()
    assert found["golden"] == (golden == LABELS).sum()
    assert len(set(found["correct"])) > 1
    assert found["interval_by"] == "bound"
    assert "measures" not in found


def test_without_labels_it_is_agreement_with_the_golden_run(folder, expected):
    (found,) = evaluate(folder, "any.onnx", "x.npz", "--ber", 0.02, "--json").json
    faulty, golden = expected
    assert found["correct"] == (faulty == golden).sum(1).tolist()
    assert found["measures"] == "agreement"
    assert found["events"] == sum((faulty != golden).any(1))
    assert found["golden_accuracy"] is None
    assert found["degradation"] is None
    told = evaluate(folder, "any.onnx", "x.npz", "--ber", 0.02, "--by-site", "--samples", 3).stdout
    assert "agreement" in told.splitlines()[0]
    assert "the 3 samples have no labels (y): agreement is" in told
    assert "golden run (no faults)" not in told


@pytest.mark.slow
def test_trials_are_kept_and_a_sweep_grows(folder, expected, tmp_path):
    """One store and one picture, as of a network."""
    out = ("--out", tmp_path / "out")
    evaluate(folder, "any.onnx", "xy.npz", "--rates", "0.02", *out)
    before = (tmp_path / "out" / "campaign.sqlite").stat().st_mtime_ns
    evaluate(folder, "any.onnx", "xy.npz", "--rates", "0,0.02", *out)
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["ber"] for row in rows] == ["0.0", "0.02"]
    assert float(rows[1]["accuracy"]) == (expected[0] == LABELS).mean()
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 1000
    assert (tmp_path / "out" / "campaign.sqlite").stat().st_mtime_ns > before
    other = ("evaluate", folder / "three.onnx", "--data", folder / "xy.npz", *SEEDS, "--rates", "0.02", *out)
    refused(*other, words=["holds the trials of another question", "graph digest"])


@pytest.mark.slow
def test_the_store_has_a_page(folder, tmp_path):
    evaluate(folder, "any.onnx", "xy.npz", "--rates", "0,0.02", "--out", tmp_path)
    good("campaign", "report", tmp_path)
    assert "any.onnx" in (tmp_path / "report.html").read_text()


def test_a_saved_plan_strikes_as_the_faults_that_it_was_made_from(folder, tmp_path):
    resolve(sites(load_model(folder / "any.onnx")), bit_errors(0.02)).save(tmp_path / "p.json")
    planned = evaluate(folder, "any.onnx", "xy.npz", "--plan", tmp_path / "p.json", "--json").json[0]
    assert planned["correct"] == evaluate(folder, "any.onnx", "xy.npz", "--ber", 0.02, "--json").json[0]["correct"]
    other = sites(load_model(folder / "any.onnx"))[0].model_copy(update={"name": "nowhere"})
    resolve([other], bit_errors(0.02)).save(tmp_path / "wrong.json")
    asked = ("evaluate", folder / "any.onnx", "--data", folder / "xy.npz", "--plan", tmp_path / "wrong.json")
    refused(*asked, words="'nowhere', which the graph does not have")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "a graph holds no data; give --data"),
        (("--data", "x.npz", "--split", "test"), "--split goes with a run or checkpoint, given was a graph"),
        (("--data", "x.npz", "--arithmetic", "integer"), "--arithmetic goes with a run or checkpoint"),
        (("--data", "x.npz", "--statistics"), "--statistics goes with a run or checkpoint"),
        (("--data", "x.npz", "--network", "digits_cnn"), "--network goes with a run or checkpoint"),
    ],
)
def test_options_of_runs_are_wrong_usage(folder, options, words):
    refused("evaluate", folder / "any.onnx", *options, words=words, code=2)


def saved(folder, **arrays):
    np.savez(folder / "given.npz", **arrays)
    return folder / "given.npz"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"inputs": X}, "holds no array 'x'"),
        ({"x": X[:0]}, "x holds no samples"),
        ({"x": X.astype(np.float64)}, "x holds float64, but the input 'x' takes float32"),
        ({"x": X[:, :1]}, "x has shape (6, 1, 6, 6), but the input 'x' takes (any, 2, 6, 6)"),
        ({"x": X, "y": LABELS[:5]}, "y is int64 of shape (5,), expected integers (6,)"),
        ({"x": X, "y": LABELS - 1}, "the label of sample 0 is -1, expected a class's number"),
        ({"x": X, "y": LABELS / [1, 1, np.nan, 1, 1, 1]}, "the label of sample 2 is nan, expected a class's number"),
        ({"x": X, "y": np.where(LABELS == 1, np.inf, LABELS)}, "the label of sample 1 is inf"),
        ({"x": X, "y": LABELS + 0.5}, "the label of sample 0 is 0.5"),
        ({"x": X, "y": LABELS + 2}, "the label of sample 2 is 4, but the graph tells 3 classes"),
    ],
)
def test_samples_that_do_not_fit_are_refused(folder, tmp_path, arrays, words):
    refused("evaluate", folder / "any.onnx", "--data", saved(tmp_path, **arrays), words=words)


def test_graphs_that_cannot_be_measured_are_refused(folder, tmp_path):
    data = ("--data", folder / "xy.npz")
    words = "the graph takes exactly 3 samples at a time, given 5 samples; expected a multiple (3, say)"
    refused("evaluate", folder / "three.onnx", *data, "--samples", 5, words=words)
    words = "the graph takes exactly 3 samples at a time, given batches of 2"
    refused("evaluate", folder / "three.onnx", *data, "--batch-size", 2, words=words)
    good("insert", folder / "any.onnx", "--ber", 0.1, "-o", tmp_path / "faulted.onnx")
    refused("evaluate", tmp_path / "faulted.onnx", *data, words="the graph carries faults already")
    wide = classifier()
    wide.graph.node[-1].output[0] = "before"
    wide.graph.node.append(onnx.helper.make_node("Unsqueeze", ["before", "axis"], ["y"]))
    wide.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "axis"))
    wide.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, 1]))
    onnx.save(wide, tmp_path / "wide.onnx")
    refused("evaluate", tmp_path / "wide.onnx", *data, words="the graph answers a sample with an array of shape (3, 1)")


def test_smaller_numbers_become_the_type_of_the_input(folder, tmp_path):
    whole = np.round(X)
    one = ("evaluate", folder / "any.onnx", "--ber", 0.02, *SEEDS, "--json", "--data")
    assert good(*one, saved(tmp_path, x=whole.astype(np.uint8))).json == good(*one, saved(tmp_path, x=whole)).json


def test_a_folder_of_images_goes_in_as_pixels(tmp_path, monkeypatch):
    """Golden accuracy and trials are those of the same pixels in an .npz file."""
    graph = classifier(scale=16.0)
    del graph.graph.input[0].type.tensor_type.shape.dim[1:]
    for extent in (3, 6, 6):
        graph.graph.input[0].type.tensor_type.shape.dim.add().dim_value = extent
    (weights,) = [tensor for tensor in graph.graph.initializer if tensor.name == "conv.weight"]
    values = np.random.default_rng(1).uniform(-100, 100, (4, 3, 3, 3)).astype(np.float32)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(graph, tmp_path / "g.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 6, 3), np.uint8)
    for number, image in enumerate(pixels):
        (tmp_path / "images" / "abc"[number % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / "abc"[number % 3] / f"{number}.png")
    np.savez(tmp_path / "xy.npz", x=pixels.transpose(0, 3, 1, 2), y=np.arange(6) % 3)
    one = ("evaluate", tmp_path / "g.onnx", "--ber", 0.02, *SEEDS, "--json", "--data")
    done = good(*one, tmp_path / "images")
    assert done.json == good(*one, tmp_path / "xy.npz").json
    assert "images go into the graph as pixels from 0 to 255" in done.stderr
    (tmp_path / "images" / "d").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "images" / "d" / "x.png")
    refused(*one, tmp_path / "images", words="the folders of 4 classes, but the graph tells 3")
    monkeypatch.setitem(sys.modules, "PIL", None)  # as if it was not installed
    words = "evaluate needs PIL, which is not installed here; run `pip install 'hwfault[measure]'`"
    refused(*one, tmp_path / "images", words=words)
