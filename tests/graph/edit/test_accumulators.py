"""Faults of accumulators in graphs: onnxruntime and qonnx equal PyTorch to the bit, and what cannot be is refused."""

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from brevitas import nn as qnn
from onnx import numpy_helper

from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import SITE, metadata
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import AccumulatorFormat, BitFlips, BypassedElements, LateBits, StuckElement
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from hwfault.stream.mapping import OutputStationary, WeightStationary
from tests.helpers.graph.networks import ALL, Chain, batch, network, signed
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_onnxruntime, by_qonnx, clean, copied, tidied
from tests.helpers.injection import networks as float_networks

ARRAY = WeightStationary(rows=8, columns=4)
SUMS = {"kind": "accumulator"}
FAULTS = {
    "flips": [BitFlips(probability=0.01, sites=[SUMS, {"kind": "weight"}])],
    "stuck": [
        AccumulatorFormat(width=20, mapping=ARRAY),
        *(StuckElement(mapping=ARRAY, element=(r, c), bit=6, value=v) for r, c, v in ((0, 1, 1), (5, 2, 0), (7, 0, 1))),
    ],
    "saturating": [AccumulatorFormat(width=8, overflow="saturate")],
    "wrapping": [AccumulatorFormat(width=7), BitFlips(probability=0.01, sites={"kind": "weight"})],
    "late": [LateBits(probability=0.2, bits=8), BypassedElements(mapping=ARRAY, elements=[3, 30])],
    "double": [
        AccumulatorFormat(arithmetic="float64", width=30, mapping=OutputStationary(rows=2, columns=3)),
        StuckElement(mapping=OutputStationary(rows=2, columns=3), element=(1, 1), bit=28, value=1),
        BitFlips(probability=0.005, sites=SUMS),
    ],
}
NETWORKS = [name for name in ALL if name != "tied"]


@cache
def planned(name, faults):
    chosen = [
        f for f in FAULTS[faults] if name != "binary" or not isinstance(f, BypassedElements)
    ]  # of 2 bits at least
    return resolve(sites(network(name), batch(name)), chosen)


@cache
def graph_of(name, faults):
    return insert_faults(clean(name), planned(name, faults))


@torch.no_grad()
def by_pytorch(model, plan, x, seed=5):
    with inject(model, plan, seed=seed):
        out = model(x)
    return getattr(out, "value", out).numpy()


@pytest.mark.every(15)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_equals_pytorch(name, faults):
    x = batch(name, 3)
    expected = by_pytorch(network(name), planned(name, faults), x)
    for level in ("all", "none"):
        (got,) = run(session(graph_of(name, faults), threads=1, graph_optimization=level), x.numpy(), seed=5)
        assert_same(got, expected, level)


@pytest.mark.parametrize("faults", FAULTS)
def test_the_faults_show(faults):
    x = batch("digits_cnn", 3)
    assert (
        by_pytorch(network("digits_cnn"), planned("digits_cnn", faults), x)
        != network("digits_cnn")(x).numpy(force=True)
    ).any()


@pytest.mark.every(2)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", ["biased", "twice", "per_channel"])
def test_qonnx_equals_pytorch(name, faults):
    x = batch(name, 2)
    graph = tidied(graph_of(name, faults), 2)
    numbers = (5, 0)[: len(graph.graph.input) - 1]
    expected = by_pytorch(network(name), planned(name, faults), x)
    assert_same(by_qonnx(graph, x, *numbers), expected)
    assert_same(by_onnxruntime(graph, x, seed=5), expected, "onnxruntime on the tidied graph")


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["cnn", "asymmetric", "binary", "shared", "power_of_two"])
def test_float_scales_are_exact_too_where_every_layer_is_one_of_integers(name):
    model, x = float_networks.build(name), float_networks.batch(3)
    plan = resolve(sites(model, x), [BitFlips(probability=0.01, sites=SUMS)])
    assert_same(by_onnxruntime(export(model, x, plan=plan), x, seed=5), by_pytorch(model, plan, x))


@pytest.mark.every(11)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", ["digits_cnn", "biased", "twice"])
def test_replays_are_exact(name, faults):
    plan = planned(name, faults)
    report = replay(network(name), graph_of(name, faults), list(batch(name, 8).split(3)), seeds=[1, 2])
    assert report.verdict == "pass"
    assert {site.name for site in report.sites} >= set(plan.names)
    drawn = [site for site in report.sites if site.name in plan.names and plan.steps(site.name)]
    assert all(site.faults_seen == site.faults_expected for site in report.sites)
    assert not drawn or sum(site.faults_seen for site in drawn) > 0


def test_every_layer_of_an_export_knows_its_site():
    for name in ALL:
        layers = [n for n in clean(name).graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
        named = [metadata(node).get(SITE) for node in layers]
        modules = [
            m for m, layer in network(name).named_modules() if isinstance(layer, (qnn.QuantConv2d, qnn.QuantLinear))
        ]
        assert {f"{module}.accumulator" for module in modules} == {name.partition("#")[0] for name in named}


def test_layers_without_faults_stay_as_they_are():
    plan = resolve(sites(network("biased"), batch("biased")), [BitFlips(probability=0.1, sites="1.accumulator")])
    graph = insert_faults(clean("biased"), plan)
    kept = [n for n in graph.graph.node if n.op_type == "Gemm"]
    assert [n.SerializeToString() for n in kept] == [
        n.SerializeToString() for n in clean("biased").graph.node if n.op_type == "Gemm"
    ]
    assert [n.site for n in fault_nodes(graph)] == ["1.accumulator"]


def test_the_plan_comes_back():
    for faults in FAULTS:
        assert plan_of(graph_of("twice", faults)) == planned("twice", faults)


def node_named(graph, op, index=0):
    return [node for node in graph.graph.node if node.op_type == op][index]


def set_attribute(node, name, value):
    (attribute,) = [a for a in node.attribute if a.name == name]
    attribute.CopyFrom(onnx.helper.make_attribute(name, value, attr_type=attribute.type))


def tamper_constant(graph, name, values):
    (tensor,) = [t for t in graph.graph.initializer if t.name == name]
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), name))


def other_width(graph):
    set_attribute(node_named(graph, "ArrayFaults"), "width", 16)


def other_events(graph):
    set_attribute(node_named(graph, "ArrayFaults"), "events", [])


def other_scale(graph):
    tamper_constant(graph, node_named(graph, "Mul").input[1], np.float32(3))


def other_input_scale(graph):
    tamper_constant(graph, node_named(graph, "Div").input[1], np.float32(3))


def other_integers(graph):
    node = node_named(graph, "ArrayFaults")
    node.input[1] = node_named(graph, "Div").output[0]


def no_array(graph):
    node = node_named(graph, "ArrayFaults")
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:], node.input[1:]


@pytest.mark.parametrize(
    "change", [other_width, other_events, other_scale, other_input_scale, other_integers, no_array]
)
def test_changed_graphs_are_told(change):
    graph = copied(graph_of("biased", "stuck"))
    plan_of(graph)
    change(graph)
    with pytest.raises(GraphError, match="export it anew"):
        plan_of(graph)


def test_a_graph_of_another_layer_is_refused():
    plan = resolve(sites(network("biased"), batch("biased")), [BitFlips(probability=0.1, sites="1.accumulator")])
    wider = Chain(signed(), qnn.QuantConv2d(2, 5, 3, bias=False, weight_bit_width=4)).eval()
    with pytest.raises(PlanError, match=r"shape \[4, 2, 3, 3\] at '1.accumulator', but the graph has \[5, 2, 3, 3\]"):
        insert_faults(export(wider, batch("biased")), plan)
    deeper = Chain(signed(), qnn.QuantConv2d(2, 4, 3, bias=False, weight_bit_width=8)).eval()
    with pytest.raises(PlanError, match="needs 20 bits in the graph and 16 in the network"):
        insert_faults(export(deeper, batch("biased")), plan)
    with pytest.raises(PlanError, match=r"'1\.accumulator', which the graph does not have"):
        insert_faults(clean("residual"), plan)


def test_a_grid_of_no_quantizer_is_refused():
    class Sum(Chain):
        def forward(self, x):
            x = self[0](x)
            out = self[1]((x + x).flatten(1))
            return getattr(out, "value", out)

    model = Sum(signed(), qnn.QuantLinear(72, 5, bias=False, weight_bit_width=4)).eval()
    plan = resolve(sites(model, batch("mlp")), [BitFlips(probability=0.1, sites="1.accumulator")])
    with pytest.raises(GraphError, match=r"'1.accumulator' cannot be struck in the graph: .*no single quantizer"):
        export(model, batch("mlp"), plan=plan)


@pytest.mark.every(2)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", ["digits_cnn", "mlp", "twice", "per_channel"])
def test_a_tidied_graph_takes_the_networks_plan(name, faults):
    """The cleanup transposes the weights of linear layers; their words are numbered as before."""
    x = batch(name, 3)
    graph = insert_faults(tidied(clean(name), None), planned(name, faults))
    assert plan_of(graph) == planned(name, faults)
    assert_same(by_onnxruntime(graph, x, seed=5), by_pytorch(network(name), planned(name, faults), x))
