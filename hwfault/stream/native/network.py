"""Quantized networks as the native library runs them, and what single flips of weights and values do to them."""

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import HwfaultError
from hwfault.stream.native import pointers
from hwfault.stream.native.header import Addends, Flips, Survivors, ValueFlips
from hwfault.stream.native.loading import library


class ParsedNetwork:
    """A network's description (export/SPEC.md, "Networks"), parsed and checked; raises HwfaultError for none.

    `plan` are int64, `constants` float32, `weights` int16 numbers. `bytes_per_image` is what a golden run takes.
    """

    def __init__(self, plan: NDArray[np.int64], constants: NDArray[np.float32], weights: NDArray[np.int16]) -> None:
        given = (
            np.ascontiguousarray(plan, np.int64),
            np.ascontiguousarray(constants, np.float32),
            np.ascontiguousarray(weights, np.int16),
        )
        place = ctypes.c_void_p()
        flat = [part for array in given for part in (array.ctypes.data, array.size)]
        library().hwfault_network_new(*flat, ctypes.addressof(place))
        self.address = int(place.value or 0)
        weakref.finalize(self, library().hwfault_network_free, self.address)
        self.bytes_per_image = int(library().hwfault_network_bytes(self.address))


class Struck(NamedTuple):
    """What flips of one layer did in each image.

    `top1` (flips, images / 8 rounded up) are packed bits, `died` (flips, nodes) counts of images, and the rest are the
    runs whose outputs differ: the number of the flip, of the image, and the outputs (empty where not asked for).
    """

    top1: NDArray[np.uint8]
    died: NDArray[np.uint32]
    flip: NDArray[np.int64]
    image: NDArray[np.int64]
    outputs: NDArray[np.float32]


class GoldenRun:
    """A network's run on `x`, (images, inputs) float32 values, without faults; what it needs lives as long as it.

    Raises HwfaultError for values that are no finite numbers.
    """

    def __init__(self, network: ParsedNetwork, x: NDArray[np.float32], nodes: int, outputs: int) -> None:
        values = np.ascontiguousarray(x, np.float32)
        self._network = network  # which the library reads
        self._nodes = nodes
        self.images = len(values)
        place = ctypes.c_void_p()
        library().hwfault_golden_new(network.address, values.ctypes.data, self.images, ctypes.addressof(place))
        self._address = int(place.value or 0)
        weakref.finalize(self, library().hwfault_golden_free, self._address)
        self.outputs: NDArray[np.float32] = np.empty((self.images, outputs), np.float32)
        library().hwfault_golden_outputs(self._address, self.outputs.ctypes.data)

    def strike_all(self, flips: "NativeFlips", *, survivors: bool = False) -> Struck:
        """Every flip in every image. With `survivors` there is room for the outputs of all runs."""
        top1 = np.empty((flips.size, -(-self.images // 8)), np.uint8)
        died = np.empty((flips.size, self._nodes), np.uint32)
        capacity = flips.size * self.images if survivors else 0
        flip = np.empty(capacity, np.int64)
        image = np.empty(capacity, np.int64)
        outputs = np.empty((capacity, self.outputs.shape[1]), np.float32)
        room = Survivors(capacity, _at(flip), _at(image), _at(outputs))
        found = int(flips.census(self._address, flips.struct, _at(top1), _at(died), room))
        written = min(found, capacity)
        return Struck(top1, died, flip[:written], image[:written], outputs[:written])

    def strike(self, flips: "NativeFlips", image: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Flip i in image[i]: the outputs, and behind which node nothing differed any more (-1: the outputs do)."""
        images = np.ascontiguousarray(image, np.int64)
        if len(images) != flips.size:
            raise HwfaultError(f"{flips.size} flips in {len(images)} images, expected an image for each flip")
        outputs = np.empty((flips.size, self.outputs.shape[1]), np.float32)
        died = np.empty(flips.size, np.int64)
        flips.run(self._address, flips.struct, _at(images), _at(died), _at(outputs))
        return outputs, died


class NativeFlips(NamedTuple):
    """Flips as the library takes them, its functions for them, and the arrays that the struct points to."""

    struct: Any
    size: int
    census: Callable[..., int]
    run: Callable[..., int]
    kept: tuple[Any, ...]


def weight_flips(node: int, word: NDArray[np.int64], change: NDArray[np.int32]) -> NativeFlips:
    """Weights of a layer that are larger by so much."""
    words = np.ascontiguousarray(word, np.int64)
    changes = np.ascontiguousarray(change, np.int32)
    if len(words) != len(changes):
        raise HwfaultError(f"{len(words)} words and {len(changes)} changes, expected a change for each word")
    struct = Flips(node, _at(words), _at(changes), len(words))
    return NativeFlips(struct, len(words), library().hwfault_census, library().hwfault_run_flips, (words, changes))


def addend_flips(node: int, channel: NDArray[np.int64], addend: NDArray[np.float32]) -> NativeFlips:
    """Addends of channels of a layer that are others."""
    channels = np.ascontiguousarray(channel, np.int64)
    addends = np.ascontiguousarray(addend, np.float32)
    if len(channels) != len(addends):
        raise HwfaultError(f"{len(channels)} channels and {len(addends)} addends, expected an addend for each channel")
    struct = Addends(node, _at(channels), _at(addends), len(channels))
    functions = library().hwfault_addend_census, library().hwfault_run_addends
    return NativeFlips(struct, len(channels), *functions, (channels, addends))


class ValueFormat(NamedTuple):
    """Which codes values stand for: scales and zero points, and of how many words each is in turn (see codes)."""

    scale: NDArray[np.float64]
    scale_inner: int
    zero_point: NDArray[np.float64]
    zero_point_inner: int
    bit_width: int
    signed: bool


def value_flips(
    node: int, step: int, format: ValueFormat, word: NDArray[np.int64], bit: NDArray[np.int32]
) -> NativeFlips:
    """Bits of the codes that a quantizer gives, which is a step of a node."""
    words = np.ascontiguousarray(word, np.int64)
    bits = np.ascontiguousarray(bit, np.int32)
    if len(words) != len(bits):
        raise HwfaultError(f"{len(words)} words and {len(bits)} bits, expected a bit for each word")
    scale, zero_point = (np.ascontiguousarray(n, np.float64) for n in (format.scale, format.zero_point))
    native = pointers.format(
        _at(scale),
        len(scale),
        format.scale_inner,
        _at(zero_point),
        len(zero_point),
        format.zero_point_inner,
        format.bit_width,
        format.signed,
    )
    struct = ValueFlips(node, step, ctypes.pointer(native), _at(words), _at(bits), len(words))
    functions = library().hwfault_value_census, library().hwfault_run_value_flips
    return NativeFlips(struct, len(words), *functions, (words, bits, scale, zero_point, native))


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data
