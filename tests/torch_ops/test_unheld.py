"""Which tensors count as unheld: none that anybody can still reach, however he holds it."""

import sys
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils import dlpack

from hwfault.torch_ops import inside_torch, unheld
from hwfault.torch_ops.unheld import gradient_is_unheld, output_is_unheld


class Quantizer(nn.Module):
    def __init__(self, make, wrapped, before=()):
        super().__init__()
        self.make, self.wrapped, self.answers, self.last = make, wrapped, [], None
        for hook in before:
            self.register_forward_hook(hook)
        self.register_forward_hook(Ask(self))

    def forward(self, x):
        value = self.make(x)
        output = IntQuantTensor(value, 1.0, 0.0, 4.0, True, False) if self.wrapped else value
        self.last = output if self.make is remembered else None
        return output


class Ask:
    def __init__(self, quantizer):
        self.quantizer = [quantizer]

    def __call__(self, module, args, output):
        self.quantizer[0].answers.append(output_is_unheld(output))


class SavesItsOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x * 2
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


def remembered(x):
    return x * 2


def value_of(output):
    return output[0] if isinstance(output, IntQuantTensor) else output


def asked(make, wrapped, *before, x=None):
    quantizer = Quantizer(make, wrapped, before)
    result = quantizer(torch.ones(2, 3, requires_grad=True) if x is None else x)
    del result
    return quantizer.answers[0]


FRESH = {
    "product": lambda x: x * 2,
    "round": lambda x: torch.round(x) * torch.full((), 0.5, requires_grad=True),
    "clone of a view": lambda x: x.t().clone(),
    "strided": lambda x: (x * 2).t().clone().t() * 1,
    "detached": lambda x: (x * 2).detach_(),
}
HELD = {
    "the input": lambda x: x,
    "a view of the input": lambda x: x.view(-1),
    "the input detached": lambda x: x.detach(),
    "a transposed temporary": lambda x: (x * 2).t(),
    "saved as an output": torch.exp,
    "saved by relu": torch.relu,
    "saved by a function": SavesItsOutput.apply,
    "NumPy's memory": lambda x: torch.from_numpy(np.ones(3, np.float32)),
    "another process' memory": lambda x: (x * 2).detach().share_memory_(),
    "a parameter": lambda x: nn.Parameter(torch.ones(3)),
    "half of a tensor": lambda x: torch.chunk(x * 2, 2)[0],
    "expanded": lambda x: (x * 2)[:1].expand(2, 3),
    "remembered by the module": remembered,
    "zeros without memory": lambda x: torch._efficientzerotensor(3),
    "lazily negated": lambda x: torch.ones(3, dtype=torch.complex64).conj().imag,
    "sparse": lambda x: torch.ones(3, 3).to_sparse(),
    "meta": lambda x: torch.empty(3, device="meta"),
}


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("name", FRESH)
def test_fresh_outputs_are_unheld(name, wrapped):
    for _ in range(3):
        assert asked(FRESH[name], wrapped)
    with torch.no_grad():
        assert asked(FRESH[name], wrapped)
    with torch.inference_mode():
        assert asked(FRESH[name], wrapped, x=torch.ones(2, 3))


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("name", HELD)
def test_held_outputs_are_not(name, wrapped):
    assert not asked(HELD[name], wrapped)


KEEP = {
    "the output": lambda output: output,
    "the value": value_of,
    "a view": lambda output: value_of(output)[0],
    "detached": lambda output: value_of(output).detach(),
    "an array": lambda output: value_of(output).detach().numpy(),
    "its storage's tensor": lambda output: torch.empty(0).set_(value_of(output).detach()),
    "a sum of which it is a part": lambda output: value_of(output) * torch.ones((), requires_grad=True),
    "a dictionary": lambda output: {"of": {"lists": [output]}},
    "a closure": lambda output: lambda: output,
    "a capsule": lambda output: dlpack.to_dlpack(value_of(output).detach()),
    "an iterator": lambda output: iter([value_of(output)]),
    "for another process": lambda output: ForkingPickler.dumps(value_of(output).detach()),
}


@pytest.mark.parametrize("kwargs", [False, True])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("name", KEEP)
def test_outputs_that_a_hook_keeps_are_not(name, wrapped, kwargs):
    kept = []
    quantizer = Quantizer(FRESH["product"], wrapped)
    if kwargs:
        hook = lambda _m, _a, _k, output: kept.append(KEEP[name](output))  # noqa: E731
    else:
        hook = lambda _m, _a, output: kept.append(KEEP[name](output))  # noqa: E731
    quantizer.register_forward_hook(hook, prepend=True, with_kwargs=kwargs)
    quantizer(torch.ones(2, 3, requires_grad=True))
    assert quantizer.answers == [False]
    kept.clear()


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_output_that_a_hook_has_put_in_place_of_another_is_copied_or_its_own(wrapped):
    """It is held by the loop over the hooks, too; that this costs a copy is all that may be."""
    kept = []

    def replace(_module, _args, output):
        kept.append(value_of(output) * 3)
        return kept[-1]

    assert not asked(FRESH["product"], wrapped, replace)


@pytest.mark.parametrize("wrapped", [True, False])
def test_global_hooks_that_keep_outputs_are_seen_before_and_after_the_measurement(wrapped):
    kept = []
    for fresh in (True, False):
        if fresh:
            unheld._KNOWN.clear()
        handle = register_module_forward_hook(lambda _m, _a, output: kept.append(output))
        try:
            assert not asked(FRESH["product"], wrapped)
        finally:
            handle.remove()
        assert asked(FRESH["product"], wrapped)


@pytest.mark.parametrize("blind", ["refcount", "storages"])
def test_where_a_holder_goes_unseen_nothing_is_unheld(blind, monkeypatch):
    unheld._KNOWN.clear()
    if blind == "refcount":
        monkeypatch.setattr(sys, "getrefcount", lambda _x: 2)
    else:
        uses = inside_torch.uses
        monkeypatch.setattr(inside_torch, "uses", lambda x: (uses(x)[0], 2, uses(x)[2]))
    assert unheld._unheld_outputs() == frozenset()
    assert not asked(FRESH["product"], True)
    assert unheld.unheld_gradients() == frozenset()
    monkeypatch.undo()
    unheld._KNOWN.clear()


def test_without_counts_nothing_is_unheld(monkeypatch):
    """As where Python runs without its lock, or a torch to come does not tell them."""
    monkeypatch.setattr(unheld, "_COUNTED", False)
    monkeypatch.setattr(unheld, "_KNOWN", {})
    monkeypatch.setattr(inside_torch, "uses", None)  # never asked
    assert not asked(FRESH["product"], True)
    assert unheld.unheld_gradients() == frozenset()
    assert gradients(lambda f, x: (f(x * 1) * 2).square().sum().backward()) == [False]


class Asks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, answers):
        ctx.answers = answers
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        ctx.answers.append(gradient_is_unheld(gradients[0]))
        return gradients[0], None


def gradients(run):
    """What is answered in a backward pass; `run` takes a function that asks in its backward, and an input."""
    answers = []
    run(lambda x: Asks.apply(x, answers), torch.ones(2, 3, requires_grad=True))
    return answers


def test_gradients_of_a_chain_are_unheld():
    assert gradients(lambda f, x: (f(x * 1) * 2).square().sum().backward()) == [True]
    assert gradients(lambda f, x: (f(f(x * 1) * 2) * 3).sum().backward()) == [True, True]


def test_summed_gradients_are_unheld():
    def two_readers(f, x):
        y = f(x * 1)
        (y * 2 + y * 3).mul(2).sum().backward()

    assert gradients(two_readers) == [True]


def test_the_first_of_two_branches_of_a_sum_must_not_write_the_gradient_that_the_second_has_too():
    first, *_ = gradients(lambda f, x: ((f(x * 1) + f(x * 3)) * 2).square().sum().backward())
    assert not first


HELD_GRADIENTS = {
    "given": lambda f, x: f(x * 1).backward(torch.ones(2, 3)),
    "captured": lambda f, x: torch.autograd.grad((y := f(x * 1)).square().sum(), (x, y)),
    "of a view": lambda f, x: (x.view(6) * 1 + f(x * 1).view(6)).mul(2).sum().backward(),
}


@pytest.mark.parametrize("name", HELD_GRADIENTS)
def test_held_gradients_are_not(name):
    assert gradients(HELD_GRADIENTS[name]) == [False]


@pytest.mark.parametrize(
    "keep",
    [lambda g: g, lambda g: g[0], lambda g: g.detach().numpy(), lambda g: g.detach()],
    ids=("itself", "a part", "as numpy", "detached"),
)
def test_gradients_that_a_hook_keeps_are_not(keep):
    def run(f, x):
        kept, y = [], f(x * 1)
        y.register_hook(lambda g: kept.append(keep(g)))
        (y * 2).square().sum().backward()
        assert kept

    assert gradients(run) == [False]


def test_gradients_from_numpy_are_not():
    class FromNumpy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.from_numpy(np.ones((2, 3), np.float32))

    assert gradients(lambda f, x: FromNumpy.apply(f(x * 1)).sum().backward()) == [False]
