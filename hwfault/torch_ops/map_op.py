"""The torch operators `hwfault::fault_map` and `hwfault::zero_map`: permanent and intermittent faults.

| argument          | type, shape              | meaning                                                              |
|-------------------|--------------------------|----------------------------------------------------------------------|
| x, gradient       | floating, any            | values on the quantizer's grid; gradient of the faulty values        |
| period            | int64 (batch,)           | refresh period of each element of axis 0; one: x is one sample       |
| seed              | int64 ()                 | the bits of the unsigned 64 bit seed                                 |
| word              | int64 (rows,)            | words within a sample, strictly ascending                            |
| masks             | int32 (2, rows)          | and_mask and xor_mask, the bits of unsigned numbers                  |
| scale, zero_point | floating, one axis not 1 | the quantizer's, aligned to x's last axes                            |
| threshold         | int                      | activity threshold, 0 to 2^32 (always)                               |
| site              | int                      | site number of the activity's draws                                  |
| representation    | int                      | index into hwfault.codes.REPRESENTATIONS                             |
| straight_through  | bool                     | whether faulty words pass their gradient on                          |
| reads_stored      | bool                     | whether which words are changed depends on the stored codes          |
"""

from typing import Any

import torch
from torch import Tensor

from hwfault.stream import native
from hwfault.torch_ops.eager import Kernel
from hwfault.torch_ops.ops import Grid, dtype_number


@torch.library.custom_op("hwfault::fault_map", mutates_args=(), device_types="cpu")
def fault_map(
    x: Tensor,
    period: Tensor,
    seed: Tensor,
    word: Tensor,
    masks: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int,
    threshold: int,
    site: int,
    straight_through: bool,
    reads_stored: bool,
) -> Tensor:
    """x with `code' = (code & and_mask) ^ xor_mask` at the map's words, contiguous; other words keep their bits.

    The gradient is zero at words whose code changed unless `straight_through`. Raises PlanError as `inject` does.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    numbers = (bit_width, signed, representation, threshold, site)
    _write_struck(x, out, (period, seed, word, masks, scale, zero_point), numbers)
    return out


@torch.library.custom_op("hwfault::zero_map", mutates_args=(), device_types="cpu")
def zero_map(
    gradient: Tensor,
    x: Tensor | None,
    period: Tensor,
    seed: Tensor,
    word: Tensor,
    masks: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int,
    threshold: int,
    site: int,
) -> Tensor:
    """The gradient with zeros at the words that the map changes; x must be given where `reads_stored` holds."""
    gradient = gradient.contiguous()
    x = None if x is None else x.contiguous()
    out = torch.empty_like(gradient)
    numbers = (bit_width, signed, representation, threshold, site)
    _write_zeros(gradient, out, x, (period, seed, word, masks, scale, zero_point), numbers)
    return out


@fault_map.register_fake
def _(x: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@zero_map.register_fake
def _(gradient: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(gradient, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keeps what names the map; x itself, by reference, only where the outcome depends on the stored codes."""
    x, *tensors = inputs[:7]
    *ctx.numbers, ctx.straight_through, reads_stored = inputs[7:]
    if not ctx.straight_through:
        ctx.save_for_backward(x if reads_stored else None, *tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.straight_through:
        gradient = zero_map(gradient, *ctx.saved_tensors, *ctx.numbers)
    return gradient, *(None,) * 13


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *tensors = inputs[:8]
    ctx.numbers = inputs[8:]
    ctx.save_for_backward(*tensors)


def _second_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return zero_map(gradient, *ctx.saved_tensors, *ctx.numbers), *(None,) * 12


fault_map.register_autograd(_backward, setup_context=_keep)
zero_map.register_autograd(_second_backward, setup_context=_keep_for_second)


def _write_struck(x: Tensor, out: Tensor, tensors: tuple[Tensor, ...], numbers: tuple[Any, ...]) -> int:
    call = _Call(x, tensors, numbers)
    pointers = (x.data_ptr(), out.data_ptr())
    return native.apply_map(dtype_number(x), *pointers, call.map, call.format, torch.get_num_threads()).no_numbers


def _write_zeros(
    gradient: Tensor, out: Tensor, x: Tensor | None, tensors: tuple[Tensor, ...], numbers: tuple[Any, ...]
) -> None:
    call = _Call(gradient, tensors, numbers)
    pointers = (gradient.data_ptr(), out.data_ptr(), None if x is None else x.data_ptr())
    native.zero_map(dtype_number(gradient), *pointers, call.map, call.format, torch.get_num_threads())


MAP = Kernel(fault_map, zero_map, _write_struck, _write_zeros)
"""Fault maps: tensors are period to zero_point, numbers bit_width to site."""


class _Call:
    """The C structs of one call, and the tensors they point into."""

    def __init__(self, x: Tensor, tensors: tuple[Tensor, ...], numbers: tuple[Any, ...]) -> None:
        period, seed, word, masks, scale, zero_point = tensors
        *kinds, threshold, site = numbers
        grid = Grid(x, period, scale, zero_point, *kinds)
        period, word, masks = (t.contiguous() for t in (period, word, masks))
        self._alive = (grid, period, word, masks)
        rows = word.numel()
        pointers = (word.data_ptr(), masks.data_ptr(), masks.data_ptr() + 4 * rows)
        number = int(seed.item()) & 0xFFFFFFFFFFFFFFFF
        drawn = (threshold, number, site, period.data_ptr())
        self.map = native.Map(grid.batch, grid.words, *pointers, rows, *drawn)
        self.format = grid.format
