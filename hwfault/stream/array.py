"""Layers added up on an array of processing elements: what it is made of, and the C function that does it.

The semantics are those of the op ArrayFaults (export/SPEC.md); `array_reference` is the same in NumPy.
"""

from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import HwfaultError
from hwfault.stream.native import library

Event = tuple[int, int, int, int, int, int, int, int]
"""A stuck bit: (channels, channel, positions, position, steps, step, and_mask, xor_mask). After a step with number
s of its pass, the partial sum of channel n at position m becomes (code & and_mask) ^ xor_mask where n mod channels =
channel, m mod positions = position and s mod steps = step."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis: the lengths of input, output and kernel, and how the kernel walks."""

    input: int
    output: int
    kernel: int = 1
    stride: int = 1
    pad: int = 0
    dilation: int = 1


@dataclass(frozen=True)
class Layer:
    """The shape of a layer's sums: x (batch, groups * depth, inputs...), w (channels, depth, kernels...) and the
    accumulators (batch, channels, outputs...); channels come last if `channels_last` (a linear layer)."""

    batch: int
    channels: int
    groups: int
    depth: int
    axes: tuple[Axis, ...]
    channels_last: bool = False

    @property
    def products(self) -> int:
        """Products in each sum."""
        return self.depth * int(np.prod([axis.kernel for axis in self.axes], dtype=np.int64))


@dataclass(frozen=True)
class Array:
    """How a layer is added up: accumulators of `width` bits (2 to 32) that wrap, or saturate.

    `step` products at a time, in `order` (every product once; empty: 0, 1, 2, ...); after `pass_steps` steps (0:
    never) the partial sum is put aside and the next begins at 0. `recompute` adds up every channel, also those that
    nothing strikes.
    """

    width: int
    saturate: bool = False
    step: int = 1
    pass_steps: int = 0
    order: Sequence[int] | NDArray[np.int64] = ()
    events: Sequence[Event] | NDArray[np.int64] = ()
    recompute: bool = False


class _Layer(Structure):
    _fields_ = (
        ("batch", c_int64),
        ("channels", c_int64),
        ("groups", c_int64),
        ("depth", c_int64),
        ("axes", c_void_p),
        ("rank", c_int32),
        ("channels_last", c_int32),
    )


class _Array(Structure):
    _fields_ = (
        ("order", c_void_p),
        ("step", c_int64),
        ("pass_steps", c_int64),
        ("events", c_void_p),
        ("n_events", c_int64),
        ("width", c_int32),
        ("saturate", c_int32),
        ("recompute", c_int32),
    )


@cache
def _function() -> Any:
    function = library().hwfault_accumulate
    function.restype = c_int64
    function.argtypes = [c_int32, *[c_void_p] * 4, POINTER(_Layer), POINTER(_Array), c_int32]
    return function


def accumulate(dtype: int, acc: int, x: int, w: int, out: int, layer: Layer, array: Array, threads: int) -> None:
    """Writes the accumulators acc as the array leaves them to out (raw pointers; acc and out of `dtype` 0 float32 or
    1 float64, the integers x and w float32). Raises HwfaultError for a layer or array with impossible numbers."""
    order, events = np.ascontiguousarray(array.order, np.int64), np.ascontiguousarray(array.events, np.int64)
    if order.size not in (0, layer.products):
        raise HwfaultError(f"the order names {order.size} products of {layer.products}, expected each of them once")
    axes = np.array([tuple(vars(axis).values()) for axis in layer.axes], np.int64)
    sizes = (layer.batch, layer.channels, layer.groups, layer.depth)
    walk = (order.ctypes.data if order.size else None, array.step, array.pass_steps, events.ctypes.data)
    given = (
        _Layer(*sizes, axes.ctypes.data, len(layer.axes), layer.channels_last),
        _Array(*walk, len(array.events), array.width, array.saturate, array.recompute),
    )
    if _function()(dtype, acc, x, w, out, *map(byref, given), threads) < 0:
        raise HwfaultError(library().hwfault_error_text(-1).decode())


def accumulate_arrays(
    acc: NDArray[Any], x: NDArray[np.float32], w: NDArray[np.float32], layer: Layer, array: Array, threads: int = 1
) -> NDArray[Any]:
    """The same for NumPy arrays; acc is float32 or float64."""
    acc = np.ascontiguousarray(acc)
    x, w = (np.ascontiguousarray(part, np.float32) for part in (x, w))
    _check_sizes(acc, x, w, layer)
    out = np.empty_like(acc)
    pointers = (acc.ctypes.data, x.ctypes.data, w.ctypes.data, out.ctypes.data)
    accumulate({4: 0, 8: 1}[acc.dtype.itemsize], *pointers, layer, array, threads)
    return out


def _check_sizes(acc: NDArray[Any], x: NDArray[Any], w: NDArray[Any], layer: Layer) -> None:
    inputs, outputs = (int(np.prod([getattr(a, end) for a in layer.axes])) for end in ("input", "output"))
    expected = (
        layer.batch * layer.channels * outputs,
        layer.batch * layer.groups * layer.depth * inputs,
        layer.channels * layer.products,
    )
    if (acc.size, x.size, w.size) != expected:
        raise HwfaultError(
            f"{acc.size} accumulators, {x.size} inputs and {w.size} weights, expected {expected} for this layer"
        )


__all__ = ["Array", "Axis", "Event", "Layer", "accumulate", "accumulate_arrays"]
