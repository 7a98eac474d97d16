"""FaultInjectionFunction: what it refuses at the call, and that every transform of torch follows its rule."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from hwfault.errors import HwfaultError
from hwfault.torch_ops.function import FaultInjectionFunction
from tests.helpers.injection.oracle import same_bits

# torch warns of its own ways: derivatives in forward mode use jit.script, and Dynamo instantiates autograd functions
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]

apply = FaultInjectionFunction.apply
FLOATS = sorted({d for d in vars(torch).values() if isinstance(d, torch.dtype) and d.is_floating_point}, key=str)


def example(dtype=torch.float64, shape=(4, 3)):
    generator = torch.Generator().manual_seed(0)
    x, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return x, values, torch.rand(shape, generator=generator) < 0.4


def cubes(x, values, mask):
    """A sum whose gradient is 3 x^2 where nothing is faulty."""
    return apply(x, values, mask).pow(3).sum()


def multiplied(dtype):
    """Whether torch multiplies a type, asked anew."""
    try:
        torch.zeros(1, dtype=dtype).mul(2)
    except (RuntimeError, TypeError):
        return False
    return True


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float16, torch.int8])
def test_masks_that_are_not_bool_are_refused_at_the_call(dtype):
    x, values, mask = example()
    for given in (x, x.requires_grad_()):
        with pytest.raises(HwfaultError, match=rf"the mask of FaultInjectionFunction is {dtype}, expected torch.bool"):
            apply(given, values, mask.to(dtype))


@pytest.mark.parametrize("dtype", [d for d in FLOATS if torch.empty(0, dtype=d).element_size()], ids=str)
def test_a_type_works_both_ways_or_is_refused_at_the_call(dtype):
    mask = torch.tensor([True, False, False])
    try:
        x, values = (torch.tensor(t).to(dtype).requires_grad_() for t in ([1.0, 2.0, 4.0], [0.5, 0.25, 0.5]))
    except (RuntimeError, NotImplementedError):
        x = values = torch.empty(3, dtype=dtype).requires_grad_()
    if not multiplied(dtype):
        for of_it, other in ((x, x), (x, torch.zeros(3))):
            with pytest.raises(HwfaultError, match=f"is {dtype}, expected a floating type that torch can multiply"):
                apply(of_it, other, mask)
        return
    out = apply(x, values, mask)
    out.backward(torch.full((3,), float("inf")).to(dtype))
    assert out.tolist() == [0.5, 2.0, 4.0]
    assert x.grad.tolist() == [0.0, float("inf"), float("inf")]
    assert x.grad.dtype == dtype
    assert values.grad is None


def test_some_type_is_refused_and_some_is_taken():
    assert {multiplied(dtype) for dtype in FLOATS} == {True, False}


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.uint8])
@pytest.mark.parametrize("which", ["x", "faulty_values"])
def test_values_that_are_not_floating_are_refused(which, dtype):
    x, values, mask = example()
    given = {"x": x, "faulty_values": values, which: x.to(dtype)}
    with pytest.raises(HwfaultError, match=f"{which} of FaultInjectionFunction is {dtype}, expected a floating type"):
        apply(given["x"], given["faulty_values"], mask)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("shape", [(1,), (3,), (4, 1), (1, 4, 3), ()])
def test_shapes_that_would_have_to_be_expanded_are_refused(which, shape):
    given = list(example())
    given[which] = torch.zeros(shape, dtype=given[which].dtype)
    with pytest.raises(HwfaultError, match=r"have the shapes .*, expected one shape"):
        apply(*given)


def test_grad_and_its_own_gradient():
    x, values, mask = example()
    assert torch.equal(grad(cubes)(x, values, mask), (3 * x**2).masked_fill(mask, 0))
    twice = grad(lambda x: grad(cubes)(x, values, mask).sum())(x)
    assert torch.equal(twice, (6 * x).masked_fill(mask, 0))
    assert torch.equal(grad(cubes, argnums=1)(x, values, mask), torch.zeros_like(x))


@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None), (None, None, 0), (1, 1, 1), (None, 1, 0)])
def test_vmap(axes):
    whole = [t if axis is not None else t[0] for t, axis in zip(example(shape=(3, 3)), axes, strict=True)]
    found = vmap(apply, in_dims=axes)(*whole)
    for i in range(3):
        one = [t if axis is None else t.select(axis, i) for t, axis in zip(whole, axes, strict=True)]
        assert same_bits(found[i], torch.where(one[2], one[1], one[0]))


def test_gradients_of_each_sample():
    x, values, mask = example()
    assert torch.equal(vmap(grad(cubes))(x, values, mask), (3 * x**2).masked_fill(mask, 0))
    shared = vmap(grad(cubes), in_dims=(0, None, None))(x, values[0], mask[0])
    assert torch.equal(shared, (3 * x**2).masked_fill(mask[0], 0))


def test_jacobians_both_ways_and_hessians():
    x, values, mask = (t[0] for t in example())
    expected = torch.diag((~mask).double())
    for jacobian in (jacrev, jacfwd):
        assert torch.equal(jacobian(lambda x: apply(x, values, mask))(x), expected)
    assert torch.allclose(hessian(cubes)(x, values, mask), torch.diag((6 * x).masked_fill(mask, 0)))


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_derivatives_that_are_no_numbers_stop_at_the_mask(bad):
    x, values, mask = example()
    endless = torch.full_like(x, float(bad))
    expected = endless.masked_fill(mask, 0)
    _, backward = vjp(lambda x: apply(x, values, mask), x)
    assert same_bits(backward(endless)[0], expected)
    assert same_bits(jvp(lambda x: apply(x, values, mask), (x,), (endless,))[1], expected)
    assert not jvp(lambda v: apply(x, v, mask), (values,), (endless,))[1].any()
    with forward_ad.dual_level():
        out = apply(forward_ad.make_dual(x, endless), values, mask)
        assert same_bits(forward_ad.unpack_dual(out).tangent, expected)


def test_a_refusal_inside_of_transforms():
    x, values, mask = example()
    for transformed in (grad(cubes), vmap(apply)):
        with pytest.raises(HwfaultError, match=r"is torch\.uint8, expected torch\.bool"):
            transformed(x, values, mask.byte())


@pytest.mark.parametrize("given", [None, [[True]], 1.0, np.ones((2, 3)), "mask"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_tensor_is_refused_in_a_sentence(place, given):
    operands = [torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)]
    operands[place] = given
    what = ("x", "faulty_values", "the mask")[place]
    with pytest.raises(HwfaultError, match=rf"^{what} of FaultInjectionFunction is .*, expected a tensor"):
        apply(*operands)


@pytest.mark.parametrize("called", [lambda *args: FaultInjectionFunction.apply(*args), lambda *args: apply(*args)])
def test_compiled_in_one_graph(called):
    x, values, mask = example(torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: called(x, values, mask) * 2, backend="aot_eager", fullgraph=True)
    compiled(x.requires_grad_()).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2).masked_fill(mask, 0))
