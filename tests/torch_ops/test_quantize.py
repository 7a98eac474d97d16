"""The one operator against Brevitas' IntQuant: any shape, scale, width and strange value, forward and backward."""

import pytest
import torch
from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp, TensorClampSte
from brevitas.core.quant.int_base import IntQuant
from hypothesis import given
from hypothesis import strategies as st

from hwfault.torch_ops.quantize import Ends, Lie, lie_of, quantize, why_not
from tests.helpers.injection.oracle import same_bits

STRANGE = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 0.05, -0.05, 0.15, 1e-40, 3e38, -3e38])
SHAPES = [
    ((), ()),
    ((7,), ()),
    ((5, 3), ()),
    ((5, 3), (1,)),
    ((5, 3), (3,)),
    ((5, 3), (5, 1)),
    ((1, 3), (1, 3)),
    ((4, 3, 2, 5), (1, 3, 1, 1)),
    ((4, 3, 2, 5), (4, 1, 1, 1)),
    ((4, 3, 2, 5), (3, 1, 1)),
    ((4, 3, 8, 5), (4, 3, 1, 5)),
    ((4, 3, 8), (4, 3, 1)),
    ((0, 3), (1, 3)),
    ((3, 0), ()),
]


def brevitas(signed, narrow, passes):
    clamp = TensorClampSte() if passes else TensorClamp()
    return IntQuant(narrow, signed, Identity(), RoundSte(), clamp)


def ends_of(module, bits):
    width = torch.tensor(float(bits))
    least, most = module.min_int(width), module.max_int(width)
    return Ends(float(least), float(most), type(module.tensor_clamp_impl) is TensorClampSte)


def both(x, scale, zero_point, bits, module, gradient=None):
    """(values, gradient of x, of the scale) of Brevitas and of the operator."""
    found = []
    for run in (
        lambda x, s: module(s, zero_point, torch.tensor(float(bits)), x),
        lambda x, s: quantize(x, s, zero_point, ends_of(module, bits)),
    ):
        given = x.clone().requires_grad_(), scale.clone().requires_grad_()
        out = run(*given)
        out.backward(torch.ones_like(out) if gradient is None else gradient)
        found.append((out.detach(), *(t.grad for t in given)))
    return found


def magnitude(x, scale, zero_point, bits, module, gradient):
    """The sum of the magnitudes of the terms of each scale's gradient, in float64."""
    integers = module.to_int(scale, zero_point, torch.tensor(float(bits)), x).double()
    ratio = x.double() / scale.double()
    terms = (gradient * (integers - zero_point)).abs() + (gradient * ratio).abs()
    return terms.sum_to_size(scale.shape)


def random_case(rng, shape, scale_shape):
    def normal(shape, by=1.0):
        return torch.randn(shape, generator=rng) * by

    bits = int(torch.randint(2, 9, (), generator=rng))
    scale = torch.exp2(torch.rand(scale_shape, generator=rng) * 5 - 4)
    signed, narrow, passes, shifted = torch.randint(0, 2, (4,), generator=rng).tolist()
    zero = torch.randint(0, 2**bits, scale_shape if passes else (), generator=rng).float() * shifted
    by = float(torch.randint(1, 20, (), generator=rng))
    return normal(shape, by), scale, zero, bits, brevitas(bool(signed), bool(narrow), bool(passes)), normal(shape)


@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES)
@given(st.integers(0, 2**32))
def test_any_shape_scale_and_width(shape, scale_shape, seed):
    case = random_case(torch.Generator().manual_seed(seed), shape, scale_shape)
    assert why_not(*case[:3]) is None
    (values, of_x, of_scale), (own_values, own_of_x, own_of_scale) = both(*case)
    assert same_bits(own_values, values)
    assert same_bits(own_of_x, of_x)
    assert own_of_scale.shape == of_scale.shape
    # twice: Brevitas' own sums are in float32
    assert ((own_of_scale - of_scale).abs() <= 2e-6 * magnitude(*case)).all()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("scale", [0.1, -0.1, 0.0, 1e-39, float("inf"), float("nan")])
@pytest.mark.parametrize("gradient", [1.0, -0.0, float("inf"), float("nan")])
def test_strange_values(signed, passes, scale, gradient):
    x, by = torch.cat([STRANGE, STRANGE.flip(0)]), torch.full((22,), gradient)
    case = x, torch.tensor(scale), torch.tensor(0.0), 4, brevitas(signed, False, passes), by
    one, own = both(*case)
    assert same_bits(own[0], one[0])
    assert same_bits(own[1], one[1])
    assert torch.equal(own[2].isfinite(), one[2].isfinite())


@pytest.mark.parametrize("x", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("passes", [True, False])
def test_the_gradient_of_a_scale_under_one_strange_value(x, passes):
    case = torch.tensor([x, 0.3]), torch.tensor(0.1), torch.tensor(0.0), 4, brevitas(True, False, passes), torch.ones(2)
    one, own = both(*case)
    assert torch.equal(own[2].nan_to_num(7, 8, 9), one[2].nan_to_num(7, 8, 9))


def test_ties_go_to_the_even_integer():
    x = torch.arange(-9, 10) * 0.25
    assert (
        quantize(x, torch.tensor(0.5), torch.tensor(0.0), Ends(-8, 7, False)).tolist()
        == (x * 2).round().div(2).tolist()
    )


def test_sums_are_those_of_float64_and_of_any_number_of_threads():
    rng = torch.Generator().manual_seed(1)
    x, gradient = torch.randn(64, 16, 30, 31, generator=rng), torch.randn(64, 16, 30, 31, generator=rng)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        scale = torch.tensor(0.21, requires_grad=True)
        quantize(x, scale, torch.tensor(0.0), Ends(-8, 7, False)).backward(gradient)
        found.append(scale.grad)
    torch.set_num_threads(1)
    module, zero = brevitas(True, False, False), torch.tensor(0.0)
    with torch.no_grad():
        integers = module.to_int(scale, zero, torch.tensor(4.0), x).double()
        ratio = x.double() / scale.double()
        inside = (ratio.round() >= -8) & (ratio.round() <= 7)
        exact = (gradient * (integers - torch.where(inside, ratio, 0.0))).sum()
        assert same_bits(*found)
        assert (found[0] - exact).abs() <= 1e-9 * magnitude(x, scale, zero, 4, module, gradient)


def test_only_what_is_asked_for_is_differentiated():
    x, scale, zero, ends = torch.randn(50), torch.tensor(0.3), torch.tensor(0.0), Ends(-8, 7, False)
    assert not quantize(x, scale, zero, ends).requires_grad
    with torch.no_grad():
        assert not quantize(x.clone().requires_grad_(), scale, zero, ends).requires_grad
    with torch.inference_mode():
        assert quantize(x, scale, zero, ends).is_inference()
    wants_x, wants_scale = x.clone().requires_grad_(), scale.clone().requires_grad_()
    quantize(wants_x, scale, zero, ends).sum().backward()
    quantize(x, wants_scale, zero, ends).sum().backward()
    one, _ = both(x, scale, zero, 4, brevitas(True, False, False))
    assert same_bits(wants_x.grad, one[1])
    assert torch.isclose(wants_scale.grad, one[2], rtol=1e-4)


def test_nothing_but_values_and_scale_is_kept():
    kept = []
    x, scale = torch.randn(1000, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        quantize(x, scale, torch.tensor(0.0), Ends(-8, 7, False))
    assert [t.data_ptr() for t in kept[:2]] == [x.data_ptr(), scale.data_ptr()]
    assert sum(t.numel() for t in kept[2:]) == 1


def test_a_value_that_nobody_needs_the_gradient_of():
    x = torch.randn(5, requires_grad=True)
    out = quantize(x, torch.tensor(0.3), torch.tensor(0.0), Ends(-8, 7, False))
    assert torch.autograd.grad(out.detach().sum() + x.sum(), x)[0].tolist() == [1] * 5
    (found,) = torch.autograd.grad(_Drops.apply(out), x, torch.ones(5), allow_unused=True)
    assert found is None


class _Drops(torch.autograd.Function):
    """Has no gradient for what it was given."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return None


def test_second_derivatives():
    rng = torch.Generator().manual_seed(3)
    x, by = torch.randn(40, generator=rng), torch.randn(40, generator=rng)
    module, zero = brevitas(True, False, False), torch.tensor(0.0)
    found = []
    for run in (
        lambda x, s: module(s, zero, torch.tensor(4.0), x),
        lambda x, s: quantize(x, s, zero, Ends(-8, 7, False)),
    ):
        x_, scale = x.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True)
        of_x, of_scale = torch.autograd.grad((run(x_ * 2, scale) * by).sum(), (x_, scale), create_graph=True)
        found.append((of_x, of_scale, *torch.autograd.grad((of_x * by).sum() + of_scale**2, (x_, scale))))
    for one, own in zip(*found, strict=True):
        assert torch.equal(one, own)


@pytest.mark.parametrize("expanded", [True, False])
def test_gradients_that_do_not_lie_as_the_values_do(expanded):
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(4, 3, 5, 6, generator=rng)
    gradient = torch.randn(4, 3, 1, 1, generator=rng).expand(x.shape)
    if not expanded:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    case = x, torch.tensor(0.3), torch.tensor(0.0), 4, brevitas(True, False, False), gradient
    one, own = both(*case)
    assert torch.equal(own[1], one[1])
    assert own[1].stride() == one[1].stride()


def test_channels_last():
    x = torch.randn(4, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    zero, module = torch.tensor(0.0), brevitas(True, False, False)
    one, own = both(x, torch.tensor(0.3), zero, 4, module, torch.randn_like(x))
    assert torch.equal(own[0], one[0])
    assert torch.equal(own[1], one[1])
    assert own[0].stride() == one[0].stride() == x.stride()
    assert own[1].stride() == one[1].stride()
    assert "do not lie one behind the other" in why_not(x, torch.rand(1, 3, 1, 1), zero)


def test_a_scale_that_is_a_view():
    wide = torch.rand(3, 4) + 0.1
    x, scale, zero = torch.randn(3, 7), wide[:, :1], torch.zeros(3, 1)
    one, own = both(x, scale, zero, 4, brevitas(True, False, False))
    assert torch.equal(own[0], one[0])
    module = brevitas(True, False, False)
    values = quantize(x, scale, zero.expand(3, 4)[:, :1], Ends(-8, 7, False))
    assert torch.equal(values, module(scale, zero, torch.tensor(4.0), x))


@pytest.mark.parametrize(
    ("shape", "scale_shape", "lie"),
    [
        ((), (), (1, 1, 1, 1)),
        ((2, 3), (), (1, 1, 6, 1)),
        ((2, 3, 5), (1, 3, 1), (2, 3, 5, 1)),
        ((2, 3, 5), (2, 1, 1), (1, 2, 15, 1)),
        ((2, 3, 5), (5,), (1, 1, 6, 5)),
        ((2, 3, 5, 7), (2, 3, 1, 7), (1, 6, 5, 7)),
        ((1, 3, 1), (1, 3, 1), (1, 1, 1, 3)),
        ((2, 3, 5, 7, 2), (1, 3, 1, 7, 2), (2, 3, 5, 14)),
        ((2, 3, 5, 7), (1, 3, 1, 7), (2, 3, 5, 7)),
        ((2, 3, 5, 7, 2), (1, 3, 1, 7, 1), None),
        ((2, 3), (3, 3), None),
        ((3,), (2, 3), None),
        ((), (1,), None),
    ],
)
def test_how_values_lie_on_scales(shape, scale_shape, lie):
    assert lie_of(shape, scale_shape) == (None if lie is None else Lie(*lie))


class _Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("x", "scale", "zero", "why"),
    [
        (torch.zeros(3, dtype=torch.float64), torch.ones(()), torch.zeros(()), "torch.float64, torch.float32 and"),
        (torch.zeros(3), torch.ones((), dtype=torch.float16), torch.zeros(()), "torch.float16"),
        (torch.zeros(3), torch.ones(()), torch.zeros((), dtype=torch.int32), "torch.int32, expected float32"),
        (torch.zeros(3).as_subclass(_Subclass), torch.ones(()), torch.zeros(()), "no plain ones"),
        (torch.zeros(3), torch.ones((), device="meta"), torch.zeros(()), "no plain ones"),
        (torch.zeros(3), torch.ones(()), torch.zeros((), requires_grad=True), "its zero point is learned"),
        (torch.zeros(3, 5), torch.ones(5, 1, 1), torch.zeros(()), r"scales of shape (5, 1, 1) lie in no known way"),
        (torch.zeros(3, 5), torch.ones(()), torch.zeros(5), "zero points have the shape (5,)"),
        (torch.zeros(3), torch.ones(()), torch.zeros(1, 1), "zero points have the shape (1, 1)"),
        (torch.zeros(3, 10)[:, ::2], torch.ones(()), torch.zeros(()), "do not lie one behind the other"),
        (torch.zeros(3, 5).T, torch.ones(5, 1), torch.zeros(()), "do not lie one behind the other"),
    ],
)
def test_what_it_does_not_take(x, scale, zero, why):
    assert why in why_not(x, scale, zero)


def test_parameters_are_taken():
    x = torch.nn.Parameter(torch.randn(3, 4))
    assert why_not(x, torch.nn.Parameter(torch.tensor(0.3)), torch.zeros(())) is None
    with torch.no_grad():
        assert why_not(x, torch.tensor(0.3), torch.zeros((), requires_grad=True)) is None
