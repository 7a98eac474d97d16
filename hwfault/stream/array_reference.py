"""The accumulators of a layer on an array of processing elements in NumPy: the specification in code (SPEC.md)."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwfault.stream.array import Array, Layer

Ints = NDArray[np.int64]


def accumulate(x: NDArray[np.generic], w: NDArray[np.generic], layer: Layer, array: Array) -> Ints:
    """The accumulators (int64, of the layer's shape) of integers x and w; see Layer and Array."""
    terms = _terms(x.astype(np.int64), layer)
    weights = w.astype(np.int64).reshape(layer.channels, -1)
    if len(array.order):
        order = np.array(array.order)
        terms = terms[:, :, :, order]
        weights = weights[:, order]
    steps = -(-layer.products // array.step)
    per_pass = array.pass_steps or steps
    total = np.zeros((layer.batch, layer.channels, terms.shape[2]), np.int64)
    for first in range(0, steps, per_pass):
        partial = _pass(terms, weights, first, per_pass, layer, array)
        # the adder that puts passes together is as wide as those of the elements
        total = _limit(total + partial, array)
    return _as_stored(total, layer)


def _pass(terms: Ints, weights: Ints, first: int, steps: int, layer: Layer, array: Array) -> Ints:
    """The partial sums (batch, channels, positions) after one pass over the array."""
    partial = np.zeros((layer.batch, layer.channels, terms.shape[2]), np.int64)
    group = np.arange(layer.channels) // (layer.channels // layer.groups)
    for step in range(steps):
        begin = (first + step) * array.step
        part = slice(begin, begin + array.step)  # the last step may be shorter; those behind it add nothing
        added = np.einsum("bnmk,nk->bnm", terms[:, group, :, part], weights[:, part])
        partial = _limit(partial + added, array)
        partial = _stick(partial, step, array)
    return partial


def _limit(sums: Ints, array: Array) -> Ints:
    """Sums within the accumulator's width: saturated, or modulo 2^width."""
    if array.saturate:
        half = 1 << (array.width - 1)
        return np.clip(sums, -half, half - 1)
    return _wrap(sums, array)


def _wrap(sums: Ints, array: Array) -> Ints:
    """The integers of two's complement whose lowest `width` bits are those of the sums."""
    half = 1 << (array.width - 1)
    return ((sums + half) & (2 * half - 1)) - half


def _stick(partial: Ints, step: int, array: Array) -> Ints:
    """The partial sums after the stuck bits of the elements that a step runs on."""
    _, n_channels, n_positions = partial.shape
    channel = np.arange(n_channels)[:, None]
    position = np.arange(n_positions)
    for channels, n, positions, m, steps, s, and_mask, xor_mask in array.events:
        if step % steps != s:
            continue
        # the layer is cut into tiles of the array's size, and each comes upon the same element
        here = (channel % channels == n) & (position % positions == m)
        stuck = _wrap((partial & and_mask) ^ xor_mask, array)
        partial = np.where(here, stuck, partial)
    return partial


def _terms(x: Ints, layer: Layer) -> Ints:
    """The inputs (batch, groups, positions, products) of every sum, 0 in the padding."""
    if layer.channels_last:
        x = np.moveaxis(x.reshape(layer.batch, layer.axes[0].input, layer.depth), 2, 1)
    x = x.reshape(layer.batch, layer.groups, layer.depth, *(axis.input for axis in layer.axes))
    # zeros in front of each axis, and behind it as far as the last window's slice reaches
    room = []
    for axis in layer.axes:
        reach = axis.output * axis.stride + (axis.kernel - 1) * axis.dilation
        behind = max(reach - axis.pad - axis.input, 0)
        room.append((axis.pad, behind))
    padded = np.pad(x, [(0, 0), (0, 0), (0, 0), *room])

    # one tap of the kernel meets every output at once, `stride` apart
    windows = []
    for taps in product(*(range(axis.kernel) for axis in layer.axes)):
        window = [slice(None), slice(None), slice(None)]
        for tap, axis in zip(taps, layer.axes, strict=True):
            first = tap * axis.dilation
            window.append(slice(first, first + axis.output * axis.stride, axis.stride))
        windows.append(padded[tuple(window)])
    stacked = np.stack(windows, axis=3)  # batch, groups, depth, kernel, outputs...
    positions = int(np.prod([axis.output for axis in layer.axes], dtype=np.int64))
    flat = stacked.reshape(layer.batch, layer.groups, layer.products, positions)
    return np.moveaxis(flat, 2, 3)


def _as_stored(sums: Ints, layer: Layer) -> Ints:
    """Sums (batch, channels, positions) in the layer's shape."""
    if layer.channels_last:
        return np.moveaxis(sums, 1, 2)
    outputs = [axis.output for axis in layer.axes]
    return sums.reshape(layer.batch, layer.channels, *outputs)
