"""Mixed precision: values on the grid stay exact, in whichever type a layer holds them.

bfloat16 has 8 significant bits: integers up to 128 come back from their values whatever the scale, larger ones, which
only unsigned words of 8 bits have, may come back as their neighbours, as those of the clean network do.
"""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import nn

from hwfault.codes import CodeFormat, decode, integers
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, LateBits, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.reference import inject_codes
from tests.helpers.injection.networks import Chain, batch
from tests.helpers.injection.oracle import Seen, same_bits

FAULTS = [BitFlips(p01=0.05, p10=0.03), WordFaults(probability=0.05)]
HALVES = [torch.bfloat16, torch.float16]
KINDS = {
    "float": (Int8ActPerTensorFloat, Uint8ActPerTensorFloat, Int8WeightPerTensorFloat),
    "per channel": (Int8ActPerTensorFloat, Uint8ActPerTensorFloat, Int8WeightPerChannelFloat),
    "power of two": (Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint, Int8WeightPerTensorFixedPoint),
}


def network(bits, kind="float"):
    """Signed and unsigned activations and weights of so many bits, around convolutions and batch normalisation."""
    act, relu, weight = KINDS[kind]
    weights = {"bias": False, "weight_quant": weight, "weight_bit_width": bits}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bits)
        model = Chain(
            qnn.QuantIdentity(act_quant=act, bit_width=bits, return_quant_tensor=True),
            qnn.QuantConv2d(2, 6, 3, padding=1, **weights),
            nn.BatchNorm2d(6),
            qnn.QuantReLU(act_quant=relu, bit_width=bits, return_quant_tensor=True),
            qnn.QuantConv2d(6, 8, 3, **weights),
            nn.BatchNorm2d(8),
            qnn.QuantIdentity(act_quant=act, bit_width=bits, return_quant_tensor=True),
            nn.Flatten(),
            qnn.QuantLinear(128, 5, **weights),
        )
    for i in range(2):
        model(batch(8, seed=i))
    return model


def struck_codes(plan, call, codes, seed, step):
    """What the reference makes of a site's codes: samples 0, 1, ... of activations, parameters of a step."""
    site = plan.at(call.name).site
    rows = codes.reshape(len(codes) if site.batched else 1, -1)
    numbers = range(len(rows)) if site.batched else [step]
    draw = {"program": plan.program(call.name), "seed": seed, "bit_width": site.bit_width}
    struck = [inject_codes(row, sample=n, **draw) for row, n in zip(rows, numbers, strict=True)]
    return np.stack(struck).reshape(codes.shape)


def within(values, scale, zero_point, fmt):
    """The codes of values; where rounding led beyond the range, that of its end."""
    q = np.rint(values / scale.astype(np.float32) + zero_point.astype(np.float32))
    low, high = (-(2 ** (fmt.bit_width - 1)), 2 ** (fmt.bit_width - 1) - 1) if fmt.signed else (0, fmt.mask)
    return (np.clip(q, low, high).astype(np.int64) & fmt.mask).astype(np.uint32)


def comes_back(found, expected, fmt, dtype):
    """Whether the codes of values are those that the values were made from, as far as the type can tell."""
    differ = np.abs(integers(found, fmt) - integers(expected, fmt))
    told_apart = (np.abs(integers(expected, fmt)) <= 128) | (dtype != torch.bfloat16)
    return not differ[told_apart].any() and (differ <= 1).all()


@pytest.mark.every(11)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("dtype", HALVES)
def test_words_stay_on_the_grid_under_autocast(dtype, bits, kind, training):
    model, seen = network(bits, kind).train(training), Seen()
    with inject(model, FAULTS, seed=3, observe=seen) as injection, torch.autocast("cpu", dtype):
        out = model(batch(4))
        if training:
            out.float().square().sum().backward()
    assert {call.before.dtype for call in seen} & {dtype, torch.float32}
    assert len(seen) == 6
    for call in seen:
        fmt = CodeFormat(bits, injection.plan.at(call.name).site.signed)
        scale, zero_point = (t.float().numpy() for t in (call.scale, call.zero_point))
        values, after = call.before.float().numpy(), call.after.float().numpy()
        codes = within(values, scale, zero_point, fmt)
        expected = struck_codes(injection.plan, call, codes, 3, 0)
        changed = torch.from_numpy(expected != codes)
        assert changed.any(), call.name
        assert not changed.all(), call.name
        assert call.after.dtype == call.before.dtype
        assert same_bits(call.after[~changed], call.before[~changed])
        exact = torch.from_numpy(decode(expected, scale, zero_point, fmt)).to(call.after.dtype)
        assert torch.equal(call.after[changed], exact[changed]), call.name
        assert comes_back(within(after, scale, zero_point, fmt), expected, fmt, call.after.dtype), call.name
    if training:
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("dtype", HALVES)
def test_every_code_survives_its_value(dtype, bits):
    """Decoded to the type and encoded again every code is itself, for scales of many sizes."""
    scales = torch.logspace(-4, 1, 60)
    for signed in (False, True):
        fmt = CodeFormat(bits, signed)
        codes = np.arange(1 << bits, dtype=np.uint32)
        for scale in scales.tolist():
            values = torch.from_numpy(decode(codes, np.array(scale), np.array(0.0), fmt)).to(dtype)
            again = within(values.float().numpy(), np.array(scale), np.array(0.0), fmt)
            assert comes_back(again, codes, fmt, dtype), scale


@pytest.mark.parametrize("scale", [0.0002652948605827987, 0.5355666875839233, 2.5514066219329834])
def test_the_top_of_the_range_in_bfloat16(scale):
    """255 times these scales rounds to 256 times them, whose code would be 0: a flip of bit 7 finds 255, gives 127."""
    site = "0.act_quant"
    model, seen = Chain(qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True)), Seen()
    proxy = model[0].act_quant
    top = torch.tensor(255 * scale).to(torch.bfloat16)
    assert torch.round(top.float() / scale) == 256
    value = torch.full((2, 1000), top.item(), dtype=torch.bfloat16, requires_grad=True)
    for rule, passes in (("zero", False), ("straight_through", True)):
        value.grad = None
        faults = [WordFaults(probability=0.2, effect="msb")]
        with inject(model, faults, seed=3, gradient=rule, observe=seen) as injection:
            injection.clock.tick(model)
            out = injection.strike(site, value, torch.tensor(scale), torch.tensor(0.0))
            out.float().sum().backward()
        changed = out != value
        assert 300 < changed.sum() < 500
        assert torch.equal(out[changed], torch.full_like(out[changed], 127 * scale))
        assert same_bits(out[~changed].detach(), value[~changed].detach())
        assert (value.grad[~changed] == 1).all()
        assert (value.grad[changed] == float(passes)).all()
    assert proxy.is_signed is False


@pytest.mark.parametrize("dtype", HALVES)
def test_the_quantizers_integers_are_those_of_single_precision(dtype):
    """What a weight's words stand for does not depend on the type that layers compute in."""
    model, both = network(8), []
    for enabled in (False, True):
        seen = Seen()
        half = torch.autocast("cpu", dtype, enabled=enabled)
        with inject(model.eval(), FAULTS, seed=3, observe=seen), torch.no_grad(), half:
            model(batch(4))
        both.append([call for call in seen if "weight" in call.name])
    for one, other in zip(*both, strict=True):
        found = [torch.round(call.after.double() / call.scale.double()) for call in (one, other)]
        assert torch.equal(*found), one.name


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_under_autocast(dtype, gradient):
    model, seen = network(4).train(), Seen()
    with inject(model, FAULTS, seed=3, gradient=gradient, observe=seen), torch.autocast("cpu", dtype):
        model(batch(4)).float().square().sum().backward()
    for i in (1, 4, 8):
        (call,) = seen.of(f"{i}.weight_quant")
        struck, grad = call.before != call.after, model[i].weight.grad
        assert grad.dtype == torch.float32
        assert (grad[~struck] != 0).any()
        assert bool((grad[struck] == 0).all()) == (gradient == "zero")


@pytest.mark.parametrize("dtype", HALVES)
def test_accumulators_under_autocast(dtype):
    """Layers that compute on integers do so whatever the type around them."""
    model, both = network(4, "power of two").eval(), []
    faults = [LateBits(probability=0.2, bits=3, sites={"name": "1.accumulator"})]
    plan = resolve(sites(model, batch(4)), faults)
    for enabled in (False, True):
        seen = Seen()
        with inject(model, plan, seed=3, observe=seen), torch.no_grad(), torch.autocast("cpu", dtype, enabled=enabled):
            model(batch(4))
        both.append(seen.of("1.accumulator")[0])
    assert torch.equal(both[0].before, both[1].before)
    assert torch.equal(both[0].after, both[1].after)
    assert (both[0].before != both[0].after).any()
