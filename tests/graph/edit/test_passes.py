"""Faulted graphs under qonnx's transformations, one after the other: the same faults, or an error that says what."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.extract_conv_bias import ExtractBiasFromConv
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.general import GiveReadableTensorNames, GiveUniqueNodeNames, SortGraph
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.cleanup import cleanup_model

from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.channels_last import to_channels_last
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips, LateBits, ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.lowering import lowered
from tests.helpers.graph.networks import batch, network, plan
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_onnxruntime, by_pytorch_faulted, clean, copied, faulted, tidied

NAMES = ("biased", "residual", "per_channel", "binary")
MIXED = [
    BitFlips(probability=0.01),
    ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0}, sites={"kind": "weight"}),
    LateBits(probability=0.05, bits=2, sites={"kind": "accumulator"}),
]


def by(*transformations):
    """A pass of qonnx's transformations."""

    def applied(graph):
        wrapper = ModelWrapper(copied(graph))
        for transformation in transformations:
            wrapper = wrapper.transform(transformation)
        return wrapper.model

    return applied


def tidy(graph):
    return cleanup_model(ModelWrapper(copied(graph))).model


def without_quantizers(graph):
    return cleanup_model(ModelWrapper(copied(graph)), preserve_qnt_ops=False).model


PASSES = {
    "cleanup": tidy,
    "cleanup without quantizers": without_quantizers,
    "folding": by(FoldConstants()),
    "folding everything": by(FoldConstants(exclude_op_types=[])),
    "another batch": by(ChangeBatchSize(2), InferShapes()),
    "names": by(GiveUniqueNodeNames(), GiveReadableTensorNames()),
    "order": by(SortGraph()),
    "datatypes": by(InferDataTypes()),
    "bias": by(ExtractBiasFromConv(), InferShapes()),
}


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_passes_in_any_order_keep_every_fault(data):
    name = data.draw(st.sampled_from(NAMES))
    order = data.draw(st.lists(st.sampled_from(list(PASSES)), min_size=1, max_size=4, unique=True))
    struck = resolve(sites(network(name), batch(name)), MIXED)
    graph = tidied(insert_faults(clean(name), struck), 4)
    x = batch(name, 4, seed=2)
    expected = by_onnxruntime(graph, x, seed=5, first_sample=3)
    for one in order:
        graph = PASSES[one](graph)
        assert plan_of(graph) == struck, one
    if "another batch" in order:
        x, expected = x[:2], expected[:2]
    assert_same(by_onnxruntime(graph, x, seed=5, first_sample=3), expected, str(order))


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["digits_cnn", "biased"])
def test_channels_last_and_then_everything_else(name):
    graph = to_channels_last(tidied(faulted(name), 4))
    for one in ("cleanup", "folding", "names", "datatypes"):
        graph = PASSES[one](graph)
        assert plan_of(graph) == plan(name), one
    x = batch(name, 4, seed=2)
    assert_same(by_onnxruntime(lowered(graph), x, seed=5), by_pytorch_faulted(name, x, 5))


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_any_size_have_the_same_samples(name):
    """Dynamic, and fixed by qonnx to one size and then to another."""
    x = batch(name, 6, seed=2)
    expected = by_pytorch_faulted(name, x, 9, 4)
    dynamic = session(tidied(faulted(name), None), threads=1)
    parts = [run(dynamic, x[i : i + n].numpy(), seed=9, first_sample=4 + i)[0] for i, n in ((0, 1), (1, 3), (4, 2))]
    assert_same(np.concatenate(parts), expected)
    fixed = by(ChangeBatchSize(3), InferShapes())(tidied(faulted(name), 6))
    made = session(fixed, threads=1)
    parts = [run(made, x[i : i + 3].numpy(), seed=9, first_sample=4 + i)[0] for i in (0, 3)]
    assert_same(np.concatenate(parts), expected)


def test_a_map_of_a_parameter_is_no_constant_to_qonnx():
    """Its last input is none: a node without it would be folded, and be gone."""
    struck = resolve(sites(network("biased")), [ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})])
    graph = without_quantizers(insert_faults(clean("biased"), struck))
    assert {node.op_type for entry in fault_nodes(graph) for node in entry.nodes} == {"FaultMap"}
    assert all(len(node.input) == 7 for entry in fault_nodes(graph) for node in entry.nodes)
    folded = copied(graph)
    for node in folded.graph.node:
        if node.op_type == "FaultMap":
            del node.input[6:]
    with pytest.raises(GraphError, match=r"the plan strikes '1\.weight_quant', which has no fault node"):
        plan_of(PASSES["folding"](folded))
    with pytest.raises(GraphError, match="but the fault nodes there are gone"):
        session(PASSES["folding"](folded))


@pytest.mark.parametrize(("opset", "inputs"), [(10, 6), (11, 7)])
def test_what_keeps_a_map_takes_an_op_of_opset_11(opset, inputs):
    model = copied(clean("biased"))
    model.opset_import[0].version = opset
    assert model.opset_import[0].domain == ""
    faults = [ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0}, sites={"kind": "weight"})]
    graph = insert_faults(model, resolve(sites(network("biased")), faults))
    assert {len(node.input) for node in graph.graph.node if node.op_type == "FaultMap"} == {inputs}
    assert [node.op_type for node in graph.graph.node].count("Clip") == inputs - 6
    assert not [info.name for info in graph.graph.input if info.name.startswith("hwfault")]


def duplicated(graph):
    """The fault node of a quantizer once more, as a pass does that gives each reader its own."""
    entry = next(e for e in fault_nodes(graph) if e.site == "2.act_quant")
    node = copied_node(entry.node)
    node.output[0] = "again"
    graph.graph.node.append(node)


def copied_node(node):
    out = type(node)()
    out.CopyFrom(node)
    return out


def moved_behind_a_multiplication(graph):
    entry = next(e for e in fault_nodes(graph) if e.site == "2.act_quant")
    graph.graph.node.append(helper.make_node("Mul", [entry.before, entry.node.input[1]], ["scaled"]))
    entry.node.input[0] = "scaled"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (duplicated, "the same faults at 2 runs of the site '2.act_quant'"),
        (moved_behind_a_multiplication, r"'2\.act_quant\.faults' is wired otherwise"),
    ],
)
def test_passes_that_would_change_the_faults_are_told(change, text):
    graph = copied(faulted("biased"))
    change(graph)
    with pytest.raises(GraphError, match=text):
        plan_of(graph)


def test_warnings_of_qonnx_are_not_passed_on():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_channels_last(tidied(faulted("digits_cnn"), 4))
