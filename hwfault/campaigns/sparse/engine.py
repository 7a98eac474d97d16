"""A network and its images, ready to have single weights and values flipped."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.campaigns.sparse.describe import Network, describe, images_of
from hwfault.campaigns.sparse.flips import Flips, check_flips, native_flips
from hwfault.errors import HwfaultError
from hwfault.stream.native.network import GoldenRun

MEMORY = 256 << 20
"""The bytes that golden runs may take at a time, unless one image alone takes more."""
_RUNS_AT_ONCE = 1 << 16

Criterion = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], NDArray[np.bool_]]
"""`criterion(outputs, golden, images)` tells for some runs, whose outputs (runs, outputs) differ from the golden ones
of the same shape, which of them count as an event; `images` are the numbers of theirs."""


class Piece(NamedTuple):
    """What some flips of one site did in some images: rows of flips, columns of images."""

    flips: slice
    images: slice
    top1: NDArray[np.uint8]
    events: NDArray[np.uint8] | None
    died: NDArray[np.uint32]


class Survivors(NamedTuple):
    """Runs whose outputs (runs, outputs) differ from the golden ones: each of a flip in an image, by their numbers."""

    flip: NDArray[np.int64]
    image: NDArray[np.int64]
    outputs: NDArray[np.float32]


class SparseEngine:
    """A network's golden run on images, beside which flips are run.

    `inputs` are (images, ...) float32 values, `memory` bounds the bytes of golden runs; more images than it has room
    for (in multiples of eight) are run in several parts. `golden` are the golden outputs (images, outputs).
    Raises GraphError for a network that cannot be carried (see `describe`), HwfaultError for images that do not fit it.
    """

    def __init__(self, network: Network, inputs: ArrayLike, *, memory: int = MEMORY) -> None:
        batch = images_of(inputs)
        self.description = describe(network, batch)
        if batch.shape[1:] != self.description.shape:
            raise HwfaultError(
                f"the images have the shape {batch.shape[1:]}, expected {self.description.shape}, that of the network"
            )
        self._network = self.description.parsed()
        self._images = batch.reshape(len(batch), -1)
        at_once = memory // self._network.bytes_per_image
        self._at_once = max(8, at_once // 8 * 8)
        self._kept: tuple[int, GoldenRun] | None = None
        parts = [self._part(first).outputs for first in self._firsts()]
        self.golden: NDArray[np.float32] = np.concatenate(parts)

    @property
    def images(self) -> int:
        return len(self._images)

    def _firsts(self) -> Iterator[int]:
        return iter(range(0, len(self._images), self._at_once))

    def _part(self, first: int) -> GoldenRun:
        """The golden run of the images from `first` on; one is kept at a time."""
        if self._kept is None or self._kept[0] != first:
            self._kept = None  # its memory goes first
            images = self._images[first : first + self._at_once]
            made = GoldenRun(self._network, images, len(self.description.nodes), self.description.outputs)
            self._kept = first, made
        return self._kept[1]

    def pieces(self, flips: Flips, criterion: Criterion | None = None) -> Iterator[Piece]:
        """Every flip in every image, piece by piece; together they cover all pairs once.

        The flips of a site have to lie one behind the other for speed. Raises PlanError for flips that there are not.
        """
        check_flips(self.description, flips)
        for first in self._firsts():
            golden = self._part(first)
            columns = slice(first, first + golden.images)
            for rows in _runs(flips.site, max(1, _RUNS_AT_ONCE // golden.images)):
                native = native_flips(self.description, flips, rows)
                struck = golden.strike_all(native, survivors=criterion is not None)
                events = None
                if criterion is not None:
                    chosen = criterion(struck.outputs, golden.outputs[struck.image], struck.image + first)
                    told = np.asarray(chosen, bool)
                    if told.shape != struck.flip.shape:
                        raise HwfaultError(
                            f"the criterion gave an array of the shape {told.shape} for {len(struck.flip)} runs, "
                            "expected one truth value a run"
                        )
                    hit = np.zeros((rows.stop - rows.start, golden.images), bool)
                    hit[struck.flip[told], struck.image[told]] = True
                    events = np.packbits(hit, axis=1)
                yield Piece(rows, columns, struck.top1, events, struck.died)

    def survivors(self, flips: Flips) -> Iterator[Survivors]:
        """The runs of every flip in every image whose outputs differ from the golden ones, part by part.

        The flips of a site have to lie one behind the other for speed. Raises PlanError for flips that there are not.
        """
        check_flips(self.description, flips)
        for first in self._firsts():
            golden = self._part(first)
            for rows in _runs(flips.site, max(1, _RUNS_AT_ONCE // golden.images)):
                struck = golden.strike_all(native_flips(self.description, flips, rows), survivors=True)
                yield Survivors(struck.flip + rows.start, struck.image + first, struck.outputs.copy())

    def run(self, flips: Flips, images: ArrayLike) -> NDArray[np.float32]:
        """The outputs (flips, outputs) of flip i in image images[i].

        Raises PlanError for flips and HwfaultError for images that there are not.
        """
        numbers = np.asarray(images, np.int64)
        if numbers.shape != (len(flips),):
            raise HwfaultError(f"{numbers.shape} images for {len(flips)} flips, expected the number of one for each")
        if np.any((numbers < 0) | (numbers >= self.images)):
            raise HwfaultError(f"an image is out of range, expected numbers from 0 to {self.images - 1}")
        check_flips(self.description, flips)
        outputs = np.empty((len(flips), self.description.outputs), np.float32)
        for first in self._firsts():
            inside = (numbers >= first) & (numbers < first + self._at_once)
            for number in range(len(flips.names)):
                rows = np.flatnonzero(inside & (flips.site == number))
                if not len(rows):
                    continue
                native = native_flips(self.description, flips, rows)
                struck = self._part(first).strike(native, numbers[rows] - first)
                outputs[rows] = struck[0]
        return outputs


def _runs(site: NDArray[np.int32], most: int) -> Iterator[slice]:
    """Stretches of at most so many flips of one site."""
    ends = [*(np.flatnonzero(np.diff(site)) + 1).tolist(), len(site)]
    first = 0
    for end in ends:
        for begin in range(first, end, most):
            yield slice(begin, min(begin + most, end))
        first = end
