"""Sessions and files: what is run, and what is refused with a word about the cause."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwfault
from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run import session as module
from hwfault.graph.run.session import load_model, run, session
from tests.graph.edit.test_insert import X, tiny
from tests.helpers.graph.networks import batch, plan
from tests.helpers.graph.ops import assert_same, load
from tests.helpers.graph.running import by_pytorch_faulted, clean, copied, faulted, tidied
from tests.helpers.graph.running import faulted_session as made

PACKAGE = Path(hwfault.__file__).parents[1]


@pytest.fixture
def file(tmp_path):
    """A file that holds a faulted graph."""
    onnx.save(faulted("mlp"), tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


def test_a_file_is_loaded_as_it_was_saved(file):
    assert load_model(file) == load_model(str(file)) == faulted("mlp")


@pytest.mark.parametrize("kind", [lambda f: f, str, load_model])
def test_a_session_of_a_path_a_text_or_a_graph(file, kind):
    x = batch("mlp")
    assert_same(run(session(kind(file)), x.numpy(), seed=2)[0], by_pytorch_faulted("mlp", x, 2))


def test_the_public_name(file):
    x = batch("mlp")
    assert_same(run(hwfault.session(file), x.numpy(), seed=2)[0], by_pytorch_faulted("mlp", x, 2))


DEPLOYED = """
import sys, numpy, hwfault
from hwfault.graph.carried import plan_of
from hwfault.graph.session import load_model, run

graph = load_model(sys.argv[1])
plan_of(graph)
(out,) = run(hwfault.session(graph), numpy.load(sys.argv[2]), seed=2)
sys.stdout.buffer.write(out.tobytes())
assert not {"torch", "brevitas", "qonnx"} & set(sys.modules)
"""


def test_running_a_graph_needs_neither_torch_nor_brevitas(file):
    """And nothing is said on stderr."""
    x, where = batch("mlp"), {"PYTHONPATH": str(PACKAGE)}
    np.save(file.with_name("x.npy"), x.numpy())
    asked = [sys.executable, "-c", DEPLOYED, str(file), str(file.with_name("x.npy"))]
    done = subprocess.run(asked, capture_output=True, check=False, env=os.environ | where)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == by_pytorch_faulted("mlp", x, 2).tobytes()


def test_the_graph_given_to_a_session_is_left_alone():
    for graph in (faulted("mlp"), tidied(faulted("mlp"), None)):
        before = graph.SerializeToString(deterministic=True)
        session(graph)
        assert graph.SerializeToString(deterministic=True) == before


def refused(path, text):
    for read in (load_model, session):
        with pytest.raises(GraphError, match=text) as caught:
            read(path)
        assert type(caught.value) is GraphError
        assert str(path) in str(caught.value)


CONTENTS = {
    "empty": b"",
    "text": b"this is no graph at all\n",
    "zip": b"PK\x03\x04" + bytes(64),
    "json": b'{"format": "hwfault-plan/1"}',
    "zeros": bytes(200),
    "another message": helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0]).SerializeToString(),
    "no graph": onnx.ModelProto(ir_version=8, producer_name="nobody").SerializeToString(),
    "no node": onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="g")).SerializeToString(),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_files_that_are_no_graph(tmp_path, what):
    (tmp_path / "x.onnx").write_bytes(CONTENTS[what])
    refused(tmp_path / "x.onnx", "not an ONNX file.*expected a graph as the export writes it")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_truncated_files(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    refused(file, "not an ONNX file")


def test_files_with_flipped_bytes(file):
    """Whatever is wrong, it is a GraphError or a graph."""
    whole = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), 5):
            broken[at] ^= int(rng.integers(1, 256))
        file.write_bytes(broken)
        with contextlib.suppress(GraphError):
            load_model(file)


@pytest.mark.parametrize("text", [b'"faults"', b"hwfault.plan_sha256", b"hwfault.site"])
def test_text_that_is_no_utf8(file, text):
    """A flipped bit in a text: protobuf then hands out bytes where there should be a str."""
    whole = file.read_bytes()
    assert text in whole
    file.write_bytes(whole.replace(text, text[:1] + b"\xff" + text[2:]))
    with pytest.raises(GraphError):
        plan_of(load_model(file))


def test_names_that_are_no_utf8(file):
    onnx.save(tiny(name="/features/act_quant/export_handler/Quant"), file)
    file.write_bytes(file.read_bytes().replace(b"/features/act", b"/feat\xffres/act"))
    with pytest.raises(GraphError):
        sites(load_model(file))


def test_the_name_of_an_axis_that_is_no_utf8(file):
    """onnxruntime's Python would raise only where somebody asks for the shape of an input."""
    graph = copied(clean("mlp"))
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "a batch"
    onnx.save(graph, file)
    assert session(file).get_inputs()[0].shape[0] == "a batch"
    file.write_bytes(file.read_bytes().replace(b"a batch", b"a \xffatch"))
    refused(file, "not an ONNX file.*which is no UTF-8")


def test_a_tensor_whose_data_do_not_fit(file):
    graph = copied(clean("mlp"))
    next(t for t in graph.graph.initializer if t.name == "1.weight").dims[:] = [7, 72]
    onnx.save(graph, file)
    with pytest.raises(GraphError):
        insert_faults(load_model(file), plan("mlp"))
    with pytest.raises(GraphError):
        session(file)


def test_a_missing_file(tmp_path):
    refused(tmp_path / "nothing.onnx", "cannot be read.*No such file.*expected an ONNX file")


def test_a_folder(tmp_path):
    refused(tmp_path, "cannot be read.*Is a directory")


def test_a_file_that_is_too_large(tmp_path):
    """Sparse: it takes no room."""
    with open(tmp_path / "big.onnx", "wb") as big:
        big.truncate(1 << 31)
    refused(tmp_path / "big.onnx", r"2147483648 bytes, expected an ONNX file below 2 GiB")


def test_a_file_whose_weights_lie_elsewhere(tmp_path):
    onnx.save(
        copied(faulted("mlp")),
        tmp_path / "g.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="weights",
        size_threshold=0,
    )
    x = batch("mlp")
    assert_same(run(session(tmp_path / "g.onnx"), x.numpy(), seed=2)[0], by_pytorch_faulted("mlp", x, 2))
    (tmp_path / "weights").unlink()
    refused(tmp_path / "g.onnx", "weights")


def with_unknown(domain, op, version=1):
    graph = copied(clean("mlp"))
    graph.graph.node.append(helper.make_node(op, ["output"], ["more"], name="the odd one", domain=domain))
    graph.graph.output[0].name = "more"
    if domain and domain not in {o.domain for o in graph.opset_import}:
        graph.opset_import.append(helper.make_opsetid(domain, version))
    return graph


@pytest.mark.parametrize(
    ("domain", "op"),
    [
        ("com.example", "Sparkle"),
        ("qonnx.custom_op.general", "GenericPartition"),
        ("hwfault", "Cosmic"),
        ("finn.custom_op.fpgadataflow", "MVAU_hls"),
    ],
)
def test_ops_that_nobody_registered(domain, op):
    known = "Quant, IntQuant, BipolarQuant, Trunc, .*TransientFaults, FaultMap, IntermittentFaults"
    text = f"nobody registered the op '{op}' of domain '{domain}', which the node 'the odd one' needs;.*{known}"
    with pytest.raises(GraphError, match=text):
        session(with_unknown(domain, op))


def test_an_op_that_onnx_does_not_have():
    with pytest.raises(GraphError, match=r'cannot load the graph.*"the odd one", NoSuchOperator'):
        session(with_unknown("", "NoSuchOperator"))


def test_a_domain_that_the_graph_does_not_import():
    graph = with_unknown("com.example", "Sparkle")
    graph.opset_import.remove(next(o for o in graph.opset_import if o.domain == "com.example"))
    with pytest.raises(GraphError, match=r"(?s)onnxruntime .* cannot load the graph.*(Sparkle|com.example)"):
        session(graph)


def graph_with(change):
    graph = copied(faulted("mlp"))
    change(graph)
    return graph


def cyclic(graph):
    first = graph.graph.node[0]
    first.input[0] = graph.graph.node[-1].output[0]


def wrong_width(graph):
    node = fault_nodes(graph)[0].node
    next(a for a in node.attribute if a.name == "bit_width").i = 40


def wrong_mode(graph):
    node = next(node for node in graph.graph.node if node.op_type == "Quant")
    next(a for a in node.attribute if a.name == "rounding_mode").s = b"SIDEWAYS"


def drop_inputs(graph):
    del fault_nodes(graph)[0].node.input[2:]


def drop_all_inputs(graph):
    del fault_nodes(graph)[0].node.input[:]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (cyclic, "cannot load the graph"),
        (wrong_width, "TransientFaults.*1.input_quant.faults.*bit_width is 40, expected 1 to 32"),
        (wrong_mode, "Quant.*1.input_quant.*SIDEWAYS.*expected one of ROUND, HALF_EVEN"),
        (drop_inputs, "1.input_quant.faults"),
        (drop_all_inputs, "1.input_quant.faults"),
    ],
)
def test_graphs_that_onnxruntime_refuses(change, text):
    with pytest.raises(GraphError, match=f"(?s){text}"):
        session(graph_with(change))


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(threads):
    with pytest.raises(GraphError, match=f"threads is {threads}, expected at least 1, or None"):
        session(clean("mlp"), threads=threads)


def test_the_threads_asked_for():
    assert session(clean("mlp"), threads=2).get_session_options().intra_op_num_threads == 2
    assert session(clean("mlp")).get_session_options().intra_op_num_threads == 0


def test_idle_threads_spin_unless_told_otherwise():
    for spin in (True, False):
        options = session(clean("mlp"), spin=spin).get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spin))


def test_an_unknown_optimization():
    with pytest.raises(GraphError, match="is 'most', expected one of 'none', 'basic', 'extended', 'all'"):
        session(clean("mlp"), graph_optimization="most")


@pytest.mark.parametrize("level", ["none", "basic", "extended", "all"])
@pytest.mark.parametrize("name", ["digits_cnn", "per_channel", "convolutions"])
def test_optimizations_do_not_change_a_bit(name, level):
    x = batch(name, 5)
    held = session(faulted(name), graph_optimization=level)
    assert held.get_session_options().graph_optimization_level == module._level(level)
    assert_same(run(held, x.numpy(), seed=2**63)[0], by_pytorch_faulted(name, x, 2**63))


def seeds_of_their_own(graph, nodes):
    """One seed a constant, another the input's plus 5."""
    graph.graph.node.insert(0, helper.make_node("Add", ["hwfault_seed", "five"], ["more"]))
    nodes[0].input[3], nodes[1].input[3] = "five", "more"


def swapped_numbers(graph, nodes):
    for node in nodes:
        node.input[3], node.input[4] = node.input[4], node.input[3]


def a_seed_for_good(graph, nodes):
    """Every seed the same constant, and no input for it any more."""
    for node in nodes:
        node.input[3] = "five"
    graph.graph.input.remove(next(info for info in graph.graph.input if info.name == "hwfault_seed"))


@pytest.mark.parametrize("wire", [seeds_of_their_own, swapped_numbers, a_seed_for_good])
def test_a_graph_that_is_wired_in_another_way_runs_as_it_stands(wire):
    """The session changes nothing about it: every host finds the same."""
    graph = copied(faulted("mlp"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(5), "five"))
    wire(graph, [entry.node for entry in fault_nodes(graph)])
    x, names = batch("mlp").numpy(), [info.name for info in graph.graph.input]
    for seed, first in ((0, 0), (3, 1)):
        feeds = {"input": x, "hwfault_seed": np.array(seed), "hwfault_first_sample": np.array(first)}
        (expected,) = load(graph).run(None, {name: feeds[name] for name in names})
        assert_same(run(session(graph), x, seed=seed, first_sample=first)[0], expected)
    assert (expected != run(made("mlp"), x, seed=3, first_sample=1)[0]).any()


def test_a_fault_map_in_a_session():
    """A graph that somebody else put permanent faults into."""
    names = ["q", "scale", "zeropt", "word", "and_mask", "xor_mask"]
    node = helper.make_node("FaultMap", names, ["y"], domain="hwfault", bit_width=4, signed=1, batched=1)
    graph = tiny(reader=node)
    graph.opset_import.append(helper.make_opsetid("hwfault", 1))
    rows = {"word": [0, 2], "and_mask": [15, 0], "xor_mask": [8, 3]}
    graph.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), k) for k, v in rows.items())
    (y,) = run(session(graph), X.numpy())
    codes = (np.round(X.numpy() / 0.5).clip(-8, 7)).astype(int)
    expected = codes.copy()
    expected[:, 0] = np.where(codes[:, 0] < 0, codes[:, 0] + 8, codes[:, 0] - 8)
    expected[:, 2] = 3
    np.testing.assert_array_equal(y / 0.5, expected)


def test_a_library_that_was_never_built(monkeypatch):
    def nothing():
        raise hwfault.errors.NativeLibraryError("never built")

    monkeypatch.setattr(module, "onnxruntime_library", nothing)
    with pytest.raises(hwfault.errors.NativeLibraryError, match="never built"):
        session(clean("mlp"))
