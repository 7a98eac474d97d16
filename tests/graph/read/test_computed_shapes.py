"""Where the samples lie behind reshapes whose shapes the graph computes, and in sums of layers."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwfault.graph.read.sites import sites as graph_sites
from hwfault.laws.models import BitFlips
from hwfault.program.batch_axes import BatchAxis
from tests.helpers.graph.moves import graph, node
from tests.helpers.graph.ops import QONNX

FLIPS = [BitFlips(probability=0.05)]


SWAP = ("Transpose", (), {"perm": [1, 0, 2]})


def reshaped_by(axis, times, *moves):  # times 1: it is not multiplied
    """(B, 4, 6) in a shape that begins with an extent of its own, as traced networks compute it."""
    made = graph(["batch", 4, 6], node("Reshape", ("target",)), *moves)
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
    found = graph_sites(reshaped_by(axis, times))
    batch = {(0, 1): None, (0, 4): BatchAxis(inner=4, rows=4)}
    assert ("'move0' folds" in found.obstacles.get("last", "")) == (axis == 1)
    assert axis == 1 or found[1].batch == batch[axis, times]


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
    ("shape", "moves", "axes"),
    [
        ([4, "batch", 6], [], [1, 1]),
        ([4, "batch", 6], [SWAP], [1, 0]),
        ([1, 4, "positions"], [], [0, 0]),
        ([2, "height", "width"], [], [0, 0]),
    ],
)
def test_the_symbolic_axis_of_an_input_is_that_of_the_samples(shape, moves, axes):
    made = graph(shape, *moves)
    found = graph_sites(made)
    assert [site.batch_axis.axis for site in found] == axes


def summed(*before):
    """(B, 4, 6), moved, times quantized weights (6, 5)."""
    made = graph(["batch", 4, 6], *before, node("MatMul", ("w",)))
    weights = np.random.default_rng(0).integers(-7, 8, (6, 5)).astype(np.float32) / 2
    made.graph.initializer.append(numpy_helper.from_array(weights, "w_float"))
    quant = helper.make_node("Quant", ["w_float", "scale", "zeropt", "bits"], ["w"], name="w", domain=QONNX, signed=1)
    made.graph.node.insert(0, quant)
    return made


def test_sums_have_their_samples_where_the_layer_has_them():
    found = graph_sites(summed(SWAP))
    assert [site.name for site in found] == ["w", "first", "last", "move1.accumulator"]
    assert found[3].batch == BatchAxis(axis=1)
    assert found[3].shape == (4, 5)
    found = graph_sites(summed(SWAP, node("Reshape", ([-1, 6],))))
    assert (found[3].batch, found[3].shape) == (BatchAxis(rows=4), (4, 5))


def test_a_reshape_of_an_unknown_shape_is_looked_at_closely():
    """(B, 4, 6) folded to what only the size of a batch tells, then to rows that hold parts of several samples."""
    found = graph_sites(reshaped_by(0, 1, node("Reshape", ([-1, 5, 4, 1],))))
    assert "folds" in found.obstacles["last"]
    assert graph_sites(reshaped_by(0, 1, node("Reshape", ([-1, 2, 12],)))).obstacles == {}
