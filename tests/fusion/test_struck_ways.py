"""Every quantizer and every plan, struck in the pass that makes the values or in one of its own: the same bits."""

import copy
import itertools
from contextlib import nullcontext

import pytest
import torch

import hwfault as hf
from hwfault.stream.protection_scheme import Protection
from tests.helpers.fusion.inside import struck_by
from tests.helpers.fusion.variants import (
    ACTIVATIONS,
    RESTRICTIONS,
    SCALINGS,
    STATISTICS,
    WEIGHTS,
    Variant,
    activation,
    weight,
)
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import same_bits
from tests.slowly import thinned

STEPS = 5
FLIPS = [hf.BitFlips(probability=0.05)]
INSIDE = {
    "other codes": [hf.WordFaults(probability=0.05, effect="random")],
    "clusters": [hf.Clusters(probability=0.02, sizes=[0.5, 0.3, 0.2], axis="word")],
}
OUTSIDE = {
    "by what is stored": [hf.WordFaults(probability=0.05, effect="zero")],
    "protected": [
        hf.ProfileFaults(profile="uniform-flips", at={"ber": 0.02}, protection=Protection(kind="secded", data_bits=16))
    ],
    "mapped": [hf.ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})],
}
# Brevitas' zero points call state_dict the old way
pytestmark = pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")


def steps(net, faults, way, given, gradient="zero", change=None):
    """What training and evaluation give by a way, and the calls that struck inside."""
    net = copy.deepcopy(net)
    found = []
    with struck_by(way) as calls, hf.fused(net), hf.inject(net, faults, seed=9, gradient=gradient) as injection:
        for number in range(STEPS):
            net.train(number != STEPS - 1)
            if change is not None:
                change(injection, number)
            x = given.clone().requires_grad_()
            out = net(x)
            out = getattr(out, "value", out)
            by = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
            inputs = [x, *[p for p in net.parameters() if p.requires_grad]]
            gradients = torch.autograd.grad((out * by).sum(), inputs, allow_unused=True)
            found += [out.detach(), *[g for g in gradients if g is not None]]
    return found, calls


def check(net, faults, x, inside=True, **how):
    expected, none = steps(net, faults, "two passes", x, **how)
    assert not none
    for way in ("ctypes", "extension"):
        found, calls = steps(net, faults, way, x, **how)
        assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True)), way
        assert inside == ("quantize_struck" in calls) or way == "extension"


def of_variant(variant: Variant):
    """A variant's layer, and inputs for it."""
    if variant.x is not None:
        return variant.layer, variant.x
    axes = (variant.layer.weight.shape[1],) if variant.layer.weight.dim() == 2 else (variant.layer.in_channels, 6, 6)
    return variant.layer, torch.randn(3, *axes, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("kind", "scaling"), thinned(itertools.product(ACTIVATIONS, SCALINGS), 5))
def test_activations(kind, scaling):
    check(*reordered(of_variant(activation(kind, scaling, "float", "no limit"))))


@pytest.mark.parametrize("restriction", [name for name in RESTRICTIONS if name != "float"])
def test_restrictions(restriction):
    check(*reordered(of_variant(activation("rectified", "parameter", restriction, "limit"))))
    check(*reordered(of_variant(weight("linear", True, "stats", restriction, "limit"))))


@pytest.mark.parametrize(("per_channel", "scaling"), thinned(itertools.product((True, False), STATISTICS), 4))
def test_weights(per_channel, scaling):
    check(*reordered(of_variant(weight("convolution", per_channel, scaling, "float", "no limit"))))


@pytest.mark.parametrize(("kind", "per_channel"), thinned(itertools.product(WEIGHTS, (True, False)), 3))
def test_layers(kind, per_channel):
    check(*reordered(of_variant(weight(kind, per_channel, "stats", "float", "no limit"))))


def reordered(given):
    """Layer and inputs as `check` takes them."""
    layer, x = given
    return layer, FLIPS, x


@pytest.mark.parametrize("name", thinned(NETWORKS, 3))
def test_networks(name):
    """Biases and quantizers of other kinds are struck in a pass of their own."""
    check(build(name), FLIPS, batch())


@pytest.mark.parametrize("name", [*INSIDE, *OUTSIDE])
def test_laws(name):
    check(build("per_channel"), (INSIDE | OUTSIDE)[name], batch(), inside=name in INSIDE)


def changes(injection, number):
    """Something else in each step."""
    injection.hold = 7 if number == 1 else None
    injection.samples = torch.tensor([5, 3, 9, 4]) if number == 2 else None
    (injection.disable if number == 3 else injection.enable)("*weight_quant")
    injection.seed = number


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
def test_what_is_set_meanwhile(gradient):
    check(build("cnn"), FLIPS, batch(), gradient=gradient, change=changes)


@pytest.mark.parametrize("way", ["two passes", "ctypes", "extension"])
@pytest.mark.parametrize("is_fused", [True, False])
def test_samples_that_are_overwritten_before_the_backward_pass(is_fused, way):
    """A backward pass would find other words by them."""
    net, samples = build("cnn"), torch.arange(4)
    with struck_by(way), hf.fused(net) if is_fused else nullcontext(), hf.inject(net, FLIPS, seed=9) as injection:
        injection.samples = samples
        out = net(batch(4))
        samples.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()
