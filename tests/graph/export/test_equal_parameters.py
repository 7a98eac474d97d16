"""Parameters that are equal when a network is exported, as zero biases are before training, stay memories apart."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8BiasPerTensorFloatInternalScaling, Int16Bias
from torch import nn

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.injection.attach import inject
from hwfault.laws.models import bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.networks import WEIGHTS, Chain, batch, signed
from tests.helpers.graph.running import by_onnxruntime, by_pytorch

X = batch("biased")[:, :, 0, :]
BIASES = {"of their inputs' scale": Int16Bias, "of their own scale": Int8BiasPerTensorFloatInternalScaling}


def linear(features, bias_quant=Int16Bias):
    return qnn.QuantLinear(features, features, bias=True, bias_quant=bias_quant, return_quant_tensor=True, **WEIGHTS)


def equal_biases(bias_quant):
    layers = [linear(X.shape[-1], bias_quant) for _ in range(3)]
    with torch.no_grad():
        for layer in layers:
            layer.bias.zero_()
    return Chain(signed(), layers[0], signed(), layers[1], signed(), layers[2], nn.Flatten())


def equal_weights():
    layers = [linear(X.shape[-1]) for _ in range(2)]
    with torch.no_grad():
        layers[1].weight.copy_(layers[0].weight)
        layers[1].bias.copy_(layers[0].bias)
    return Chain(signed(), layers[0], signed(), layers[1], nn.Flatten())


@pytest.mark.every(2)
@pytest.mark.parametrize("equal", ["biases of their inputs' scale", "biases of their own scale", "weights"])
def test_each_is_a_site_with_faults_of_its_own(equal):
    torch.manual_seed(3)
    network = equal_weights() if equal == "weights" else equal_biases(BIASES[equal.partition(" ")[2]])
    network(X)
    network.eval()
    plan = resolve(sites(network, X), bit_errors(0.05))
    clean = export(network, X)

    expected = {site.name: site.words for site in sites(network, X) if not site.batched}
    assert {site.name: site.words for site in graph_sites(clean) if not site.batched} == expected
    faulted = insert_faults(clean, plan)
    for seed in range(3):
        with inject(network, plan, seed=seed):
            answers = by_pytorch(network, X)
        np.testing.assert_array_equal(by_onnxruntime(faulted, X, seed=seed), answers)
