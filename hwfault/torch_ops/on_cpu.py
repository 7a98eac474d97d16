"""The mechanisms on the CPU: the native library on the memory of tensors.

All tensors, of values and of operands but scale and zero point, are contiguous; what is written to may be what is read,
but under late bits.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream import native
from hwfault.stream.array import Array, Axis, Layer
from hwfault.stream.check import batch_and_words, words_sharing
from hwfault.stream.mechanism import (
    ArrayOperands,
    ClipOperands,
    MapOperands,
    Mechanism,
    ProtectedOperands,
    StreamOperands,
)
from hwfault.stream.native.header import Draw, Format, Map, Protection, Range
from hwfault.stream.protection import KINDS, Memory

DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
"""The floating types by their numbers in the C functions."""
_WIDE = (torch.float32, torch.float64)
_ELEMENTS = {"int64": torch.int64, "int32": torch.int32}
_ALL_BITS = 0xFFFFFFFFFFFFFFFF


Left = ctypes.c_int64
"""A number that a C function writes to."""


class Writer(NamedTuple):
    """One mechanism: what strikes values, and what zeros gradients.

    `strike(x, out, operands, left, counts)` writes x with faults to out; to `left`, where it is given and the
    mechanism does not read the values anyway, how many words were not struck because they hold no number; and to
    `counts`, where the mechanism counts, an int64 tensor. `zero(gradient, out, stored, operands)` writes the gradient
    with zeros at the words that were changed; `stored` are the values before, where these decide.
    """

    strike: Callable[[Tensor, Tensor, Any, Left | None, Tensor | None], None]
    zero: Callable[[Tensor, Tensor, Tensor | None, Any], None]


def dtype_number(x: Tensor) -> int:
    """The number of a floating type in the C functions; raises PlanError for another."""
    if x.dtype not in DTYPES:
        raise PlanError(f"values of type {x.dtype}, expected one of {', '.join(map(str, DTYPES))}")
    return DTYPES[x.dtype]


def contiguous(mechanism: Mechanism, operands: Any) -> Any:
    """The operands with contiguous tensors."""
    tensors, _ = mechanism.listed(operands)
    return operands._replace(**{o.name: t.contiguous() for o, t in zip(mechanism.tensors, tensors, strict=True)})


def check_types(mechanism: Mechanism, operands: Any) -> None:
    """Raises PlanError for operands whose elements are of another type than the mechanism's."""
    for operand in mechanism.tensors:
        expected, given = _ELEMENTS.get(operand.type), getattr(operands, operand.name).dtype
        if given != expected is not None:
            raise PlanError(f"{operand.name} of type {given} for the mechanism {mechanism.name!r}, expected {expected}")


def _strike_stream(
    x: Tensor, out: Tensor, o: StreamOperands[Tensor], left: Left | None, _counts: Tensor | None
) -> None:
    batch, words = _lengths(x, o.samples)
    form, draw = _format(x, batch, o), _draw(o, batch, words)
    native.inject(dtype_number(x), x.data_ptr(), out.data_ptr(), draw, form, torch.get_num_threads(), left)


def _zero_stream(gradient: Tensor, out: Tensor, stored: Tensor | None, o: StreamOperands[Tensor]) -> None:
    batch, words = _lengths(gradient, o.samples)
    # without the codes nothing is encoded or decoded
    form = _one_scale(1.0, 0.0, o.bit_width, o.signed, o.representation)
    if stored is not None:
        form = _format(stored, batch, o)
    pointers = (gradient.data_ptr(), out.data_ptr(), _address(stored))
    native.zero_faulty(dtype_number(gradient), *pointers, _draw(o, batch, words), form, torch.get_num_threads())


def _strike_map(x: Tensor, out: Tensor, o: MapOperands[Tensor], left: Left | None, _counts: Tensor | None) -> None:
    batch, words = _lengths(x, o.period)
    form, rows = _format(x, batch, o), _rows(o, batch, words)
    native.apply_map(dtype_number(x), x.data_ptr(), out.data_ptr(), rows, form, torch.get_num_threads(), left)


def _zero_map(gradient: Tensor, out: Tensor, stored: Tensor | None, o: MapOperands[Tensor]) -> None:
    batch, words = _lengths(gradient, o.period)
    form, rows = _format(gradient, batch, o), _rows(o, batch, words)
    pointers = (gradient.data_ptr(), out.data_ptr(), _address(stored))
    native.zero_map(dtype_number(gradient), *pointers, rows, form, torch.get_num_threads())


def _strike_protected(
    x: Tensor, out: Tensor, o: ProtectedOperands[Tensor], _left: Left | None, counts: Tensor | None
) -> None:
    if counts is None:
        raise PlanError("protected memories count the words that their decoders correct, but no counts were given")
    structs = _memory_structs(x, o)
    pointers = (x.data_ptr(), out.data_ptr(), *structs, counts.data_ptr())
    native.protected(dtype_number(x), *pointers, torch.get_num_threads())


def _zero_protected(gradient: Tensor, out: Tensor, stored: Tensor | None, o: ProtectedOperands[Tensor]) -> None:
    if stored is None:
        raise PlanError("which words a protected memory changes depends on the values before, but none were given")
    pointers = (gradient.data_ptr(), out.data_ptr(), stored.data_ptr(), *_memory_structs(stored, o))
    native.zero_protected(dtype_number(gradient), *pointers, torch.get_num_threads())


def _strike_clip(x: Tensor, out: Tensor, o: ClipOperands[Tensor], _left: Left | None, _counts: Tensor | None) -> None:
    batch, words = _lengths(x, o.samples)
    form, kept = _format(x, batch, o), Range(batch, words, o.low, o.high, o.below, o.above)
    native.clip(dtype_number(x), x.data_ptr(), out.data_ptr(), kept, form, torch.get_num_threads())


def _zero_clip(gradient: Tensor, out: Tensor, stored: Tensor | None, o: ClipOperands[Tensor]) -> None:
    if stored is None:
        raise PlanError("which words a range changes depends on the values before, but none were given")
    batch, words = _lengths(stored, o.samples)
    form, kept = _format(stored, batch, o), Range(batch, words, o.low, o.high, o.below, o.above)
    pointers = (gradient.data_ptr(), out.data_ptr(), stored.data_ptr())
    native.zero_clipped(dtype_number(gradient), *pointers, kept, form, torch.get_num_threads())


def _strike_array(
    acc: Tensor, out: Tensor, o: ArrayOperands[Tensor], _left: Left | None, _counts: Tensor | None
) -> None:
    if acc.dtype not in _WIDE:
        raise PlanError(f"accumulators of type {acc.dtype}, expected torch.float32 or torch.float64")
    array = Array(o.width, bool(o.saturate), o.step, o.pass_steps, o.order.numpy(), o.events.numpy())
    pointers = (acc.data_ptr(), o.x.data_ptr(), o.w.data_ptr(), out.data_ptr())
    native.accumulate(DTYPES[acc.dtype], *pointers, _layer(acc, o), array, torch.get_num_threads())


def _zero_array(gradient: Tensor, out: Tensor, changed: Tensor | None, _o: None) -> None:
    if changed is None or changed.shape != gradient.shape:
        raise PlanError("which words an array changed is needed, a bool for each of the gradient's, but was not given")
    out.copy_(gradient.masked_fill(changed, 0))


WRITERS = {
    "stream": Writer(_strike_stream, _zero_stream),
    "map": Writer(_strike_map, _zero_map),
    "protected": Writer(_strike_protected, _zero_protected),
    "array": Writer(_strike_array, _zero_array),
    "clip": Writer(_strike_clip, _zero_clip),
}
"""The mechanisms by name."""


def _lengths(x: Tensor, numbers: Tensor) -> tuple[int, int]:
    """How many samples a tensor has, and words each; raises PlanError unless there is a number for each sample."""
    samples = numbers.numel()
    return (1, x.numel()) if samples == 1 else batch_and_words(x.shape, samples)


def _draw(o: StreamOperands[Tensor] | ProtectedOperands[Tensor], batch: int, words: int) -> Draw:
    seed, program = int(o.seed.item()) & _ALL_BITS, o.program
    return Draw(seed, o.samples.data_ptr(), batch, words, program.data_ptr(), program.numel())


def _rows(o: MapOperands[Tensor] | ProtectedOperands[Tensor], batch: int, words: int) -> Map:
    """A fault map's rows; raises PlanError unless there are masks for each word."""
    rows = o.word.numel()
    for what, mask in (("and_mask", o.and_mask), ("xor_mask", o.xor_mask)):
        if mask.numel() != rows:
            raise PlanError(f"{what} of shape {tuple(mask.shape)} for {rows} words, expected ({rows},)")
    return Map(
        batch=batch,
        words=words,
        word=o.word.data_ptr(),
        and_mask=o.and_mask.data_ptr(),
        xor_mask=o.xor_mask.data_ptr(),
        rows=rows,
        threshold=o.threshold,
        seed=int(o.seed.item()) & _ALL_BITS,
        site=o.site,
        period=o.period.data_ptr(),
    )


def _memory_structs(x: Tensor, o: ProtectedOperands[Tensor]) -> tuple[Draw, Map, Format, Protection]:
    """The structs of a protected memory; raises PlanError for operands that do not fit each other."""
    batch, words = _lengths(x, o.samples)
    if o.period.shape != (batch,):
        raise PlanError(f"periods of shape {tuple(o.period.shape)} for a batch of {batch}, expected ({batch},)")
    memory, table_rows = memory_of(o), o.number.numel()
    expected = (table_rows, memory.data_bits)
    if tuple(o.cells.shape) != expected and o.cells.numel() + table_rows > 0:
        raise PlanError(f"cells of shape {tuple(o.cells.shape)} for a protected memory, expected {expected}")
    kept = native.protection(memory, o.number.data_ptr(), o.cells.data_ptr(), table_rows)
    return _draw(o, batch, words), _rows(o, batch, words), _format(x, batch, o), kept


def memory_of(o: ProtectedOperands[Any]) -> Memory:
    """The memory whose operands these are; raises ModelError for one that there is not."""
    known = 1 <= o.protection <= len(KINDS)
    kind: Any = KINDS[o.protection - 1] if known else o.protection
    return Memory(kind, o.data_bits, o.slot, bool(o.on_detected))


def _format(
    x: Tensor,
    batch: int,
    o: StreamOperands[Tensor] | MapOperands[Tensor] | ProtectedOperands[Tensor] | ClipOperands[Tensor],
) -> Format:
    """How the words of x stand for codes; it holds the numbers that it points to."""
    scale, zero_point = o.scale, o.zero_point
    if not (scale.dim() or zero_point.dim()) or (_one_value(scale, x) and _one_value(zero_point, x)):
        return _one_scale(scale.item(), zero_point.item(), o.bit_width, o.signed, o.representation)
    scales, scale_inner = _along_axis(x, scale, batch, "scale")
    zeros, zero_inner = _along_axis(x, zero_point, batch, "zero point")
    made = Format(
        scale=scales.data_ptr(),
        n_scale=scales.numel(),
        scale_inner=scale_inner,
        zero_point=zeros.data_ptr(),
        n_zero_point=zeros.numel(),
        zero_point_inner=zero_inner,
        bit_width=o.bit_width,
        is_signed=o.signed,
        representation=o.representation,
    )
    made.values = (scales, zeros)
    return made


def _one_value(t: Tensor, x: Tensor) -> bool:
    """Whether all values of x share the scale or zero point t."""
    return t.numel() == 1 and t.dim() <= x.dim()


@lru_cache(1024)
def _one_scale(scale: float, zero_point: float, bit_width: int, signed: int, representation: int) -> Format:
    """The format of values that share one scale; kept, as most are asked for again in the backward pass."""
    values = (ctypes.c_double * 2)(scale, zero_point)
    first = ctypes.addressof(values)
    second = first + ctypes.sizeof(ctypes.c_double)
    made = native.format(first, 1, 1, second, 1, 1, bit_width, bool(signed), representation)
    made.values = values
    return made


def _along_axis(x: Tensor, t: Tensor, batch: int, what: str) -> tuple[Tensor, int]:
    """Values along one axis as float64, and how many words of x share one before the next comes."""
    inner = words_sharing(x.shape, t.shape, batch, what)
    return t.detach().to(torch.float64).contiguous(), inner


def _layer(acc: Tensor, o: ArrayOperands[Tensor]) -> Layer:
    """The shape of a layer's sums, from those of its tensors."""
    x, w = o.x, o.w
    if not o.walk:
        positions = acc.shape[1:-1].numel()
        return Layer(x.shape[0], w.shape[0], 1, w.shape[1], (Axis(positions, positions),), True)
    axes = []
    steps = zip(o.walk[::3], o.walk[1::3], o.walk[2::3], strict=True)  # stride, padding and dilation
    lengths = zip(x.shape[2:], acc.shape[2:], w.shape[2:], strict=True)
    for of_axis, step in zip(lengths, steps, strict=True):
        axes.append(Axis(*of_axis, *step))
    return Layer(x.shape[0], w.shape[0], o.groups, w.shape[1], tuple(axes))


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
