"""The torch operator `hwfault::accumulate`: a layer's accumulators as an array of processing elements leaves them.

| argument          | type, shape                      | meaning                                                    |
|-------------------|----------------------------------|------------------------------------------------------------|
| acc               | float32 or float64, the layer's  | the exact accumulators, integers                           |
| x, w              | float32, the layer's             | the integers of inputs and weights                         |
| order, events     | int64 (products or 0,), (n, 8)   | see hwfault.stream.array.Array                             |
| walk              | int[]: stride, padding, dilation | of each spatial axis, one after the other; empty: linear   |
| groups            | int                              | of the convolution                                         |
| numbers           | int[4]                           | width, saturate (0 or 1), step, pass_steps                 |
| straight_through  | bool                             | whether words that the array changed pass their gradient on|
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream import native
from hwfault.stream.array import Array, Axis, Layer

_DTYPES = {torch.float32: 0, torch.float64: 1}


@torch.library.custom_op("hwfault::accumulate", mutates_args=(), device_types="cpu")
def accumulate(
    acc: Tensor,
    x: Tensor,
    w: Tensor,
    order: Tensor,
    events: Tensor,
    walk: Sequence[int],
    groups: int,
    numbers: Sequence[int],
    straight_through: bool,
) -> Tensor:
    """The accumulators under the array's faults and width, contiguous.

    The gradient goes to acc alone; it is zero at words that the array changed unless `straight_through`. Raises
    PlanError for accumulators that are neither float32 nor float64.
    """
    if acc.dtype not in _DTYPES:
        raise PlanError(f"accumulators of type {acc.dtype}, expected torch.float32 or torch.float64")
    acc, x, w = acc.contiguous(), x.contiguous(), w.contiguous()
    out = torch.empty_like(acc)
    width, saturate, step, pass_steps = numbers
    array = Array(width, bool(saturate), step, pass_steps, order.numpy(), events.numpy())
    pointers = (acc.data_ptr(), x.data_ptr(), w.data_ptr(), out.data_ptr())
    layer = layer_of(x, acc, w, walk, groups)
    native.accumulate(_DTYPES[acc.dtype], *pointers, layer, array, torch.get_num_threads())
    return out


def layer_of(x: Tensor, acc: Tensor, w: Tensor, walk: Sequence[int], groups: int) -> Layer:
    """The shape of a layer's sums, from those of its tensors."""
    if not walk:
        positions = acc.shape[1:-1].numel()
        return Layer(x.shape[0], w.shape[0], 1, w.shape[1], (Axis(positions, positions),), True)
    steps = [walk[i : i + 3] for i in range(0, len(walk), 3)]
    lengths = zip(x.shape[2:], acc.shape[2:], w.shape[2:], steps, strict=True)
    axes = tuple(Axis(i, o, k, stride, pad, dilation) for i, o, k, (stride, pad, dilation) in lengths)
    return Layer(x.shape[0], w.shape[0], groups, w.shape[1], axes)


@accumulate.register_fake
def _(acc: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(acc, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.straight_through = inputs[-1]
    if not ctx.straight_through:
        ctx.save_for_backward((output != inputs[0]) & ~inputs[0].isnan())  # what is no number stays


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.straight_through:
        gradient = gradient.masked_fill(ctx.saved_tensors[0], 0)
    return gradient, *(None,) * 8


accumulate.register_autograd(_backward, setup_context=_keep)
