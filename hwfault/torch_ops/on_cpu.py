"""The mechanisms on the CPU: the native library on the memory of tensors.

All tensors of values are contiguous; what is written to may be what is read, but under late bits.
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
from hwfault.stream.mechanism import ArrayOperands, MapOperands, Mechanism, ProtectedOperands, StreamOperands
from hwfault.stream.native.header import Draw, Format, Map, Protection
from hwfault.stream.protection import KINDS, Memory

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_WIDE = (torch.float32, torch.float64)
_ELEMENTS = {"int64": torch.int64, "int32": torch.int32}
_ALL_BITS = 0xFFFFFFFFFFFFFFFF


class Writer(NamedTuple):
    """One mechanism: what strikes values, and what zeros gradients.

    `strike(x, out, operands, counts)` writes x with faults to out, and to `counts`, where the mechanism counts, an
    int64 tensor; it answers how many words were not struck because they hold no number. `zero(gradient, out, stored,
    operands)` writes the gradient with zeros at the words that were changed; `stored` are the values before, where
    these decide.
    """

    strike: Callable[[Tensor, Tensor, Any, Tensor | None], int]
    zero: Callable[[Tensor, Tensor, Tensor | None, Any], None]


def dtype_number(x: Tensor) -> int:
    """The number of a floating type in the C functions; raises PlanError for another."""
    if x.dtype not in _DTYPES:
        raise PlanError(f"values of type {x.dtype}, expected one of {', '.join(map(str, _DTYPES))}")
    return _DTYPES[x.dtype]


def check_types(mechanism: Mechanism, operands: Any) -> None:
    """Raises PlanError for operands whose elements are of another type than the mechanism's."""
    for operand in mechanism.tensors:
        expected, given = _ELEMENTS.get(operand.type), getattr(operands, operand.name).dtype
        if given != expected is not None:
            raise PlanError(f"{operand.name} of type {given} for the mechanism {mechanism.name!r}, expected {expected}")


def _strike_stream(x: Tensor, out: Tensor, o: StreamOperands[Tensor], _counts: Tensor | None) -> int:
    batch, words = batch_and_words(x.shape, o.samples.numel())
    form = _format(x, batch, o)
    samples, program = o.samples.contiguous(), o.program.contiguous()  # alive until the call returns
    draw = _draw(o.seed, samples, batch, words, program)
    threads = torch.get_num_threads()
    return native.inject(dtype_number(x), x.data_ptr(), out.data_ptr(), draw, form, threads).no_numbers


def _zero_stream(gradient: Tensor, out: Tensor, stored: Tensor | None, o: StreamOperands[Tensor]) -> None:
    batch, words = batch_and_words(gradient.shape, o.samples.numel())
    # without the codes nothing is encoded or decoded
    form = _one_scale(1.0, 0.0, o.bit_width, o.signed, o.representation)
    if stored is not None:
        form = _format(stored, batch, o)
    samples, program = o.samples.contiguous(), o.program.contiguous()
    draw = _draw(o.seed, samples, batch, words, program)
    pointers = (gradient.data_ptr(), out.data_ptr(), _address(stored))
    native.zero_faulty(dtype_number(gradient), *pointers, draw, form, torch.get_num_threads())


def _strike_map(x: Tensor, out: Tensor, o: MapOperands[Tensor], _counts: Tensor | None) -> int:
    rows = _Rows(x, o)
    form = _format(x, rows.batch, o)
    return native.apply_map(
        dtype_number(x), x.data_ptr(), out.data_ptr(), rows.struct, form, torch.get_num_threads()
    ).no_numbers


def _zero_map(gradient: Tensor, out: Tensor, stored: Tensor | None, o: MapOperands[Tensor]) -> None:
    rows = _Rows(gradient, o)
    form = _format(gradient, rows.batch, o)
    pointers = (gradient.data_ptr(), out.data_ptr(), _address(stored))
    native.zero_map(dtype_number(gradient), *pointers, rows.struct, form, torch.get_num_threads())


def _strike_protected(x: Tensor, out: Tensor, o: ProtectedOperands[Tensor], counts: Tensor | None) -> int:
    if counts is None:
        raise PlanError("protected memories count the words that their decoders correct, but no counts were given")
    call = _ProtectedCall(x, o)
    pointers = (x.data_ptr(), out.data_ptr(), *call.structs, counts.data_ptr())
    native.protected(dtype_number(x), *pointers, torch.get_num_threads())
    return 0  # whoever asks where these are has the values before


def _zero_protected(gradient: Tensor, out: Tensor, stored: Tensor | None, o: ProtectedOperands[Tensor]) -> None:
    if stored is None:
        raise PlanError("which words a protected memory changes depends on the values before, but none were given")
    call = _ProtectedCall(stored, o)
    pointers = (gradient.data_ptr(), out.data_ptr(), stored.data_ptr(), *call.structs)
    native.zero_protected(dtype_number(gradient), *pointers, torch.get_num_threads())


def _strike_array(acc: Tensor, out: Tensor, o: ArrayOperands[Tensor], _counts: Tensor | None) -> int:
    if acc.dtype not in _WIDE:
        raise PlanError(f"accumulators of type {acc.dtype}, expected torch.float32 or torch.float64")
    x, w = o.x.contiguous(), o.w.contiguous()
    array = Array(o.width, bool(o.saturate), o.step, o.pass_steps, o.order.numpy(), o.events.numpy())
    pointers = (acc.data_ptr(), x.data_ptr(), w.data_ptr(), out.data_ptr())
    native.accumulate(_DTYPES[acc.dtype], *pointers, _layer(x, acc, w, o), array, torch.get_num_threads())
    return 0


def _zero_array(gradient: Tensor, out: Tensor, changed: Tensor | None, _o: None) -> None:
    if changed is None or changed.shape != gradient.shape:
        raise PlanError("which words an array changed is needed, a bool for each of the gradient's, but was not given")
    out.copy_(gradient.masked_fill(changed, 0))


WRITERS = {
    "stream": Writer(_strike_stream, _zero_stream),
    "map": Writer(_strike_map, _zero_map),
    "protected": Writer(_strike_protected, _zero_protected),
    "array": Writer(_strike_array, _zero_array),
}
"""The mechanisms by name."""


def _draw(seed: Tensor, samples: Tensor, batch: int, words: int, program: Tensor) -> Draw:
    key = int(seed.item()) & _ALL_BITS
    return Draw(key, samples.data_ptr(), batch, words, program.data_ptr(), program.numel())


class _Rows:
    """A fault map as a C struct, and the tensors that it points into."""

    def __init__(self, x: Tensor, o: MapOperands[Tensor] | ProtectedOperands[Tensor]) -> None:
        self.batch, words = batch_and_words(x.shape, o.period.numel())
        period, word, and_mask, xor_mask = (t.contiguous() for t in (o.period, o.word, o.and_mask, o.xor_mask))
        self._alive = (period, word, and_mask, xor_mask)
        rows = word.numel()
        for what, mask in (("and_mask", and_mask), ("xor_mask", xor_mask)):
            if mask.numel() != rows:
                raise PlanError(f"{what} of shape {tuple(mask.shape)} for {rows} words, expected ({rows},)")
        self.struct = Map(
            batch=self.batch,
            words=words,
            word=word.data_ptr(),
            and_mask=and_mask.data_ptr(),
            xor_mask=xor_mask.data_ptr(),
            rows=rows,
            threshold=o.threshold,
            seed=int(o.seed.item()) & _ALL_BITS,
            site=o.site,
            period=period.data_ptr(),
        )


class _ProtectedCall:
    """The C structs of a protected memory, and the tensors that they point into."""

    def __init__(self, x: Tensor, o: ProtectedOperands[Tensor]) -> None:
        batch, words = batch_and_words(x.shape, o.samples.numel())
        if o.period.shape != (batch,):
            raise PlanError(f"periods of shape {tuple(o.period.shape)} for a batch of {batch}, expected ({batch},)")
        memory = memory_of(o)
        samples, program, number, cells = (t.contiguous() for t in (o.samples, o.program, o.number, o.cells))
        expected = (number.numel(), memory.data_bits)
        if tuple(cells.shape) != expected and cells.numel() + number.numel() > 0:
            raise PlanError(f"cells of shape {tuple(cells.shape)} for a protected memory, expected {expected}")
        rows = _Rows(x, o)
        self._alive = (rows, samples, program, number, cells)
        draw = _draw(o.seed, samples, batch, words, program)
        kept = native.protection(memory, number.data_ptr(), cells.data_ptr(), number.numel())
        self.structs: tuple[Draw, Map, Format, Protection] = (draw, rows.struct, _format(x, batch, o), kept)


def memory_of(o: ProtectedOperands[Any]) -> Memory:
    """The memory whose operands these are; raises ModelError for one that there is not."""
    known = 1 <= o.protection <= len(KINDS)
    kind: Any = KINDS[o.protection - 1] if known else o.protection
    return Memory(kind, o.data_bits, o.slot, bool(o.on_detected))


def _format(
    x: Tensor, batch: int, o: StreamOperands[Tensor] | MapOperands[Tensor] | ProtectedOperands[Tensor]
) -> Format:
    """How the words of x stand for codes; it holds the numbers that it points to."""
    scale, zero_point = o.scale, o.zero_point
    if scale.numel() == zero_point.numel() == 1 and max(scale.dim(), zero_point.dim()) <= x.dim():
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


def _layer(x: Tensor, acc: Tensor, w: Tensor, o: ArrayOperands[Tensor]) -> Layer:
    """The shape of a layer's sums, from those of its tensors."""
    if not o.walk:
        positions = acc.shape[1:-1].numel()
        return Layer(x.shape[0], w.shape[0], 1, w.shape[1], (Axis(positions, positions),), True)
    steps = [o.walk[i : i + 3] for i in range(0, len(o.walk), 3)]
    lengths = zip(x.shape[2:], acc.shape[2:], w.shape[2:], steps, strict=True)
    axes = tuple(Axis(i, o, k, stride, pad, dilation) for i, o, k, (stride, pad, dilation) in lengths)
    return Layer(x.shape[0], w.shape[0], o.groups, w.shape[1], axes)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
