"""Functions, branches and loops: written out where constants say what they do, struck like a graph written by hand."""

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.flat import flatten
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.levels import (
    body,
    branch,
    function,
    function_by_hand,
    graph,
    info,
    loop,
    loop_by_hand,
    quant,
    samples,
    scan,
)
from tests.helpers.graph.ops import QONNX, assert_same

FLIPS = [BitFlips(probability=0.1)]
GRAPHS = {
    "loop": (loop(), ["first", "layer.weight_quant", "q", "q#1", "q#2"]),
    "loop that ends": (loop(ends=True), ["first", "layer.weight_quant", "q"]),
    "branch": (branch(), ["first", "layer.weight_quant", "q"]),
    "other branch": (branch(condition=False), ["first", "q"]),
    "scan": (scan(), ["first", "q", "q#1", "q#2"]),
    "function": (function(), ["first", "layer.weight_quant__1", "q__1", "q__2"]),
}
LEFT = {
    "rounds computed": (loop(rounds=None), "its number of rounds 'count' is computed by the graph"),
    "too many rounds": (loop(rounds=1 << 40), "it has 1099511627776 rounds, expected 1 to 64"),
    "no round": (loop(rounds=0), "it has 0 rounds"),
    "asks each time": (loop(asks=True), "whether there is another round is computed by the graph"),
    "branch computed": (branch(condition=None), "its condition 'chosen' is computed by the graph"),
}


def outputs(model, seed=3):
    return run(session(model, threads=1, graph_optimization="none"), samples(model), seed=seed, first_sample=2)[0]


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_written_out_computes_the_same_and_has_its_sites(name):
    model, names = GRAPHS[name]
    flat = flatten(model)
    checker.check_model(flat.model)
    assert flat.changes
    assert not flat.model.functions
    found = sites(model)
    assert [site.name for site in found if site.kind != "accumulator"] == names
    assert not found.obstacles
    # onnxruntime runs branches and loops as they stand
    assert_same(outputs(flat.model), outputs(model))


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_functions_run_as_they_are_written(calls):
    model = function(calls=calls)
    assert_same(outputs(model), function_by_hand(samples(model), calls))


@pytest.mark.parametrize("name", GRAPHS)
def test_faults_go_in_stay_and_come_out(name):
    model, _ = GRAPHS[name]
    before = model.SerializeToString(deterministic=True)
    plan = resolve(sites(model), FLIPS)
    faulted = insert_faults(model, plan)
    assert model.SerializeToString(deterministic=True) == before
    assert plan_of(faulted) == plan
    assert not np.array_equal(outputs(faulted), outputs(model))
    assert strip_faults(faulted).SerializeToString(deterministic=True) == before


def test_rounds_are_runs_of_one_quantizer_and_weights_one_memory():
    faults = [BitFlips(probability=0.2, sites={"kind": "activation"}), BitFlips(probability=0.1, sites="layer.*")]
    listed, by_hand = sites(loop()), sites(loop_by_hand())
    assert [site for site in listed if site.kind != "accumulator"] == [s for s in by_hand if s.kind != "accumulator"]
    struck = [outputs(insert_faults(model, resolve(sites(model), faults))) for model in (loop(), loop_by_hand())]
    assert_same(*struck)


@pytest.mark.parametrize("name", LEFT)
def test_bodies_that_stay_say_why_and_their_weights_are_struck(name):
    model, why = LEFT[name]
    found = sites(model)
    assert "q" in found.obstacles
    assert why in found.obstacles["q"]
    names = [site.name for site in found]
    assert names == ["first", "layer.weight_quant"]
    plan = resolve(found, FLIPS)
    faulted = insert_faults(model, plan)
    assert plan_of(faulted) == plan
    assert strip_faults(faulted) == model


def test_what_may_be_given_at_a_run_is_no_constant():
    model = branch()
    model.graph.input.append(info("chosen", TensorProto.BOOL, []))
    assert "its condition 'chosen' is computed by the graph" in sites(model).obstacles["q"]
    model.ir_version = 3  # in which every initializer is an input as well
    assert sites(model).obstacles == {}


def test_a_branch_in_a_loop_in_a_branch():
    inner = helper.make_node(
        "If",
        ["yes"],
        ["next"],
        name="inner",
        then_branch=body([quant("at", "out", "q")], [], [info("out")]),
        else_branch=body([helper.make_node("Neg", ["at"], ["out"])], [], [info("out")]),
    )
    given = [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("at")]
    again = helper.make_node("Identity", ["c"], ["again"])
    rounds = body([inner, again], given, [info("again", TensorProto.BOOL, []), info("next")])
    looped = helper.make_node("Loop", ["two", "yes", "a"], ["made"], name="loop", body=rounds)
    outer = body([looped], [], [info("made")])
    choose = helper.make_node("If", ["yes"], ["y"], name="outer", then_branch=outer, else_branch=outer)
    model = graph([choose], yes=np.array(True), two=np.array(2))
    assert [site.name for site in sites(model)] == ["first", "q", "q#1"]
    assert_same(outputs(flatten(model).model), outputs(model))


def test_constants_in_a_body_are_made_once():
    """A quantizer of constants that the body holds itself, of ONNX' own integers, and integers by annotation."""
    held = numpy_helper.from_array(np.eye(4, dtype=np.float32), "own")
    words = numpy_helper.from_array(np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "words")
    noted = numpy_helper.from_array(np.tri(4, dtype=np.float32), "noted")
    nodes = [
        quant("own", "own_q", "own.weight_quant"),
        helper.make_node("MatMul", ["at", "own_q"], ["sums"]),
        helper.make_node("DequantizeLinear", ["words", "s"], ["words_dq"]),
        helper.make_node("MatMul", ["sums", "words_dq"], ["more"]),
        helper.make_node("MatMul", ["more", "noted"], ["next"]),
        helper.make_node("Identity", ["c"], ["again"]),
    ]
    given = [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("at")]
    rounds = helper.make_graph(
        nodes, "body", given, [info("again", TensorProto.BOOL, []), info("next")], [held, words, noted]
    )
    entry = rounds.quantization_annotation.add(tensor_name="noted")
    entry.quant_parameter_tensor_names.add(key="finn_datatype", value="INT2")
    count = helper.make_node("Size", ["axes"], ["count"])
    shape = helper.make_node("Shape", ["x"], ["axes"])
    for made in ([shape, count], []):
        constants = {} if made else {"count": np.array(2)}
        looped = helper.make_node("Loop", ["count", "", "a"], ["y"], name="loop", body=rounds)
        model = graph([*made, looped], **constants)
        found = sites(model)
        listed = {site.name: (site.bit_width, site.shape) for site in found if site.kind == "weight"}
        assert listed == {"own.weight_quant": (4, (4, 4)), "words": (8, (4, 4)), "noted": (2, (4, 4))}
        faulted = insert_faults(model, resolve(found, FLIPS))
        assert strip_faults(faulted) == model
        assert_same(outputs(flatten(model).model), outputs(model))


def test_a_function_that_says_what_an_op_does_is_that_op():
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_function(QONNX, "Quant", ["x", "s", "z", "w"], ["y"], nodes, opsets)
    model = graph([quant("a", "y", "q")], [made])
    assert flatten(model).model is model
    assert [site.name for site in sites(model)] == ["first", "q"]


def calling(count, own):
    """Functions F0 to F`count`, of which each calls the one before so often."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    made = [helper.make_function("local", "F0", ["v"], ["r"], [helper.make_node("Neg", ["v"], ["r"])], opsets)]
    for i in range(1, count):
        calls = [helper.make_node(f"F{i - 1}", ["v"], [f"r{k}" if k else "r"], domain="local") for k in range(own)]
        made.append(helper.make_function("local", f"F{i}", ["v"], ["r"], calls, opsets))
    return graph([helper.make_node(f"F{count - 1}", ["a"], ["y"], domain="local")], made)


def calling_itself():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    again = helper.make_node("F", ["v"], ["m"], domain="local")
    made = helper.make_function("local", "F", ["v"], ["m"], [again, quant("v", "m2", "q")], opsets)
    return graph([helper.make_node("F", ["a"], ["y"], domain="local")], [made])


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (calling(40, 2), "its functions stand for more than 1048576 nodes"),
        (calling(500, 1), "more than 100 functions call each other in turn"),
        (calling_itself(), "the function local::F calls itself"),
    ],
    ids=["too many", "too deep", "itself"],
)
def test_calls_that_do_not_end_are_refused(model, text):
    found = sites(model)
    assert [site.name for site in found] == ["first"]
    if "q" in found.obstacles:
        assert text in found.obstacles["q"]
    with pytest.raises(GraphError, match=text):
        session(model)


@pytest.mark.slow
def test_loops_in_loops_end():
    inner = [quant("at", "next", "q"), helper.make_node("Identity", ["c"], ["again"])]
    for depth in range(4):
        given = [info(f"i{depth}", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("at")]
        rounds = body(inner, given, [info("again", TensorProto.BOOL, []), info("next")])
        source, target = ("a", "y") if depth == 3 else ("at", "next")
        inner = [helper.make_node("Loop", ["count", "yes", source], [target], name=f"loop{depth}", body=rounds)]
        if depth < 3:
            inner.append(helper.make_node("Identity", ["c"], ["again"]))
    flat = flatten(graph(inner, yes=np.array(True), count=np.array(64)))
    assert len(flat.model.graph.node) < 5000
    assert any("it stands for more than 4000 nodes" in why for why in flat.left.bodies.values())


@pytest.mark.parametrize(("axis", "names"), [(1, ["first", "q"]), (0, ["first"])])
def test_a_branch_by_an_extent_of_the_graph(axis, names):
    """As PyTorch's exporter writes a squeeze: taken by an extent that the graph fixes, and not by that of the batch."""
    then = body([quant("a", "out", "q")], [], [info("out")])
    other = body([helper.make_node("Neg", ["a"], ["out"])], [], [info("out")])
    nodes = [
        helper.make_node("Shape", ["x"], ["extents"]),
        helper.make_node("Gather", ["extents", "axis"], ["extent"]),
        helper.make_node("Equal", ["extent", "four"], ["chosen"]),
        helper.make_node("If", ["chosen"], ["y"], name="if", then_branch=then, else_branch=other),
    ]
    model = graph(nodes, axis=np.array(axis), four=np.array(4))
    assert [site.name for site in sites(model)] == names
    assert_same(outputs(flatten(model).model), outputs(model))


def test_what_a_graph_says_wrongly_of_its_tensors_chooses_no_branch():
    """Only what follows from the inputs' shapes counts; a cast to truth values is no number."""
    then = body([quant("a", "out", "q")], [], [info("out")])
    other = body([helper.make_node("Neg", ["a"], ["out"])], [], [info("out")])
    choose = helper.make_node("If", ["chosen"], ["y"], name="if", then_branch=then, else_branch=other)
    nodes = [
        helper.make_node("Custom", ["x"], ["unknown"], domain="local"),
        helper.make_node("Shape", ["unknown"], ["extents"]),
        helper.make_node("Gather", ["extents", "one"], ["extent"]),
        helper.make_node("Equal", ["extent", "four"], ["chosen"]),
        choose,
    ]
    model = graph(nodes, one=np.array(1), four=np.array(4))
    model.graph.value_info.append(info("unknown"))
    assert "its condition 'chosen' is computed by the graph" in sites(model).obstacles["q"]
    cast = [
        helper.make_node("Shape", ["x"], ["extents"]),
        helper.make_node("Gather", ["extents", "one"], ["extent"]),
        helper.make_node("Cast", ["extent"], ["is_there"], to=TensorProto.BOOL),
        helper.make_node("Equal", ["is_there", "yes"], ["chosen"]),
        choose,
    ]
    assert "is computed by the graph" in sites(graph(cast, one=np.array(1), yes=np.array(True))).obstacles["q"]
