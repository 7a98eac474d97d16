"""Brevitas' QCDQ export of a network against its QONNX export: the same sites and faults, in ONNX' own integers."""

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.quant import Int8WeightPerChannelFloat, Int32Bias, Uint8ActPerTensorFloat
from torch import nn

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve

KINDS = ("weight", "bias", "activation", "accumulator")


def network(weight_bits):
    torch.manual_seed(weight_bits)
    quantized = {"weight_bit_width": weight_bits, "bias": True, "bias_quant": Int32Bias}
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(1, 4, 3, weight_quant=Int8WeightPerChannelFloat, **quantized),
        qnn.QuantReLU(bit_width=4, act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(144, 5, **quantized),
    )


@pytest.fixture(scope="module", params=[4, 8])
def exports(request, tmp_path_factory):
    """A batch, the QCDQ export and the QONNX export."""
    folder = tmp_path_factory.mktemp("qcdq")
    x = torch.randn(3, 1, 8, 8)
    trained = network(request.param)
    trained(x)  # calibrates
    trained.eval()
    axes = {"x": {0: "batch"}, "y": {0: "batch"}}
    named = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes, "dynamo": False, "opset_version": 17}
    graphs = []
    for name, export in (("qcdq", export_onnx_qcdq), ("qonnx", export_qonnx)):
        path = folder / f"{name}.onnx"
        export(trained, args=x, export_path=str(path), **named)
        graphs.append(onnx.load(path))
    return x.numpy(), *graphs


@pytest.mark.slow
def test_sites_are_those_of_qonnx(exports):
    _, qcdq, qonnx = exports
    found, expected = sites(qcdq), sites(qonnx)
    assert len(found) == 8
    assert not found.obstacles
    layers = {site.name: site.layer for site in expected}  # a quantizer is another op
    assert [site.model_copy(update={"layer": layers[site.name]}) for site in found] == list(expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_faults_are_those_of_qonnx(exports, kind):
    x, *graphs = exports
    faults = [BitFlips(probability=0.02, sites={"kind": kind})]
    outputs = []
    for graph in graphs:
        struck = insert_faults(graph, resolve(sites(graph), faults))
        assert strip_faults(struck) == graph
        outputs.append(run(session(struck, graph_optimization="none"), x, seed=4)[0])
    np.testing.assert_array_equal(*outputs)
    assert not np.array_equal(outputs[0], run(session(graphs[0]), x)[0])
