"""Replays whose arithmetic differs: told apart from faults that differ, and counted."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int24Bias, Int32Bias, Uint8ActPerTensorFloat
from onnx import helper, numpy_helper
from torch import nn

from hwfault.codes import CodeFormat, encode
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from tests.graph.edit.test_faults import watched
from tests.helpers.graph.networks import ACTS, FAULTS, WEIGHTS, Chain, batch, plan, signed
from tests.helpers.graph.running import copied, faulted
from tests.proof.test_replay import PARTS, SEEDS, batches, by_name, replayed
from tests.slowly import slow


def offset(graph, tensor, amount):
    """What reads a tensor of the graph reads it times (1 + amount)."""
    readers = [node for node in graph.graph.node if tensor in node.input]
    for node in readers:
        node.input[:] = ["shifted" if name == tensor else name for name in node.input]
    at = list(graph.graph.node).index(readers[0])
    graph.graph.node.insert(at, helper.make_node("Mul", [tensor, "factor"], ["shifted"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1 + amount, np.float32), "factor"))
    return graph


def before_the_relu(graph, op="Conv"):
    return next(node.output[0] for node in graph.graph.node if node.op_type == op)


def test_arithmetic_that_differs_is_told_apart():
    """A convolution that is a little off moves codes of later sites, while every fault stays what it should be."""
    graph = copied(faulted("digits_cnn"))
    report = replayed("digits_cnn", offset(graph, before_the_relu(graph), 0.02))
    assert (report.verdict, report.exit_code) == ("codes differ", 3)
    found = by_name(report)
    assert all(site.faults_differ == 0 for site in report.sites)
    for key in ("input.act_quant", "features.0.weight_quant", "features.2.weight_quant", "classifier.weight_quant"):
        assert found[key].codes_differ == 0
        assert found[key].first is None
    assert found["features.1.act_quant"].codes_differ > 20
    assert report.outputs_differ > 0
    run, place = report.first
    assert place.recorded != place.found
    assert (run.seed, place.site, place.kind, place.call) == (SEEDS[0], "features.1.act_quant", "codes", 0)


def test_codes_that_differ_are_counted():
    """Against a count of one's own, from the graph as it is and the one that is off."""
    name, graph = "digits_cnn", copied(watched("digits_cnn"))
    shifted = offset(copied(graph), before_the_relu(graph), 0.02)
    delivered = copied(shifted)
    del delivered.graph.output[1:]
    report, x = by_name(replayed(name, delivered, seeds=[4])), batch(name, sum(PARTS), 3).numpy()
    names, constants = [info.name for info in graph.graph.output], Constants(graph)
    both = [dict(zip(names, run(session(g), x, seed=4), strict=True)) for g in (graph, shifted)]
    for entry in fault_nodes(graph):
        site = plan(name).at(entry.site).site
        grid = (*(constants.get(i) for i in entry.node.input[1:3]), CodeFormat(site.bit_width, site.signed))
        rows = len(x) if site.batched else 1
        one, other = (encode(tensors[entry.before], *grid).reshape(rows, -1) for tensors in both)
        assert report[entry.site].codes_differ == np.count_nonzero(one != other)
        if (one != other).any():
            sample, word = np.argwhere(one != other)[0]
            place = report[entry.site].first
            assert (place.sample, place.word) == (sample, word)
            assert (place.kind, place.recorded, place.found) == ("codes", one[sample, word], other[sample, word])


def test_logits_that_differ_alone():
    graph = copied(faulted("digits_cnn"))
    last = graph.graph.node[-1]
    last.output[0] = "almost"
    graph.graph.node.append(helper.make_node("Mul", ["almost", "factor"], ["output"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1.5, np.float32), "factor"))
    report = replayed("digits_cnn", graph)
    assert (report.verdict, report.exit_code) == ("outputs differ", 3)
    assert sum(site.codes_differ for site in report.sites) == 0
    assert report.predictions_differ == 0
    assert 0.9 * report.outputs < report.outputs_differ <= report.outputs
    x = torch.cat(batches("digits_cnn")).numpy()
    outputs = [run(session(faulted("digits_cnn")), x, seed=seed)[0] for seed in SEEDS]
    assert report.outputs_max_difference == pytest.approx(max(np.abs(0.5 * out).max() for out in outputs), rel=1e-6)
    assert report.outputs_differ == sum(np.count_nonzero(out) for out in outputs)


def test_predictions_that_differ():
    graph = copied(faulted("digits_cnn"))
    graph.graph.node[-1].output[0] = "almost"
    graph.graph.node.append(helper.make_node("Neg", ["almost"], ["output"]))
    report = replayed("digits_cnn", graph)
    x = torch.cat(batches("digits_cnn")).numpy()
    outputs = [run(session(faulted("digits_cnn")), x, seed=seed)[0] for seed in SEEDS]
    assert report.predictions_differ == sum(np.count_nonzero(o.argmax(1) != (-o).argmax(1)) for o in outputs) > 0


def rounding_network(seed):
    """Float scales of 8 bits and BatchNorm: engines that add in another order meet ties here."""
    acts = {"bit_width": 8, "return_quant_tensor": True}
    weights = {"bias": False, "weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Chain(
            qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, **acts),
            qnn.QuantConv2d(3, 32, 3, padding=1, **weights),
            nn.BatchNorm2d(32),
            qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, **acts),
            qnn.QuantConv2d(32, 32, 3, padding=1, **weights),
            nn.BatchNorm2d(32),
            qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, **acts),
            nn.AvgPool2d(4),
            nn.Flatten(),
            qnn.QuantLinear(128, 10, **weights),
        )
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(16, 3, 8, 8))
        return model.eval(), torch.randn(24, 3, 8, 8)


@pytest.mark.parametrize("seed", [0, slow(2), slow(5)])  # of these some are exact and some are not, on most processors
def test_rounding_is_never_taken_for_a_fault(seed):
    model, x = rounding_network(seed)
    graph = insert_faults(export(model, x), resolve(sites(model), FAULTS))
    report = replay(model, graph, x.split(8), seeds=[seed, seed + 2**63])
    assert report.verdict in ("pass", "outputs differ", "codes differ")
    assert all(site.faults_differ == 0 for site in report.sites)
    differing = report.outputs_differ + sum(site.codes_differ for site in report.sites)
    assert (report.verdict == "pass") == (differing == 0)
    assert sum(site.faults_seen for site in report.sites) > 10_000
    for site in report.sites:
        assert site.codes_differ <= site.words / 50
        assert "weight" not in site.name or site.codes_differ == 0


@pytest.mark.parametrize("bias_quant", [slow(Int24Bias), Int32Bias])
def test_codes_that_float32_does_not_hold_exactly(bias_quant):
    """Faults in high bits make sums of any size; both engines round them alike where they are struck."""
    layers = {"bias": True, "bias_quant": bias_quant, **WEIGHTS}
    model = Chain(signed(), qnn.QuantConv2d(2, 4, 3, **layers), qnn.QuantReLU(**ACTS), nn.Flatten())
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.9, 0.9, generator=torch.Generator().manual_seed(2))
    strong = resolve(sites(model.eval()), [BitFlips(probability=0.2)])
    report = replay(model, export(model, batch("biased"), plan=strong), batches("biased"), seeds=range(10))
    assert report.exit_code == 0
    assert by_name(report)["1.bias_quant"].faults_seen == by_name(report)["1.bias_quant"].words
