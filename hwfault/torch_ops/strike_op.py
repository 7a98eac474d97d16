"""The torch operators `hwfault::strike` and `hwfault::zero`: faults of any mechanism, and what they do to gradients.

| argument         | type, shape   | meaning                                                                      |
|------------------|---------------|------------------------------------------------------------------------------|
| x, gradient      | floating, any | values on the quantizer's grid (or accumulators); gradient of what is struck |
| kept             | as x, or bool | the values before, where these decide; of arrays the words that were changed |
| tensors, numbers | lists         | the operands in the order of their record (hwfault.stream.mechanism)         |
| mechanism        | str           | the record's name                                                            |
| straight_through | bool          | whether words that were changed pass their gradient on                       |
| reads_stored     | bool          | whether which words are changed depends on the values before                 |
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream.mechanism import mechanism_named
from hwfault.torch_ops.on_cpu import WRITERS, check_types, contiguous


@torch.library.custom_op("hwfault::strike", mutates_args=(), device_types="cpu")
def strike(
    x: Tensor,
    tensors: Sequence[Tensor],
    numbers: Sequence[int],
    mechanism: str,
    straight_through: bool,
    reads_stored: bool,
) -> tuple[Tensor, Tensor]:
    """x with faults, contiguous, and what the mechanism counted (int64); words that no fault changed keep their bits.

    The gradient goes to x alone, and is zero at words whose code was changed unless `straight_through`. Raises
    PlanError for operands that do not fit the values or each other, HwfaultError for programs, rows and numbers that
    are none, ModelError for a memory of an unknown kind.
    """
    known = mechanism_named(mechanism)
    operands = known.named(tensors, numbers)
    check_types(known, operands)
    x = x.contiguous()
    out, counts = torch.empty_like(x), torch.zeros(known.counts, dtype=torch.int64)
    WRITERS[mechanism].strike(x, out, contiguous(known, operands), None, counts)
    return out, counts


@torch.library.custom_op("hwfault::zero", mutates_args=(), device_types="cpu")
def zero(
    gradient: Tensor, kept: Tensor | None, tensors: Sequence[Tensor], numbers: Sequence[int], mechanism: str
) -> Tensor:
    """The gradient with zeros, contiguous, at the words that `strike` changes, which are found again.

    `kept` must be given where `reads_stored` holds. Raises what `strike` does, and PlanError for values that are not of
    the gradient's shape and type.
    """
    known, operands = mechanism_named(mechanism), None
    gradient, kept = gradient.contiguous(), None if kept is None else kept.contiguous()
    if not known.keeps_changes:
        check_alike(gradient, kept)
        operands = known.named(tensors, numbers)
        check_types(known, operands)
        operands = contiguous(known, operands)
    out = torch.empty_like(gradient)
    WRITERS[mechanism].zero(gradient, out, kept, operands)
    return out


def check_alike(gradient: Tensor, values: Tensor | None) -> None:
    """Raises PlanError unless a gradient is one of the values."""
    if values is not None and (gradient.shape, gradient.dtype) != (values.shape, values.dtype):
        raise PlanError(
            f"a gradient {tuple(gradient.shape)} of {gradient.dtype} for values {tuple(values.shape)} of {values.dtype}"
        )


@strike.register_fake
def _(
    x: Tensor, _tensors: Sequence[Tensor], _numbers: Sequence[int], mechanism: str, *_rules: bool
) -> tuple[Tensor, Tensor]:
    counts = x.new_empty(mechanism_named(mechanism).counts, dtype=torch.int64)
    return torch.empty_like(x, memory_format=torch.contiguous_format), counts


@zero.register_fake
def _(gradient: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(gradient, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keeps what names the faults; x itself, by reference, only where the outcome depends on the values before."""
    x, tensors, numbers, ctx.mechanism, ctx.straight_through, reads_stored = inputs
    ctx.none = _no_gradients(tensors, numbers)
    if ctx.straight_through:
        return
    if mechanism_named(ctx.mechanism).keeps_changes:
        ctx.numbers = []
        ctx.save_for_backward((output[0] != x) & ~x.isnan())  # what is no number stays
        return
    ctx.numbers = list(numbers)
    ctx.save_for_backward(x if reads_stored else None, *tensors)


def _backward(ctx: Any, gradient: Tensor, _counts: Tensor) -> tuple[Any, ...]:
    if not ctx.straight_through:
        kept, *tensors = ctx.saved_tensors
        gradient = zero(gradient, kept, tensors, ctx.numbers, ctx.mechanism)
    return gradient, *ctx.none, None, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, kept, tensors, numbers, ctx.mechanism = inputs
    ctx.numbers, ctx.none = list(numbers), _no_gradients(tensors, numbers)
    ctx.save_for_backward(kept, *tensors)


def _second_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    kept, *tensors = ctx.saved_tensors
    return zero(gradient, kept, tensors, ctx.numbers, ctx.mechanism), None, *ctx.none, None


def _no_gradients(tensors: Sequence[Tensor], numbers: Sequence[int]) -> tuple[Any, Any]:
    """The gradients of both lists: torch expects one for each tensor, and takes a list without anything for tensors."""
    return [None] * len(tensors), None if numbers else []


strike.register_autograd(_backward, setup_context=_keep)
zero.register_autograd(_second_backward, setup_context=_keep_for_second)
