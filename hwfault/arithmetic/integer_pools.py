"""Means of integers: their exact sum, and one multiplication."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hwfault.arithmetic.integer_layer import CONVOLUTIONS
from hwfault.errors import HwfaultError

_WINDOWS = {functional.avg_pool1d: 1, torch.avg_pool1d: 1, functional.avg_pool2d: 2, functional.avg_pool3d: 3}
_ADAPTIVE = {
    functional.adaptive_avg_pool1d: 1,
    torch.adaptive_avg_pool1d: 1,
    functional.adaptive_avg_pool2d: 2,
    functional.adaptive_avg_pool3d: 3,
}
MEANS = (torch.mean, Tensor.mean)
POOLS = {*_WINDOWS, *_ADAPTIVE, *MEANS}
"""The functions that take means."""


class Window(NamedTuple):
    """Means over windows that slide over the last axes; `counted` is what a sum is divided by."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    counted: int

    @property
    def added(self) -> int:
        return math.prod(self.kernel)

    def sums(self, x: Tensor, ones: Tensor) -> Tensor:
        """The sums, as a convolution of each channel with ones of shape (channels, 1, kernel)."""
        return CONVOLUTIONS[len(self.kernel)](x, ones, None, self.stride, self.padding, 1, len(ones))


class Mean(NamedTuple):
    """The mean over whole axes, of `counted` values."""

    axes: tuple[int, ...]
    keepdim: bool
    counted: int

    @property
    def added(self) -> int:
        return self.counted

    def sums(self, x: Tensor, _ones: Tensor) -> Tensor:
        return x.sum(self.axes, keepdim=self.keepdim)


Pool = Window | Mean


def pool_of(func: Callable[..., Any], shape: torch.Size, args: Sequence[Any], kwargs: dict[str, Any]) -> Pool:
    """What a call of one of POOLS on a tensor of this shape means, args without the tensor.

    Raises HwfaultError, with the reason alone, for windows whose means are not of equally many values.
    """
    if func in _WINDOWS:
        return _window(_WINDOWS[func], shape, *args, **kwargs)
    if func in _ADAPTIVE:
        return _adaptive(_ADAPTIVE[func], shape, *args, **kwargs)
    return _mean(shape, *args, **kwargs)


def _window(
    rank: int,
    shape: torch.Size,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Pool:
    kernel, pads = _each(kernel_size, rank), _each(padding, rank)
    if ceil_mode or (any(pads) and not count_include_pad and divisor_override is None):
        raise HwfaultError("its windows at the borders hold fewer values than the others")
    if len(shape) != rank + 2:
        raise HwfaultError("its inputs have no batch axis")
    return Window(kernel, _each(stride or kernel_size, rank), pads, divisor_override or math.prod(kernel))


def _adaptive(rank: int, shape: torch.Size, output_size: Any) -> Pool:
    lengths = tuple(int(n) for n in shape[-rank:])
    outputs = tuple(n if out is None else int(out) for n, out in zip(lengths, _each(output_size, rank), strict=True))
    if set(outputs) == {1}:
        return Mean(tuple(range(-rank, 0)), True, math.prod(lengths))
    if any(n % out for n, out in zip(lengths, outputs, strict=True)):
        raise HwfaultError(f"its windows are not all of one size ({list(lengths)} values in {list(outputs)} windows)")
    kernel = tuple(n // out for n, out in zip(lengths, outputs, strict=True))
    return _window(rank, shape, kernel)


def _mean(shape: torch.Size, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None) -> Pool:
    if dtype is not None or out is not None:
        raise HwfaultError("it is asked for another type")
    axes = tuple(range(len(shape))) if dim is None or dim == () else _each(dim, 1)
    return Mean(axes, keepdim, math.prod(int(shape[axis]) for axis in axes))


def _each(value: Any, rank: int) -> tuple[Any, ...]:
    given = tuple(value) if isinstance(value, tuple | list | torch.Size) else (value,)
    return given * rank if len(given) == 1 else given
