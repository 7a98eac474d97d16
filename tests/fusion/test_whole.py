"""Every kind of quantizer that runs as a whole, beside Brevitas' own: bits, gradients, statistics and states."""

import copy

import pytest
import torch

import hwfault as hf
from hwfault.fusion.whole import WholeQuantizer
from tests.helpers.fusion.variants import (
    ACTIVATIONS,
    LIMITS,
    RESTRICTIONS,
    SCALINGS,
    STATISTICS,
    WEIGHTS,
    activation,
    searched,
)
from tests.helpers.fusion.variants import weight as weight_of
from tests.helpers.fusion.whole import proxy_of, quantize, same, ways
from tests.helpers.injection.oracle import same_bits

STEPS = 4


def step(layer, x, by):
    """The result, the gradients of what was quantized and of parameters, and where the scale's gradient gets to."""
    given = layer.weight if x is None else x.clone().requires_grad_()
    out = quantize(layer, None if x is None else given)
    reached = torch.zeros_like(given)
    if out.scale.requires_grad:
        found = torch.autograd.grad(out.scale.sum(), given, retain_graph=True, allow_unused=True)[0]
        reached = reached if found is None else found
    layer.zero_grad()
    (out.value * by).sum().backward()
    own = {n: p.grad.clone() for n, p in layer.named_parameters() if p.grad is not None and p is not given}
    return out, given.grad, own, reached != 0


def compare(expected, found):
    """Of two steps: everything is equal to the bit, but for what a sum over all values has reached."""
    assert same(found[0], expected[0])
    free = expected[3]
    assert same_bits(found[1][~free], expected[1][~free])
    largest = expected[1].abs().max() if expected[1].numel() else torch.tensor(0.0)
    assert torch.allclose(found[1][free], expected[1][free], rtol=1e-4, atol=1e-4 * float(largest))
    assert found[2].keys() == expected[2].keys()
    for name, one in expected[2].items():
        assert torch.allclose(found[2][name], one, rtol=1e-4, atol=1e-3), name


def states(layer):
    """Parameters and buffers, also those that no state has; the counters of statistics; the state."""
    numbers = [*layer.named_parameters(), *layer.named_buffers(), *layer.state_dict().items()]
    tensors = [(name, t.detach().clone()) for name, t in numbers]
    return tensors, [getattr(m, "counter", None) for m in layer.modules()]


def check_states(one, other):
    assert one[1] == other[1]
    assert [name for name, _ in one[0]] == [name for name, _ in other[0]]
    assert all(same_bits(a, b) for (_, a), (_, b) in zip(one[0], other[0], strict=True))


def check(variant, monkeypatch, twin=None):
    brevitas, own = variant.layer, twin or copy.deepcopy(variant.layer)
    shape = brevitas.weight.shape if variant.x is None else variant.x.shape
    by = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    with hf.fused(own) as block, ways(monkeypatch) as ran:
        for number in range(STEPS):
            x = None if variant.x is None else variant.x * (1 + number / 7)
            compare(step(brevitas, x, by), step(own, x, by))
            check_states(states(brevitas), states(own))
        assert tuple(ran) == variant.ways
        assert block.left == {}
        for training in (False, True, False):
            brevitas.train(training)
            own.train(training)
            compare(step(brevitas, x, by), step(own, x, by))
            check_states(states(brevitas), states(own))
        assert WholeQuantizer.of(proxy_of(own)).why is None
        with torch.no_grad():
            assert same(quantize(own, x), quantize(brevitas, x))
    check_states(states(brevitas), states(own))


@pytest.mark.every(5)
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(kind, scaling, restriction, limit, monkeypatch):
    check(activation(kind, scaling, restriction, limit), monkeypatch)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("scaling", STATISTICS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights(per_channel, scaling, restriction, limit, monkeypatch):
    check(weight_of("convolution", per_channel, scaling, restriction, limit), monkeypatch)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("scaling", ["stats", "parameter"])
def test_layers(kind, per_channel, scaling, monkeypatch):
    check(weight_of(kind, per_channel, scaling, "float", "no limit"), monkeypatch)


def test_a_scale_that_is_searched_for(monkeypatch):
    check(searched(), monkeypatch, twin=searched().layer)  # Brevitas' own are no good as copies


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_bits(bits, narrow, monkeypatch):
    check(activation("signed", "parameter", "float", "no limit", bits, narrow_range=narrow), monkeypatch)
    check(activation("rectified", "parameter", "log", "no limit", bits), monkeypatch)
    check(weight_of("linear", True, "stats", "float", "no limit", bits, narrow_range=narrow), monkeypatch)
