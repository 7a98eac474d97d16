"""How the values of a tensor lie in memory."""

import torch
from torch import Tensor

from hwfault.torch_ops.arranged import has_names


def is_dense(x: Tensor) -> bool:
    """Whether the values of a tensor lie in memory without gaps, in whichever order of its axes."""
    axes = sorted((stride, length) for stride, length in zip(x.stride(), x.shape, strict=True) if length != 1)
    expected = 1
    for stride, length in axes:
        if stride != expected:
            return False
        expected *= length
    return True


def as_lying(values: Tensor, like: Tensor) -> Tensor:
    """Values in memory as a tensor of their shape lies there, if without gaps; compilers place them as they like."""
    if torch.compiler.is_compiling() or like.is_contiguous() or has_names(like) or not is_dense(like):
        return values
    return torch.empty_like(like).copy_(values)


def lie_alike(a: Tensor, b: Tensor) -> bool:
    """Whether tensors of one shape lie in memory in the same order."""
    strides = zip(a.shape, a.stride(), b.stride(), strict=True)
    return all(length == 1 or of_a == of_b for length, of_a, of_b in strides)
