"""Gradients of whole quantizers: those of scales against sums in float64, strange values, ties, who asks for what."""

import copy
import math

import pytest
import torch
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

import hwfault as hf
from tests.helpers.fusion.variants import RESTRICTIONS, activation
from tests.helpers.fusion.variants import weight as weight_of
from tests.helpers.fusion.whole import CONSTANT, LEARNED, X, act, linear, parts_of, quantize, same, ways
from tests.helpers.injection.oracle import same_bits

SUMS = 1e-7
"""How far the sum of a scale's gradient may be off, in the sum of the magnitudes of its terms."""
ROUNDED = 5 * 2.0**-24
"""What the few factors that follow in float32 may add, in the gradient itself."""
EXTREMES = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-38, 3e38, -3e38, 0.5, -0.5, 1.5, 2.5, 7.5, -7.5, -8.5]


def terms(x, by, out, layer):
    """The terms of the gradient of each value's scale, in float64: those of the integers, those of the division."""
    inner = parts_of(layer).int_quant
    least, most = (int(end) for end in (inner.min_int(out.bit_width), inner.max_int(out.bit_width)))
    scale = out.scale.detach()
    k = torch.round(x / scale + out.zero_point)
    through = (k >= least) & (k <= most)
    passes = through | (type(inner.tensor_clamp_impl).__name__ == "TensorClampSte")
    by, ratio = by.double(), x.double() / scale.double()
    return by * (k.clamp(least, most).double() - out.zero_point.double()), torch.where(passes, -by * ratio, 0.0)


def scale_gradient(x, by, out, layer):
    """The gradient of the scale, and the sum of the magnitudes of its terms."""
    found = terms(x, by, out, layer)
    return tuple(total.sum_to_size(out.scale.shape) for total in (sum(found), sum(t.abs() for t in found)))


def factor(source, restriction, threshold):
    """The derivative of a scale by its parameter."""
    source = source.detach().double()
    rounded = {"next power": torch.ceil, "nearest power": torch.round}.get(restriction, lambda t: t)(source)
    of_restricted = source.sign() if restriction == "float" else 2**rounded * math.log(2)
    return of_restricted / threshold


def threshold_of(layer, restriction):
    quantizer = parts_of(layer)
    found = float(quantizer.int_scaling_impl(quantizer.msb_clamp_bit_width_impl()))
    if restriction in ("float", "log"):
        return found
    return 2.0 ** {"next power": math.ceil, "nearest power": round}[restriction](math.log2(found))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", ["no limit", "limit"])
@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("kind", ["signed", "rectified"])
@pytest.mark.parametrize("size", [1, 40, 70_000])
def test_the_gradient_of_a_learned_scale(kind, restriction, limit, threads, size):
    layer = activation(kind, "parameter", restriction, limit).layer
    generator = torch.Generator().manual_seed(size)
    x, by = (torch.randn(size, generator=generator) * 2 for _ in range(2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with hf.fused(layer):
            out = quantize(layer, x)
            (out.value * by).sum().backward()
    finally:
        torch.set_num_threads(before)
    parameter = parts_of(layer).scaling_impl.value
    exact, magnitudes = scale_gradient(x.relu() if kind == "rectified" else x, by, out, layer)
    by_parameter = factor(parameter, restriction, threshold_of(layer, restriction))
    exact, magnitudes = exact * by_parameter, magnitudes * by_parameter.abs()
    off = (parameter.grad.double() - exact).abs()
    assert (off <= SUMS * magnitudes + ROUNDED * exact.abs()).all()
    assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("ties", [True, False])
def test_the_gradient_of_the_largest_weights(per_channel, restriction, ties):
    layer = weight_of("linear", per_channel, "stats", restriction, "no limit").layer
    weights = layer.weight
    if ties:
        with torch.no_grad():
            weights[:, 2], weights[:, 4] = -2.0, 2.0
    twin, by = copy.deepcopy(layer), torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    with hf.fused(layer):
        out = quantize(layer)
        (out.value * by).sum().backward()
    (quantize(twin).value * by).sum().backward()
    rows = weights.detach() if per_channel else weights.detach().reshape(1, -1)
    largest = rows.abs().amax(1, keepdim=True)
    has_it = rows.abs() == largest
    if per_channel:  # the first of them alone
        has_it &= has_it.cumsum(1) == 1
    assert int(has_it.sum()) == (5 if per_channel else (10 if ties else 1))
    exact, magnitudes = scale_gradient(weights.detach(), by, out, layer)
    by_largest = factor(
        largest.log2() if restriction != "float" else largest, restriction, threshold_of(layer, restriction)
    )
    if restriction != "float":
        by_largest = by_largest / (largest.double() * math.log(2))
    share = by_largest * exact.reshape(largest.shape) / has_it.sum(1, keepdim=True) * rows.double().sign()
    share = torch.where(has_it, share, 0.0).reshape(weights.shape)
    room = torch.where(has_it, by_largest.abs() * magnitudes.reshape(largest.shape), 0.0).reshape(weights.shape)
    has_it = has_it.reshape(weights.shape)
    assert same_bits(weights.grad[~has_it], twin.weight.grad[~has_it])
    plain = by.double()  # none is clamped
    off = (weights.grad.double() - plain - share).abs()[has_it]
    assert (off <= SUMS * room[has_it] + ROUNDED * (share.abs() + plain.abs())[has_it]).all()


@pytest.mark.parametrize("kind", ["signed", "rectified"])
@pytest.mark.parametrize("scaling", ["parameter", "const"])
@pytest.mark.parametrize("value", [1.0, 0.0, math.inf, math.nan, -0.0])
def test_strange_values(kind, scaling, value):
    layer = activation(kind, scaling, "float", "no limit").layer
    twin = copy.deepcopy(layer)
    x = torch.tensor(EXTREMES * 3)
    x = torch.cat([x, x * float(quantize(layer, x).scale.detach())])
    found = []
    for own in (twin, layer):
        with hf.fused(own) if own is layer else torch.enable_grad():
            given = x.clone().requires_grad_()
            out = quantize(own, given)
            (gradient,) = torch.autograd.grad(out.value, given, torch.full_like(x, value))
            found.append((out, gradient))
    assert same(found[0][0], found[1][0])
    assert same_bits(found[0][1], found[1][1])


@pytest.mark.parametrize("scale", [0.0, -0.0, math.inf, math.nan, 1e-45, -1.0])
@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_strange_scales(scale, restriction):
    for limit in ("no limit", "limit"):
        layer = activation("signed", "parameter", restriction, limit).layer
        parts_of(layer).scaling_impl.value.data.fill_(scale)
        twin = copy.deepcopy(layer)
        given = torch.tensor(EXTREMES)
        with hf.fused(layer):
            assert _numbers(same_or_none(quantize(layer, given), quantize(twin, given)))


def same_or_none(found, expected):
    """Pairs of values and scales."""
    return zip(found[:2], expected[:2], strict=True)


def _numbers(pairs):
    """Whether they are the same where they are numbers, and are none at the same places."""
    return all(torch.equal(one.nan_to_num(7e7), other.nan_to_num(7e7)) for one, other in pairs)


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf, 0.0])
@pytest.mark.parametrize("quantizer", [Int8WeightPerTensorFloat, Int8WeightPerChannelFloat])
@pytest.mark.parametrize("everywhere", [True, False])
def test_strange_weights(strange, quantizer, everywhere):
    layer = linear(quantizer)
    with torch.no_grad():
        layer.weight[:] = strange if everywhere else layer.weight
        layer.weight[1, 3] = layer.weight[1, 5] = strange
    twin, gradients = copy.deepcopy(layer), []
    with hf.fused(layer):
        outs = quantize(twin), quantize(layer)
        for out, own in zip(outs, (twin, layer), strict=True):
            (out.value.sum() + out.scale.sum() * 0.5).backward(retain_graph=True)
            of_scale = torch.autograd.grad(out.scale.sum(), own.weight)[0]
            gradients += [own.weight.grad, of_scale]
    assert _numbers(same_or_none(*outs))
    assert _numbers([(gradients[1], gradients[3])])
    assert torch.allclose(gradients[0], gradients[2], rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)])
def test_empty_batches(shape):
    for kind in ("signed", "rectified"):
        layer = activation(kind, "parameter", "float", "no limit").layer
        twin, gradients = copy.deepcopy(layer), []
        with hf.fused(layer):
            x = torch.zeros(shape, requires_grad=True)
            outs = quantize(twin, x), quantize(layer, x)
            assert same(*outs)
            for out, own in zip(outs, (twin, layer), strict=True):
                asked = (x, parts_of(own).scaling_impl.value)
                gradients.append(torch.autograd.grad(out.value.sum(), asked))
        assert all(map(same_bits, *gradients))


ASKED = {
    "values": lambda out: (out.value * torch.linspace(-1, 1, out.value.numel()).reshape(out.value.shape)).sum(),
    "scale": lambda out: (out.scale**2).sum(),
    "both": lambda out: (out.value * out.scale).sum() + (out.scale**3).sum(),
    "twice": lambda out: (out.value**2).sum() + (out.scale * out.value.abs()).sum(),
}


def found_of(layer, x, asked, create, frozen):
    """The gradients of values and parameters, and those of their squares."""
    given = (layer.weight if x is None else x).detach().clone().requires_grad_(frozen != "values")
    wanted = [t for t in (given, *(p for p in layer.parameters() if x is not None)) if t.requires_grad]
    first = torch.autograd.grad(asked(quantize(layer, given)), wanted, create_graph=create, allow_unused=True)
    if not create:
        return first
    squares = sum((g**2).sum() for g in first if g is not None)
    if not squares.requires_grad:
        return first
    return *first, *torch.autograd.grad(squares, wanted, allow_unused=True)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("frozen", ["nothing", "values", "scales"])
def test_who_asks_for_what(asked, create, frozen):
    cases = [(act(LEARNED), X), (act(CONSTANT), X), (activation("rectified", "parameter", "log", "limit").layer, X)]
    cases += [(linear(q), None) for q in (Int8WeightPerTensorFloat, Int8WeightPerChannelFloat)]
    for layer, x in cases:
        for parameter in layer.parameters():
            parameter.requires_grad_(frozen != "scales" or x is None)
        moves = any(p.requires_grad for p in layer.parameters())
        if (not moves and (frozen == "values" or asked == "scale")) or (x is None and frozen == "values"):
            continue
        expected = found_of(layer, x, ASKED[asked], create, frozen)
        with hf.fused(layer):
            found = found_of(layer, x, ASKED[asked], create, frozen)
        for one, other in zip(expected, found, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.detach().abs().max()))


def test_a_graph_that_is_kept_and_one_that_is_not(monkeypatch):
    for layer, x in ((act(), X), (linear(), None)):
        with hf.fused(layer), ways(monkeypatch) as ran:
            out = quantize(layer, x)
            asked = (out.value * 2).sum() + out.scale.sum()
            wanted = list(layer.parameters())
            once, again = (torch.autograd.grad(asked, wanted, retain_graph=keep) for keep in (True, False))
            assert all(map(same_bits, once, again))
            with pytest.raises(RuntimeError, match="second time"):
                torch.autograd.grad(out.value.sum(), wanted)
        assert ran == ["rule"]


@pytest.mark.parametrize("quantizer", [Int8WeightPerTensorFloat, Int8WeightPerChannelFloat])
@pytest.mark.parametrize("part", ["value", "scale"])
def test_many_gradients_at_a_time(quantizer, part):
    layer = linear(quantizer)
    run = lambda w: getattr(quantize(layer, w), part).reshape(-1)  # noqa: E731
    expected = torch.autograd.functional.jacobian(run, layer.weight.detach(), vectorize=True)
    with hf.fused(layer):
        found = torch.autograd.functional.jacobian(run, layer.weight.detach(), vectorize=True)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["expanded", "transposed", "sliced", "reversed"])
def test_gradients_that_lie_otherwise(place):
    layer = act()
    x = torch.randn(6, 6, requires_grad=True)
    by = {
        "expanded": torch.randn(6, 1).expand(6, 6),
        "transposed": torch.randn(6, 6).t(),
        "sliced": torch.randn(6, 12)[:, ::2],
        "reversed": torch.randn(6, 6)._neg_view(),
    }[place]
    expected = torch.autograd.grad(quantize(layer, x).value, x, by)[0]
    with hf.fused(layer):
        found = torch.autograd.grad(quantize(layer, x).value, x, by)[0]
    assert same_bits(found, expected)
    assert found.stride() == expected.stride()
