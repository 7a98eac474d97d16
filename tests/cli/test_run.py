"""`hwfault run`: graphs on arrays from files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hwfault as package
from hwfault.graph.run.session import run, session
from tests.cli.conftest import good, refused
from tests.graph.edit.test_fast import faulted
from tests.graph.run.test_qonnx_graphs import X, by_executor, small


@pytest.fixture
def graph(tmp_path):
    onnx.save(small(17), tmp_path / "g.onnx")
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "g.onnx"


def test_what_is_printed_and_written(graph):
    out = graph.with_name("y.npy")
    done = good("run", graph, "--input", graph.with_name("x.npy"), "--output", out)
    expected = by_executor(X)
    assert np.array_equal(np.load(out), expected)
    assert done.stderr == ""
    head, row = (line.split() for line in done.stdout.splitlines())
    assert head == ["output", "shape", "type", "min", "max"]
    assert row == ["out", "5", "x", "4", "x", "6", "x", "6", "float32", f"{expected.min():g}", f"{expected.max():g}"]
    described = good("run", graph, "--input", graph.with_name("x.npy"), "--json").json
    ends = {"min": expected.min(), "max": expected.max()}
    assert described == [{"output": "out", "shape": [5, 4, 6, 6], "type": "float32"} | ends]


@pytest.mark.parametrize("source", ["x.npy", "x=x.npy", "named.npz", "other.npz", "x=other.npz"])
def test_every_way_to_name_an_input(graph, source, monkeypatch):
    monkeypatch.chdir(graph.parent)
    np.savez("named.npz", x=X, more=X)
    np.savez("other.npz", other=X)
    if source == "named.npz":
        np.savez("named.npz", x=X)
    good("run", graph, "--input", source, "--output", "y.npz", "--threads", 2)
    with np.load("y.npz") as outputs:
        assert np.array_equal(outputs["out"], by_executor(X))


def test_a_file_with_an_equals_sign(graph):
    path = graph.with_name("a=b.npy")
    np.save(path, X)
    good("run", graph, "--input", path, "--output", graph.with_name("y.npy"))
    assert np.array_equal(np.load(graph.with_name("y.npy")), by_executor(X))


def test_integers_that_the_input_holds_exactly(graph):
    np.save(graph.with_name("x.npy"), np.arange(192, dtype=np.uint8).reshape(1, 3, 8, 8))
    assert good("run", graph, "--input", graph.with_name("x.npy"), "--json").json[0]["shape"] == [1, 4, 6, 6]


@pytest.fixture
def sum_of_two(tmp_path, monkeypatch):
    """A graph of a (float32, any shape) and n (int64)."""
    monkeypatch.chdir(tmp_path)
    nodes = [helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["a", "f"], ["y"])]
    a, n = helper.make_tensor_value_info("a", 1, None), helper.make_tensor_value_info("n", TensorProto.INT64, ["k"])
    graph = helper.make_graph(nodes, "g", [a, n], [helper.make_tensor_value_info("y", 1, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "g.onnx")
    np.save("a.npy", np.ones(3, np.float32))
    np.save("n.npy", np.arange(3))
    np.savez("both.npz", a=np.ones(3, np.float32), n=np.arange(3))
    return tmp_path / "g.onnx"


@pytest.mark.parametrize("sources", [["both.npz"], ["a=a.npy", "n=n.npy"], ["n=n.npy", "a.npy"]], ids="-".join)
def test_several_inputs(sum_of_two, sources):
    inputs = [argument for source in sources for argument in ("--input", source)]
    good("run", sum_of_two, *inputs, "--output", "y.npy")
    assert np.load("y.npy").tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["a=a.npy"], "no array for the graph's input 'n'; give --input n=FILE"),
        (["a.npy"], ["a.npy: for which input is its array? the inputs are a, n: write --input NAME=a.npy"]),
        (["a=a.npy", "n=n.npy", "a.npy"], "a.npy: one array too many, the graph's inputs are a, n"),
        (["both.npz", "a=a.npy"], "a.npy: a second array for the input 'a'"),
        (["b=a.npy"], "--input b=a.npy: the graph has no input 'b': known are: 'a', 'n'"),
        (["a=both.npz"], "--input a=both.npz: the file holds 2 arrays (a, n), expected one"),
        (["n=a.npy", "a=a.npy"], "a.npy: holds float32, but the input 'n' takes int64; convert it before"),
        (["n=grid.npy", "a=a.npy"], "grid.npy: has shape (2, 2), but the input 'n' takes (any)"),
        (["a=none.npy"], "none.npy: there is no such file"),
        (["a=g.onnx"], "g.onnx: not a readable .npy or .npz file"),
        (["a=objects.npy"], "objects.npy: an array is object, expected numbers"),
        (["a=long.npy", "n=n.npy"], ["onnxruntime cannot run the graph on this batch", "7"]),
    ],
    ids=range(12),
)
def test_arrays_that_fit_no_input(sum_of_two, sources, words):
    np.save("grid.npy", np.zeros((2, 2), np.int64))
    np.save("long.npy", np.zeros(7, np.float32))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    inputs = [argument for source in sources for argument in ("--input", source)]
    refused("run", sum_of_two, *inputs, "--output", "y.npy", words=words)
    assert not os.path.exists("y.npy")


def test_wrong_arguments(graph):
    x = graph.with_name("x.npy")
    refused("run", graph, words="--input", code=2)
    refused("run", graph, "--input", x, "--threads", 0, words="--threads", code=2)
    refused("run", graph, "--input", x, "--seed", -1, words="seed")
    refused("run", graph, "--input", x, "--output", graph.with_name("y.txt"), words="that ends in .npy or .npz", code=2)
    refused("run", graph, "--input", x, "--output", graph.parent / "none" / "y.npy", words="cannot be written")
    refused("run", x, "--input", x, words=["x.npy: not an ONNX file"])
    refused("run", graph.with_name("none.onnx"), "--input", x, words="cannot be read")


def test_faults_are_those_of_the_seed(made, tmp_path):
    x = np.random.default_rng(0).uniform(0, 1, (9, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    made_session = session(made / "faulted.onnx")
    arguments = ("run", made / "faulted.onnx", "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    for numbers in ({"seed": 0}, {"seed": 2**64 - 1}, {"seed": 3, "first_sample": 50}):
        options = [part for key, value in numbers.items() for part in (f"--{key.replace('_', '-')}", value)]
        good(*arguments, *options)
        assert np.load(tmp_path / "y.npy").tobytes() == run(made_session, x, **numbers)[0].tobytes()


def test_upgrades_are_said_on_stderr(graph):
    model = onnx.load(graph)
    model.opset_import.remove(next(entry for entry in model.opset_import if entry.domain))
    onnx.save(model, graph)
    done = process("run", graph, "--input", graph.with_name("x.npy"), "--json")
    assert done.returncode == 0
    assert b"upgraded to run in onnxruntime: version 1 of the domain 'qonnx.custom_op.general'" in done.stderr
    assert b"upgraded" not in done.stdout


def process(*arguments):
    where = {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    program = [sys.executable, "-c", NO_TORCH, *map(str, arguments)]
    return subprocess.run(program, capture_output=True, check=False, env=os.environ | where)


NO_TORCH = """
import sys
from hwfault.cli import main
try:
    main(prog_name="hwfault")
finally:
    assert not {"torch", "brevitas", "qonnx"} & set(sys.modules)
"""


def test_it_imports_no_torch(made, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    done = process("run", made / "faulted.onnx", "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert (done.returncode, done.stderr) == (0, b"")
    assert np.load(tmp_path / "y.npy").shape[0] == 2


def test_fast_gives_the_same_where_nothing_is_normalized(tmp_path):
    faulty, x = faulted("digits_cnn")
    onnx.save(faulty, tmp_path / "g.onnx")
    np.save(tmp_path / "x.npy", x)
    asked = ("run", tmp_path / "g.onnx", "--input", tmp_path / "x.npy", "--seed", "5", "--json")
    assert good(*asked, "--fast").json == good(*asked).json
