"""Where the samples lie in a graph: followed from its inputs, or said by its export, and struck wherever that is."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwfault.codes import CodeFormat
from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.run.session import run, session
from hwfault.graph.run.strike import strike_values
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.sites import Site
from tests.helpers.graph.moves import graph, node
from tests.helpers.graph.ops import assert_same

FLIPS = [BitFlips(probability=0.05)]


SWAP = ("Transpose", (), {"perm": [1, 0, 2]})
MOVED = {  # what is done to (B, 4, 6), and where the samples lie then
    "transposed": ([SWAP], BatchAxis(axis=1)),
    "turned round": ([node("Transpose")], BatchAxis(axis=2)),
    "and scaled": ([SWAP, node("Relu")], BatchAxis(axis=1)),
    "once more in a circle": ([node("Transpose", perm=[1, 2, 0])] * 2, BatchAxis(axis=1)),
    "frames": ([node("Reshape", ([-1, 6],))], BatchAxis(inner=4, rows=4)),
    "T x B": ([SWAP, node("Reshape", ([-1, 6],))], BatchAxis(rows=4)),
    "windows": (
        [
            node("Reshape", ([0, 2, 2, 6],)),
            node("Transpose", perm=[1, 0, 2, 3]),
            node("Reshape", ([-1, 2, 6],)),
        ],
        BatchAxis(rows=2),
    ),
    "heads": (
        [node("Reshape", ([0, 4, 2, 3],)), node("Transpose", perm=[0, 2, 1, 3]), node("Reshape", ([-1, 4, 3],))],
        BatchAxis(inner=2, rows=2),
    ),
    "tokens, then heads": (
        [SWAP, node("Reshape", ([4, -1, 3],)), node("Transpose", perm=[1, 0, 2]), node("Softmax")],
        BatchAxis(inner=2, rows=2),
    ),
    "tokens and heads": ([SWAP, node("Reshape", ([-1, 3],))], BatchAxis(inner=2, rows=8)),
    "flattened up to 2": ([node("Flatten", axis=2)], BatchAxis(inner=4, rows=4)),
    "flattened up to 0": ([node("Flatten", axis=0)], BatchAxis(axis=1, inner=24, rows=24)),
    "an equation": ([node("Einsum", equation="bij->jib")], BatchAxis(axis=2)),
    "an axis of numbers in front": ([node("Add", (np.ones((3, 1, 1, 1), np.float32),))], BatchAxis(axis=1)),
    "a new axis": ([node("Unsqueeze", ([0],))], BatchAxis(axis=1)),
    "compared with numbers of more axes": (
        [node("Greater", (np.ones((3, 1, 1, 1), np.float32),)), node("Cast", to=TensorProto.FLOAT)],
        BatchAxis(axis=1),
    ),
    "chosen among numbers of more axes": (
        [
            node("Cast", to=TensorProto.BOOL),
            node("Where", (np.ones((3, 1, 1, 1), np.float32), np.zeros((), np.float32))),
        ],
        BatchAxis(axis=1),
    ),
    "cut up": ([SWAP, node("Reshape", ([2, -1],))], BatchAxis(axis=1, inner=6, rows=12)),
    "repeated tokens, tokens first": ([SWAP, node("Tile", ([3, 1, 1],))], BatchAxis(axis=1)),
    "a token of a transposed one": ([SWAP, node("Gather", (2,), axis=2)], BatchAxis(axis=1)),
    "multiplied": ([SWAP, node("MatMul", (np.ones((6, 5), np.float32),))], BatchAxis(axis=1)),
    "a mean of channels": ([SWAP, node("ReduceMean", axes=[2], keepdims=0)], BatchAxis(axis=1)),
    "normalized": ([SWAP, node("LayerNormalization", (np.ones(6, np.float32),))], BatchAxis(axis=1)),
    "padded": ([SWAP, node("Pad", ([1, 0, 0, 2, 0, 0],))], BatchAxis(axis=1)),
    "added up along tokens": ([SWAP, node("CumSum", (0,))], BatchAxis(axis=1)),
    "one of three, in front": (
        [node("Cast", to=TensorProto.INT64), node("OneHot", (3, np.array([0, 1], np.float32)), axis=0)],
        BatchAxis(axis=1),
    ),
}
LOST = {  # what is done to (B, 4, 6), and what is said of it
    "a slice of the samples": ([node("Slice", ([1], [3], [0]))], r"'move0' \(Slice\) joins, picks"),
    "every other sample": ([node("Slice", ([0], [1 << 40], [0], [2]))], r"'move0' \(Slice\) joins, picks"),
    "samples by number": ([node("Gather", ([2, 0],), axis=0)], r"'move0' \(Gather\) joins, picks"),
    "one sample": ([node("Gather", (0,), axis=0)], r"'move0' \(Gather\) joins, picks"),
    "repeated": ([node("Tile", ([2, 1, 1],))], r"'move0' \(Tile\) joins, picks"),
    "added up": ([node("ReduceMean", axes=[0])], "'move0' adds them up"),
    "all added up": ([node("ReduceMean")], "'move0' adds them up"),
    "summed by an equation": ([node("Einsum", equation="bij->ij")], "does not say where"),
    "norms added up": ([SWAP, node("ReduceL1", axes=[1], keepdims=0)], "'move1' adds them up"),
    "logarithms added up": ([SWAP, node("ReduceLogSumExp", axes=[1])], "'move1' adds them up"),
    "the largest samples": ([node("TopK", ([2],), axis=0)], r"'move0' \(TopK\) sorts along"),
    "only what there is once": ([node("Unique", axis=1)], r"'move0' \(Unique\) makes as many rows as the data say"),
    "shares of samples": ([node("Softmax", axis=0)], r"'move0' \(Softmax\) works along their axis"),
    "shares of transposed samples": ([SWAP, node("Softmax", axis=-2)], r"'move1' \(Softmax\) works along their axis"),
    "normalized over samples": (
        [SWAP, node("LayerNormalization", (np.ones(6, np.float32),), axis=1)],
        r"'move1' \(LayerNormalization\) works along their axis",
    ),
    "multiplied up": ([node("Transpose"), node("MatMul", (np.ones((5, 2), np.float32),))], "'move1' adds them up"),
    "padded samples": ([node("Pad", ([1, 0, 0, 0, 0, 0],))], r"'move0' \(Pad\) makes more rows along their axis"),
    "an op that nobody knows": (
        [SWAP, node("LRN", size=1)],
        r"'move1' \(LRN\) is not known to leave them along axis 1",
    ),
    "cut into three": ([node("Reshape", ([3, -1],))], "'move0' folds"),
    "added up one by one": ([node("CumSum", (0,))], r"'move0' \(CumSum\) works along their axis"),
    "from behind, transposed": ([SWAP, node("CumSum", (-2,))], r"'move1' \(CumSum\) works along their axis"),
    "turned round": ([node("ReverseSequence", ([3] * 4,))], r"'move0' \(ReverseSequence\) turns them round"),
    "turned round, transposed": (
        [SWAP, node("ReverseSequence", ([2] * 4,), batch_axis=0, time_axis=1)],
        r"'move1' \(ReverseSequence\) turns them round",
    ),
    "put elsewhere": (
        [node("ScatterND", ([[0], [1]], np.ones((2, 4, 6), np.float32)))],
        r"'move0' \(ScatterND\) puts some in the place of others",
    ),
    "put elsewhere one by one": (
        [node("ScatterElements", ([[[1]]], np.ones((1, 1, 1), np.float32)))],
        r"'move0' \(ScatterElements\) puts some in the place of others",
    ),
    "put elsewhere, transposed": (
        [SWAP, node("ScatterND", ([[0, 1], [1, 0]], np.ones((2, 6), np.float32)))],
        r"'move1' \(ScatterND\) puts some in the place of others",
    ),
    "normalized over all": (
        [node("Unsqueeze", ([3],)), node("MeanVarianceNormalization")],
        r"'move1' \(MeanVarianceNormalization\) works along their axis",
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
    "added up within a sample": [node("CumSum", (-1,))],
    "turned round within a sample": [node("ReverseSequence", ([3] * 4,), batch_axis=0, time_axis=1)],
    "put within a sample": [node("ScatterElements", ([[[1]]], np.ones((1, 1, 1), np.float32)), axis=1)],
    "put at a token": [
        SWAP,
        node("ScatterND", ([[2]], np.ones((1, 1, 6), np.float32))),
        SWAP,
    ],
    "normalized within a sample": [node("MeanVarianceNormalization", axes=[1, -1])],
}


def values(shape, extent, seed=0):
    """A batch of that many samples for an input, 3 where it is open: all halves, which the quantizers keep."""
    whole = [3 if isinstance(n, str) else n for n in shape] if extent is None else shape
    return np.random.default_rng(seed).integers(-7, 8, whole).astype(np.float32) / 2


def struck_alone(made, axis=None):
    """The plan for `last` of a graph, whose samples lie along an axis of the inputs."""
    found = graph_sites(made, axis)
    return found, resolve(found, [BitFlips(probability=0.2, sites="last")])


@pytest.mark.parametrize("extent", [5, 4, "batch"])  # also one that is as large as another axis
@pytest.mark.parametrize("name", MOVED)
def test_samples_are_struck_wherever_they_lie(name, extent):
    moves, batch = MOVED[name]
    made = graph([extent, 4, 6], *moves)
    found, plan = struck_alone(made)
    assert [site.name for site in found] == ["first", "last"]
    assert "last" not in found.obstacles
    assert found[1].batch == batch
    x = values([extent, 4, 6], None)
    (clean,) = run(session(made), x)
    assert found[1].shape == batch.sample_shape(clean.shape)
    faulted = insert_faults(made, plan)
    assert metadata(faulted)["hwfault.spec"] == "fault-stream v1.1"
    assert plan_of(faulted) == plan
    (got,) = run(session(faulted), x, seed=4, first_sample=7)
    (step,) = plan.steps("last")
    rest = {"seed": 4, "samples": np.arange(len(x)) + 7, "batched": True, "batch": batch}
    expected = strike_values(step, clean, np.float32(0.5), np.float32(0), CodeFormat(4, True), **rest)
    assert_same(got, expected.astype(np.float32), name)
    assert (got != clean).any()


@pytest.mark.parametrize("extent", [5, 4, "batch"])
@pytest.mark.parametrize("name", LOST)
def test_samples_that_are_lost_are_an_obstacle(name, extent):
    moves, why = LOST[name]
    made = graph([extent, 4, 6], *moves)
    found = graph_sites(made)
    assert [site.name for site in found] == ["first"]
    assert re.search(f"where its samples lie cannot be told: .*{why}", found.obstacles["last"])
    plan = resolve([Site(name="last", kind="activation", bit_width=4, signed=True)], FLIPS)
    with pytest.raises(GraphError, match=rf"'last'.*cannot be told: .*{why}"):
        insert_faults(made, plan)


@pytest.mark.parametrize("name", MOVED)
def test_a_plan_that_takes_them_to_lie_along_axis_0_is_refused(name):
    made = graph(["batch", 4, 6], *MOVED[name][0])
    plan = resolve([Site(name="last", kind="activation", bit_width=4, signed=True)], FLIPS)
    with pytest.raises(PlanError, match=r"'last' to lie otherwise \(samples along axis 0\).*resolve the faults again"):
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
        ([SWAP, node("Add")], r"'move1' \(Add\) joins tensors that have samples along axis 0 and samples along axis 1"),
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


def turning(op, opset=16, condition="yes"):
    """x -> Quant -> a node that transposes it where the graph does not show it -> Quant.

    A function of the graph's own opset, 17, and a branch by a constant `always` are shown.
    """
    made = graph(["batch", 4, 6], SWAP)
    (turn,) = [part for part in made.graph.node if part.op_type == "Transpose"]
    if op == "SequenceAt":
        number = helper.make_node("Constant", [], ["number"], value_int=0)
        inside = [helper.make_node("SplitToSequence", ["t0"], ["parts"], axis=0), number]
        inside.append(helper.make_node("SequenceAt", ["parts", "number"], ["t1"], name="move0"))
    elif op == "Turn":
        opsets = [helper.make_opsetid("", opset)]
        made.functions.append(helper.make_function("mine", "Turn", ["t0"], ["t1"], [turn], opsets))
        made.opset_import.append(helper.make_opsetid("mine", 1))
        inside = [helper.make_node("Turn", ["t0"], ["t1"], name="move0", domain="mine")]
    else:
        flag = helper.make_node("Constant", [], ["always"], value=numpy_helper.from_array(np.array(True)))
        most = helper.make_node("ReduceMax", ["t0"], ["most"], keepdims=0)
        same = helper.make_node("Equal", ["most", "most"], ["yes"])
        out = [helper.make_tensor_value_info("t1", TensorProto.FLOAT, None)]
        body = helper.make_graph([turn], "body", [], out)
        choose = helper.make_node("If", [condition], ["t1"], name="move0", then_branch=body, else_branch=body)
        inside = [flag, most, same, choose]
    every = [made.graph.node[0], *inside, made.graph.node[-1]]
    content = [entry.SerializeToString() for entry in every]
    del made.graph.node[:]
    for text in content:
        made.graph.node.add().ParseFromString(text)
    return made


@pytest.mark.parametrize("op", ["If", "SequenceAt", "Turn"])
def test_samples_are_not_followed_through_bodies_lists_and_functions(op):
    made = turning(op)
    assert run(session(made), values([3, 4, 6], None))[0].shape == ((1, 4, 6) if op == "SequenceAt" else (4, 3, 6))
    found = graph_sites(made)
    assert [site.name for site in found] == ["first"]
    assert re.search(
        rf"cannot be told: the node 'move0' \({op}\) (is not followed|calls a model)", found.obstacles["last"]
    )


@pytest.mark.parametrize("op", ["If", "Turn"])
def test_samples_are_followed_through_what_is_written_out(op):
    found = graph_sites(turning(op, opset=17, condition="always"))
    assert [site.name for site in found] == ["first", "last"]
    assert found[1].batch_axis.axis == 1


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
    assert [(site.name, site.batch) for site in found] == [("first", None), ("last", None)]
    left = graph_sites(graph(["batch", 4, 6], SWAP, *([] if layout else [steps, squeezed])))
    assert left[1].batch == BatchAxis(axis=1)
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
    lying = [None, BatchAxis(axis=1)]
    for said in (None, 0, 1, -2):
        axis = NAMED[shape] if said is None else said % 3
        found = graph_sites(graph(shape), said)
        assert [site.batch for site in found] == [lying[axis]] * 2
        swapped = graph_sites(graph(shape, SWAP), said)
        assert [site.batch for site in swapped] == [lying[axis], lying[1 - axis]]
        if axis == 1:
            plan = resolve(swapped, FLIPS)
            insert_faults(graph(shape, SWAP), plan, batch_axis=said)
            if shape[0] != 1:
                with pytest.raises(PlanError, match=r"'first' to lie otherwise .*than the graph has them"):
                    insert_faults(graph(shape, SWAP), plan, batch_axis=0)


def test_an_axis_that_no_input_has():
    with pytest.raises(GraphError, match=r"no input of the graph has the batch axis 3; .*these have: x \[4, 5, 6\]"):
        graph_sites(graph([4, 5, 6]), 3)


def test_inputs_of_another_extent_hold_no_samples():
    made = graph([4, 5, 6], node("Add", ("mask",)))
    for shape in ([4, 1, 6], [4, 5, 6]):
        del made.graph.input[1:]
        made.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, shape))
        assert [site.batch for site in graph_sites(made, 1)] == [BatchAxis(axis=1)] * 2
    made = graph(["batch", 5, 6], node("Add", ("mask",)))
    made.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [5, 6]))
    made.graph.node[1].input[0] = "mask"
    found = graph_sites(made)
    assert [site.name for site in found] == ["first"]
    assert "cannot be told: it is made of inputs that hold none" in found.obstacles["last"]


@pytest.mark.parametrize("turned", [0, 1])
def test_a_transposed_matrix_product(turned):
    """W x of (features, samples), and x^T W, which brings the samples in front again."""
    weights = np.ones((6, 5), np.float32)
    made = graph(["batch", 6], node("Transpose", perm=[1, 0]), node("Gemm", (weights,), transA=turned))
    assert ("'move1' adds them up" in graph_sites(made).obstacles.get("last", "")) == (not turned)
    before = [] if turned else [node("Transpose", perm=[1, 0])]
    made = graph(["batch", 6], *before, node("Gemm", (weights,), transA=1, transB=turned))
    product = made.graph.node[-2]
    product.input[:] = product.input[::-1]  # the weights from the left: (5, 6) times (6, samples)
    assert graph_sites(made)[-1].batch == BatchAxis(axis=1)
