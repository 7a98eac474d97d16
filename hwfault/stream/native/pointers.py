"""The C functions that strike and quantize values in memory, which is given as raw addresses.

`dtype` is the number of the values' type in the header, `x` and `out` may be one, and `threads` is how many share the
work. All raise HwfaultError for numbers that are impossible.
"""

from ctypes import c_int64

import numpy as np

from hwfault.errors import HwfaultError
from hwfault.stream import array as sums
from hwfault.stream.native import header
from hwfault.stream.native.header import Draw, Format, Map, Protection, Quantizer, Range, Strike
from hwfault.stream.native.loading import library
from hwfault.stream.protection import KINDS, Memory


def draw(seed: int, sample: int, batch: int, words: int, program: int, program_length: int) -> Draw:
    """A draw from the addresses of int64 sample numbers and program; the seed's 64 bits may come signed."""
    return Draw(seed & 0xFFFFFFFFFFFFFFFF, sample, batch, words, program, program_length)


def format(
    scale: int,
    n_scale: int,
    scale_inner: int,
    zero: int,
    n_zero: int,
    zero_inner: int,
    bit_width: int,
    signed: bool,
    representation: int = 0,
) -> Format:
    """A format from the addresses of float64 scales and zero points; `representation` indexes REPRESENTATIONS."""
    return Format(scale, n_scale, scale_inner, zero, n_zero, zero_inner, bit_width, signed, representation)


def protection(memory: Memory, number: int, cells: int, rows: int) -> Protection:
    """A protection from the addresses of the int64 numbers and cells of a table; no rows: the linear layout."""
    return Protection(KINDS.index(memory.kind) + 1, memory.data_bits, memory.slot, memory.due, number, cells, rows)


def inject(dtype: int, x: int, out: int, draw: Draw, format: Format, threads: int, left: c_int64 | None = None) -> int:
    """Writes x with its faults to out, which must be another under late bits; returns the number of words changed.

    `left` is told how many words that were struck hold no number and stay what they are.
    """
    changed: int = library().hwfault_inject(dtype, x, out, draw, format, threads, left)
    return changed


def zero_faulty(dtype: int, gradient: int, out: int, x: int | None, draw: Draw, format: Format, threads: int) -> int:
    """Writes the gradient with zeros at faulty words to out; returns the number of faulty words."""
    found: int = library().hwfault_zero_faulty(dtype, gradient, out, x, draw, format, threads)
    return found


def apply_map(dtype: int, x: int, out: int, map: Map, format: Format, threads: int, left: c_int64 | None = None) -> int:
    """Writes x with a fault map's faults to out, as `inject`."""
    changed: int = library().hwfault_apply_map(dtype, x, out, map, format, threads, left)
    return changed


def zero_map(dtype: int, gradient: int, out: int, x: int | None, map: Map, format: Format, threads: int) -> int:
    """Writes the gradient with zeros at the words that a map changes to out; returns the number of those."""
    found: int = library().hwfault_zero_map(dtype, gradient, out, x, map, format, threads)
    return found


def clip(dtype: int, x: int, out: int, range: Range, format: Format, threads: int) -> int:
    """Writes x with its integers within a range to out; returns the number of words changed."""
    changed: int = library().hwfault_clip(dtype, x, out, range, format, threads)
    return changed


def zero_clipped(dtype: int, gradient: int, out: int, x: int, range: Range, format: Format, threads: int) -> int:
    """Writes the gradient with zeros at the words that `clip` changes to out; returns the number of those."""
    found: int = library().hwfault_zero_clipped(dtype, gradient, out, x, range, format, threads)
    return found


def protected(
    dtype: int,
    x: int,
    out: int,
    draw: Draw,
    map: Map,
    format: Format,
    protection: Protection,
    counts: int,
    threads: int,
) -> int:
    """Writes x with what the decoder lets through to out, and 3 int64 counts; returns the number of words changed."""
    found: int = library().hwfault_protected(dtype, x, out, draw, map, format, protection, counts, threads)
    return found


def zero_protected(
    dtype: int,
    gradient: int,
    out: int,
    x: int,
    draw: Draw,
    map: Map,
    format: Format,
    protection: Protection,
    threads: int,
) -> int:
    """Writes the gradient with zeros at the words that `protected` changes to out; returns the number of those."""
    found: int = library().hwfault_zero_protected(dtype, gradient, out, x, draw, map, format, protection, threads)
    return found


def accumulate(
    dtype: int, acc: int, x: int, w: int, out: int, layer: sums.Layer, array: sums.Array, threads: int
) -> None:
    """Writes the accumulators acc as the array leaves them to out; acc and out are float32 (0) or float64 (1), the
    integers x and w float32."""
    order = np.ascontiguousarray(array.order, np.int64)
    events = np.ascontiguousarray(array.events, np.int64)
    if order.size not in (0, layer.products):
        raise HwfaultError(f"the order names {order.size} products of {layer.products}, expected each of them once")
    axes = np.array([tuple(vars(axis).values()) for axis in layer.axes], np.int64)
    shape = header.Layer(
        batch=layer.batch,
        channels=layer.channels,
        groups=layer.groups,
        depth=layer.depth,
        axes=axes.ctypes.data,
        rank=len(layer.axes),
        channels_last=layer.channels_last,
    )
    how = header.Array(
        order=order.ctypes.data if order.size else None,
        step=array.step,
        pass_steps=array.pass_steps,
        events=events.ctypes.data,
        n_events=len(array.events),
        width=array.width,
        saturate=array.saturate,
        recompute=array.recompute,
    )
    library().hwfault_accumulate(dtype, acc, x, w, out, shape, how, threads)


def quantize(x: int, out: int, quantizer: Quantizer, threads: int) -> None:
    """Writes the float32 values x quantized to out, which may be x."""
    library().hwfault_quantize(x, out, quantizer, threads)


def quantize_gradient(
    x: int, gradient: int, x_gradient: int | None, scale_gradient: int | None, quantizer: Quantizer, threads: int
) -> None:
    """Writes the gradients of x (float32) and of each scale (float64), of which either may be None, from the gradient
    of the quantized values."""
    library().hwfault_quantize_gradient(x, gradient, x_gradient, scale_gradient, quantizer, threads)


def quantize_struck(
    x: int, out: int, quantizer: Quantizer, strike: Strike, threads: int, left: c_int64 | None = None
) -> None:
    """Writes the float32 values x quantized, and then with their faults, to out; `left` as `inject` tells it."""
    library().hwfault_quantize_struck(x, out, quantizer, strike, threads, left)


def quantize_struck_gradient(
    x: int,
    gradient: int,
    x_gradient: int,
    scale_gradient: int | None,
    quantizer: Quantizer,
    strike: Strike,
    no_numbers: bool,
    threads: int,
) -> None:
    """Writes the gradients as `quantize_gradient` does, from one that does not pass at faulty words.

    `no_numbers` says that some words that were struck held no number, where every gradient passes.
    """
    library().hwfault_quantize_struck_gradient(
        x, gradient, x_gradient, scale_gradient, quantizer, strike, no_numbers, threads
    )


def largest(x: int, rows: int, length: int, out: int) -> None:
    """Writes the largest magnitude of each row of float32 values, NaN where one is, to out."""
    library().hwfault_largest(x, rows, length, out)


def largest_gradient(
    x: int, rows: int, length: int, largest: int, gradient: int, first_only: bool, x_gradient: int
) -> None:
    """Adds the gradient of each row's largest magnitude to the values that have it, the first alone or in equal shares.

    Rows whose largest magnitude is NaN are left alone.
    """
    library().hwfault_largest_gradient(x, rows, length, largest, gradient, first_only, x_gradient)
