"""The torch operators `hwfault::inject` and `hwfault::zero_faulty`, with their fakes and gradients.

| argument          | type, shape              | meaning                                                       |
|-------------------|--------------------------|---------------------------------------------------------------|
| x, gradient       | floating, any            | values on the quantizer's grid; gradient of the faulty values |
| samples           | int64 (batch,)           | sample number of each element of axis 0; one: x is one sample |
| seed              | int64 ()                 | the bits of the unsigned 64 bit seed                          |
| program           | int64 (n,)               | the site's fault program (hwfault.stream.reference)           |
| scale, zero_point | floating, one axis not 1 | the quantizer's, aligned to x's last axes                     |
| straight_through  | bool                     | whether faulty words pass their gradient on                   |
| reads_stored      | bool                     | whether which words are faulty depends on the stored codes    |
| representation    | int                      | index into hwfault.codes.REPRESENTATIONS                      |
"""

import ctypes
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream import native
from hwfault.stream.check import batch_and_words, words_sharing
from hwfault.torch_ops.eager import Kernel

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


@torch.library.custom_op("hwfault::inject", mutates_args=(), device_types="cpu")
def inject(
    x: Tensor,
    samples: Tensor,
    seed: Tensor,
    program: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    straight_through: bool,
    reads_stored: bool,
    representation: int = 0,
) -> Tensor:
    """x with the faults of a site's program, contiguous; words that no fault changed keep their bits.

    The gradient is zero at faulty words (those whose code changed) unless `straight_through`. Raises PlanError for a
    scale or zero point that has more than one axis, or a value for each element of the batch.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    _write_struck(x, out, (samples, seed, program, scale, zero_point), (bit_width, signed, representation))
    return out


@torch.library.custom_op("hwfault::zero_faulty", mutates_args=(), device_types="cpu")
def zero_faulty(
    gradient: Tensor,
    x: Tensor | None,
    samples: Tensor,
    seed: Tensor,
    program: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int = 0,
) -> Tensor:
    """The gradient with zeros at faulty words, which are found again from the stream.

    x, the values before injection, must be given where `reads_stored` holds for the program.
    """
    gradient = gradient.contiguous()
    x = None if x is None else x.contiguous()
    out = torch.empty_like(gradient)
    _write_zeros(gradient, out, x, (samples, seed, program, scale, zero_point), (bit_width, signed, representation))
    return out


@inject.register_fake
def _(x: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@zero_faulty.register_fake
def _(gradient: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(gradient, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keeps what names the draw; x itself, by reference, only where the outcome depends on the stored codes."""
    x, *draw = inputs[:6]
    bit_width, signed, ctx.straight_through, reads_stored, representation = inputs[6:]
    ctx.numbers = (bit_width, signed, representation)
    if not ctx.straight_through:
        ctx.save_for_backward(x if reads_stored else None, *draw)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.straight_through:
        gradient = zero_faulty(gradient, *ctx.saved_tensors, *ctx.numbers)
    return gradient, *(None,) * 10


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *tensors = inputs[:7]
    ctx.numbers = inputs[7:]
    ctx.save_for_backward(*tensors)


def _second_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return zero_faulty(gradient, *ctx.saved_tensors, *ctx.numbers), *(None,) * 9


inject.register_autograd(_backward, setup_context=_keep)
zero_faulty.register_autograd(_second_backward, setup_context=_keep_for_second)


def _strike(x: Tensor, *args: Any) -> Tensor:
    """`inject` with the representation before the two rules of the gradient."""
    *rest, representation, straight_through, reads_stored = args
    out: Tensor = inject(x, *rest, straight_through, reads_stored, representation)
    return out


def _write_struck(x: Tensor, out: Tensor, tensors: tuple[Tensor, ...], numbers: tuple[Any, ...]) -> int:
    draw = _Draw(x, tensors, numbers)
    pointers = (x.data_ptr(), out.data_ptr())
    return native.inject(dtype_number(x), *pointers, draw.draw, draw.format, torch.get_num_threads()).no_numbers


def _write_zeros(
    gradient: Tensor, out: Tensor, x: Tensor | None, tensors: tuple[Tensor, ...], numbers: tuple[Any, ...]
) -> None:
    draw = _Draw(gradient, tensors, numbers, codes=x is not None)
    pointers = (gradient.data_ptr(), out.data_ptr(), None if x is None else x.data_ptr())
    native.zero_faulty(dtype_number(gradient), *pointers, draw.draw, draw.format, torch.get_num_threads())


STREAM = Kernel(_strike, zero_faulty, _write_struck, _write_zeros)
"""Faults that the stream draws: tensors are samples to zero_point, numbers bit_width, signed and representation."""


def dtype_number(x: Tensor) -> int:
    """The number of a floating type in the C functions; raises PlanError for another."""
    if x.dtype not in _DTYPES:
        raise PlanError(f"values of type {x.dtype}, expected one of {', '.join(map(str, _DTYPES))}")
    return _DTYPES[x.dtype]


class Grid:
    """How the words of a tensor stand for codes, as the C struct `format`, and how many there are for each sample."""

    def __init__(
        self,
        x: Tensor,
        samples: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        bit_width: int,
        signed: bool,
        representation: int,
    ) -> None:
        self.batch, self.words = _batch_and_words(x, samples)
        if scale.numel() == zero_point.numel() == 1 and max(scale.dim(), zero_point.dim()) <= x.dim():
            self.format = _one_scale(scale.item(), zero_point.item(), bit_width, signed, representation)
            return
        s, z = (_along_axis(x, t, self.batch, what) for t, what in ((scale, "scale"), (zero_point, "zero point")))
        self._alive = (s, z)
        pointers = (s.address, s.length, s.inner, z.address, z.length, z.inner)
        self.format = native.format(*pointers, bit_width, signed, representation)


class _Draw:
    """The C structs of one call, and the tensors they point into; without codes nothing is encoded or decoded."""

    def __init__(self, x: Tensor, tensors: tuple[Tensor, ...], numbers: tuple[Any, ...], codes: bool = True) -> None:
        samples, seed, program, scale, zero_point = tensors
        samples, program = samples.contiguous(), program.contiguous()
        self._alive: tuple[object, ...] = (samples, program)
        if codes:
            grid = Grid(x, samples, scale, zero_point, *numbers)
            self._alive = (grid, samples, program)
            self.format, batch, words = grid.format, grid.batch, grid.words
        else:
            self.format, (batch, words) = _one_scale(1.0, 0.0, *numbers), _batch_and_words(x, samples)
        self.draw = native.draw(int(seed.item()), samples.data_ptr(), batch, words, program.data_ptr(), program.numel())


def _batch_and_words(x: Tensor, samples: Tensor) -> tuple[int, int]:
    return batch_and_words(x.shape, samples.numel())


@lru_cache(1024)
def _one_scale(scale: float, zero_point: float, bit_width: int, signed: bool, representation: int) -> native.Format:
    """The format of values that share one scale; kept, as most are asked for again in the backward pass."""
    values = (ctypes.c_double * 2)(scale, zero_point)
    address = ctypes.addressof(values)
    made = native.format(
        address, 1, 1, address + ctypes.sizeof(ctypes.c_double), 1, 1, bit_width, signed, representation
    )
    made.values = values
    return made


class _Along(NamedTuple):
    """Values along one axis as float64: what holds them, where, how many, and how many words of x share one."""

    alive: object
    address: int
    length: int
    inner: int


def _along_axis(x: Tensor, t: Tensor, batch: int, what: str) -> _Along:
    if t.numel() == 1 and t.dim() <= x.dim():
        number = ctypes.c_double(t.item())
        return _Along(number, ctypes.addressof(number), 1, 1)
    inner = words_sharing(x.shape, t.shape, batch, what)
    t = t.detach().to(torch.float64).contiguous()
    return _Along(t, t.data_ptr(), t.numel(), inner)
