"""Faults without a detour through torch's dispatcher, in place where nobody holds the values.

The operators `hwfault::inject` and `hwfault::fault_map` are functional, so that whatever traces a network (compilers,
dispatch modes, functorch) can follow them. Outside of these the same kernels are called directly here. What autograd
keeps is the same on both ways, so that a checkpoint may take one in the forward and the other when it recomputes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwfault.torch_ops.inside_torch import has_gradient_hooks, is_plain, traced
from hwfault.torch_ops.unheld import gradient_is_unheld, unheld_gradients


class Kernel(NamedTuple):
    """One kind of faults: functional operators, and what writes into tensors.

    All take `tensors` and `numbers`, which say what strikes; `strike(x, ..., straight_through, reads_stored)` and
    `zero(gradient, x or None, ...)` return new tensors, the others write to a given contiguous `out`, which may be
    their first argument. Words that hold no number are not struck; `write_struck` returns how many would have been.
    """

    strike: Callable[..., Tensor]
    zero: Callable[..., Tensor]
    write_struck: Callable[[Tensor, Tensor, tuple[Tensor, ...], tuple[Any, ...]], int]
    write_zeros: Callable[[Tensor, Tensor, Tensor | None, tuple[Tensor, ...], tuple[Any, ...]], None]


class Faults(NamedTuple):
    """What strikes the values of a site, and whether which words are struck depends on the stored codes."""

    kernel: Kernel
    tensors: tuple[Tensor, ...]
    numbers: tuple[Any, ...]
    reads_stored: bool
    reads_others: bool = False
    """Whether what becomes of a word depends on other words, so that nothing can be struck in place."""


def struck(x: Tensor, faults: Faults, straight_through: bool, unheld: bool) -> Tensor:
    """x with faults, the same bits and gradients as from the functional operator.

    Where `unheld` says that only the caller holds x, a plain tensor that nobody follows, the result may be x itself,
    overwritten.
    """
    if not unheld and (traced() or not is_plain(x)):
        return faults.kernel.strike(x, *faults.tensors, *faults.numbers, straight_through, faults.reads_stored)
    differentiable = x.requires_grad and torch.is_grad_enabled()
    keeps_x = differentiable and faults.reads_stored and not straight_through
    # an x that is not contiguous is copied anyway; a leaf of the graph cannot be overwritten
    in_place = unheld and not keeps_x and not faults.reads_others and _writable(x, differentiable)
    if not differentiable or (in_place and straight_through):
        return _written(x, faults, in_place)[0]
    unheld_gradients()  # measured here, not inside of a backward pass
    out: Tensor = _Struck.apply(x, faults, straight_through, keeps_x, in_place)  # type: ignore[no-untyped-call]
    return out


def _writable(x: Tensor, differentiable: bool) -> bool:
    """Whether x keeps its meaning for autograd when it is overwritten: no leaf, and nobody waits for its gradient."""
    history = x.grad_fn is not None if differentiable else not x.requires_grad
    return history and x.is_contiguous() and not has_gradient_hooks(x) and not x.retains_grad


def _written(x: Tensor, faults: Faults, in_place: bool) -> tuple[Tensor, int]:
    """The values with faults, and how many words were not struck because they hold no number."""
    source = x.contiguous()
    copied = source is not x
    out = source if in_place or (copied and not faults.reads_others) else torch.empty_like(source)
    no_numbers = faults.kernel.write_struck(source, out, faults.tensors, faults.numbers)
    if in_place and not x.is_inference():
        torch.autograd.graph.increment_version(x)
    return out, no_numbers


class _Struck(torch.autograd.Function):
    """The gradient is zero at struck words, which are found again from the stream.

    It does not tell which of them held no number and so were left as they are; where there were any, which is rare,
    their places are kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, faults: Faults, straight_through: bool, keeps_x: bool, in_place: bool) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.faults = None if straight_through else faults._replace(tensors=())
        out, no_numbers = _written(x, faults, in_place)
        left = None if not no_numbers or keeps_x else (~out.isfinite()).reshape(-1).nonzero().reshape(-1)
        if not straight_through:
            ctx.save_for_backward(x if keeps_x else None, left, *faults.tensors)
        if in_place:
            ctx.mark_dirty(x)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None, None, None]:
        unheld = gradient_is_unheld(gradients[0])
        gradient = gradients[0]
        if gradient is not None and ctx.faults is not None:
            x, left, *tensors = ctx.saved_tensors
            faults = ctx.faults._replace(tensors=tuple(tensors))
            if left is None:
                return _zeroed(gradient, x, faults, unheld), None, None, None, None
            kept = gradient.reshape(-1)[left]
            gradient = _zeroed(gradient, x, faults, unheld)
            gradient = gradient.reshape(-1).index_copy(0, left, kept).reshape(gradient.shape)
        return gradient, None, None, None, None


def _zeroed(gradient: Tensor, x: Tensor | None, faults: Faults, unheld: bool) -> Tensor:
    if traced() or torch.is_grad_enabled() or not is_plain(gradient):
        return faults.kernel.zero(gradient, x, *faults.tensors, *faults.numbers)
    source = gradient.contiguous()
    own = unheld or source is not gradient
    out = source if own else torch.empty_like(source)
    faults.kernel.write_zeros(source, out, None if x is None else x.contiguous(), faults.tensors, faults.numbers)
    return out
