"""Weights whose integers Brevitas' graph does not compute are written as the network's own quantizer makes them."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8AccumulatorAwareWeightQuant, Int8AccumulatorAwareZeroCenterWeightQuant
from onnx import numpy_helper
from torch import nn

from hwfault.errors import GraphError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.injection.attach import inject
from hwfault.laws.models import bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from tests.helpers.graph.networks import WEIGHTS, Chain, batch, signed
from tests.helpers.graph.running import by_onnxruntime, by_pytorch

X = batch("biased")
GRID = (16 * X).round() / 16  # where weights are on a grid of powers of two, every float32 sum is exact in any order
QUANTIZERS = {
    "A2Q": {"weight_quant": Int8AccumulatorAwareWeightQuant, "weight_accumulator_bit_width": 16},
    "A2Q+": {"weight_quant": Int8AccumulatorAwareZeroCenterWeightQuant, "weight_accumulator_bit_width": 16},
    **{
        rounding: {**WEIGHTS, "weight_float_to_int_impl_type": rounding}
        for rounding in ("FLOOR", "CEIL", "ROUND_TO_ZERO")
    },
}


def network(name):
    torch.manual_seed(4)
    conv = qnn.QuantConv2d(2, 4, 3, bias=False, **QUANTIZERS[name])
    head = qnn.QuantLinear(64, 5, bias=False, **QUANTIZERS[name])
    with torch.no_grad():
        head.weight.mul_(3)  # so that not all are rounded to 0
    model = Chain(signed(), conv, signed(), nn.Flatten(), head)
    model(X)
    return model.eval()


@torch.no_grad()
def weights_by_brevitas(model):
    """The quantized weights of a forward, by the layers' places."""
    found = {}
    for place in (1, 4):
        model[place].weight_quant.register_forward_hook(lambda _m, _a, out, at=place: found.update({at: out}))
    model(X)
    return found


@pytest.mark.every(3)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_integers_and_values_are_those_of_brevitas(name):
    graph, weights = export(network(name), X), weights_by_brevitas(network(name))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for place in (1, 4):
        weight = weights[place]
        expected, codes = weight.value.numpy(), weight.int(float_datatype=True).numpy()
        assert codes.any()
        assert (codes == np.rint(codes)).all()
        np.testing.assert_array_equal(held[f"{place}.weight"], expected)
        node = next(node for node in graph.graph.node if node.name == f"{place}.weight_quant")
        scale, zero = (held.get(read) for read in node.input[1:3])
        if scale is not None and zero is not None:
            np.testing.assert_array_equal(np.rint(expected / scale + zero), codes)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_clean_and_faulted_outputs_are_those_of_pytorch(name):
    model = network(name)
    plan = resolve(sites(model, X), bit_errors(0.02))
    clean = export(model, GRID)
    faulted = insert_faults(clean, plan)
    expected = {site.name: site.words for site in sites(model, X) if not site.batched}
    assert {site.name: site.words for site in graph_sites(clean) if not site.batched} == expected
    # scales that are learned are no powers of two, so that engines add the same products up to rounding
    same = np.testing.assert_array_equal if name not in ("A2Q", "A2Q+") else close
    same(by_onnxruntime(clean, GRID), by_pytorch(model, GRID))
    for seed in range(3):
        with inject(model, plan, seed=seed):
            answers = by_pytorch(model, GRID)
        same(by_onnxruntime(faulted, GRID, seed=seed), answers)


def close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


def test_a_layer_that_runs_twice_keeps_one_parameter():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = signed()
            self.layer = qnn.QuantLinear(72, 72, bias=False, **QUANTIZERS["FLOOR"])

        def forward(self, x):
            return self.layer(self.act(self.layer(self.act(x.flatten(1)))))

    torch.manual_seed(5)
    model = Twice().eval()
    graph = export(model, GRID)
    assert sum("weight" in tensor.name and tensor.dims[:] == [72, 72] for tensor in graph.graph.initializer) == 1
    plan = resolve(sites(model, GRID), bit_errors(0.02))
    with inject(model, plan, seed=1):
        answers = by_pytorch(model, GRID)
    np.testing.assert_array_equal(by_onnxruntime(insert_faults(graph, plan), GRID, seed=1), answers)


def test_a_parameter_that_others_read_stays_for_them():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = signed()
            self.layer = qnn.QuantLinear(72, 5, bias=False, **QUANTIZERS["FLOOR"])

        def forward(self, x):
            return self.layer(self.act(x.flatten(1))) + self.layer.weight.mean()

    torch.manual_seed(6)
    model = Both().eval()
    names = {tensor.name for tensor in export(model, GRID).graph.initializer}
    assert {"layer.weight", "layer.weight_quant_quantized"} <= names
    close(by_onnxruntime(export(model, GRID), GRID), by_pytorch(model, GRID))


def test_replay_compares_with_the_network_and_refuses_another():
    model = network("A2Q+")
    graph = export(model, X, plan=resolve(sites(model, X), bit_errors(0.02)))
    report = replay(model, graph, [X], seeds=[1])
    assert all(site.faults_differ == 0 for site in report.sites)
    with torch.no_grad():
        model[1].weight.mul_(0.5)
    with pytest.raises(GraphError, match=r"other values of the site '1\.weight_quant' than the network has now"):
        replay(model, graph, [X], seeds=[1])
