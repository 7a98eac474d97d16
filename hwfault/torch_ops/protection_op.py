"""The torch operators `hwfault::protected` and `hwfault::zero_protected`: faults in a memory with check bits.

| argument          | type, shape              | meaning                                                              |
|-------------------|--------------------------|----------------------------------------------------------------------|
| x, gradient       | floating, any            | values on the quantizer's grid; gradient of the faulty values        |
| samples           | int64 (batch,)           | sample number of each element of axis 0; one: x is one sample        |
| period            | int64 (batch,)           | refresh period of each element, for intermittent faults              |
| seed              | int64 ()                 | the bits of the unsigned 64 bit seed                                 |
| program           | int64 (n,)               | transient faults: fault program of `Memory.sub_word_bits` bits       |
| word              | int64 (rows,)            | the map's sub-words within a sample, strictly ascending              |
| masks             | int32 (2, rows)          | and_mask and xor_mask, the bits of unsigned numbers                  |
| number            | int64 (k,)               | memory words of the layout's table, ascending; k = 0: linear         |
| cells             | int64 (k, data_bits)     | 32 word + bit of the code word behind each data bit, or -1           |
| scale, zero_point | floating, one axis not 1 | the quantizer's, aligned to x's last axes                            |
| representation    | int                      | index into hwfault.codes.REPRESENTATIONS                             |
| kind              | str                      | "parity", "secded" or "tmr"                                          |
| data_bits, slot   | int                      | of a memory word (1 to 64); bits that a code word takes              |
| due               | bool                     | whether the data of detected words stay as read instead of becoming 0 |
| threshold, site   | int                      | activity threshold, 0 to 2^32 (always), and its draws' site number   |
| straight_through  | bool                     | whether faulty words pass their gradient on                          |
"""

from typing import Any

import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream import native
from hwfault.stream.protection import Memory
from hwfault.torch_ops.ops import Grid, dtype_number


@torch.library.custom_op("hwfault::protected", mutates_args=(), device_types="cpu")
def protected(
    x: Tensor,
    samples: Tensor,
    period: Tensor,
    seed: Tensor,
    program: Tensor,
    word: Tensor,
    masks: Tensor,
    number: Tensor,
    cells: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int,
    kind: str,
    data_bits: int,
    slot: int,
    due: bool,
    threshold: int,
    site: int,
    straight_through: bool,
) -> tuple[Tensor, Tensor]:
    """x with what the memory's decoder lets through, contiguous, and int64 (corrected, detected, miscorrected) words.

    The gradient is zero at words whose code changed unless `straight_through`; x is kept for it, by reference. Raises
    PlanError for tensors that do not fit each other, ModelError for an unknown kind, HwfaultError for broken rows.
    """
    x = x.contiguous()
    out, counts = torch.empty_like(x), torch.zeros(3, dtype=torch.int64)
    memory = Memory(kind, data_bits, slot, due)  # type: ignore[arg-type]
    grid = Grid(x, samples, scale, zero_point, bit_width, signed, representation)
    call = _Call(grid, memory, (samples, period, program, word, masks, number, cells), seed, threshold, site)
    pointers = (x.data_ptr(), out.data_ptr(), *call.structs)
    native.protected(dtype_number(x), *pointers, counts.data_ptr(), torch.get_num_threads())
    return out, counts


@torch.library.custom_op("hwfault::zero_protected", mutates_args=(), device_types="cpu")
def zero_protected(
    gradient: Tensor,
    x: Tensor,
    samples: Tensor,
    period: Tensor,
    seed: Tensor,
    program: Tensor,
    word: Tensor,
    masks: Tensor,
    number: Tensor,
    cells: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int,
    kind: str,
    data_bits: int,
    slot: int,
    due: bool,
    threshold: int,
    site: int,
) -> Tensor:
    """The gradient with zeros at the words that `protected` changes in x, which are found again."""
    if (gradient.shape, gradient.dtype) != (x.shape, x.dtype):
        raise PlanError(
            f"a gradient {tuple(gradient.shape)} of {gradient.dtype} for values {tuple(x.shape)} of {x.dtype}"
        )
    gradient, x = gradient.contiguous(), x.contiguous()
    out = torch.empty_like(gradient)
    memory = Memory(kind, data_bits, slot, due)  # type: ignore[arg-type]
    grid = Grid(x, samples, scale, zero_point, bit_width, signed, representation)
    call = _Call(grid, memory, (samples, period, program, word, masks, number, cells), seed, threshold, site)
    pointers = (gradient.data_ptr(), out.data_ptr(), x.data_ptr(), *call.structs)
    native.zero_protected(dtype_number(gradient), *pointers, torch.get_num_threads())
    return out


@protected.register_fake
def _(x: Tensor, *_args: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(3, dtype=torch.int64)


@zero_protected.register_fake
def _(gradient: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(gradient, memory_format=torch.contiguous_format)


_TENSORS = 11
"""Arguments of `protected` that are tensors, x among them."""


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *ctx.numbers, ctx.straight_through = inputs[_TENSORS:]
    if not ctx.straight_through:
        ctx.save_for_backward(*inputs[:_TENSORS])


def _backward(ctx: Any, gradient: Tensor, _counts: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.straight_through:
        gradient = zero_protected(gradient, *ctx.saved_tensors, *ctx.numbers)
    return gradient, *(None,) * 20


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.numbers = inputs[_TENSORS + 1 :]
    ctx.save_for_backward(*inputs[1 : _TENSORS + 1])


def _second_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return zero_protected(gradient, *ctx.saved_tensors, *ctx.numbers), *(None,) * 20


protected.register_autograd(_backward, setup_context=_keep)
zero_protected.register_autograd(_second_backward, setup_context=_keep_for_second)


class _Call:
    """The C structs of one call, and the tensors they point into."""

    def __init__(
        self, grid: Grid, memory: Memory, tensors: tuple[Tensor, ...], seed: Tensor, threshold: int, site: int
    ) -> None:
        samples, period, program, word, masks, number, cells = (t.contiguous() for t in tensors)
        self._alive = (grid, samples, period, program, word, masks, number, cells)
        _check_type(torch.int64, samples=samples, period=period, program=program, word=word, number=number, cells=cells)
        _check_type(torch.int32, masks=masks)
        _check_shape("periods", period, (grid.batch,))
        _check_shape("masks", masks, (2, word.numel()))
        _check_shape("cells", cells, (number.numel(), memory.data_bits))
        key = int(seed) & 0xFFFFFFFFFFFFFFFF
        draw = native.draw(key, samples.data_ptr(), grid.batch, grid.words, program.data_ptr(), program.numel())
        rows = (word.data_ptr(), masks.data_ptr(), masks.data_ptr() + 4 * word.numel(), word.numel())
        map = native.Map(grid.batch, grid.words, *rows, threshold, key, site, period.data_ptr())
        kept = native.protection(memory, number.data_ptr(), cells.data_ptr(), number.numel())
        self.structs = (draw, map, grid.format, kept)


def _check_type(expected: torch.dtype, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != expected:
            raise PlanError(f"{name} of type {tensor.dtype} for a protected memory, expected {expected}")


def _check_shape(what: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected and not tensor.numel() == 0 == torch.Size(expected).numel():
        raise PlanError(f"{what} of shape {tuple(tensor.shape)} for a protected memory, expected {expected}")
