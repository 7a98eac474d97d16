"""Which networks compute the same bits in every engine."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import hwfault as hf
from hwfault.campaigns.engines.engine import Trial
from hwfault.campaigns.engines.onnxruntime_engine import OnnxruntimeEngine
from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.campaigns.exactness import why_not_exact
from hwfault.errors import PlanError
from hwfault.laws.models import MapFaults
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.protection_scheme import Protection
from hwfault.train import build
from hwfault.train.data import digits


def digits_graph(**rest):
    torch.manual_seed(0)
    network = build("digits_cnn").eval()
    x = digits().test.inputs(torch.arange(8))
    network(x)
    return network, hf.export(network, x, **rest)


def test_the_digits_are_exact():
    _, graph = digits_graph()
    assert why_not_exact(graph) is None
    _, graph = digits_graph(arithmetic="integer")
    assert why_not_exact(graph) is None


def test_normalization_rounds():
    network = build("tiny_cnn").eval()
    x = torch.zeros(1, 3, 32, 32)
    network(x)
    why = why_not_exact(hf.export(network, x))
    assert "round" in why or "power of two" in why


def scales_of(graph):
    quantizers = [node for node in graph.graph.node if node.op_type == "Quant"]
    return quantizers, {tensor.name: tensor for tensor in graph.graph.initializer}


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_scale_that_is_no_power_of_two(place):
    _, graph = digits_graph()
    quantizers, constants = scales_of(graph)
    tensor = constants[quantizers[place].input[1]]
    changed = numpy_helper.to_array(tensor) * np.float32(0.75)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    assert "its scale is no power of two" in why_not_exact(graph)


def test_a_factor_that_is_no_power_of_two():
    _, graph = digits_graph()
    (node,) = [node for node in graph.graph.node if node.op_type == "Mul"]
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(0.3), "odd"))
    node.input[1] = "odd"
    assert "it multiplies by no power of two" in why_not_exact(graph)


def test_a_bias_that_is_a_float():
    _, graph = digits_graph()
    node = next(node for node in graph.graph.node if node.op_type == "Conv")
    graph.graph.initializer.append(numpy_helper.from_array(np.full(16, 0.1, np.float32), "bias"))
    node.input.append("bias")
    assert "it adds 'bias', which lies on no known grid" in why_not_exact(graph)


def test_an_op_that_is_not_known():
    _, graph = digits_graph()
    last = graph.graph.output[0].name
    graph.graph.node.append(helper.make_node("Softmax", [last], ["more"]))
    graph.graph.output[0].name = "more"
    onnx.checker.check_model(graph)
    assert why_not_exact(graph) == "Softmax: Softmax may round"


@pytest.mark.every(2)
@pytest.mark.parametrize("batch", [5, 8])
def test_exact_networks_agree_in_both_engines(batch):
    network, graph = digits_graph()
    split = digits().test
    order = torch.arange(8)
    one = TorchEngine(network, split, order, 3)
    other = OnnxruntimeEngine(graph, split.inputs(order).numpy(), batch, exact=True)
    assert np.array_equal(one.golden(), other.golden())
    faults = hf.BitFlips(probability=0.02)
    plan = hf.resolve(one.sites, faults)
    assert plan.digest == hf.resolve(other.sites, faults).digest
    trials = [Trial(plan, seed) for seed in range(4)]
    whole = list(one.run(trials))  # one after the other: each injects into the network until it is done
    for mine, its in zip(whole, other.run(trials), strict=True):
        assert np.array_equal(mine.outputs, its.outputs)
    some = np.array([6, 1])
    for mine, its, of_all in zip(one.run(trials, some), other.run(trials, some), whole, strict=True):
        assert np.array_equal(mine.outputs, its.outputs)
        assert np.array_equal(mine.outputs, of_all.outputs[some])


def test_memories_that_tell_what_they_detect_do_not_run_as_graphs(tmp_path):
    _, graph = digits_graph()
    engine = OnnxruntimeEngine(graph, digits().test.inputs(torch.arange(8)).numpy(), 8, exact=True)
    FaultMap.from_cells(40, 9, [3, 7], [1, 8], [Kind.FLIP, Kind.FLIP]).save(tmp_path / "m.safetensors")
    protection = Protection(kind="parity", data_bits=8, on_detected="due")
    faults = MapFaults(file=str(tmp_path / "m.safetensors"), protection=protection, sites="features.0.weight_quant")
    plan = hf.resolve(engine.sites, faults)
    with pytest.raises(PlanError, match="detects errors that count as DUE"):
        next(engine.run([Trial(plan, 0)]))
