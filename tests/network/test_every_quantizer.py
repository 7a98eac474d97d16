"""Every integer quantizer that Brevitas ships: a flip of one plane changes that bit of the words it strikes, alone.

What an integer is, is worked out anew here, in exact fractions: Brevitas' round(value / scale + zero_point).
"""

import importlib
import inspect
import pkgutil
from fractions import Fraction
from functools import cache

import brevitas.quant
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat
from torch import nn

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve

MODULES = ("binary", "ternary", "fixed_point", "scaled_int", "shifted_scaled_int")
BLOCKS = "does not yield integers with one scale for each"
REFUSED = {
    "ShiftedUint8WeightGroupQuantFloat": BLOCKS,
    "ShiftedUint8WeightPerGroupFloatHQO": BLOCKS,
    "MXInt8Weight": BLOCKS,
    "MXInt8WeightMSE": BLOCKS,
    "ShiftedMXUInt8Weight": BLOCKS,
    "ShiftedMXUInt8WeightMSE": BLOCKS,
    "MXInt8Act": BLOCKS,
}
"""Quantizers whose integers hwfault does not strike, and its reason: their scales are those of blocks."""
NOT_QUANTIZERS = {
    "IntBias": "a base of the biases below it, without a width",
    "TruncTo8bit": "a truncation runs in layers of its own, not as a weight, bias or activation",
    "RoundTo8bit": "a truncation",
    "ShiftRoundSaturateTo8bit": "a truncation",
}


def shipped():
    """Every class of Brevitas' integer quantizers, by name; private ones and mixins are none."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"brevitas.quant.{name}")
        own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
        found |= {c.__name__: c for c in own if not c.__name__.startswith("_")}
    blocks = vars(importlib.import_module("brevitas.quant.mx_quant_ocp"))  # most are small floats
    found |= {name: c for name, c in blocks.items() if name.removeprefix("Shifted").startswith(("MXInt", "MXUInt"))}
    return {name: quantizer for name, quantizer in found.items() if name not in NOT_QUANTIZERS}


SHIPPED = shipped()


def built(name, quantizer):
    """(site, model, input) of a layer with the quantizer, calibrated by a forward."""
    torch.manual_seed(len(name))
    before = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True)
    if "Weight" in name:
        groups = {"weight_group_size": 8} if "Group" in name else {}
        layer = qnn.QuantLinear(32, 64, bias=False, weight_quant=quantizer, **groups)
        model, x, site = nn.Sequential(before, layer), (4, 32), "1.weight_quant"
    elif "Bias" in name:
        model, x = nn.Sequential(before, qnn.QuantLinear(8, 2000, bias=True, bias_quant=quantizer)), (4, 8)
        site = "1.bias_quant"
    else:
        range_ = {"min_val": -3.0, "max_val": 3.0} if "MaxInit" in name else {"group_dim": 1} if "MX" in name else {}
        model = nn.Sequential(qnn.QuantIdentity(act_quant=quantizer, return_quant_tensor=True, **range_))
        x = (4, 8, 8, 8) if name.endswith("2d") else (4, 8, 64)
        site = "0.act_quant"
    value = torch.randn(x)
    if name not in REFUSED:  # those of blocks need layers of their own to run in
        for _ in range(2):
            model(value)
    return site, model.eval(), value


def refusal(model, site):
    """Why a quantizer is no site."""
    try:
        return sites(model).obstacles[site]
    except PlanError as error:
        return str(error)


@cache  # few values are different: they lie on a grid
def integer(value, scale, zero_point):
    return round(Fraction(value) / Fraction(scale) + Fraction(zero_point))


def integers(values, scale, zero_point):
    """round(value / scale + zero_point), ties to even, of the numbers as they are."""
    grid = [t.expand_as(values).flatten().tolist() for t in (scale, zero_point)]
    return [integer(*numbers) for numbers in zip(values.flatten().tolist(), *grid, strict=True)]


def flipped(model, value, listed, site, plane):
    """What an observer saw of flips of one plane: values before and after, scale and zero point, codes."""
    seen = []

    def observe(name, before, after, scale, zero_point, codes_before, codes_after):
        seen.append([t.clone() for t in (before, after, scale, zero_point, codes_before, codes_after)])

    faults = [BitFlips(probability=[0.3 * (bit == plane) for bit in range(site.bit_width)], sites=site.name)]
    with torch.no_grad(), inject(model, resolve(listed, faults), seed=plane, observe=observe):
        model(value)
    return seen[0]


def test_the_walk_finds_them():
    """Of each module some, and none that nobody looks at."""
    assert len(SHIPPED) > 50
    assert {"SignedBinaryActPerTensorConst", "SignedTernaryWeightPerTensorConst", "Int32Bias"} <= SHIPPED.keys()
    assert REFUSED.keys() <= SHIPPED.keys()
    others = {m.name for m in pkgutil.iter_modules(brevitas.quant.__path__)} - {*MODULES, "base", "solver", "none"}
    assert all("float" in name or "mx" in name or name == "experimental" for name in others), "integers elsewhere"


# what Brevitas says of integers with zero points that a layer adds up
@pytest.mark.every(7)
@pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator not supported yet")
@pytest.mark.parametrize("name", SHIPPED)
def test_a_flip_of_one_plane_changes_that_bit_alone(name):
    site, model, value = built(name, SHIPPED[name])
    if name in REFUSED:
        assert REFUSED[name] in refusal(model, site)
        return
    listed = sites(model)
    found = {s.name: s for s in listed}[site]
    bits, signed = found.bit_width, found.signed
    for plane in range(bits):
        before, after, scale, zero_point, *codes = flipped(model, value, listed, found, plane)
        struck = codes[0] ^ codes[1]
        assert struck.unique().tolist() in ([0, 1 << plane], [1 << plane]), (name, plane)
        assert 0.1 < (struck != 0).double().mean() < 0.5
        assert torch.equal((before != after)[struck == 0], torch.zeros_like(before != after)[struck == 0])
        clean = integers(before, scale, zero_point)
        if bits == 1 and signed:
            assert [int(q > 0) for q in clean] == codes[0].flatten().tolist()
        else:
            assert [q % 2**bits for q in clean] == codes[0].flatten().tolist()
        if bits <= 16:  # wider ones need not come back from their values
            assert torch.equal(after == before, struck == 0)
            dirty = integers(after, scale, zero_point)
            moved = {(int(q > 0) if bits == 1 and signed else q % 2**bits) for q in dirty}
            assert moved <= set(range(2**bits))
            again = [int(q > 0) if bits == 1 and signed else q % 2**bits for q in dirty]
            assert again == codes[1].flatten().tolist()
