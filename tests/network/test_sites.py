import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8WeightPerTensorFloat
from torch import nn

from hwfault.injection.site_hook import attached
from hwfault.network.sites import sites
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.snapshot import snapshot

EXPECTED = {
    "cnn": [
        ("0.act_quant", "activation", 8, True, "QuantIdentity", (2, 6, 6)),
        ("1.weight_quant", "weight", 4, True, "QuantConv2d", (4, 2, 3, 3)),
        ("3.act_quant", "activation", 4, False, "QuantReLU", (4, 4, 4)),
        ("5.weight_quant", "weight", 3, True, "QuantLinear", (5, 64)),
    ],
    "biased": [
        ("0.act_quant", "activation", 8, True, "QuantIdentity", (2, 6, 6)),
        ("1.weight_quant", "weight", 4, True, "QuantConv2d", (4, 2, 3, 3)),
        ("1.bias_quant", "bias", 16, True, "QuantConv2d", (4,)),
        ("2.act_quant", "activation", 3, False, "QuantReLU", (4, 4, 4)),
        ("4.weight_quant", "weight", 4, True, "QuantLinear", (5, 64)),
        ("4.bias_quant", "bias", 8, True, "QuantLinear", (5,)),
    ],
    "per_channel": [
        ("0.act_quant", "activation", 8, True, "QuantIdentity", (2, 6, 6)),
        ("1.weight_quant", "weight", 4, True, "QuantConv2d", (4, 2, 3, 3)),
        ("1.bias_quant", "bias", 16, True, "QuantConv2d", (4,)),
        ("2.act_quant", "activation", 4, False, "QuantReLU", (4, 4, 4)),
        ("3.weight_quant", "weight", 4, True, "QuantConvTranspose2d", (4, 3, 2, 2)),
        ("5.weight_quant", "weight", 4, True, "QuantLinear", (5, 75)),
    ],
    "mlp": [
        ("1.input_quant", "input", 6, True, "QuantLinear", (72,)),
        ("1.weight_quant", "weight", 4, True, "QuantLinear", (8, 72)),
        ("2.input_quant", "input", 6, True, "QuantLinear", (8,)),
        ("2.weight_quant", "weight", 4, True, "QuantLinear", (8, 8)),
        ("3.weight_quant", "weight", 4, True, "QuantLinear", (5, 8)),
    ],
    "binary": [
        ("0.act_quant", "activation", 8, True, "QuantIdentity", (2, 6, 6)),
        ("1.weight_quant", "weight", 1, True, "QuantConv2d", (4, 2, 3, 3)),
        ("2.act_quant", "activation", 1, True, "QuantIdentity", (4, 4, 4)),
        ("4.weight_quant", "weight", 1, True, "QuantLinear", (8, 64)),
        ("5.act_quant", "activation", 4, False, "QuantReLU", (8,)),
        ("6.weight_quant", "weight", 2, True, "QuantLinear", (5, 8)),
    ],
    "shared": [
        ("1.weight_quant", "weight", 4, True, "QuantLinear", (8, 72)),
        ("2.weight_quant", "weight", 4, True, "QuantLinear", (8, 8)),
        ("3.act_quant", "activation", 4, False, "QuantReLU", (8,)),
        ("4.weight_quant", "weight", 4, True, "QuantLinear", (8, 8)),
    ],
    "twice": [
        ("first.weight_quant", "weight", 4, True, "QuantLinear", (8, 72)),
        ("relu.act_quant", "activation", 4, False, "QuantReLU", (8,)),
        ("relu.act_quant#1", "activation", 4, False, "QuantReLU", (8,)),
        ("again.weight_quant", "weight", 4, True, "QuantLinear", (8, 8)),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_site_in_the_order_of_modules(name):
    listed = [site for site in sites(build(name), batch()) if site.kind != "accumulator"]
    found = [(s.name, s.kind, s.bit_width, s.signed, s.layer, s.shape) for s in listed]
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_without_an_example_only_the_activations_shapes_are_unknown(name):
    model = build(name)
    known = [s for s in sites(model, batch()) if s.kind != "accumulator" and "#" not in s.name]
    unknown = sites(model)
    assert [s.model_copy(update={"shape": None, "runs": None}) for s in known] == [
        s.model_copy(update={"shape": None}) for s in unknown
    ]
    for one, other in zip(known, unknown, strict=True):
        assert other.shape == (None if one.batched else one.shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_listing_leaves_the_model_as_it_was(name):
    model = build(name).train()
    model[0].eval() if isinstance(model, nn.Sequential) else None
    before = snapshot(model)
    sites(model, batch())
    assert snapshot(model) == before
    assert not attached(model)


def test_an_example_that_does_not_fit_leaves_the_model_as_it_was():
    model = build("cnn").train()
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        sites(model, torch.zeros(1, 3, 6, 6))
    assert snapshot(model) == before


def test_quantizers_that_are_switched_off_are_no_sites():
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=None),
        qnn.QuantLinear(4, 4, bias=True, weight_quant=None),
        qnn.QuantLinear(4, 4, bias=True),
        qnn.QuantReLU(act_quant=None),
        nn.ReLU(),
    )
    assert [site.name for site in sites(model)] == ["2.weight_quant"]
    model[2].weight_quant.disable_quant = True
    assert sites(model) == []


def test_output_quantizers_are_activations():
    from brevitas.quant import Uint8ActPerTensorFloat

    layer = qnn.QuantLinear(4, 4, bias=False, output_quant=Uint8ActPerTensorFloat)
    found = {site.name: (site.kind, site.signed) for site in sites(layer)}
    assert found == {"output_quant": ("activation", False), "weight_quant": ("weight", True)}


def test_bit_widths_that_are_learnt():
    from brevitas.inject.enum import BitWidthImplType

    layer = qnn.QuantReLU(bit_width=5, bit_width_impl_type=BitWidthImplType.PARAMETER)
    assert [site.bit_width for site in sites(layer)] == [5]


def test_sites_of_a_model_inside_wrappers():
    model = build("cnn")
    plain = sites(model)
    assert sites(nn.DataParallel(model)) == plain
    assert sites(torch.compile(model, backend="eager")) == plain
    assert sites(torch.compile(nn.DataParallel(model), backend="eager")) == plain
    assert [s.name for s in sites(nn.ModuleDict({"inner": model}))] == [f"inner.{s.name}" for s in plain]


def test_a_quantizer_used_by_two_layers_makes_a_site_of_each_memory():
    one = qnn.QuantLinear(4, 4, bias=False, weight_quant=Int8WeightPerTensorFloat)
    other = qnn.QuantLinear(4, 4, bias=False, weight_quant=one.weight_quant)
    assert [site.name for site in sites(nn.Sequential(one, other))] == ["0.weight_quant", "1.weight_quant"]
    other.weight = one.weight
    assert [site.name for site in sites(nn.Sequential(one, other))] == ["0.weight_quant"]
