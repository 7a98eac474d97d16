"""Every quantizer that Brevitas ships, fused and not: values, statistics and gradients, in training and evaluation."""

import pytest
import torch
from brevitas import nn as qnn
from brevitas.core.quant.int_base import IntQuant
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from brevitas.quant.mx_quant_ocp import MXInt8Act, MXInt8Weight, ShiftedMXUInt8Weight
from torch import nn

import hwfault as hf
from hwfault.fusion.parts import int_quant, quantizers
from tests.helpers.injection.oracle import same_bits
from tests.network.test_every_quantizer import REFUSED, SHIPPED, built

LEFT = {
    "Int4WeightPerTensorFloatDecoupled": "DecoupledRescalingIntQuant",
    "Int8WeightPerChannelFloatDecoupled": "DecoupledRescalingIntQuant",
    "Int8WeightNormL2PerChannelFixedPoint": "DecoupledRescalingIntQuant",
    "Int8WeightNormL2PerChannelPreScaledFixedPoint": "DecoupledRescalingIntQuant",
    "Int8AccumulatorAwareWeightQuant": "Decoupled",
    "Int8AccumulatorAwareZeroCenterWeightQuant": "Decoupled",
    "Int4WeightPerTensorFixedPointDecoupled": "DecoupledRescalingIntQuant",
    "SignedBinaryWeightPerTensorConst": "ClampedBinaryQuant",
    "SignedBinaryActPerTensorConst": "ClampedBinaryQuant",
    "SignedTernaryWeightPerTensorConst": "InplaceTensorClampSte",
    "SignedTernaryActPerTensorConst": None,
}
"""Quantizers that stay Brevitas' own, and a word of the reason; the others are fused."""


def outputs(out):
    return [t for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor)]


def trained(model, x, steps=3):
    """What a few steps of training and an evaluation give: all outputs and the state afterwards; all gradients."""
    found, gradients = [], {}
    for step in range(steps):
        given = x.clone().requires_grad_()
        out = outputs(model.train()(given))
        model.zero_grad()
        by = torch.linspace(-1, 1, out[0].numel()).reshape(out[0].shape)
        (out[0] * by).sum().backward()
        found += [t.detach().clone() for t in out]
        gradients |= {f"{n} {step}": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        gradients[f"x {step}"] = given.grad
    with torch.no_grad():
        found += [t.clone() for t in outputs(model.eval()(x))]
    found += [p.detach().clone() for p in (*model.parameters(), *model.buffers())]
    return found, gradients


def seeded(build):
    torch.manual_seed(0)
    return build()


def hold_scales(model):
    """From now on the scales pass no gradient on."""
    for _, proxy in quantizers(model):
        if isinstance(step := int_quant(proxy), IntQuant):
            step.register_forward_pre_hook(lambda _module, args: (args[0].detach(), *args[1:]))


def check_equal(build, x):
    """Trains a network fused, and another not; returns the reasons of what was left."""
    reasons = _check_equal(build, x, exact=False)
    # gradients of scales are sums in another order, and reach whatever the scales depend on: all others are the same
    assert _check_equal(build, x, exact=True) == reasons
    return reasons


def _check_equal(build, x, exact):
    own, brevitas = (seeded(build) for _ in range(2))
    if exact:
        hold_scales(own)
        hold_scales(brevitas)
    expected, gradients = trained(brevitas, x)
    with hf.fused(own) as block:
        found, own_gradients = trained(own, x)
        reasons = block.left
    for one, other in zip(expected, found, strict=True):
        assert same_bits(one, other) if one.is_floating_point() else torch.equal(one, other)
    assert gradients.keys() == own_gradients.keys()
    for name, one in gradients.items():
        close = 0.0 if exact else 1e-3 * float(one.abs().max())  # Brevitas' sums are in float32, and may cancel out
        assert torch.allclose(own_gradients[name], one, rtol=0.0, atol=close), name
    return reasons


@pytest.mark.every(11)
@pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator:UserWarning")
@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in REFUSED])
def test_every_quantizer(name):
    site, _, x = built(name, SHIPPED[name])
    left = check_equal(lambda: built(name, SHIPPED[name])[1], x)
    why = LEFT.get(name)
    if why is None:
        assert left == {}
    else:
        assert list(left) == [site]
        assert why in left[site]


def groups(quantizer, shape, **options):
    """A layer whose weights have a scale for each group of them."""
    layer = qnn.QuantLinear if len(shape) == 2 else qnn.QuantConv2d
    return lambda: layer(*shape, bias=False, weight_quant=quantizer, **options)


@pytest.mark.parametrize("quantizer", [MXInt8Weight, ShiftedMXUInt8Weight])
def test_groups_of_weights(quantizer):
    x = torch.randn(2, 32, 5, 5, generator=torch.Generator().manual_seed(1))
    assert check_equal(groups(quantizer, (32, 6), weight_group_size=4), x[:, :, 0, 0]) == {}
    assert check_equal(groups(quantizer, (32, 6, 3), weight_group_size=4), x) == {}
    left = check_equal(groups(quantizer, (32, 6), weight_group_size=5), x[:, :, 0, 0])
    assert left == {"weight_quant": "its values do not lie one behind the other in memory"}  # they are padded


@pytest.mark.parametrize("axis", [1, -1])
def test_groups_of_activations(axis):
    x = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert check_equal(lambda: qnn.QuantIdentity(act_quant=MXInt8Act, group_dim=axis, group_size=4), x) == {}


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16, 24])
@pytest.mark.parametrize("quantizer", [Int8WeightPerTensorFloat, Int8WeightPerChannelFloat])
def test_widths_of_weights(bits, quantizer):
    how = {"bias": False, "weight_quant": quantizer, "weight_bit_width": bits}

    def build():
        return nn.Sequential(
            qnn.QuantConv2d(2, 3, 3, **how),
            qnn.QuantConvTranspose2d(3, 4, 3, **how),
            qnn.QuantConv2d(4, 4, 3, groups=4, **how),
            nn.Flatten(),
            qnn.QuantLinear(64, 3, **how),
        )

    assert check_equal(build, torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))) == {}


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_widths_of_activations(bits):
    def build():
        return nn.Sequential(
            qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=max(bits, 2)),
            qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=bits),
            qnn.QuantSigmoid(bit_width=bits),
        )

    assert check_equal(build, torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(1))) == {}


@pytest.mark.parametrize("layer", [qnn.QuantIdentity, qnn.QuantReLU])
def test_channels_of_activations(layer):
    kind = Uint8ActPerTensorFloat if layer is qnn.QuantReLU else Int8ActPerTensorFloat
    quantizer = kind.let(scaling_per_output_channel=True, scaling_stats_permute_dims=(1, 0, 2, 3))

    def build():
        return layer(act_quant=quantizer, bit_width=4, per_channel_broadcastable_shape=(1, 5, 1, 1))

    assert check_equal(build, torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(1))) == {}


def test_an_empty_batch():
    torch.manual_seed(0)
    net = nn.Sequential(qnn.QuantIdentity(bit_width=4), qnn.QuantLinear(6, 5, bias=False, weight_bit_width=4)).eval()
    net(torch.randn(3, 6))
    net.eval()
    with hf.fused(net) as block:
        x = torch.zeros(0, 6, requires_grad=True)
        out = net(x)
        out.sum().backward()
        assert out.shape == (0, 5)
        assert x.grad.shape == (0, 6)
        assert block.left == {}
