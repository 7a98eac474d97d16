"""Whole QONNX graphs in onnxruntime against qonnx's own executor: those that it ships, all opsets, any batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import qonnx
from onnx import TensorProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model

import hwfault
from hwfault.errors import GraphError
from hwfault.graph.run.session import load_model, run, session
from tests.helpers.graph.ops import QONNX, assert_same, load, quant_node

SHIPPED = Path(qonnx.__file__).parent / "data" / "onnx"
GRAPHS = sorted(str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*.onnx"))


def test_there_are_some():
    assert "floatquant_exec/qonnx_act_weight_fp8.onnx" in GRAPHS


@pytest.mark.filterwarnings("ignore:The values of tensor")
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_qonnx_ships(name):
    """To the bit; without fusions, since they change the order of additions, which is onnxruntime's own affair."""
    graph = cleanup_model(ModelWrapper(str(SHIPPED / name)))
    rng = np.random.default_rng(0)
    made = session(SHIPPED / name, threads=1, graph_optimization="none")
    shapes = [[extent if isinstance(extent, int) else 1 for extent in entry.shape] for entry in made.get_inputs()]
    feeds = [rng.integers(0, 200, shape).astype(np.float32) for shape in shapes]
    expected = execute_onnx(graph, dict(zip([i.name for i in graph.graph.input], feeds, strict=True)))
    got = run(made, dict(zip([entry.name for entry in made.get_inputs()], feeds, strict=True)))
    for ours, theirs in zip(got, expected.values(), strict=True):
        assert_same(ours, np.ascontiguousarray(theirs))


def test_the_recorded_output_of_floatquant():
    """What Brevitas computed when the file was written."""
    folder = SHIPPED / "floatquant_exec"
    (got,) = run(session(folder / "qonnx_act_weight_fp8.onnx"), np.load(folder / "test_data" / "input.npy"))
    assert np.allclose(got, np.load(folder / "test_data" / "output.npy"), rtol=1e-6, atol=1e-6)


def small(opset, batch="n"):
    """A Conv between quantizers, with thresholds behind it."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-7, 8, (4, 3, 3, 3)) * 0.25,
        "scale": np.array(0.25),
        "zero": np.array(0),
        "bits": np.array(4),
        "thresholds": np.sort(rng.normal(size=(4, 7)) * 3, axis=1),
    }
    nodes = [
        quant_node(inputs="x scale zero bits", signed=1, narrow=0, rounding_mode="ROUND"),
        helper.make_node("Conv", ["y", "w"], ["sums"], kernel_shape=[3, 3]),
        helper.make_node("MultiThreshold", ["sums", "thresholds"], ["out"], domain=QONNX, out_dtype="UINT3"),
    ]
    tensors = [onnx.numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 4, 6, 6])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(QONNX, 1)]
    graph = helper.make_graph(nodes, "small", [x], [out], tensors)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


X = np.random.default_rng(1).normal(size=(5, 3, 8, 8)).astype(np.float32)


def by_executor(x):
    graph = cleanup_model(ModelWrapper(small(11)), override_inpsize=len(x))
    (out,) = execute_onnx(graph, {graph.graph.input[0].name: x}).values()
    assert len(np.unique(out)) > 4
    return np.ascontiguousarray(out)


@pytest.mark.parametrize("opset", range(9, onnx.defs.onnx_opset_version() + 1))
def test_all_opsets(opset):
    """Also in a host that only registers the library."""
    expected = by_executor(X)
    assert_same(run(session(small(opset)), X)[0], expected)
    assert_same(load(small(opset)).run(None, {"x": X})[0], expected)


def test_an_opset_of_the_future():
    with pytest.raises(GraphError, match=r"cannot load the graph.*opset"):
        session(small(99))


def test_one_session_takes_any_batch():
    expected, made = by_executor(X), session(small(17))
    for first, last in ((0, 5), (1, 2), (2, 5), (0, 0)):
        assert_same(run(made, X[first:last])[0], expected[first:last])


@pytest.fixture
def outside(tmp_path):
    """A graph in a folder of its own, with its weights in a file below it."""
    folder = tmp_path / "graph"
    folder.mkdir()
    (folder / "data").mkdir()
    onnx.save(small(17), folder / "g.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").rename(folder / "data" / "w.bin")
    point_to(folder / "g.onnx", "data/w.bin")
    return folder / "g.onnx"


def point_to(path, location, **changes):
    """Another place for the content of the tensors of a graph's file."""
    graph = onnx.load(path, load_external_data=False)
    for tensor in graph.graph.initializer:
        said = {entry.key: entry.value for entry in tensor.external_data} | {"location": location} | changes
        del tensor.external_data[:]
        tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in said.items())
    path.write_bytes(graph.SerializeToString())


def test_external_data(outside, monkeypatch):
    expected = by_executor(X)
    assert_same(run(hwfault.session(outside), X)[0], expected)
    assert_same(run(session(load_model(outside)), X)[0], expected)
    monkeypatch.chdir(outside.parent)
    assert_same(run(session("g.onnx"), X)[0], expected)
    monkeypatch.chdir(outside.parent / "data")
    assert_same(run(session("../g.onnx"), X)[0], expected)


def test_external_data_of_a_graph_that_is_upgraded(outside):
    graph = onnx.load(outside, load_external_data=False)
    graph.opset_import.remove(next(entry for entry in graph.opset_import if entry.domain == QONNX))
    outside.write_bytes(graph.SerializeToString())
    assert_same(run(session(outside), X)[0], by_executor(X))


@pytest.mark.parametrize("how", ["above", "absolute", "linked", "linked-folder", "round-about"])
def test_files_outside_of_the_folder_are_refused(outside, how):
    secret = outside.parents[1] / "secret.bin"
    secret.write_bytes((outside.parent / "data" / "w.bin").read_bytes())
    if how == "linked":
        (outside.parent / "link.bin").symlink_to(secret)
    if how == "linked-folder":
        (outside.parent / "link").symlink_to(outside.parents[1])
    places = {
        "above": "../secret.bin",
        "absolute": str(secret),
        "linked": "link.bin",
        "linked-folder": "link/secret.bin",
    }
    point_to(outside, places.get(how, "data/../../secret.bin"))
    for read in (load_model, session):
        with pytest.raises(GraphError, match=r"g\.onnx: the tensor 'w' lies in the file .*own folder or below it"):
            read(outside)


@pytest.mark.parametrize(
    ("location", "changes", "text"),
    [
        ("data/none.bin", {}, "and there is no such file"),
        ("data", {}, "and there is no such file"),
        ("", {}, "and there is no such file"),
        ("*/_ORT_MEM_ADDR_/*", {}, "and there is no such file"),
        ("data/w.bin", {"offset": "999999"}, r"from byte 999999 on, \d+ bytes long, but the file has \d+ bytes"),
        ("data/w.bin", {"length": str(1 << 62)}, "4611686018427387904 bytes long, but the file has"),
        ("data/w.bin", {"offset": "-8"}, "from byte -8 on"),
        ("data/w.bin", {"length": "much"}, "cannot be read .*'much'"),
        ("data/w\0.bin", {}, "cannot be read .*null"),
    ],
    ids=["none", "folder", "empty", "address", "offset", "length", "negative", "text", "null"],
)
def test_files_that_do_not_hold_what_the_graph_says(outside, location, changes, text):
    point_to(outside, location, **changes)
    for read in (load_model, session):
        with pytest.raises(GraphError, match=rf"g\.onnx: the tensor 'w' lies in the file .*{text}"):
            read(outside)


def test_tensors_that_are_longer_than_their_file_says(outside):
    graph = onnx.load(outside, load_external_data=False)
    graph.graph.initializer[0].dims[:] = [1 << 32, 1 << 32]
    outside.write_bytes(graph.SerializeToString())
    with pytest.raises(GraphError):
        session(outside)


def test_a_graph_in_memory_with_tensors_elsewhere(outside):
    with pytest.raises(GraphError, match="the tensor 'w' of the graph lies in another file; expected a graph with all"):
        session(onnx.load(outside, load_external_data=False))
