"""Samples that a graph moves off axis 0: no place that graphs can strike, and refused wherever a plan has them."""

import json
import re

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwfault.errors import GraphError, ModelError, PlanError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import PLAN, metadata
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site
from hwfault.proof.manifest import Manifest
from hwfault.proof.record import write_bundle
from hwfault.proof.replay import replay
from tests.graph.ops import QONNX

FLIPS = [BitFlips(probability=0.05)]


def node(op, inputs=(), **attributes):
    """A node on the tensor before it and constants: numbers, or lists of them."""
    return op, inputs, attributes


def graph(shape, *moves, joins=False):
    """x -> Quant `first` -> moves -> Quant `last`; where it joins, the last move reads `first` again."""
    constants = {"scale": np.float32(0.5), "zeropt": np.float32(0), "bits": np.float32(4)}
    quant = {"domain": QONNX, "signed": 1, "narrow": 0}
    nodes = [helper.make_node("Quant", ["x", "scale", "zeropt", "bits"], ["t0"], name="first", **quant)]
    for i, (op, inputs, attributes) in enumerate(moves):
        names = []
        for k, given in enumerate(inputs):
            if isinstance(given, str):
                names.append(given)
                continue
            names.append(f"c{i}_{k}")
            constants[names[-1]] = given if isinstance(given, np.ndarray) else np.array(given, np.int64)
        again = ["t0"] if joins and i == len(moves) - 1 else []
        nodes.append(helper.make_node(op, [f"t{i}", *again, *names], [f"t{i + 1}"], name=f"move{i}", **attributes))
    nodes.append(helper.make_node("Quant", [f"t{len(moves)}", "scale", "zeropt", "bits"], ["y"], name="last", **quant))
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "moved", [x], [y], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


SWAP = ("Transpose", (), {"perm": [1, 0, 2]})
MOVED = {  # what is done to (B, 4, 6), and what is said of it
    "transposed": ([SWAP], "along axis 1"),
    "turned round": ([node("Transpose")], "along axis 2"),
    "and scaled": ([SWAP, node("Relu")], "along axis 1"),
    "once more in a circle": ([node("Transpose", perm=[1, 2, 0])] * 2, "along axis 1"),
    "frames": ([node("Reshape", ([-1, 6],))], "'move0' folds"),
    "T x B": ([SWAP, node("Reshape", ([-1, 6],))], "'move1' folds"),
    "windows": (
        [
            node("Reshape", ([0, 2, 2, 6],)),
            node("Transpose", perm=[1, 0, 2, 3]),
            node("Reshape", ([-1, 2, 6],)),
        ],
        "'move2' folds",
    ),
    "flattened up to 2": ([node("Flatten", axis=2)], "folds axes up to 2"),
    "flattened up to 0": ([node("Flatten", axis=0)], "folds axes up to 0"),
    "a slice of the samples": ([node("Slice", ([1], [3], [0]))], r"'move0' \(Slice\) joins, picks"),
    "every other sample": ([node("Slice", ([0], [1 << 40], [0], [2]))], r"'move0' \(Slice\) joins, picks"),
    "samples by number": ([node("Gather", ([2, 0],), axis=0)], r"'move0' \(Gather\) joins, picks"),
    "one sample": ([node("Gather", (0,), axis=0)], r"'move0' \(Gather\) joins, picks"),
    "repeated": ([node("Tile", ([2, 1, 1],))], r"'move0' \(Tile\) joins, picks"),
    "added up": ([node("ReduceMean", axes=[0])], "'move0' adds them up"),
    "all added up": ([node("ReduceMean")], "'move0' adds them up"),
    "an equation": ([node("Einsum", equation="bij->jib")], "along axis 2"),
    "summed by an equation": ([node("Einsum", equation="bij->ij")], "does not say where"),
    "norms added up": ([SWAP, node("ReduceL1", axes=[1], keepdims=0)], "'move1' adds them up"),
    "logarithms added up": ([SWAP, node("ReduceLogSumExp", axes=[1])], "'move1' adds them up"),
    "the largest samples": ([node("TopK", ([2],), axis=0)], r"'move0' \(TopK\) sorts along"),
    "an axis of numbers in front": ([node("Add", (np.ones((3, 1, 1, 1), np.float32),))], "along axis 1"),
    "only what there is once": ([node("Unique", axis=1)], r"'move0' \(Unique\) makes as many rows as the data say"),
    "a new axis": ([node("Unsqueeze", ([0],))], "along axis 1"),
    "compared with numbers of more axes": ([node("Greater", (np.ones((3, 1, 1, 1), np.float32),))], "along axis 1"),
    "chosen among numbers of more axes": (
        [node("Cast", to=TensorProto.BOOL), node("Where", (np.ones((3, 1, 1, 1), np.float32), np.float32(0)))],
        "along axis 1",
    ),
}
KEPT = {
    "flat": [node("Flatten")],
    "flat, said": [node("Flatten", axis=1)],
    "reshaped to [0, -1]": [node("Reshape", ([0, -1],))],
    "reshaped to [-1, features]": [node("Reshape", ([-1, 24],))],
    "heads": [node("Reshape", ([-1, 4, 2, 3],)), node("Transpose", perm=[0, 2, 1, 3]), node("Reshape", ([0, 2, -1],))],
    "transposed within a sample": [node("Transpose", perm=[0, 2, 1])],
    "there and back": [SWAP, node("Relu"), SWAP],
    "a circle": [node("Transpose", perm=[1, 2, 0])] * 3,
    "a token": [node("Gather", (0,), axis=1)],
    "some tokens": [node("Slice", ([1], [3], [1]))],
    "all samples": [node("Slice", ([0, 1], [(1 << 63) - 1, 3], [0, 1]))],
    "mean of tokens": [node("ReduceMean", axes=[1], keepdims=0)],
    "a token in front, back again": [SWAP, node("Gather", (0,), axis=0)],
    "an axis and away": [node("Unsqueeze", ([0],)), node("Squeeze", ([0],))],
    "an equation within": [node("Einsum", equation="bij->bji")],
    "repeated tokens": [node("Tile", ([1, 3, 1],))],
}


@pytest.mark.parametrize("extent", [5, 4, "batch"])  # also one that is as large as another axis
@pytest.mark.parametrize("name", MOVED)
def test_samples_off_axis_0_are_no_place_of_a_graph(name, extent):
    moves, why = MOVED[name]
    made = graph([extent, 4, 6], *moves)
    found = graph_sites(made)
    assert [site.name for site in found] == ["first"]
    assert re.search(f"its samples do not lie along axis 0: .*{why}", found.obstacles["last"])
    plan = resolve([Site(name="last", kind="activation", bit_width=4, signed=True)], FLIPS)
    with pytest.raises(GraphError, match=rf"'last'.*do not lie along axis 0: .*{why}"):
        insert_faults(made, plan)


@pytest.mark.parametrize("extent", [5, 4, "batch"])
@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_the_samples_is_not_refused(name, extent):
    made = graph([extent, 4, 6], *KEPT[name])
    found = graph_sites(made)
    assert ([site.name for site in found], found.obstacles) == (["first", "last"], {})
    insert_faults(made, resolve(found, FLIPS))


@pytest.mark.parametrize("extent", [4, "batch"])
@pytest.mark.parametrize(
    ("moves", "why"),
    [
        ([node("Concat", axis=0)], r"\(Concat\) joins, picks"),
        ([SWAP, node("Add")], r"'move1' \(Add\) joins tensors that have them along axes 0 and 1"),
        ([node("Concat", axis=1)], None),
        ([SWAP, SWAP, node("Add")], None),
        ([node("ReduceMax"), node("Div")], None),  # by a number that all samples made: they lie as they did
    ],
)
def test_what_joins_tensors(moves, why, extent):
    found = graph_sites(graph([extent, 4, 6], *moves, joins=True))
    if why is None:
        assert found.obstacles == {}
    else:
        assert re.search(why, found.obstacles["last"])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("extent", [4, "batch"])
def test_halves(axis, extent):
    made = graph([extent, 4, 6], node("Split", axis=axis))
    made.graph.node[1].output.append("other half")
    assert (graph_sites(made).obstacles == {}) == (axis == 1)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_layers(op, layout):
    """Steps in front (layout 0) or samples; all outputs, from which the only direction is taken away."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    weights = [np.ones((1, gates * 6, 6), np.float32)] * 2
    steps = node(op, weights, hidden_size=6, layout=layout)
    swap, back = ([SWAP], [SWAP]) if layout == 0 else ([], [])
    squeezed = node("Squeeze", ([2 if layout else 1],))
    found = graph_sites(graph(["batch", 4, 6], *swap, steps, squeezed, *back))
    assert [site.name for site in found] == ["first", "last"]
    assert (
        "along axis 1"
        in graph_sites(graph(["batch", 4, 6], SWAP, *([] if layout else [steps, squeezed]))).obstacles["last"]
    )
    wrong = graph_sites(graph(["batch", 4, 6], *([] if layout == 0 else [SWAP]), steps)).obstacles["last"]
    assert f"({op}) runs along their axis" in wrong


NAMED = {  # the extents of an input, and the axis of the samples if none is said
    ("batch", 4, 6): 0,
    (4, "anything", 6): 1,
    (1, "anything", 6): 0,
    ("tokens", "batch", 6): 1,
    ("tokens", "N", 6): 1,
    (1, "batch_size", 6): 1,
    ("batch", "tokens", 6): 0,
    ("a", "b", 6): 1,
    ("x", "y", 6): 0,
    (4, 5, 6): 0,
}


@pytest.mark.parametrize("shape", NAMED)
def test_the_axis_of_the_inputs_is_told_by_its_name_or_said(shape):
    for said in (None, 0, 1, -2):
        axis = NAMED[shape] if said is None else said % 3
        found = graph_sites(graph(shape), said)
        assert [site.name for site in found] == (["first", "last"] if axis == 0 else [])
        assert ("along axis 1" in found.obstacles.get("last", "")) == (axis == 1)
        swapped = graph_sites(graph(shape, SWAP), said)
        assert [site.name for site in swapped] == [["first"], ["last"]][axis]
        if axis == 1:
            plan = resolve(swapped, FLIPS)
            insert_faults(graph(shape, SWAP), plan, batch_axis=said)
            with pytest.raises(GraphError, match=r"'last'.*--batch-axis"):
                insert_faults(graph(shape, SWAP), plan, batch_axis=0)


def test_an_axis_that_no_input_has():
    with pytest.raises(GraphError, match=r"no input of the graph has the batch axis 3; .*these have: x \[4, 5, 6\]"):
        graph_sites(graph([4, 5, 6]), 3)


def test_inputs_of_another_extent_hold_no_samples():
    made = graph([4, 5, 6], node("Add", ("mask",)))
    made.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [4, 1, 6]))
    assert "along axis 1" in graph_sites(made, 1).obstacles["last"]
    made.graph.input[1].CopyFrom(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [4, 5, 6]))
    assert "along axis 1" in graph_sites(made, 1).obstacles["last"]


@pytest.mark.parametrize("turned", [0, 1])
def test_a_transposed_matrix_product(turned):
    """W x of (features, samples), and x^T W, which brings the samples in front again."""
    weights = np.ones((6, 5), np.float32)
    made = graph(["batch", 6], node("Transpose", perm=[1, 0]), node("Gemm", (weights,), transA=turned))
    assert ("last" in graph_sites(made).obstacles) == (not turned)


def reshaped_by(axis, times):  # times 1: it is not multiplied
    """(B, 4, 6) in a shape that begins with an extent of its own, as traced networks compute it."""
    made = graph(["batch", 4, 6], node("Reshape", ("target",)))
    held = {"i": np.array(axis), "times": np.array(times), "rest": np.array([-1]), "where": np.array([0])}
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in held.items())
    nodes = [
        helper.make_node("Shape", ["t0"], ["shape"]),
        helper.make_node("Gather", ["shape", "i"], ["extent"]),
        *([helper.make_node("Mul", ["extent", "times"], ["product"])] if times != 1 else []),
        helper.make_node("Unsqueeze", ["product" if times != 1 else "extent", "where"], ["front"]),
        helper.make_node("Concat", ["front", "rest"], ["target"], axis=0),
    ]
    every = [made.graph.node[0], *nodes, *made.graph.node[1:]]
    content = [entry.SerializeToString() for entry in every]
    del made.graph.node[:]
    for text in content:
        made.graph.node.add().ParseFromString(text)
    return made


@pytest.mark.parametrize(("axis", "times"), [(0, 1), (1, 1), (0, 4)])
def test_shapes_that_the_graph_computes(axis, times):
    obstacles = graph_sites(reshaped_by(axis, times)).obstacles
    assert ("last" in obstacles) == ((axis, times) != (0, 1)), obstacles


PICKED = {  # how a traced network may take one extent of a shape, and whether it is the first
    "a slice": ([helper.make_node("Slice", ["shape", "zero", "one"], ["front"])], True),
    "the second, by a slice": ([helper.make_node("Slice", ["shape", "one", "two"], ["front"])], False),
    "a slice, as a number": (
        [
            helper.make_node("Slice", ["shape", "zero", "one"], ["some"]),
            helper.make_node("Squeeze", ["some", "zero"], ["number"]),
            helper.make_node("Unsqueeze", ["number", "zero"], ["front"]),
        ],
        True,
    ),
}


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("how", PICKED)
def test_the_first_extent_of_a_shape(how, start):
    """Where nothing else tells which axis of (B, 4, 6) comes first; Shape may leave the first ones out itself."""
    nodes, first = PICKED[how]
    made = graph(["batch", 4, 6], node("Reshape", ("target",)))
    held = {"zero": [0], "one": [1], "two": [2], "rest": [-1]}
    made.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in held.items())
    shape = helper.make_node("Shape", ["t0"], ["shape"], **({"start": start} if start else {}))
    target = helper.make_node("Concat", ["front", "rest"], ["target"], axis=0)
    every = [made.graph.node[0], shape, *nodes, target, *made.graph.node[1:]]
    content = [entry.SerializeToString() for entry in every]
    del made.graph.node[:]
    for text in content:
        made.graph.node.add().ParseFromString(text)
    obstacles = graph_sites(made).obstacles
    assert ("last" in obstacles) == (not first or start > 0), obstacles


def test_what_is_added_to_a_tensor_of_unknown_shape_keeps_its_axis():
    """The graph says the shape of the sum, but not of what goes into it, which nothing can infer."""
    made = graph(["batch", 4, 6], node("Add", (np.float32(1),)))
    made.graph.node[0].input[0] = "nobody knows"
    made.graph.node.insert(0, helper.make_node("Sparkle", ["x"], ["nobody knows"], domain="elsewhere"))
    info = helper.make_tensor_value_info("t1", TensorProto.FLOAT, ["batch", 4, 6])
    made.graph.value_info.append(info)
    assert graph_sites(made).obstacles == {}


@pytest.mark.parametrize(
    ("shape", "moves", "kept"),
    [
        ([4, "batch", 6], [], []),
        ([4, "batch", 6], [SWAP], ["last"]),
        ([1, 4, "positions"], [], ["first", "last"]),
        ([2, "height", "width"], [], ["first", "last"]),
    ],
)
def test_the_symbolic_axis_of_an_input_is_that_of_the_samples(shape, moves, kept):
    made = graph(shape, *moves)
    found = graph_sites(made)
    assert [site.name for site in found] == kept


def test_a_sum_whose_samples_moved_is_no_site():
    weights = np.ones((6, 5), np.float32)
    made = graph(["batch", 4, 6], SWAP, node("MatMul", ("w",)))
    made.graph.initializer.append(numpy_helper.from_array(weights, "w_float"))
    quant = helper.make_node("Quant", ["w_float", "scale", "zeropt", "bits"], ["w"], name="w", domain=QONNX, signed=1)
    made.graph.node.insert(0, quant)
    found = graph_sites(made)
    assert [site.name for site in found] == ["w", "first"]
    assert "along axis 1" in found.obstacles["move1.accumulator"]


class Moving(nn.Module):
    """(B, 4, 6) -> a quantizer -> what moves the samples -> a quantizer -> (B, 3) again."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b = (qnn.QuantIdentity(bit_width=4) for _ in range(2))
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        q = self.a(x)
        moved = q.flatten(0, 1) if self.how == "frames" else q.transpose(0, 1)
        moved = moved if self.how == "tokens first" else moved.reshape(-1, 6)
        y = self.b(moved)
        y = y.reshape(4, -1, 6).transpose(0, 1) if self.how != "frames" else y.reshape(-1, 4, 6)
        return self.head(y.flatten(1))


NETWORKS = {
    "frames": BatchAxis(inner=4, rows=4),
    "T x B": BatchAxis(inner=1, rows=4),
    "tokens first": BatchAxis(axis=1),
}
X = torch.linspace(-3, 3, 5 * 24).reshape(5, 4, 6)


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    model = Moving(request.param)
    with torch.no_grad():
        model(X)
    return model.eval()


def test_plans_with_samples_off_axis_0_are_refused_in_graphs_and_bundles(network, tmp_path):
    listed = sites(network, X)
    batch = NETWORKS[network.how]
    (moved,) = [site for site in listed if site.batch is not None]
    assert moved.batch == batch
    plan = resolve(listed, FLIPS)
    made = export(network, X)
    told = rf"'b.act_quant' cannot be struck in a graph: it has {batch}"
    with pytest.raises(GraphError, match=told):
        insert_faults(made, plan)
    with pytest.raises(GraphError, match=told):
        export(network, X, plan=plan)
    for given in (None, plan):
        with pytest.raises(GraphError, match=told):
            write_bundle(tmp_path / "b", network, X, plan=given, seeds=[1] if given else [])
    assert not list(tmp_path.iterdir())
    # the graph says so itself, whatever became of its metadata, and the other sites are there
    found = graph_sites(made)
    assert [site.name for site in found if site.kind != "weight"] == ["a.act_quant"]
    assert f"it has {batch}" in found.obstacles["b.act_quant"]
    del made.metadata_props[:]
    assert "do not lie along axis 0" in graph_sites(made).obstacles["b.act_quant"]
    old = resolve(sites(network), FLIPS)
    with pytest.raises(GraphError, match=r"b.act_quant.*do not lie along axis 0"):
        insert_faults(made, old)


def test_a_graph_of_an_older_version_is_refused_by_replay(network, monkeypatch):
    made, old = export(network, X), resolve(sites(network), FLIPS)
    with monkeypatch.context() as older:
        older.setattr("hwfault.graph.read.places.moved_samples", lambda *_: {})
        faulted = insert_faults(made, old)
    for batches in ([X], [X[:1], X[1:]]):
        with pytest.raises(PlanError, match=r"'b.act_quant' to lie otherwise .*resolve the faults again") as told:
            replay(network, faulted, batches, seeds=[1])
        assert str(NETWORKS[network.how]) in str(told.value)


def runs(times):
    """A network with one quantizer that runs so often in a forward: a second run is a site of version 1.1."""
    quantizer = qnn.QuantIdentity(bit_width=4)
    return nn.Sequential(*[part for _ in range(times) for part in (quantizer, nn.ReLU())]).eval()


@pytest.mark.parametrize(("times", "spec"), [(1, "fault-stream v1"), (2, "fault-stream v1.1")])
def test_graphs_and_bundles_say_which_version_they_need(times, spec, tmp_path):
    model = runs(times)
    plan = resolve(sites(model, X), FLIPS)
    faulted = export(model, X, plan=plan)
    assert plan.stream == (None if times == 1 else "1.1")
    assert metadata(faulted)["hwfault.spec"] == spec
    assert FaultPlan.from_json(metadata(faulted)[PLAN]) == plan
    for given, seeds in ((None, []), (plan, [1])):
        manifest = write_bundle(tmp_path / f"{len(seeds)}", model, X, plan=given, seeds=seeds)
        text = (tmp_path / f"{len(seeds)}" / "manifest.json").read_text()
        assert manifest.spec == json.loads(text)["spec"] == spec
        less = json.loads(text) | {"spec": "fault-stream v1"}
        if times == 1:
            assert Manifest.parse(less, "it").spec == spec
            continue
        with pytest.raises(ModelError, match=r"its sites need fault-stream v1\.1, which the manifest does not say"):
            Manifest.parse(less, "it")
        less.pop("spec")  # as manifests of version 1 do that say nothing
        with pytest.raises(ModelError, match=r"its sites need fault-stream v1\.1"):
            Manifest.parse(less, "it")


@pytest.mark.parametrize(
    ("zero", "bits", "scale", "spec"),
    [(0, 4, 0.5, "v1"), (3, 4, 0.5, "v1"), (0.5, 4, 0.5, "v1.1"), (0, 32, 0.5, "v1.1"), (0, 22, 0.3, "v1.1")],
)
def test_graphs_of_fractional_zero_points_and_wide_words_need_version_1_1(zero, bits, scale, spec):
    made = graph(["batch", 6])
    for name, value in {"zeropt": zero, "bits": bits, "scale": scale}.items():
        held = next(tensor for tensor in made.graph.initializer if tensor.name == name)
        held.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), name))
    plan = resolve(graph_sites(made), FLIPS)
    assert metadata(insert_faults(made, plan))["hwfault.spec"] == f"fault-stream {spec}"
    assert plan.stream is None  # which knows neither, so that plans of version 1 stay what they were
