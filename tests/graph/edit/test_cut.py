"""Parts of graphs: what is cut out computes the same, and nothing else is alive along a cut."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph.edit.cut import changing_tensors, cut_out, find_cuts, find_front
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.run.session import run, session
from tests.helpers.graph.networks import batch, network, plan
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_pytorch, clean

FLOAT = TensorProto.FLOAT


def quant(x, y):
    return helper.make_node("Quant", [x, "scale", "zero", "bits"], [y], domain="qonnx.custom_op.general")


def branching():
    """x -> a -> (b, c) -> d = b + c -> e -> y, all but c and d quantizers."""
    nodes = [
        quant("x", "a"),
        helper.make_node("Neg", ["a"], ["n"]),
        quant("n", "b"),
        helper.make_node("Abs", ["a"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        quant("d", "e"),
        helper.make_node("Mul", ["e", "twice"], ["y"]),
    ]
    numbers = {"scale": 0.5, "zero": 0.0, "bits": 4.0, "unit": 1.0}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()]
    nodes.insert(0, helper.make_node("Add", ["unit", "unit"], ["twice"]))
    infos = [helper.make_tensor_value_info(name, FLOAT, ["batch", 3]) for name in "xy"]
    body = helper.make_graph(nodes, "branching", [infos[0]], [infos[1]], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
    return helper.make_model(body, opset_imports=opsets, ir_version=10)


def info(name):
    return helper.make_tensor_value_info(name, FLOAT, ["batch", 3])


X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * 4


def test_cuts_are_where_nothing_else_is_alive():
    assert find_cuts(branching()) == ["a", "e"]


def test_what_changes():
    assert changing_tensors(branching()) == {"x", "a", "n", "b", "c", "d", "e", "y"}


def test_what_a_part_needs():
    assert find_front(branching(), ["b"], "e") == (["b"], ["c"])
    assert find_front(branching(), ["b"], "c") == ([], ["c"])
    assert find_front(branching(), ["a"], "y") == (["a"], [])
    assert find_front(branching(), ["b", "c"], "d") == (["b", "c"], [])


@pytest.mark.parametrize(("given", "end"), [(["a"], "y"), (["b", "c"], "e"), (["b", "c"], "y"), (["e"], "y")])
def test_parts_compute_what_the_whole_does(given, end):
    before = cut_out(branching(), [], given)
    values = dict(zip(given, run(session(before), X), strict=True))
    part = cut_out(branching(), [info(name) for name in given], [end])
    assert [entry.name for entry in part.graph.input] == given
    (got,) = run(session(part), values)
    (expected,) = run(session(cut_out(branching(), [], [end])), X)
    assert_same(got, expected)
    assert {tensor.name for tensor in part.graph.initializer} <= {"scale", "zero", "bits", "unit"}


def test_every_cut_of_a_network_with_faults():
    graph = insert_faults(clean("residual"), plan("residual"))
    x = batch("residual")
    cuts = find_cuts(graph)
    assert len(cuts) > 1
    (expected,) = run(session(graph), x.numpy(), seed=3)
    for cut in cuts:
        (value,) = run(session(cut_out(graph, [], [cut])), x.numpy(), seed=3)
        given = helper.make_tensor_value_info(cut, FLOAT, ["batch", *value.shape[1:]])
        rest = cut_out(graph, [given], [graph.graph.output[0].name])
        assert_same(run(session(rest), {cut: value}, seed=3)[0], expected, cut)


def test_the_graph_itself_stays():
    graph = clean("residual")
    text = graph.SerializeToString()
    cut_out(graph, [], [find_cuts(graph)[0]])
    assert graph.SerializeToString() == text
    assert_same(run(session(graph), batch("residual").numpy())[0], by_pytorch(network("residual"), batch("residual")))


def test_ends_that_there_are_not():
    with pytest.raises(GraphError, match="no node of the graph makes the tensor 'z'"):
        cut_out(branching(), [], ["z"])
