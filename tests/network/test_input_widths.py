"""Widths that no site has: of truncations and sums of quantized tensors, which layers add up, and of A2Q's weights.

A truncation is struck in graphs only. (Brevitas' clamping accumulators cannot be built: its own constructor fails.)
"""

import brevitas.nn as qnn
import pytest
import torch
from brevitas.inject.enum import BitWidthImplType
from brevitas.quant import (
    Int8AccumulatorAwareWeightQuant,
    Int8AccumulatorAwareZeroCenterWeightQuant,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    TruncTo8bit,
    Uint8ActPerTensorFloat,
)
from brevitas.quant_tensor import IntQuantTensor

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.errors import HwfaultError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.network import widths
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.torch_ops import held
from tests.helpers.injection.networks import Chain
from tests.helpers.injection.oracle import same_bits
from tests.network.test_widths import CONST, LEARNED, STATEFUL, by_data, by_hand, by_load_state_dict, by_optimizer

SUMS = [BitFlips(probability=0.05, sites=[{"kind": "accumulator"}])]
STOPS = r"the bit width of the inputs of '2\.accumulator' is not that of the example .* magnitude is {}, expected {},"


def batch():
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def truncated(kind=CONST, bits=4, act=Int8ActPerTensorFloat):
    """A mean of 8 bits cut to `bits`, and a layer that adds it up."""
    torch.manual_seed(0)
    trunc = TruncTo8bit.let(bit_width=bits, bit_width_impl_type=kind)
    made = Chain(
        qnn.QuantIdentity(act_quant=act, return_quant_tensor=True),
        qnn.TruncAvgPool2d(2, trunc_quant=trunc, return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 1, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=4),
    )
    made(batch())
    return made.eval()


class Added(torch.nn.Module):
    """A layer on the sum of two quantized tensors, which Brevitas adds up itself, with a bit more."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        options = {"act_quant": Int8ActPerTensorFloat, "bit_width": 5, "bit_width_impl_type": LEARNED}
        self.one = qnn.QuantIdentity(**options, return_quant_tensor=True)
        setattr(self, "2", qnn.QuantConv2d(2, 4, 1, bias=False, weight_quant=Int8WeightPerTensorFloat))

    def forward(self, x):
        y = self.one(x)
        return getattr(self, "2")(y + y)


def planned(model):
    listed = sites(model, batch())
    return resolve(listed, SUMS), listed


def test_a_truncation_is_no_site_and_the_sums_of_what_it_cuts_are_one():
    outputs = []
    for kind in (CONST, STATEFUL, LEARNED):
        model = truncated(kind)
        plan, listed = planned(model)
        assert list(listed.obstacles) == ["1.trunc_quant"]
        assert "cuts integers of another one short" in listed.obstacles["1.trunc_quant"]
        assert (plan.names, plan.at("2.accumulator").site.source) == (("2.accumulator",), None)
        with inject(model, plan, seed=1):
            outputs.append(model(batch()))
        assert not same_bits(outputs[-1], model(batch()))
    assert same_bits(outputs[0], outputs[1])
    assert same_bits(outputs[0], outputs[2])


@pytest.mark.parametrize("move", [by_hand, by_optimizer, by_data, by_load_state_dict], ids=lambda way: way.__name__)
def test_a_truncation_that_moves_stops_the_layer_behind_it(move):
    model, x = truncated(LEARNED), batch()
    with inject(model, planned(model)[0], seed=1) as injection:
        model(x)
        move(model, "1", 2)
        with pytest.raises(HwfaultError, match=STOPS.format(32, "8 to 15")):
            model(x)
        injection.disable("2.accumulator")  # nothing strikes it
        model(x)
        injection.enable("2.accumulator")
        by_hand(model, "1", -3)
        with pytest.raises(HwfaultError, match=STOPS.format(4, "8 to 15")):
            model(x)
        by_hand(model, "1", 1)
        model(x)
    by_hand(model, "1", 1)
    with inject(model, planned(model)[0], seed=1):
        model(x)


def test_unsigned_truncations():
    model, x = truncated(LEARNED, act=Uint8ActPerTensorFloat), batch()
    with inject(model, planned(model)[0], seed=1):
        model(x)
        by_hand(model, "1", 1)
        with pytest.raises(HwfaultError, match=STOPS.format(31, "8 to 15")):
            model(x)


@pytest.mark.parametrize(
    ("signed", "zero_point", "largest"), [(True, 0.0, 8), (True, 3.0, 15), (False, 0.0, 15), (False, 3.0, 15)]
)
def test_the_largest_magnitude_of_inputs(signed, zero_point, largest):
    """With a zero point any integer within the codes may be the one that stands for 0."""
    x = IntQuantTensor(torch.ones(3), torch.tensor(1.0), torch.tensor(zero_point), torch.tensor(4.0), signed, False)
    scale = torch.ones(())
    for bits in range(2, 9):
        inputs = widths.InputWidth("a", bits, 1)
        if bits == largest.bit_length() + 1:
            assert inputs.checked(x, scale) is scale
            continue
        with pytest.raises(
            HwfaultError, match=f"the inputs of 'a' .* magnitude is {largest}, .* a sum has {bits} bits"
        ):
            inputs.checked(x, scale)


def test_a_plan_for_another_truncation():
    plan, x = planned(truncated(bits=4))[0], batch()
    for bits, largest in ((3, 4), (5, 16)):
        model = truncated(bits=bits)
        with inject(model, plan, seed=1), pytest.raises(HwfaultError, match=STOPS.format(largest, "8 to 15")):
            model(x)


def test_sums_of_quantized_tensors():
    model, x = Added().eval(), batch()
    with inject(model, planned(model)[0], seed=1):
        model(x)
        by_hand(model, "one", 1)
        with pytest.raises(HwfaultError, match=STOPS.format(64, "32 to 63")):
            model(x)


def test_integer_arithmetic_is_stopped_too():
    model, x = truncated(LEARNED), batch()
    with inject(model, planned(model)[0], seed=1), integer_arithmetic(model), torch.no_grad():
        model(x)
        by_hand(model, "1", 1)
        with pytest.raises(HwfaultError, match=STOPS.format(16, "8 to 15")):
            model(x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_are_stopped_too():
    """(Dynamo does not get through a truncation of Brevitas'.)"""
    torch.compiler.reset()
    model, x = Added().eval(), batch()
    with inject(model, planned(model)[0], seed=1) as injection, torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, backend="aot_eager")
        injection.first_sample = 0
        assert torch.allclose(compiled(x), expected, atol=1e-5)
        by_hand(model, "one", 1)
        with pytest.raises(HwfaultError, match=STOPS.format(64, "32 to 63")):
            compiled(x)
    torch.compiler.reset()


def test_a_device_asserts(monkeypatch):
    """The CPU stands in for a GPU: what is asserted there is the same operator, whose error comes at once."""
    for module in (held, widths):
        monkeypatch.setattr(module, "asserts", lambda number: True)
    model, x = truncated(LEARNED), batch()
    with inject(model, planned(model)[0], seed=1):
        model(x)
        by_hand(model, "1", 2)
        with pytest.raises(RuntimeError, match=STOPS.format("another", "8 to 15")) as stopped:
            model(x)
    assert not isinstance(stopped.value, HwfaultError)


A2Q = [Int8AccumulatorAwareWeightQuant, Int8AccumulatorAwareZeroCenterWeightQuant]


@pytest.mark.parametrize("quant", A2Q)
def test_accumulator_aware_weights(quant):
    """Their width is a constant whatever is asked for; that of the sums they are made for is not one of words."""
    torch.manual_seed(0)
    layer = qnn.QuantConv2d(
        2, 4, 3, bias=False, weight_quant=quant, weight_bit_width=5, weight_accumulator_bit_width=14,
        weight_bit_width_impl_type=BitWidthImplType.PARAMETER,
    )  # fmt: skip
    model, x = Chain(qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True), layer), batch()
    model(x)
    model.eval()
    (site,) = (site for site in sites(model, x) if site.name == "1.weight_quant")
    assert site.bit_width == 5
    state = model.state_dict()
    (key,) = (name for name in state if name.endswith("accumulator_bit_width.bit_width"))
    with inject(model, [BitFlips(probability=0.05)], seed=1, example=x) as injection:
        struck = model(x)
        model.load_state_dict(state | {key: torch.tensor(7.0)})
        injection.first_sample = 0
        assert not same_bits(model(x), struck), "other weights, of the same words"
        widths.width_of(layer.weight_quant).bit_width.value.fill_(4)
        stops = "the bit width of the site '1.weight_quant' is 4, but was 5 when the faults were attached"
        with pytest.raises(HwfaultError, match=stops):
            model(x)
