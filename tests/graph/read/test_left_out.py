"""What of a graph is no site: each kind by hand, listed with its reason and its name."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from hwfault.errors import GraphError, ModelError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from tests.helpers.graph.ops import QONNX

CONSTANTS = {"s": 0.5, "z": 0.0, "w": 4.0, "two": 2.0}


def quant(source, target, name="", op="Quant"):
    return helper.make_node(
        op, [source, "s", "z", "w"], [target], name=name or f"quant_{target}", domain=QONNX, signed=1
    )


def info(name, kind=TensorProto.FLOAT, shape=("n", 4)):
    return helper.make_tensor_value_info(name, kind, shape)


CHOOSES = [
    helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
    helper.make_node("Greater", ["sum", "z"], ["yes"]),
    helper.make_node("Size", ["x"], ["count"]),
]
"""What a graph computes: a condition, and a number of rounds."""


def graph(*nodes, output="y", functions=(), **constants):
    """x -> one quantizer that is a site -> a -> `nodes` -> output."""
    held = {key: np.float32(value) for key, value in CONSTANTS.items()} | constants
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in held.items()]
    made = helper.make_graph([quant("x", "a", "good"), *nodes], "g", [info("x")], [info(output)], tensors)
    domains = ("", 17), (QONNX, 1), ("local", 1)
    opsets = [helper.make_opsetid(*domain) for domain in domains]
    return helper.make_model(made, opset_imports=opsets, functions=list(functions), ir_version=9)


def body(*nodes, inputs=(), output="inner"):
    return helper.make_graph(list(nodes), "body", list(inputs), [info(output)])


def branches(depth=0):
    """A quantizer in a branch that the graph chooses, or in a branch of a branch."""
    nothing = body(helper.make_node("Neg", ["a"], ["other"]), output="other")
    inner = [quant("a", "inner", "hidden")]
    for i in range(depth):
        deeper = body(*inner)
        inner = [helper.make_node("If", ["yes"], ["inner"], name=f"if_{i}", then_branch=deeper, else_branch=nothing)]
    return graph(
        *CHOOSES, helper.make_node("If", ["yes"], ["y"], name="if", then_branch=body(*inner), else_branch=nothing)
    )


def loop():
    given = [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("at")]
    inner = helper.make_graph(
        [quant("at", "next", "hidden"), helper.make_node("Identity", ["c"], ["again"])],
        "body",
        given,
        [info("again", TensorProto.BOOL, []), info("next")],
    )
    return graph(*CHOOSES, helper.make_node("Loop", ["count", "", "a"], ["y"], name="loop", body=inner))


def scan():
    inner = helper.make_graph(
        [quant("row", "made", "hidden")], "body", [info("row", shape=(4,))], [info("made", shape=(4,))]
    )
    return graph(helper.make_node("Scan", ["a"], ["y"], name="scan", body=inner, num_scan_inputs=1))


def function(nested=False):
    """A quantizer in a function of another opset than the graph's, which is not written out."""
    nodes = [quant("v", "r", "hidden")]
    if nested:
        branch = body(quant("v", "inner", "hidden"))
        nodes = [helper.make_node("If", ["yes"], ["r"], then_branch=branch, else_branch=branch)]
    opsets = [helper.make_opsetid("", 16), helper.make_opsetid(QONNX, 1)]
    inputs = ["v", "s", "z", "w", *(["yes"] if nested else [])]
    made = helper.make_function("local", "Activation", inputs, ["r"], nodes, opsets)
    call = helper.make_node("Activation", ["a", *inputs[1:]], ["y"], name="call", domain="local")
    return graph(*(CHOOSES if nested else []), call, functions=[made])


def thresholds(out_dtype, behind="Add"):
    return graph(
        helper.make_node("MultiThreshold", ["a", "t"], ["m"], name="hidden", domain=QONNX, out_dtype=out_dtype),
        helper.make_node(behind, ["m", "offset"], ["y"], name="adds"),
        t=np.arange(15, dtype=np.float32).reshape(1, 15),
        offset=np.array([-8, -8, -8, -7], np.float32),
    )


def annotated(op, datatype="BINARY", domain="", **attributes):
    model = graph(
        helper.make_node(op, ["a", "hidden"], ["y"], name="layer", domain=domain, **attributes),
        hidden=np.ones((4, 4), np.float32),
    )
    wrapper = ModelWrapper(model)
    wrapper.set_tensor_datatype("hidden", DataType[datatype])
    return wrapper.model


def qdq(**quantized):
    return graph(
        helper.make_node("QuantizeLinear", ["a", "s"], ["q"], name="hidden", **quantized),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], name="pair"),
    )


def given_integers():
    model = graph(helper.make_node("DequantizeLinear", ["i8", "s"], ["y"], name="hidden"))
    model.graph.input.append(info("i8", TensorProto.INT8))
    return model


def picked(kind=TensorProto.INT4):
    model = graph(
        helper.make_node("Gather", ["hidden", "rows"], ["p"], name="pick"),
        helper.make_node("DequantizeLinear", ["hidden", "s"], ["y"], name="reads"),
        rows=np.array([0]),
    )
    model.graph.initializer.append(helper.make_tensor("hidden", kind, [2, 4], range(8)))
    return model


def computed_scale():
    return graph(
        helper.make_node("Add", ["s", "two"], ["computed"]),
        helper.make_node("Quant", ["a", "computed", "z", "w"], ["y"], name="hidden", domain=QONNX, signed=1),
    )


CASES = {
    "If": (branches(), "lies in the then_branch of the If 'if': its condition 'yes' is computed by the graph"),
    "If in If": (branches(2), "lies in the then_branch of the If 'if'"),
    "Loop": (loop(), "lies in the body of the Loop 'loop': its number of rounds 'count' is computed by the graph"),
    "Scan": (scan(), "lies in the body of the Scan 'scan': how many slices it runs through is not known"),
    "function": (
        function(),
        "lies in the model function local::Activation, which 1 nodes call: it is written in version 16 of",
    ),
    "If in a function": (function(nested=True), "lies in the model function local::Activation"),
    "computed scale": (computed_scale(), "its scale 'computed' is computed by the graph"),
    "FloatQuant": (
        graph(
            helper.make_node("FloatQuant", ["a", "s", *"ebxmm"], ["y"], name="hidden", domain=QONNX),
            **{key: np.float32(2) for key in "ebxm"},
        ),
        "rounds to small floating-point numbers, and the fault stream defines no words of exponent and mantissa",
    ),
    "4 bits": (qdq(output_dtype=TensorProto.INT4), "of 4 bits where the graph computes them.*quantize it to 8 bits"),
    "float8": (qdq(output_dtype=TensorProto.FLOAT8E5M2), "its numbers are of type FLOAT8E5M2, expected integers"),
    "unsigned long": (picked(TensorProto.INT64), "its numbers are of type INT64, expected integers"),
    "given integers": (given_integers(), "its integers 'i8' are given to the graph"),
    "4 bits that others read": (picked(), "of 4 bits and Gather 'pick' reads them, expected DequantizeLinear alone"),
    "computed zero point": (
        graph(helper.make_node("QLinearMatMul", ["a"] * 8, ["y"], name="hidden")),
        "the type of its integers is not known before the graph runs",
    ),
    "packed": (
        graph(helper.make_node("MatMulNBits", ["a", "b", "s"], ["y"], name="hidden", domain="com.microsoft")),
        "computes on ONNX' own integers, and hwfault does not know which of its tensors they are",
    ),
    "annotated": (
        annotated("Add", "INT4"),
        r"the constants \(INT4\) 'hidden' cannot be a site: Add 'layer' reads them",
    ),
    "signed thresholds": (thresholds("INT4"), "0 to 15 are not those of.*offset stands in the Add 'adds' behind it"),
    "subtracted": (thresholds("INT4", "Sub"), "its offset stands in the Sub 'adds' behind it.*out_bias"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_site_is_listed_with_its_reason(case):
    model, why = CASES[case]
    found = sites(model)
    assert [site.name for site in found] == ["good"]
    told = {name: text for name, text in found.obstacles.items() if not name.endswith("accumulator")}
    twice = {"hidden (2)"} if case == "If in a function" else set()  # in both branches
    assert told.keys() == {"hidden"} | twice
    assert re.search(why, told["hidden"]), told


@pytest.mark.parametrize("case", CASES)
def test_faults_go_into_the_others_and_out_again(case):
    model, _ = CASES[case]
    faulty = insert_faults(model, resolve(sites(model), [BitFlips(probability=0.1)]))
    assert strip_faults(faulty) == model
    with pytest.raises(ModelError, match="no site matches the selector 'hidden': hidden: "):
        resolve(sites(model), [BitFlips(probability=0.1, sites="hidden")])
    planned = resolve([Site(name="hidden", kind="activation", bit_width=4, signed=True)], [BitFlips(probability=0.1)])
    with pytest.raises(GraphError, match="hidden"):
        insert_faults(model, planned)


def test_thresholds_that_count_from_zero_are_a_site():
    assert [site.name for site in sites(thresholds("UINT4"))] == ["good", "hidden"]


def test_names_that_several_have():
    """Each obstacle is one of its own, also where bodies and the main level use one name."""
    twice = branches()
    twice.graph.node.insert(1, helper.make_node("FloatQuant", ["a"], ["f"], name="hidden", domain=QONNX))
    twice.graph.node.insert(1, helper.make_node("FloatQuant", ["a"], ["f2"], name="good", domain=QONNX))
    assert set(sites(twice).obstacles) == {"hidden", "hidden (2)", "good (2)"}


def test_functions_that_nobody_calls_hide_nothing():
    model = function()
    model.graph.node[1].CopyFrom(helper.make_node("Relu", ["a"], ["y"]))
    assert sites(model).obstacles == {}


def test_layers_in_bodies_have_no_accumulators():
    layer = helper.make_node("MatMul", ["a", "a"], ["inner"], name="layer")
    nothing = body(helper.make_node("Neg", ["a"], ["other"]), output="other")
    node = helper.make_node("If", ["yes"], ["y"], name="if", then_branch=body(layer), else_branch=nothing)
    found = sites(graph(*CHOOSES, node))
    assert "lies in the then_branch" in found.obstacles["layer.accumulator"]
    assert resolve(found, [BitFlips(probability=0.1)]).names == ("good",)


def test_a_graph_of_nothing_but_obstacles_lists_them():
    model = qdq(output_dtype=TensorProto.INT4)
    model.graph.node[1].input[0] = "x"
    del model.graph.node[0]
    found = sites(model)
    assert found == []
    assert set(found.obstacles) == {"hidden"}
