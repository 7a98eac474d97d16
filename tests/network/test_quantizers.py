"""Every integer quantizer that Brevitas offers, in a layer of its own, against the reference."""

import functools

import brevitas.nn as qnn
import brevitas.quant as bq
import pytest
import torch
from torch import nn

from hwfault.errors import HwfaultError, PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.injection.oracle import Seen, faulty, same_bits

FAULTS = [BitFlips(p01=0.1, p10=0.03), WordFaults(probability=0.05)]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator:UserWarning"),
]

WEIGHTS = [
    "Int4WeightPerTensorFloatDecoupled",
    "Int8WeightNormL2PerChannelFixedPoint",
    "Int8WeightPerChannelFixedPointMSE",
    "Int8WeightPerChannelFloatDecoupled",
    "Int8WeightPerTensorFixedPointMSE",
    "ShiftedUint8WeightPerChannelFloat",
    "ShiftedUint8WeightPerTensorFloat",
    "SignedBinaryWeightPerTensorConst",
    "SignedTernaryWeightPerTensorConst",
]
ACTIVATIONS = [
    "Int8ActPerTensorFixedPointMSE",
    "Int8ActPerTensorFloatBatchQuant2d",
    "Int8ActPerTensorFloatMSE",
    "ShiftedUint8ActPerTensorFixedPoint",
    "ShiftedUint8ActPerTensorFloat",
    "SignedBinaryActPerTensorConst",
    "SignedTernaryActPerTensorConst",
    "Uint8ActPerTensorFixedPoint",
]
BIASES = ["Int8Bias", "Int16Bias", "Int24Bias", "Int32Bias", "Int8BiasPerTensorFixedPointInternalScaling"]


def data(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 0.8


def weight_layer(name, **rest):
    return qnn.QuantLinear(32, 16, bias=False, weight_quant=getattr(bq, name), **rest), data(4, 32)


def activation_layer(name):
    return qnn.QuantIdentity(act_quant=getattr(bq, name)), data(4, 8, 3, 3)


def bias_layer(name):
    front = qnn.QuantIdentity(return_quant_tensor=True)
    return nn.Sequential(front, qnn.QuantLinear(32, 16, bias=True, bias_quant=getattr(bq, name))), data(4, 32)


def trained(make, *args, **rest):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = make(*args, **rest)
    model.train()
    with torch.no_grad():
        model(x)
    return model.eval(), x


def check(model, x):
    plan, seen = resolve(sites(model, x), FAULTS), Seen()
    with inject(model, plan, seed=5, observe=seen), torch.no_grad():
        model(x)
    assert {call.name for call in seen} == set(plan.names)
    for call in seen:
        assert same_bits(call.after, faulty(plan, call, 5, range(len(x)))), call.name
    return seen, plan


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((weight_layer, name) for name in WEIGHTS),
        *((activation_layer, name) for name in ACTIVATIONS),
        *((bias_layer, name) for name in BIASES),
    ],
)
def test_values(make, name):
    seen, _ = check(*trained(make, name))
    assert any((call.before != call.after).any() for call in seen)


def layers_of_width(bits, **quantizer):
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=bits + (bits == 1), **quantizer),
        qnn.QuantReLU(bit_width=bits),
    ), data(4, 8, 3, 3)


@pytest.mark.every(2)
@pytest.mark.parametrize("bits", [1, 2, 3, 5, 7, 8, 12, 16, 20, 21, 22])
def test_widths_of_activations(bits):
    """Unsigned words of 22 bits and signed ones of 23 are the widest whose float32 values always tell their codes."""
    _, plan = check(*trained(functools.partial(layers_of_width, bits)))
    assert plan.at("1.act_quant").site.bit_width == bits


def test_the_widest_signed_activation_that_tells_its_codes():
    _, plan = check(*trained(lambda: (qnn.QuantIdentity(bit_width=23), data(4, 8, 3, 3))))
    assert plan.at("act_quant").site.bit_width == 23


@pytest.mark.parametrize("bits", [24, 31, 32])
def test_widths_whose_integers_float32_does_not_tell_apart(bits):
    with pytest.raises(PlanError, match=rf"several of the integers that are stored in its {bits} bit words"):
        check(*trained(functools.partial(layers_of_width, bits)))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8, 16])
def test_widths_of_weights(bits):
    _, plan = check(*trained(weight_layer, "Int8WeightPerChannelFloat", weight_bit_width=bits))
    assert plan.at("weight_quant").site.bit_width == bits


def test_a_scale_for_each_channel_of_an_activation():
    quantizer = bq.Int8ActPerTensorFloat.let(
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, 8, 1, 1),
        scaling_stats_permute_dims=(1, 0, 2, 3),
    )
    seen, _ = check(*trained(lambda: (qnn.QuantIdentity(act_quant=quantizer), data(4, 8, 3, 3))))
    assert seen[0].scale.numel() == 8


def test_other_layers():
    def layers():
        return nn.Sequential(
            qnn.QuantEmbedding(10, 8, weight_bit_width=4),
            qnn.QuantConv1d(6, 4, 3, weight_bit_width=4, bias=False),
            qnn.QuantHardTanh(min_val=-1.0, max_val=1.0, bit_width=4),
            qnn.QuantConvTranspose1d(4, 2, 3, weight_bit_width=4, bias=False),
            qnn.QuantSigmoid(bit_width=5),
            nn.Flatten(),
            qnn.QuantScaleBias(16, bias=True, runtime_shape=(1, -1)),
        ), torch.arange(24).reshape(4, 6) % 10

    seen, _ = check(*trained(layers))
    assert len(seen) == 6


def test_attention_finds_and_strikes_every_site():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = qnn.QuantMultiheadAttention(8, 2, batch_first=False, packed_in_proj=False)

        def forward(self, x):
            return self.inner(x, x, x)[0]

    model, x = trained(lambda: (Attention(), data(5, 2, 8)))
    plan, seen = resolve(sites(model, x, batch_axis=1), FAULTS), Seen()
    with inject(model, plan, seed=5, observe=seen, batch_axis=1), torch.no_grad():
        model(x)
    assert {call.name for call in seen} == set(plan.names)


@pytest.mark.parametrize("layer", [qnn.QuantLSTM, qnn.QuantRNN])
def test_recurrent_layers_have_no_site_that_is_never_struck(layer):
    """Brevitas runs the quantizers inside a recurrent cell around their modules, where no hook sees them."""
    model = layer(4, 3, batch_first=True).eval()
    try:
        plan, seen = resolve(sites(model), FAULTS), Seen()
        with inject(model, plan, seed=5, observe=seen), torch.no_grad():
            model(data(2, 5, 4))
    except HwfaultError:
        return
    assert {call.name for call in seen} == set(plan.names)


def test_a_model_without_any_quantizer():
    model = nn.Linear(3, 3)
    assert sites(model) == []
    with inject(model, [], seed=1):
        model(data(2, 3))
    with pytest.raises(HwfaultError, match=r"no site matches the selector '\*': known are: none"):
        inject(model, FAULTS, seed=1)
    with pytest.raises(PlanError, match="which the network does not have"):
        inject(model, resolve(sites(qnn.QuantIdentity()), FAULTS), seed=1)
