"""The accumulators of a layer on an array of processing elements in NumPy: the specification in code (SPEC.md)."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwfault.stream.array import Array, Layer

Ints = NDArray[np.int64]


def accumulate(x: NDArray[np.generic], w: NDArray[np.generic], layer: Layer, array: Array) -> Ints:
    """The accumulators (int64, of the layer's shape) of integers x and w; see Layer and Array."""
    terms, weights = _terms(x.astype(np.int64), layer), w.astype(np.int64).reshape(layer.channels, -1)
    order = np.array(array.order if len(array.order) else range(layer.products))
    terms, weights = terms[:, :, :, order], weights[:, order]
    steps = -(-layer.products // array.step)
    per_pass = array.pass_steps or steps
    total = np.zeros((layer.batch, layer.channels, terms.shape[2]), np.int64)
    for first in range(0, steps, per_pass):
        total = _limit(total + _pass(terms, weights, first, per_pass, layer, array), array)
    return _as_stored(total, layer)


def _pass(terms: Ints, weights: Ints, first: int, steps: int, layer: Layer, array: Array) -> Ints:
    """The partial sums (batch, channels, positions) after one pass over the array."""
    partial = np.zeros((layer.batch, layer.channels, terms.shape[2]), np.int64)
    group = np.arange(layer.channels) // (layer.channels // layer.groups)
    for step in range(steps):
        part = slice((first + step) * array.step, (first + step + 1) * array.step)
        added = np.einsum("bnmk,nk->bnm", terms[:, group, :, part], weights[:, part])
        partial = _stick(_limit(partial + added, array), step, array)
    return partial


def _limit(sums: Ints, array: Array) -> Ints:
    """Sums within the accumulator's width: saturated, or modulo 2^width."""
    half = 1 << (array.width - 1)
    return np.clip(sums, -half, half - 1) if array.saturate else ((sums + half) & (2 * half - 1)) - half


def _stick(partial: Ints, step: int, array: Array) -> Ints:
    """The partial sums after the stuck bits of the elements that a step runs on."""
    half = 1 << (array.width - 1)
    channel, position = (np.arange(n) for n in partial.shape[1:])
    for channels, n, positions, m, steps, s, and_mask, xor_mask in array.events:
        if step % steps == s:
            here = (channel % channels == n)[:, None] & (position % positions == m)
            stuck = (((partial & and_mask) ^ xor_mask) + half & (2 * half - 1)) - half
            partial = np.where(here, stuck, partial)
    return partial


def _terms(x: Ints, layer: Layer) -> Ints:
    """The inputs (batch, groups, positions, products) of every sum, 0 in the padding."""
    if layer.channels_last:
        x = np.moveaxis(x.reshape(layer.batch, layer.axes[0].input, layer.depth), 2, 1)
    x = x.reshape(layer.batch, layer.groups, layer.depth, *(axis.input for axis in layer.axes))
    ends = [(axis.pad, axis.output * axis.stride + (axis.kernel - 1) * axis.dilation) for axis in layer.axes]
    room = [(pad, max(length - pad - axis.input, 0)) for (pad, length), axis in zip(ends, layer.axes, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), (0, 0), *room])
    windows = []
    for taps in product(*(range(axis.kernel) for axis in layer.axes)):
        places = [
            slice(tap * a.dilation, tap * a.dilation + a.output * a.stride, a.stride)
            for tap, a in zip(taps, layer.axes, strict=True)
        ]
        windows.append(padded[(slice(None), slice(None), slice(None), *places)])
    stacked = np.stack(windows, axis=3)  # batch, groups, depth, kernel, outputs...
    positions = int(np.prod([axis.output for axis in layer.axes], dtype=np.int64))
    flat = stacked.reshape(layer.batch, layer.groups, layer.products, positions)
    return np.moveaxis(flat, 2, 3)


def _as_stored(sums: Ints, layer: Layer) -> Ints:
    if layer.channels_last:
        return np.moveaxis(sums, 1, 2)
    return sums.reshape(layer.batch, layer.channels, *(axis.output for axis in layer.axes))
