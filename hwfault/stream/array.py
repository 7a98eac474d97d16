"""Layers added up on an array of processing elements: what it is made of.

The semantics are those of the op ArrayFaults (export/SPEC.md); `native.accumulate_arrays` adds up, and
`array_reference` is the same in NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwfault.moved import moved_names

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


__getattr__ = moved_names("hwfault.stream.array")
