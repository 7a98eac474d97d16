"""Faults without a detour through torch's dispatcher, in place where nobody holds the values.

The operator `hwfault::strike` is functional, so that whatever traces a network (compilers, dispatch modes, functorch)
can follow it. Outside of these the same writers are called directly here. What autograd keeps is the same on both ways,
so that a checkpoint may take one in the forward and the other when it recomputes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwfault.stream.mechanism import Mechanism
from hwfault.torch_ops.arranged import arrange, restore
from hwfault.torch_ops.inside_torch import has_gradient_hooks, is_plain, traced
from hwfault.torch_ops.lying import as_lying, is_dense
from hwfault.torch_ops.on_cpu import WRITERS, Left, contiguous
from hwfault.torch_ops.on_site import StreamSite
from hwfault.torch_ops.strike_op import strike, zero
from hwfault.torch_ops.unheld import gradient_is_unheld, unheld_gradients


class Faults(NamedTuple):
    """By which mechanism a site is struck, and what that depends on."""

    mechanism: Mechanism
    reads_stored: bool
    """Whether which words are changed depends on the values before."""
    reads_others: bool = False
    """Whether what becomes of a word depends on other words, so that nothing can be struck in place."""
    counts: Tensor | None = None
    """What the mechanism counted so far, to be added to."""
    site: StreamSite | None = None
    """What strikes a site of the stream without a detour."""


def strike_eagerly(x: Tensor, faults: Faults, operands: Any, straight_through: bool, unheld: bool) -> Tensor:
    """x with faults, the same bits and gradients as from the functional operator.

    Where `unheld` says that only the caller holds x, a plain tensor that nobody follows, the result may be x itself,
    overwritten.
    """
    if not unheld and (traced() or not is_plain(x)):
        return by_operator(x, faults, operands, straight_through)
    if not (x.requires_grad and torch.is_grad_enabled()):
        # an x that cannot be struck as it lies is copied anyway; in one with a history the result's would go on
        in_place = unheld and not faults.reads_others and not x.requires_grad and _stays(x, faults)
        return _written(x, faults, operands, in_place, None)
    keeps_x = faults.reads_stored and not straight_through
    in_place = unheld and not keeps_x and not faults.reads_others and _stays(x, faults) and _writable(x)
    if in_place and straight_through:
        return _written(x, faults, operands, True, None)
    unheld_gradients()  # measured here, not inside of a backward pass
    rules = (faults, operands, straight_through, keeps_x, in_place)
    out: Tensor = _Struck.apply(x, *rules)  # type: ignore[no-untyped-call]
    return out


def by_operator(x: Tensor, faults: Faults, operands: Any, straight_through: bool) -> Tensor:
    """x with faults, from the functional operator."""
    tensors, numbers = faults.mechanism.listed(operands)
    rules = (faults.mechanism.name, straight_through, faults.reads_stored)
    out: Tensor
    out, counts = strike(x, list(tensors), list(numbers), *rules)
    if faults.counts is not None:
        faults.counts.add_(counts)
    return as_lying(out, x) if _stays(x, faults) else out


def _stays(x: Tensor, faults: Faults) -> bool:
    """Whether values are struck as they lie in memory, and not brought into C order before."""
    return x.is_contiguous() or (faults.site is not None and is_dense(x))


def _writable(x: Tensor) -> bool:
    """Whether a differentiable x keeps its meaning for autograd when it is overwritten: no leaf, and nobody waits for
    its gradient."""
    return x.grad_fn is not None and not has_gradient_hooks(x) and not x.retains_grad


def _written(x: Tensor, faults: Faults, operands: Any, in_place: bool, left: Left | None) -> Tensor:
    """The values with faults; `left` is told how many words were not struck because they hold no number."""
    source = x if _stays(x, faults) else x.contiguous()
    out = source
    if not in_place and (source is x or faults.reads_others):
        out = torch.empty_like(source)
    if faults.site is not None:
        faults.site.strike(source, out, operands, left)
    else:
        counts = None if faults.counts is None else torch.zeros_like(faults.counts)
        WRITERS[faults.mechanism.name].strike(source, out, operands, left, counts)
        if faults.counts is not None and counts is not None:
            faults.counts.add_(counts)
    if in_place and x.requires_grad:
        torch.autograd.graph.increment_version(x)
    return out


class _Struck(torch.autograd.Function):
    """The gradient is zero at struck words, which are found again from the operands.

    These do not tell which of the words held no number and so were left as they are; where there were any, which is
    rare, their places are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, faults: Faults, operands: Any, straight_through: bool, keeps_x: bool, in_place: bool
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.faults = None if straight_through else faults
        not_struck = Left(0)
        out = _written(x, faults, operands, in_place, not_struck)
        left = no_numbers(out) if not_struck.value and not keeps_x else None
        if not straight_through:
            tensors, ctx.numbers = faults.mechanism.listed(operands)
            ctx.save_for_backward(x if keeps_x else None, left, *tensors)
        if in_place:
            ctx.mark_dirty(x)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        unheld = gradient_is_unheld(gradients[0])
        gradient = gradients[0]
        if gradient is not None and ctx.faults is not None:
            x, left, *tensors = ctx.saved_tensors
            gradient = zeroed(gradient, x, left, ctx.faults, (tensors, ctx.numbers), unheld)
        return gradient, None, None, None, None, None


def zeroed(
    gradient: Tensor,
    x: Tensor | None,
    left: Tensor | None,
    faults: Faults,
    listed: tuple[Sequence[Tensor], Sequence[int]],
    unheld: bool = False,
) -> Tensor:
    """The gradient with zeros at struck words, which are found again from the operands, but those at the places `left`.

    `x` are the values before, where these decide. The result may be the gradient, overwritten, if it is `unheld`.
    """
    kept = None if left is None else gradient.reshape(-1)[left]
    gradient = _zeroed(gradient, x, faults, listed, unheld)
    if left is None or kept is None:
        return gradient
    return gradient.reshape(-1).index_copy(0, left, kept).reshape(gradient.shape)


def no_numbers(x: Tensor) -> Tensor:
    """The places of values that are no numbers, as one axis counts them."""
    return (~x.isfinite()).reshape(-1).nonzero().reshape(-1)


def _zeroed(
    gradient: Tensor, x: Tensor | None, faults: Faults, listed: tuple[Sequence[Tensor], Sequence[int]], unheld: bool
) -> Tensor:
    tensors, numbers = listed
    mechanism, site = faults.mechanism, faults.site
    if traced() or torch.is_grad_enabled() or not is_plain(gradient):
        if site is not None and site.axis is not None:  # the operator knows axis 0 alone
            arranged = arrange(gradient, site.axis)
            return restore(zero(arranged, None, list(tensors), list(numbers), mechanism.name), gradient, site.axis)
        by_operator: Tensor = zero(gradient, x, list(tensors), list(numbers), mechanism.name)
        return by_operator
    source = gradient.contiguous()
    own = unheld or source is not gradient
    out = source if own else torch.empty_like(source)
    stored = None if x is None else x.contiguous()
    if site is not None:
        site.zero(source, out, stored, mechanism.named(tensors, numbers))
    else:
        WRITERS[mechanism.name].zero(source, out, stored, contiguous(mechanism, mechanism.named(tensors, numbers)))
    return out
