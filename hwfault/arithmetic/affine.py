"""What integer sums are worth: y = float32(x * multiplier + addend), in float64 and rounded once.

float64 holds the product of two float32 numbers exactly, so that an engine that contracts the multiplication and the
addition into one instruction finds the same bits.
"""

from typing import Any

import torch
from torch import Tensor

from hwfault.torch_ops.inside_torch import traced_for_onnx


def affine(x: Tensor, multiplier: Tensor, addend: Tensor) -> Tensor:
    """float32(x * multiplier + addend), which broadcast to the shape of x (float32, or float64 for wider integers)."""
    if traced_for_onnx():
        y: Tensor = _Traced.apply(x, multiplier, addend)  # type: ignore[no-untyped-call]
        return y if x.dtype == torch.float32 else y.float()
    return (x.double() * multiplier.double()).add_(addend.double()).float()


class _Traced(torch.autograd.Function):
    """The same, of the type of x, as one node of a traced graph: nothing else of the graph can be fused with it."""

    @staticmethod
    def symbolic(g: Any, x: Any, multiplier: Any, addend: Any) -> Any:
        out = g.op("hwfault::Affine", x, multiplier, addend)
        out.setType(x.type())
        return out

    @staticmethod
    def forward(ctx: Any, x: Tensor, multiplier: Tensor, addend: Tensor) -> Tensor:
        return (x.double() * multiplier.double() + addend.double()).to(x.dtype)
