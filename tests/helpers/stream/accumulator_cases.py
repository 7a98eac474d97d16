"""Random layers, their integers, and arrays that add them up."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwfault.stream.array import Array, Axis, Layer
from tests.helpers.stream.accumulator_oracle import layer_sums

PLAIN = Array(width=32)


@dataclass(frozen=True)
class Case:
    """A layer with its integers in the layout that the layer has, and an array."""

    layer: Layer
    array: Array
    x: NDArray[np.float32]
    w: NDArray[np.float32]

    @property
    def exact(self) -> NDArray[np.float32]:
        """The accumulators as a fault-free layer of unlimited width has them (small enough for float32)."""
        return self.by_oracle(PLAIN).astype(np.float32)

    def by_oracle(self, array: Array | None = None) -> NDArray[np.int64]:
        layer = self.layer
        x = np.moveaxis(self.x, -1, 1) if layer.channels_last else self.x
        flat_x = x.reshape(layer.batch, x.shape[1], int(np.prod(x.shape[2:])))
        flat_w = self.w.reshape(layer.channels, layer.depth, -1)
        sums = layer_sums(flat_x, flat_w, layer, array or self.array)
        outputs = [axis.output for axis in layer.axes]
        out = np.zeros((layer.batch, layer.channels, int(np.prod(outputs))), np.int64)
        for place, value in sums.items():
            out[place] = value
        out = out.reshape(layer.batch, layer.channels, *outputs)
        return np.moveaxis(out, 1, -1) if layer.channels_last else out

    def with_array(self, **changes) -> "Case":
        return replace(self, array=replace(self.array, **changes))


def case(rng: np.random.Generator) -> Case:
    layer = _linear(rng) if rng.random() < 0.3 else _convolution(rng)
    inputs = [axis.input for axis in layer.axes]
    channels = layer.groups * layer.depth
    x_shape = (layer.batch, *inputs, channels) if layer.channels_last else (layer.batch, channels, *inputs)
    kernels = () if layer.channels_last else tuple(axis.kernel for axis in layer.axes)
    low = int(rng.choice([0, -8, -128]))
    x = rng.integers(low, 16 if low > -128 else 128, x_shape).astype(np.float32)
    w = rng.integers(-8, 8, (layer.channels, layer.depth, *kernels)).astype(np.float32)
    return Case(layer, _array(rng, layer), x, w)


def _linear(rng) -> Layer:
    positions = int(rng.integers(1, 4))
    axes = (Axis(positions, positions),)
    return Layer(int(rng.integers(0, 4)), int(rng.integers(1, 6)), 1, int(rng.integers(1, 12)), axes, True)


def _convolution(rng) -> Layer:
    groups, depth = int(rng.choice([1, 1, 2, 3])), int(rng.integers(1, 4))
    axes = tuple(_axis(rng) for _ in range(rng.integers(1, 3)))
    return Layer(int(rng.integers(1, 3)), groups * int(rng.integers(1, 4)), groups, depth, axes)


def _axis(rng) -> Axis:
    kernel, stride, pad, dilation = (int(rng.integers(1, top)) for top in (4, 3, 3, 3))
    pad -= 1
    length = int(rng.integers(max(1, (kernel - 1) * dilation + 1 - 2 * pad), 7 + (kernel - 1) * dilation))
    output = (length + 2 * pad - (kernel - 1) * dilation - 1) // stride + 1
    return Axis(length, output, kernel, stride, pad, dilation)


def _array(rng, layer: Layer) -> Array:
    width = int(rng.choice([2, 4, 6, 8, 10, 14, 20, 24, 32]))
    order = tuple(rng.permutation(layer.products).tolist()) if rng.random() < 0.5 else ()
    step = int(rng.integers(1, layer.products + 2))
    pass_steps = int(rng.choice([0, 1, 2, 5]))
    events = tuple(_event(rng, width) for _ in range(rng.choice([0, 0, 1, 2, 3])))
    return Array(width, bool(rng.random() < 0.5), step, pass_steps, order, events, bool(rng.random() < 0.2))


def _event(rng, width):
    periods = [int(rng.choice([1, 2, 3, 4])) for _ in range(3)]
    places = [int(rng.integers(0, period)) for period in periods]
    bit = 1 << int(rng.integers(0, width))
    masks = [(0xFFFFFFFF ^ bit, 0), (0xFFFFFFFF ^ bit, bit), (0xFFFFFFFF, bit), (0, 0)]
    return (*(n for pair in zip(periods, places, strict=True) for n in pair), *masks[rng.integers(0, 4)])
