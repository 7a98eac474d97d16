"""Exported graphs against the network: values, names, batches, and what qonnx makes of them."""

import numpy as np
import onnx
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import ShiftedUint8ActPerTensorFloat
from onnx import helper
from torch import nn

from hwfault.errors import PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.export.of_network import export
from hwfault.graph.read.integer import INTEGERS, is_integer
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.networks import ACTS, ALL, WEIGHTS, Chain, batch, fresh, network, plan, signed
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_onnxruntime, by_pytorch, by_qonnx, clean, clean_session, tidied
from tests.helpers.injection import networks as float_networks
from tests.helpers.injection.snapshot import snapshot

QUANTS = ("Quant", "BipolarQuant")


def quant_nodes(graph):
    return [node for node in graph.graph.node if node.op_type in QUANTS]


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ALL)
def test_the_graph_is_the_network_to_the_bit(name):
    for seed, n in ((1, 4), (2, 1), (3, 64)):
        x = batch(name, n, seed)
        expected = by_pytorch(network(name), x)
        assert len(np.unique(expected)) > 3
        assert_same(run(clean_session(name), x.numpy())[0], expected)


@pytest.mark.parametrize("name", ALL)
def test_qonnx_cleans_infers_and_runs_it(name):
    x = batch(name, 3, seed=5)
    tidy = tidied(clean(name), 3)
    assert next(d.dim_value for d in tidy.graph.output[0].type.tensor_type.shape.dim) == 3
    expected = by_pytorch(network(name), x)
    assert_same(by_qonnx(tidy, x), expected)
    assert_same(by_onnxruntime(tidy, x), expected)


@pytest.mark.parametrize("name", ALL)
def test_the_cleaned_graph_of_any_batch_size_runs_in_onnxruntime(name):
    tidy = tidied(clean(name), None)
    made = session(tidy, threads=1)
    for n in (1, 5):
        x = batch(name, n, seed=6)
        assert_same(run(made, x.numpy())[0], by_pytorch(network(name), x))
    assert {metadata(node)["hwfault.site"] for node in quant_nodes(tidy)} == set(quantizers_of(name))


def quantizers_of(name):
    """The sites of a network but its accumulators, by name."""
    return {site.name: site for site in sites(network(name), batch(name)) if site.kind != "accumulator"}


@pytest.mark.parametrize("name", ALL)
def test_onnx_finds_nothing_wrong(name):
    onnx.checker.check_model(clean(name), full_check=True)


@pytest.mark.parametrize("name", ALL)
def test_every_quantizer_is_named_after_its_site(name):
    found = quant_nodes(clean(name))
    known = quantizers_of(name)
    named = [metadata(node)["hwfault.site"] for node in found]
    assert set(named) == set(known)
    # each run of an activation is a site of its own, a parameter is one however often it is read
    for node, site in zip(found, named, strict=True):
        assert site == (node.name if known[site].batched else node.name.partition("#")[0])
    assert len({node.name for node in found}) == len(found)


@pytest.mark.parametrize("name", ALL)
def test_sites_of_graph_and_network_are_the_same(name):
    assert graph_sites(clean(name)) == sites(network(name), batch(name))


def test_further_runs_of_a_quantizer_are_numbered():
    calls = {"relu.act_quant", "relu.act_quant#1", "again.weight_quant", "again.weight_quant#1"}
    assert calls | {"start.act_quant", "first.weight_quant"} == {node.name for node in quant_nodes(clean("twice"))}
    assert {"conv.weight_quant", "conv.weight_quant#1"} < {node.name for node in quant_nodes(clean("tied"))}


def test_layers_that_share_a_quantizer_have_one_node_each_under_their_own_names():
    named = {node.name: metadata(node)["hwfault.site"] for node in quant_nodes(clean("shared"))}
    assert {"4.weight_quant", "6.weight_quant"} < named.keys()
    assert all(name == site for name, site in named.items())


@pytest.mark.parametrize("name", ALL)
def test_names_of_inputs_outputs_and_axes(name):
    graph = clean(name).graph
    ((x,), (y,)) = graph.input, graph.output
    assert (x.name, y.name) == ("input", "output")
    axes = [entry.type.tensor_type.shape.dim[0].dim_param for entry in (x, y)]
    assert axes == ["batch", "batch"]
    assert [d.dim_value for d in x.type.tensor_type.shape.dim[1:]] == list(batch(name).shape[1:])
    assert {o.domain: o.version for o in clean(name).opset_import}[""] == 17


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_hwfault_but_metadata_is_in_a_clean_graph(name):
    graph = clean(name)
    assert "hwfault" not in {opset.domain for opset in graph.opset_import}
    assert all(node.domain != "hwfault" for node in graph.graph.node)
    assert set(metadata(graph)) == {"hwfault.sites"}
    made = {n for node in graph.graph.node for n in node.output} | {"input"} | {t.name for t in graph.graph.initializer}
    assert {n for node in graph.graph.node for n in node.input if n} <= made
    assert {info.name for info in graph.graph.value_info} <= made


@pytest.mark.parametrize("name", ALL)
def test_every_attribute_is_written(name):
    for node in clean(name).graph.node:
        if node.op_type == "Quant":
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            assert set(given) == {"signed", "narrow", "rounding_mode"}
            assert given["rounding_mode"] == b"ROUND"


def test_narrow_is_the_networks():
    narrow = {node.name: [a.i for a in node.attribute if a.name == "narrow"] for node in quant_nodes(clean("formats"))}
    assert narrow["0.act_quant"] == narrow["1.weight_quant"] == [1]
    assert narrow["2.act_quant"] == narrow["4.weight_quant"] == narrow["5.act_quant"] == [0]


@pytest.mark.every(2)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["digits_cnn", "residual", "per_channel", "shared"])
def test_the_network_is_left_as_it_was(name, training):
    model = fresh(name).train(training)
    next(model.children()).train(not training)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before, state = snapshot(model), torch.random.get_rng_state()
    export(model, batch(name), plan=plan(name))
    assert snapshot(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert next(model.parameters()).grad is not None


def test_a_network_in_training_mode_is_exported_for_evaluation():
    model = fresh("convolutions")
    model = Chain(*model[:2], nn.Dropout(0.5), nn.BatchNorm2d(4), *model[2:]).eval()
    expected = by_pytorch(model, batch("convolutions"))
    assert_same(by_onnxruntime(export(model.train(), batch("convolutions")), batch("convolutions")), expected)
    assert model.training
    assert model[3].training


def test_the_example_may_be_one_sample_and_may_track_gradients():
    graph = export(fresh("biased"), batch("biased", 1).requires_grad_())
    x = batch("biased", 7)
    assert_same(by_onnxruntime(graph, x), by_pytorch(network("biased"), x))


@pytest.mark.parametrize("name", ["digits_cnn", "twice"])
def test_a_second_export_is_the_same(name):
    assert export(network(name), batch(name)).SerializeToString() == clean(name).SerializeToString()


def test_wrapped_networks():
    model = fresh("biased")
    for wrapped in (torch.compile(model, backend="eager"), nn.DataParallel(model)):
        assert [n.name for n in quant_nodes(export(wrapped, batch("biased")))] == [
            n.name for n in quant_nodes(clean("biased"))
        ]


def test_a_network_that_answers_with_a_quant_tensor():
    model = nn.Sequential(signed(), nn.Flatten(), qnn.QuantLinear(72, 5, bias=False, **WEIGHTS), signed(6, largest=8.0))
    graph = export(model.eval(), batch("biased"))
    assert_same(by_onnxruntime(graph, batch("biased")), by_pytorch(model, batch("biased")))
    assert quant_nodes(graph)[-1].output[0] == "output"


def test_a_quantizer_that_never_runs_is_not_in_the_graph():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.other = signed(5), signed(3)

        def forward(self, x):
            return self.act(x).value

    model = Idle().eval()
    assert [node.name for node in quant_nodes(export(model, batch("biased")))] == ["act.act_quant"]
    both = resolve(sites(model), [BitFlips(probability=0.1)])
    with pytest.raises(PlanError, match=r"strikes the site 'other.act_quant', which the graph does not have"):
        export(model, batch("biased"), plan=both)


def test_quantizers_of_a_quantizer_without_a_layer_between():
    model = Chain(signed(6), signed(4), qnn.QuantReLU(**ACTS), nn.Flatten()).eval()
    graph = export(model, batch("biased"))
    assert [node.name for node in quant_nodes(graph)] == ["0.act_quant", "1.act_quant", "2.act_quant"]
    assert_same(by_onnxruntime(graph, batch("biased")), by_pytorch(model, batch("biased")))


def test_one_quantizer_that_reads_the_same_tensor_twice():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = signed(5)

        def forward(self, x):
            return self.act(x).value + 2 * self.act(x).value

    graph = export(Again().eval(), batch("biased"))
    assert [node.name for node in quant_nodes(graph)] == ["act.act_quant", "act.act_quant#1"]


@pytest.mark.every(2)
@pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")
@pytest.mark.parametrize("name", float_networks.NETWORKS)
def test_networks_with_float_scales(name):
    """Their values may differ in the last place, their sites may not."""
    model = float_networks.build(name)
    x = float_networks.batch(5)
    graph = export(model, x)
    assert graph_sites(graph) == sites(model, x)
    np.testing.assert_allclose(by_onnxruntime(graph, x), by_pytorch(model, x), rtol=1e-5, atol=1e-6)
    tidy = tidied(graph, 5)
    np.testing.assert_allclose(by_qonnx(tidy, x), by_pytorch(model, x), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")
def test_a_zero_point_that_is_not_0():
    model = Chain(
        qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat, bit_width=6, return_quant_tensor=True), nn.Flatten()
    )
    for seed in range(2):
        model.train()(batch("biased", seed=seed))
    model.eval()
    graph = export(model, batch("biased"))
    (node,) = quant_nodes(graph)
    zero_point = next(onnx.numpy_helper.to_array(t) for t in graph.graph.initializer if t.name == node.input[2])
    assert zero_point != 0
    assert_same(by_onnxruntime(graph, batch("biased")), by_pytorch(model, batch("biased")))


def test_with_a_plan_the_graph_carries_it():
    graph = export(network("residual"), batch("residual"), plan=plan("residual"))
    assert plan_of(graph) == plan("residual")


def test_weights_stay_in_the_graph_as_they_are():
    model = network("biased")
    held = {t.name: onnx.numpy_helper.to_array(t) for t in clean("biased").graph.initializer}
    for node in quant_nodes(clean("biased")):
        if node.name == "1.weight_quant":
            np.testing.assert_array_equal(held[node.input[0]], model[1].weight.detach().numpy())


def test_without_a_word_the_arithmetic_is_no_integers():
    graph = export(network("biased"), batch("biased"))
    assert not is_integer(graph)
    assert all(INTEGERS not in metadata(node) and node.op_type != "Affine" for node in graph.graph.node)
