"""The operators of all mechanisms alike: lists that do not fit, compiled in one graph, and arrays of elements."""

import pytest
import torch

from hwfault.errors import PlanError
from hwfault.torch_ops.strike_op import strike, zero
from tests.helpers.injection.oracle import same_bits
from tests.helpers.torch_ops import operators
from tests.torch_ops import test_map_op, test_ops, test_protection_op

NONE = torch.zeros(0, dtype=torch.int64)


def layer(dtype=torch.float32, straight_through=False):
    """The arguments of `strike` for a linear layer of 6 bit accumulators, some of which overflow or are stuck."""
    x, w = torch.arange(12.0).reshape(3, 4), torch.arange(8.0).reshape(2, 4) - 3
    stuck = torch.tensor([[2, 1, 1, 0, 1, 0, 0xFFFFFFFF, 1]])
    acc = (x @ w.T).to(dtype)
    return operators.sums(acc, x, w, NONE, stuck, [], 1, [6, 0, 1, 0], straight_through)


MECHANISMS = {
    "stream": lambda: operators.stream(*test_ops.arguments("asymmetric")),
    "map": lambda: operators.rows(*test_map_op.arguments("mixed", threshold=test_map_op.HALF)),
    "protected": lambda: operators.memory(*test_protection_op.arguments("both")),
    "array": layer,
}


def with_gradient(arguments):
    x, *rest = arguments
    return x.clone().requires_grad_(), *rest


@pytest.mark.parametrize("name", MECHANISMS)
def test_compiled_in_one_graph(name):
    torch._dynamo.reset()
    found = []
    for compile_it in (False, True):
        arguments = with_gradient(MECHANISMS[name]())
        run = torch.compile(strike, backend="aot_eager", fullgraph=True) if compile_it else strike
        out, counts = run(*arguments)
        out.backward(torch.ones_like(out))
        found.append((out.detach(), counts, arguments[0].grad))
    torch._dynamo.reset()
    (out, counts, gradient), compiled = found
    assert all(map(same_bits, (out, gradient), (compiled[0], compiled[2])))
    assert torch.equal(counts, compiled[1])
    assert (gradient == 0).any()
    assert not torch.equal(out, MECHANISMS[name]()[0])


@pytest.mark.every(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("straight_through", [False, True])
def test_opcheck_of_arrays(dtype, straight_through):
    torch.library.opcheck(strike, with_gradient(layer(dtype, straight_through)))
    gradient = torch.randn(3, 2, dtype=dtype).requires_grad_()
    torch.library.opcheck(zero, (gradient, torch.rand(3, 2) < 0.5, [], [], "array"))


def test_gradients_of_arrays_are_zero_at_changed_words_alone():
    arguments = list(layer())
    arguments[0][1, 0] = float("nan")  # which stays, whatever strikes it
    arguments = with_gradient(arguments)
    out, counts = strike(*arguments)
    assert counts.shape == (0,)
    gradient = torch.randn(out.shape).requires_grad_()
    (first,) = torch.autograd.grad(out, arguments[0], gradient, create_graph=True)
    changed = (out != arguments[0]) & arguments[0].isfinite()
    assert 0 < changed.sum() < changed.numel() - 1
    assert same_bits(first.detach(), gradient.detach().masked_fill(changed, 0))
    (second,) = torch.autograd.grad(first.sum(), gradient)
    assert torch.equal(second, (~changed).float())


@pytest.mark.parametrize("changed", [None, torch.zeros(3, 3, dtype=torch.bool)])
def test_gradients_of_arrays_need_to_know_what_changed(changed):
    with pytest.raises(PlanError, match="which words an array changed is needed, a bool for each of the gradient's"):
        zero(torch.zeros(3, 2), changed, [], [], "array")


def test_a_gradient_of_other_values_is_refused():
    x, tensors, numbers, name, *_ = MECHANISMS["stream"]()
    for gradient in (torch.zeros(3, 5, 41), torch.zeros(x.shape, dtype=torch.float64)):
        with pytest.raises(PlanError, match="a gradient"):
            zero(gradient, x, tensors, numbers, name)


@pytest.mark.parametrize("name", MECHANISMS)
def test_lists_of_other_lengths_are_refused(name):
    x, tensors, numbers, *rest = MECHANISMS[name]()
    with pytest.raises(PlanError, match=rf"numbers for the mechanism '{name}', expected"):
        strike(x, tensors[:-1], numbers, *rest)
    with pytest.raises(PlanError, match="the mechanism is 'other', expected one of stream"):
        strike(x, tensors, numbers, "other", False, True)


@pytest.mark.parametrize(
    ("name", "at", "message"),
    [
        ("stream", 0, "samples of type torch.int32 for the mechanism 'stream', expected torch.int64"),
        ("stream", 2, "program of type torch.int32"),
        ("map", 2, "word of type torch.int32"),
        ("map", 3, "and_mask of type torch.int64 .* expected torch.int32"),
        ("protected", 8, "cells of type torch.int32"),
        ("array", 3, "events of type torch.int32"),
    ],
)
def test_elements_of_another_type_are_refused(name, at, message):
    x, tensors, *rest = MECHANISMS[name]()
    tensors[at] = tensors[at].to(torch.int64 if tensors[at].dtype == torch.int32 else torch.int32)
    with pytest.raises(PlanError, match=message):
        strike(x, tensors, *rest)
