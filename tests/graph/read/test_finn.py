"""Graphs as FINN's conversion and streamlining write them: what is struck there, and that faults put in before stay.

The patterns are written by hand; qonnx's executor is the oracle.
"""

import re

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.bipolar_to_xnor import ConvertBipolarMatMulToXnorPopcount
from qonnx.transformation.extract_quant_scale_zeropt import ExtractQuantScaleZeroPt
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.infer_shapes import InferShapes

from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.stream.check import signed64
from tests.helpers.graph.ops import QONNX, assert_same

SCALE = np.float32(0.3)
RANDOM = np.random.default_rng(3)
WEIGHTS = RANDOM.integers(-4, 4, (4, 4)).astype(np.float32)
BATCH = 3
X = RANDOM.uniform(-4, 4, (BATCH, 4)).astype(np.float32)


def graph(nodes: list[NodeProto], annotations: dict[str, str], **constants: object) -> ModelProto:
    """x -> `nodes` -> y, for a batch of 3."""
    held = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, 4]) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    made = helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], held), opset_imports=opsets)
    made.ir_version = 8
    wrapper = ModelWrapper(made).transform(InferShapes())
    for name, datatype in annotations.items():
        wrapper.set_tensor_datatype(name, DataType[datatype])
    return wrapper.model


def quant(signed: int = 1, narrow: int = 0, zero_point: float = 0.0) -> ModelProto:
    """A quantizer of 4 bits, and a layer of integer weights behind it."""
    nodes = [
        helper.make_node("Quant", ["x", "s", "z", "b"], ["q"], name="act", domain=QONNX, signed=signed, narrow=narrow),
        helper.make_node("MatMul", ["q", "w"], ["y"], name="layer"),
    ]
    return graph(nodes, {"w": "INT3"}, s=SCALE, z=zero_point, b=4.0, w=WEIGHTS)


def thresholds(narrow: int = 0, *, offset: object = None, op: str = "Add", absorbed: bool = False) -> ModelProto:
    """The same quantizer in thresholds: counts, a node that adds the least integer, and one that multiplies."""
    first, count = (-7, 14) if narrow else (-8, 15)
    steps = (np.arange(first, first + count) + 0.5) * SCALE
    value = np.float32(first if op == "Add" else -first) if offset is None else offset
    counted = helper.make_node("MultiThreshold", ["x", "t"], ["m"], name="act", domain=QONNX, out_dtype="INT4")
    added = [helper.make_node(op, ["m", "offset"], ["i"], name="adds")]
    if absorbed:
        counted.attribute.append(helper.make_attribute("out_bias", float(first)))
        counted.output[0] = "i"
        added = []
    nodes = [
        counted,
        *added,
        helper.make_node("Mul", ["i", "s"], ["q"]),
        helper.make_node("MatMul", ["q", "w"], ["y"], name="layer"),
    ]
    held = {"t": np.tile(steps, (4, 1)), "s": SCALE, "w": WEIGHTS} | ({} if absorbed else {"offset": value})
    return graph(nodes, {"w": "INT3"}, **held)


def by_qonnx(model: ModelProto, seed: int = 5) -> np.ndarray:
    feeds = {"x": X}
    for info, number in zip(list(model.graph.input)[1:], (seed, 2), strict=False):
        feeds[info.name] = np.array(signed64(number))
    (out,) = execute_onnx(ModelWrapper(transformed(model, InferShapes())), feeds).values()
    return out


def by_onnxruntime(model: ModelProto, seed: int = 5) -> np.ndarray:
    return run(session(model, threads=1, graph_optimization="none"), X, seed=seed, first_sample=2)[0]


def transformed(model: ModelProto, *transformations: object) -> ModelProto:
    wrapper = ModelWrapper(model, make_deepcopy=True)
    for one in transformations:
        wrapper = wrapper.transform(one)
    return wrapper.model


SIGNED = {
    "offset": thresholds(),
    "narrow": thresholds(narrow=1),
    "taken off": thresholds(op="Sub"),
    "offset in a list": thresholds(offset=np.array([-8])),
    "absorbed": thresholds(absorbed=True),
}


@pytest.mark.parametrize("name", SIGNED)
def test_signed_thresholds_have_the_faults_of_the_quantizer_that_they_were(name):
    model = SIGNED[name]
    before = quant(narrow=int(name == "narrow"))
    assert_same(by_qonnx(model), by_qonnx(before))
    (site,) = [site for site in sites(model) if site.name == "act"]
    assert (site.kind, site.bit_width, site.signed, site.shape, site.layer) == (
        "activation",
        4,
        True,
        (4,),
        "MultiThreshold",
    )
    plan = resolve(sites(before), [BitFlips(probability=0.2)])
    faulted = insert_faults(model, plan)
    assert plan_of(faulted) == plan
    struck = by_onnxruntime(faulted)
    assert_same(struck, by_onnxruntime(insert_faults(before, plan)))
    assert_same(struck, by_qonnx(faulted))
    assert not np.array_equal(struck, by_qonnx(before))
    assert strip_faults(faulted) == model


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (thresholds(offset=np.array([-8, -8, -8, -7])), "0 to 15 are not those of.*stands in the Add 'adds' behind it"),
        (thresholds(offset=-7.5), "0 to 15 are not those of"),
        (thresholds(offset=-3), "0 to 15 are not those of"),
    ],
)
def test_offsets_that_make_no_integers_of_the_datatype_are_told(model, why):
    assert re.search(why, sites(model).obstacles["act"])


def test_offset_absorbed_after_the_faults_were_put_in():
    """What FINN's streamlining does: the node of the offset goes, and thresholds have it as an attribute."""
    model = thresholds()
    plan = resolve(sites(model), [BitFlips(probability=0.2, sites="act")])
    faulted = insert_faults(model, plan)
    expected = by_onnxruntime(faulted)
    counted, added = (next(n for n in faulted.graph.node if n.name == name) for name in ("act", "adds"))
    counted.attribute.append(helper.make_attribute("out_bias", -8.0))
    counted.output[0] = added.output[0]
    faulted.graph.node.remove(added)
    assert plan_of(faulted) == plan
    assert_same(by_onnxruntime(faulted), expected)


def test_runs_of_signed_thresholds():
    """Two nodes of one quantizer, by the scope in their names, are runs of it before and after."""
    model = thresholds()
    once = [node for node in model.graph.node if node.op_type != "MatMul"]
    again = [NodeProto.FromString(node.SerializeToString()) for node in once]
    once[0].name = "/net/act/MultiThreshold"
    again[0].name = "/net/act/MultiThreshold_1"
    once[1].name, again[1].name = "adds", "adds again"
    for node in again:
        node.input[0] = {"x": "q"}.get(node.input[0], f"{node.input[0]}2")
        node.output[0] = "y" if node.output[0] == "q" else f"{node.output[0]}2"
    nodes = [node.SerializeToString() for node in [*once, *again]]
    del model.graph.node[:]
    model.graph.node.extend(map(NodeProto.FromString, nodes))
    assert [site.name for site in sites(model)] == ["net.act", "net.act#1"]
    plan = resolve(sites(model), [BitFlips(probability=0.2)])
    faulted = insert_faults(model, plan)
    assert plan_of(faulted) == plan
    assert_same(by_onnxruntime(faulted), by_qonnx(faulted))


CASES = [(0.0, 1), (3.0, 1), (5.0, 0)]


@pytest.mark.parametrize(("zero_point", "signed"), CASES)
def test_the_plan_follows_a_quantizer_whose_scale_was_taken_out(zero_point, signed):
    model = quant(zero_point=zero_point, signed=signed)
    plan = resolve(sites(model), [BitFlips(probability=0.2)])
    faulted = insert_faults(model, plan)
    taken_out = transformed(faulted, ExtractQuantScaleZeroPt(), FoldConstants())
    assert [node.op_type for node in taken_out.graph.node].count("Mul") == 1
    assert plan_of(taken_out) == plan
    assert_same(by_onnxruntime(taken_out), by_onnxruntime(faulted))
    # and the sites of what was not struck before
    clean = transformed(model, ExtractQuantScaleZeroPt())
    assert [(s.name, s.bit_width) for s in sites(clean) if s.kind != "accumulator"] == [("act", 4), ("w", 3)]


def converted(faulted: ModelProto) -> ModelProto:
    """A faulted quantizer in thresholds as the conversion leaves it: without its name, and what it said of itself."""
    out = ModelProto()
    out.CopyFrom(faulted)
    own = next(node for node in out.graph.node if node.op_type == "Quant")
    written = [node for node in thresholds().graph.node if node.op_type in ("MultiThreshold", "Add", "Mul")]
    written[-1].output[0] = own.output[0]
    for node in written:
        node.name = ""
    at = list(out.graph.node).index(own)
    nodes = [*list(out.graph.node)[:at], *written, *list(out.graph.node)[at + 1 :]]
    held = [t for t in thresholds().graph.initializer if t.name in ("t", "offset")]
    content = [node.SerializeToString() for node in nodes]
    del out.graph.node[:]
    out.graph.node.extend(map(NodeProto.FromString, content))
    out.graph.initializer.extend(held)
    return out


def test_the_plan_follows_a_quantizer_that_became_thresholds():
    model = quant()
    plan = resolve(sites(model), [BitFlips(probability=0.2, sites="act")])
    faulted = insert_faults(model, plan)
    graph_of_thresholds = converted(faulted)
    assert plan_of(graph_of_thresholds) == plan
    assert_same(by_onnxruntime(graph_of_thresholds), by_onnxruntime(faulted))
    # another scale behind the thresholds is no quantizer of those faults
    scaled = next(node for node in graph_of_thresholds.graph.node if node.op_type == "Mul")
    graph_of_thresholds.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "other"))
    scaled.input[1] = "other"
    with pytest.raises(GraphError, match=r"'act\.faults' is wired otherwise"):
        plan_of(graph_of_thresholds)


def test_sums_behind_thresholds_are_accumulators():
    model = thresholds()
    (site,) = [site for site in sites(model) if site.kind == "accumulator"]
    assert site.source == "act"
    plan = resolve(sites(model), [BitFlips(probability=0.1, sites={"kind": "accumulator"})])
    faulted = insert_faults(model, plan)
    assert plan_of(faulted) == plan
    assert_same(by_onnxruntime(faulted), by_qonnx(faulted))
    by_quantizer = resolve(sites(quant()), [BitFlips(probability=0.1, sites={"kind": "accumulator"})])
    assert_same(by_onnxruntime(faulted), by_onnxruntime(insert_faults(quant(), by_quantizer)))


def bipolar() -> ModelProto:
    """Thresholds of one bit, and weights of one."""
    nodes = [
        helper.make_node(
            "MultiThreshold",
            ["x", "t"],
            ["q"],
            name="act",
            domain=QONNX,
            out_dtype="BIPOLAR",
            out_scale=2.0,
            out_bias=-1.0,
        ),
        helper.make_node("MatMul", ["q", "w"], ["y"], name="layer"),
    ]
    annotations = {"w": "BIPOLAR", "q": "BIPOLAR"}
    return graph(nodes, annotations, t=np.zeros((4, 1)), w=np.where(WEIGHTS < 0, -1, 1))


def test_weights_of_xnor_and_popcount_are_struck_as_those_of_the_layer_before():
    before = bipolar()
    model = transformed(before, ConvertBipolarMatMulToXnorPopcount())
    (layer,) = [node for node in model.graph.node if node.op_type == "XnorPopcountMatMul"]
    (found,) = [site for site in sites(model) if site.kind == "weight"]
    assert (found.name, found.bit_width, found.signed, found.shape) == (layer.input[1], 1, False, (4, 4))
    flips = [BitFlips(probability=0.4, sites={"kind": "weight"})]
    plan = resolve(sites(model), flips)
    faulted = insert_faults(model, plan)
    assert plan_of(faulted) == plan
    struck = by_onnxruntime(faulted)
    assert_same(struck, by_qonnx(faulted))
    assert not np.array_equal(struck, by_onnxruntime(model))
    # the same words flip in the layer of -1 and 1
    assert_same(struck, by_onnxruntime(insert_faults(before, resolve(sites(before), flips))))
    del model.graph.quantization_annotation[:]  # which an op that knows its weights does without
    assert [site for site in sites(model) if site.kind == "weight"] == [found]


def weights_quantized() -> ModelProto:
    """A layer whose weights are quantized in the graph."""
    nodes = [
        helper.make_node("Quant", ["w", "s", "z", "b"], ["q"], name="weights", domain=QONNX, signed=1, narrow=0),
        helper.make_node("MatMul", ["x", "q"], ["y"], name="layer"),
    ]
    return graph(nodes, {}, s=SCALE, z=0.0, b=4.0, w=WEIGHTS)


def test_drawn_faults_of_weights_are_no_constants_and_say_so():
    """FINN folds a quantizer into its reader, and prints the node that it cannot fold it into."""
    plan = resolve(sites(weights_quantized()), [BitFlips(probability=0.3)])
    faulted = insert_faults(weights_quantized(), plan)
    folded = transformed(faulted, FoldConstants(exclude_op_types=[]))
    assert [node.op_type for node in folded.graph.node] == ["TransientFaults", "MatMul"]
    assert_same(by_onnxruntime(folded), by_onnxruntime(faulted))
    assert plan_of(folded) == plan
    assert "hwfault bake --seed" in str(folded.graph.node[0])


def test_a_seed_that_became_a_constant_is_folded_which_is_told():
    faulted = insert_faults(weights_quantized(), resolve(sites(weights_quantized()), [BitFlips(probability=0.3)]))
    for info in list(faulted.graph.input)[1:]:
        faulted.graph.initializer.append(numpy_helper.from_array(np.array(7), info.name))
        faulted.graph.input.remove(info)
    folded = transformed(faulted, FoldConstants(exclude_op_types=[]))
    with pytest.raises(GraphError, match=r"the fault nodes there are gone.*made so by `hwfault bake`"):
        session(folded)
