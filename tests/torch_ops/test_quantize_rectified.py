"""Values that are rectified in front, and largest magnitudes: the same in C, by Triton's kernels and on devices."""

import math

import numpy as np
import pytest
import torch

from hwfault.torch_ops import on_devices, quantize
from hwfault.torch_ops.quantize import Ends, differentiated, in_steps, quantized
from hwfault.torch_ops.scale_rule import Largest, Restriction, Scale, ScaleRule, add_to_largest, largest_of
from tests.helpers.injection.oracle import same_bits
from tests.helpers.stream.triton_here import OLDEST

STRANGE = [math.nan, math.inf, -math.inf, 0.0, -0.0, 0.05, -0.05, 1e-45, -1e-45, 0.25, 0.75, 3e38, -3e38, 3.25, -3.25]
SHAPES = [((2, 15), ()), ((2, 15), (2, 1)), ((2, 15), (1, 15)), ((2, 3, 5), (1, 3, 1)), ((2, 1500), (2, 1))]


def case(shape, scale_shape):
    count = math.prod(shape)
    x = torch.tensor(STRANGE).repeat(count // len(STRANGE)).reshape(shape)
    scale = torch.linspace(0.25, 0.5, math.prod(scale_shape)).reshape(scale_shape)
    by = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x, scale, torch.tensor(0.0), by


def in_c(x, scale, zero, by, ends):
    return quantized(x, scale, zero, ends)[0], *differentiated(by, x, scale, zero, ends, (True, True))


def by_torch(x, scale, zero, by, ends):
    given = x.clone().requires_grad_(), scale.clone().requires_grad_()
    out = in_steps(*given, zero, ends)
    return out.detach(), *torch.autograd.grad(out, given, by)


def as_numbers(t):
    """NaN have other bits from way to way."""
    return torch.where(t.isnan(), 7e7, t)


@pytest.fixture
def by_triton(monkeypatch):
    pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")
    from tests.helpers.stream.triton_calls import INTERPRETED

    if not INTERPRETED:
        pytest.skip("a GPU is taken for the CPU here")

    def run(*given):
        with monkeypatch.context() as patch:
            patch.setattr(quantize, "on_device", lambda _x: True)
            patch.setattr(on_devices, "lacking_triton", lambda _device: "")
            with np.errstate(all="ignore"):
                return in_c(*given)

    return run


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES)
def test_c_as_torch(shape, scale_shape, passes):
    given = case(shape, scale_shape)
    ends = Ends(0.0, 7.0, passes, rectifies=True)
    expected, found = by_torch(*given, ends), in_c(*given, ends)
    assert same_bits(as_numbers(found[0]), as_numbers(expected[0]))
    assert same_bits(as_numbers(found[1]), as_numbers(expected[1]))
    plain = in_c(*given, ends._replace(rectifies=False))
    assert not torch.equal(as_numbers(found[1]), as_numbers(plain[1]))


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("rectifies", [True, False])
@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES[:-1])
def test_triton_as_c(shape, scale_shape, rectifies, passes, by_triton):
    given = case(shape, scale_shape)
    ends = Ends(-2.0, 7.0, passes, rectifies=rectifies)
    expected, found = in_c(*given, ends), by_triton(*given, ends)
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert same_bits(as_numbers(one), as_numbers(other))


@pytest.mark.parametrize("rectifies", [True, False])
@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES)
def test_sums_of_what_is_rectified(shape, scale_shape, rectifies, by_triton):
    _, scale, zero, by = case(shape, scale_shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ends = Ends(-2.0, 7.0, False, rectifies=rectifies)
    relu = x.relu() if rectifies else x
    k = torch.round(relu / scale)
    whole, through = by.double() * k.clamp(-2, 7), torch.where((k >= -2) & (k <= 7), by.double() * relu / scale, 0.0)
    exact, magnitudes = ((a - b).sum_to_size(scale_shape) for a, b in ((whole, through), (whole.abs(), -through.abs())))
    for run in (in_c, by_triton):
        found = run(x, scale, zero, by, ends)[2]
        assert ((found.double() - exact).abs() <= 1.6e-7 * magnitudes).all()


class Elsewhere(torch.Tensor):
    """A tensor that says that it is on a device."""

    @property
    def device(self):
        return torch.device("cuda")


def weights(rows, strange):
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(2))
    x[:, 1], x[:, 4], x[:, 5] = -3.0, 3.0, -3.0
    if strange is not None:
        x[0, 2] = strange
    return x


@pytest.mark.parametrize("strange", [None, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("rows", "first_only"), [(1, False), (4, True), (1, True), (4, False)])
def test_largest_magnitudes_on_devices(rows, first_only, strange):
    rule = ScaleRule(Restriction.MAGNITUDE, torch.tensor(7.0), (rows, 1), largest=Largest(rows, first_only))
    x, gradient = weights(rows, strange), torch.linspace(0.5, 1, rows).reshape(rows, 1)
    found = []
    for there in (x, x.as_subclass(Elsewhere)):
        source = largest_of(there, rule).as_subclass(torch.Tensor)
        of_x = torch.ones_like(x)
        add_to_largest(rule, there, Scale(source, source, source), gradient, of_x)
        found.append((source, of_x))
    for one, other in zip(*found, strict=True):
        assert same_bits(as_numbers(one), as_numbers(other))
    expected = x.abs().amax(1, keepdim=True)
    assert same_bits(as_numbers(found[0][0]), as_numbers(expected))
    has_it = x.abs() == expected
    reached = has_it & (has_it.cumsum(1) == 1) if first_only else has_it
    assert torch.equal(found[0][1] != 1, reached)


def test_the_largest_of_many():
    for length in (1, 15, 16, 17, 100):
        for at in {0, length // 2, length - 1}:
            for value in (-9.0, math.inf, math.nan):
                x = torch.randn(3, length)
                x[1, at] = value
                rule = ScaleRule(Restriction.MAGNITUDE, torch.tensor(1.0), (3, 1), largest=Largest(3, True))
                assert same_bits(as_numbers(largest_of(x, rule)), as_numbers(x.abs().amax(1, keepdim=True)))
