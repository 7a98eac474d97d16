"""Fault injection as a function, for callers who have masks and faulty values of their own."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from hwfault.errors import HwfaultError, expect_kind
from hwfault.torch_ops.inside_torch import in_forward_mode

_USUAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class FaultInjectionFunction(torch.autograd.Function):
    """`apply(x, faulty_values, mask)`: faulty values where the mask is true, x elsewhere.

    The three have one shape; x and the values are of any floating types that torch can multiply, the mask is bool. Only
    the mask is kept for the backward pass, which returns the gradient with zeros where the mask is true (also for NaN
    and infinite gradients), and None for the other two. Forward-mode derivatives, `torch.func.grad`, `vmap` and second
    derivatives follow the same rule. Raises HwfaultError, before anything is computed, for anything else.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, faulty_values: Tensor, mask: Tensor) -> Tensor:
        _check(x, faulty_values, mask)
        return torch.where(mask, faulty_values, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        mask = inputs[2]
        ctx.save_for_backward(mask)
        ctx.save_for_forward(mask)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        # not a product with the mask: 0 * NaN and 0 * inf are NaN
        return gradients[0].masked_fill(mask, 0), None, None

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """As of torch.autograd.Function."""
        # a `jvp` is there only where one is asked for: compilers take no class that has one
        forward_mode = not torch.compiler.is_compiling() and in_forward_mode()
        function = _WithTangents if forward_mode and cls is FaultInjectionFunction else cls
        return super(FaultInjectionFunction, function).apply(*args, **kwargs)  # type: ignore[no-untyped-call]


class _WithTangents(FaultInjectionFunction):
    """The same with derivatives in forward mode."""

    @staticmethod
    def jvp(ctx: Any, x: Tensor, _faulty_values: Tensor | None, _mask: None) -> Tensor:
        (mask,) = ctx.saved_tensors
        return x.masked_fill(mask, 0)


def _check(x: Tensor, faulty_values: Tensor, mask: Tensor) -> None:
    """Raises HwfaultError for what would fail, or mean something else, in the forward or only in the backward pass."""
    for what, given in (("x", x), ("faulty_values", faulty_values), ("the mask", mask)):
        expect_kind(given, Tensor, f"{what} of FaultInjectionFunction", "a tensor (of a QuantTensor its .value)")
    if mask.dtype != torch.bool:
        raise HwfaultError(
            f"the mask of FaultInjectionFunction is {mask.dtype}, expected torch.bool, true where the values are "
            "faulty; convert it before (mask != 0)"
        )
    for what, given in (("x", x), ("faulty_values", faulty_values)):
        if given.dtype not in _USUAL and not (given.is_floating_point() and _can_be_multiplied(given.dtype)):
            raise HwfaultError(
                f"{what} of FaultInjectionFunction is {given.dtype}, expected a floating type that torch can multiply, "
                f"such as torch.float32 or torch.bfloat16; convert it before ({what}.float())"
            )
    if not x.shape == faulty_values.shape == mask.shape:
        raise HwfaultError(
            f"x, faulty_values and mask of FaultInjectionFunction have the shapes {tuple(x.shape)}, "
            f"{tuple(faulty_values.shape)} and {tuple(mask.shape)}, expected one shape; expand them before "
            "(torch.broadcast_tensors)"
        )


@cache
def _can_be_multiplied(dtype: torch.dtype) -> bool:
    """Whether torch has the arithmetic that gradients of this type are added up and scaled with."""
    try:  # asked of torch itself: which of the small types have arithmetic differs from version to version
        one = torch.zeros(1, dtype=dtype)
        _ = one * one
    except (RuntimeError, TypeError):
        return False
    return True
