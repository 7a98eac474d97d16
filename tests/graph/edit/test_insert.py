"""A plan put into a graph: what is added, what is left alone, and that the plan can be read back."""

import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_datatypes import InferDataTypes

from hwfault import __version__
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import load_model, run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from tests.helpers.graph.networks import ALL, batch, fresh, listed, network, plan
from tests.helpers.graph.ops import QONNX, assert_same
from tests.helpers.graph.running import (
    by_onnxruntime,
    by_pytorch,
    by_pytorch_faulted,
    by_qonnx,
    clean,
    copied,
    faulted,
    faulted_session,
    tidied,
)

SEEDS = ((1, 0), (2**63 + 5, 7), (2**64 - 1, 2**32 - 100))


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def initializers(graph):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


@pytest.mark.every(9)
@pytest.mark.parametrize("name", ALL)
def test_the_faulty_graph_is_the_faulty_network_to_the_bit(name):
    x = batch(name, 6, seed=9)
    plain = by_pytorch(network(name), x)
    for seed, first_sample in SEEDS:
        expected = by_pytorch_faulted(name, x, seed, first_sample)
        assert (expected != plain).any()
        assert_same(run(faulted_session(name), x.numpy(), seed=seed, first_sample=first_sample)[0], expected)


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ALL)
def test_the_graph_given_is_left_alone(name):
    before = clean(name).SerializeToString(deterministic=True)
    insert_faults(clean(name), plan(name))
    assert clean(name).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ALL)
def test_each_quantizer_of_a_planned_site_has_a_fault_node_behind_it(name):
    producers = {output: node for node in faulted(name).graph.node for output in node.output}
    struck = []
    for entry in fault_nodes(faulted(name)):
        quantizer, site = producers[entry.before], plan(name).at(entry.site).site
        struck.append(quantizer.name)
        assert quantizer.op_type in ("Quant", "BipolarQuant")
        assert metadata(quantizer)["hwfault.site"] == metadata(entry.node)["hwfault.site"] == entry.site
        assert entry.node.input[1] == quantizer.input[1]
        assert entry.node.input[2] in ([*quantizer.input[2:3], "hwfault_zero_point"])
        assert list(entry.node.input[3:]) == [SEED, FIRST_SAMPLE]
        assert attributes(entry.node) == {
            "program": list(plan(name).program(entry.site)),
            "bit_width": site.bit_width,
            "signed": site.signed,
            "batched": site.batched,
        }
    assert struck == [node.name for node in faulted(name).graph.node if node.op_type in ("Quant", "BipolarQuant")]
    assert len({node.name for node in faulted(name).graph.node}) == len(faulted(name).graph.node)


@pytest.mark.parametrize("name", ALL)
def test_nothing_reads_the_values_before_the_faults_but_the_fault_nodes(name):
    before = {entry.before for entry in fault_nodes(faulted(name))}
    readers = {n for node in faulted(name).graph.node if node.op_type != "TransientFaults" for n in node.input}
    assert not before & (readers | {info.name for info in faulted(name).graph.output})


@pytest.mark.parametrize("name", ALL)
def test_what_else_is_in_the_graph_is_as_it_was(name):
    def rest(graph):
        return [
            (node.op_type, node.name, list(node.input), sorted(attributes(node).items(), key=str))
            for node in graph.graph.node
            if node.op_type != "TransientFaults"
        ]

    assert rest(faulted(name)) == rest(clean(name))
    assert faulted(name).graph.output == clean(name).graph.output
    assert initializers(faulted(name)).keys() - initializers(clean(name)).keys() <= {"hwfault_zero_point"}


@pytest.mark.parametrize("name", ALL)
def test_inputs_opsets_and_onnxs_own_check(name):
    graph = faulted(name)
    added = [(i.name, i.type.tensor_type.elem_type, len(i.type.tensor_type.shape.dim)) for i in graph.graph.input[1:]]
    assert added == [("hwfault_seed", TensorProto.INT64, 0), ("hwfault_first_sample", TensorProto.INT64, 0)]
    assert graph.graph.input[0] == clean(name).graph.input[0]
    assert [o.version for o in graph.opset_import if o.domain == "hwfault"] == [1]
    onnx.checker.check_model(graph, full_check=True)


@pytest.mark.parametrize("name", ALL)
def test_shapes_known_before_are_known_after(name):
    known = {info.name: info.type for info in clean(name).graph.value_info}
    now = {info.name: info.type for info in faulted(name).graph.value_info}
    for entry in fault_nodes(faulted(name)):
        if entry.after in known:
            assert now[entry.after] == now[entry.before] == known[entry.after]


@pytest.mark.parametrize("name", ALL)
def test_the_plan_can_be_read_back(name):
    found = plan_of(faulted(name))
    assert found == plan(name)
    assert found.digest == plan(name).digest
    own = {"hwfault.marks", "hwfault.sites", "hwfault.undo"}
    assert {key: value for key, value in metadata(faulted(name)).items() if key not in own} == {
        "hwfault.plan": plan(name).to_json(),
        "hwfault.plan_sha256": plan(name).digest,
        "hwfault.version": __version__,
        # runs of one quantizer are sites of their own from version 1.1 on
        "hwfault.spec": "fault-stream v1.1" if name == "twice" else "fault-stream v1",
    }


def test_metadata_of_others_is_kept():
    graph = copied(clean("mlp"))
    graph.metadata_props.add(key="author", value="somebody")
    assert metadata(insert_faults(graph, plan("mlp")))["author"] == "somebody"


def test_the_plan_can_be_read_from_a_file(tmp_path):
    onnx.save(faulted("per_channel"), tmp_path / "g.onnx")
    graph = load_model(tmp_path / "g.onnx")
    assert plan_of(graph) == plan("per_channel")
    x = batch("per_channel")
    assert_same(run(session(tmp_path / "g.onnx"), x.numpy(), seed=3)[0], by_pytorch_faulted("per_channel", x, 3))


def test_export_with_a_plan_is_export_and_insertion():
    one = export(network("biased"), batch("biased"), plan=plan("biased"))
    assert one.SerializeToString(deterministic=True) == faulted("biased").SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", ["digits_cnn", "twice", "binary", "formats"])
def test_a_plan_of_probability_0_changes_nothing(name):
    graph = insert_faults(clean(name), resolve(listed(name), [BitFlips(probability=0.0)]))
    x = batch(name)
    assert len(fault_nodes(graph)) == sum(node.op_type in ("Quant", "BipolarQuant") for node in clean(name).graph.node)
    assert_same(by_onnxruntime(graph, x, seed=3), by_pytorch(network(name), x))


def test_a_plan_without_sites_strikes_nothing():
    empty = resolve(sites(network("mlp")), [])
    graph = insert_faults(clean("mlp"), empty)
    assert plan_of(graph) == empty
    assert not fault_nodes(graph)
    assert_same(by_onnxruntime(graph, batch("mlp"), seed=1), by_pytorch(network("mlp"), batch("mlp")))


@pytest.mark.parametrize("name", ["biased", "residual", "twice", "binary", "per_channel", "formats"])
def test_each_site_alone(name):
    """One site at a time, inputs, weights, biases and outputs: the graph has its faults and no others."""
    x = batch(name, 5, seed=2)
    for site in listed(name):
        one = resolve(listed(name), [WordFaults(probability=0.5, sites=site.name)])
        graph = insert_faults(clean(name), one)
        assert {entry.site for entry in fault_nodes(graph)} == {site.name}
        with inject(network(name), one, seed=4):
            expected = by_pytorch(network(name), x)
        assert (expected != by_pytorch(network(name), x)).any(), site.name
        assert_same(by_onnxruntime(graph, x, seed=4), expected, site.name)


@pytest.mark.parametrize("name", ["digits_cnn", "per_channel", "binary"])
def test_several_processes_on_one_site(name):
    bits = min(site.bit_width for site in sites(network(name)))
    faults = [
        BitFlips(probability=0.1),
        WordFaults(probability=0.2, effect="random"),
        Clusters(probability=0.05, sizes=[0.5, 0.5], axis="word"),
        BitFlips(p01=0.2, p10=0.01),
        WordFaults(probability=0.1, effect="full"),
    ]
    assert bits >= 1
    many = resolve(listed(name), faults)
    graph, x = insert_faults(clean(name), many), batch(name, 3)
    assert plan_of(graph) == many
    assert all(len(many.at(entry.site).processes) == len(faults) for entry in fault_nodes(graph))
    with inject(network(name), many, seed=11):
        expected = by_pytorch(network(name), x)
    assert_same(by_onnxruntime(graph, x, seed=11), expected)


def test_an_output_that_is_a_quantizers_own():
    """Its name stays, its values are the faulty ones."""
    assert faulted("formats").graph.output[0].name == "output"
    last = fault_nodes(faulted("formats"))[-1]
    assert (last.site, last.after) == ("5.act_quant", "output")
    only = resolve(sites(network("formats")), [WordFaults(probability=1.0, effect="full", sites="5.act_quant")])
    x = batch("formats")
    plain = by_pytorch(network("formats"), x)
    faulty = by_onnxruntime(insert_faults(clean("formats"), only), x, seed=1)
    scale = 32 / 64
    np.testing.assert_array_equal(faulty / scale, -1 - plain / scale)  # every bit of a code of two's complement


@pytest.mark.every(2)
@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("name", ALL)
def test_it_survives_qonnxs_cleanup(name, size):
    tidy = tidied(faulted(name), size)
    assert plan_of(tidy) == plan(name)
    assert sorted(e.site for e in fault_nodes(tidy)) == sorted(e.site for e in fault_nodes(faulted(name)))
    assert metadata(tidy) == metadata(faulted(name))
    x = batch(name, 4, seed=3)
    for seed, first_sample in SEEDS:
        expected = by_pytorch_faulted(name, x, seed, first_sample)
        assert_same(by_onnxruntime(tidy, x, seed=seed, first_sample=first_sample), expected)
        if size:
            assert_same(by_qonnx(tidy, x, seed, first_sample), expected)


@pytest.mark.parametrize("name", ["digits_cnn", "biased", "binary"])
def test_qonnx_infers_the_datatypes_behind_the_faults(name):
    tidy = ModelWrapper(tidied(faulted(name), 4)).transform(InferDataTypes())
    for entry in fault_nodes(tidy.model):
        assert tidy.get_tensor_datatype(entry.after) == tidy.get_tensor_datatype(entry.before)
    x = batch(name)
    assert_same(by_qonnx(tidy.model, x, 5, 0), by_pytorch_faulted(name, x, 5))


def by_brevitas(name, tmp_path):
    """A graph as Brevitas alone writes it: its nodes are named after TorchScript scopes."""
    model = fresh(name)
    batch_axis = {0: "batch"}
    return export_qonnx(
        model,
        args=batch(name),
        export_path=str(tmp_path / "b.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": batch_axis, "output": batch_axis},
    )


@pytest.mark.parametrize("name", ["digits_cnn", "biased", "residual", "convolutions", "per_channel", "binary", "mlp"])
def test_graphs_that_brevitas_wrote_itself(name, tmp_path):
    graph = by_brevitas(name, tmp_path)
    ours = {site.name: site for site in sites(network(name), batch(name))}
    found = {site.name: site for site in graph_sites(graph)}
    assert found.keys() == ours.keys()
    for key, site in found.items():
        assert site.model_copy(update={"layer": ""}) == ours[key].model_copy(update={"layer": ""})
    x = batch(name, 3, seed=8)
    assert_same(by_onnxruntime(insert_faults(graph, plan(name)), x, seed=6), by_pytorch_faulted(name, x, 6))


def tiny(op="Quant", name="the quantizer", reader=None, shape=("batch", 3)):
    """x -> quantizer -> q, and what else reads q."""
    inputs = ["x", "scale", "zeropt", "bits"][: 2 if op == "BipolarQuant" else 4]
    given = {} if op == "BipolarQuant" else {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    nodes = [helper.make_node(op, inputs, ["q"], name=name, domain=QONNX, **given), *([reader] if reader else [])]
    constants = {"scale": 0.5, "zeropt": 0, "bits": 4}
    held = [numpy_helper.from_array(np.array(value, np.float32), key) for key, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y" if reader else "q", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "tiny", [x], [y], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def full(name, kind="activation", bits=4):
    """A plan that inverts every bit of a site."""
    site = Site(name=name, kind=kind, bit_width=bits, signed=True)
    return resolve([site], [WordFaults(probability=1.0, effect="full")])


X = torch.linspace(-3, 3, 12).reshape(4, 3)


@pytest.mark.parametrize("op", ["Quant", "IntQuant"])
def test_a_graph_of_somebody_else(op):
    """Without metadata and scopes, a site is named after its node; IR version 8 knows no metadata on nodes."""
    graph = tiny(op)
    (found,) = graph_sites(graph)
    assert (found.name, found.kind, found.bit_width, found.signed) == (
        "the quantizer",
        "activation",
        4,
        True,
    )
    faulty = insert_faults(graph, full("the quantizer"))
    onnx.checker.check_model(faulty)
    assert faulty.ir_version >= 10
    plain = by_onnxruntime(graph, X)
    np.testing.assert_array_equal(by_onnxruntime(faulty, X, seed=1) / 0.5, -1 - plain / 0.5)


def test_a_bipolar_quantizer_of_somebody_else():
    graph = tiny("BipolarQuant")
    faulty = insert_faults(graph, full("the quantizer", bits=1))
    np.testing.assert_array_equal(by_onnxruntime(faulty, X, seed=1), -by_onnxruntime(graph, X))


def test_readers_in_a_subgraph_see_the_faulty_values():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["q"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    graph = tiny(reader=helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    plain = by_onnxruntime(graph, X)
    faulty = by_onnxruntime(insert_faults(graph, full("the quantizer")), X, seed=1)
    np.testing.assert_array_equal(faulty / 0.5, -1 - plain / 0.5)


@pytest.mark.parametrize(
    ("node_name", "site"),
    [
        ("/features/features.0/weight_quant/export_handler/Quant", "features.0.weight_quant"),
        ("/input/act_quant/export_handler/Quant", "input.act_quant"),
        ("/a/a.0/a.0.1/act_quant/export_handler/Quant_1", "a.0.1.act_quant"),
        ("/0/act_quant/export_handler_1/BipolarQuant", "0.act_quant"),
        ("act_quant", "act_quant"),
        ("/Quant", "/Quant"),
        ("Quant_0", "Quant_0"),
    ],
)
def test_names_of_sites_from_names_of_nodes(node_name, site):
    assert graph_sites(tiny(name=node_name))[0].name == site


def test_metadata_names_a_site_before_its_node_does():
    graph = tiny(name="/a/act_quant/export_handler/Quant")
    graph.graph.node[0].metadata_props.add(key="hwfault.site", value="mine")
    assert graph_sites(graph)[0].name == "mine"
    assert [entry.site for entry in fault_nodes(insert_faults(graph, full("mine")))] == ["mine"]


def test_constants_may_be_nodes():
    graph = tiny()
    for tensor in list(graph.graph.initializer):
        graph.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
        graph.graph.initializer.remove(tensor)
    faulty = insert_faults(graph, full("the quantizer"))
    np.testing.assert_array_equal(by_onnxruntime(faulty, X, seed=1) / 0.5, -1 - by_onnxruntime(graph, X) / 0.5)
