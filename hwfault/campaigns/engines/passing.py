"""Rows of trials on their way through the segments of a graph; those that meet the golden run leave."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.engines.replays import Segment

Array = NDArray[Any]
Numbers = NDArray[np.int64]


class Passing:
    """Rows that wait in front of segments until a batch of them has come, and then go on to the next.

    `tensors` are golden ones of some images, and `image_of` (rows,) says which of these each row is; `out` (rows, ...)
    is where the outputs go of rows that come to the end. What leaves on the way keeps what is written there.
    """

    def __init__(
        self, segments: Sequence[Segment], tensors: Mapping[str, Array], image_of: Numbers, out: Array, batch_size: int
    ) -> None:
        self.came = [0] * len(segments)
        """How many rows came to each segment, and how many of them left at its end."""
        self.left = [0] * len(segments)
        self._segments = segments
        self._tensors = tensors
        self._image_of = image_of
        self._out = out
        self._batch_size = batch_size
        self._waiting = [np.zeros(batch_size, np.int64) for _ in segments]
        self._count = [0] * len(segments)
        self._expected = {segment.end: np.empty_like(segment.runner.outputs[segment.end]) for segment in segments[:-1]}

    def enter(self, place: int, rows: Numbers, values: Array, differs: NDArray[np.bool_]) -> None:
        """Brings those rows in front of a segment, or to the end, that differ, with the values that it is given."""
        if not differs.all():
            rows, values = rows[differs], values[differs]
        if place == len(self._segments):
            self._out[rows] = values
            return
        segment = self._segments[place]
        waiting = segment.runner.inputs[segment.given]
        first = 0
        while first < len(rows):
            here = self._count[place]
            more = min(self._batch_size - here, len(rows) - first)
            waiting[here : here + more] = values[first : first + more]
            self._waiting[place][here : here + more] = rows[first : first + more]
            self._count[place] += more
            first += more
            if self._count[place] == self._batch_size:
                self._empty(place)

    def finish(self) -> None:
        """Has all rows that wait go on to the end."""
        for place in range(len(self._segments)):
            if self._count[place]:
                self._empty(place)

    def _empty(self, place: int) -> None:
        rows = self._waiting[place][: self._count[place]].copy()
        self._count[place] = 0
        self.through(place, rows)

    def through(self, place: int, rows: Numbers) -> None:
        """Has the rows in a segment's buffer go through it, and those that still differ from the golden run further."""
        segment = self._segments[place]
        images = self._image_of[rows]
        for name in segment.alive:
            take(self._tensors[name], images, segment.runner.inputs[name])
        segment.runner.run(len(rows))
        self.came[place] += len(rows)
        values = segment.runner.outputs[segment.end][: len(rows)]
        differs = np.ones(len(rows), bool)
        if place + 1 < len(self._segments):
            expected = take(self._tensors[segment.end], images, self._expected[segment.end])
            differs = differing_rows(values, expected)
            self.left[place] += int(len(rows) - np.count_nonzero(differs))
        self.enter(place + 1, rows, values, differs)


def take(values: Array, rows: Numbers, out: Array) -> Array:
    """Some rows of an array, written to the first ones of a buffer."""
    filled = out[: len(rows)]
    np.take(values, rows, axis=0, out=filled, mode="clip")
    return filled


def differing_rows(values: Array, others: Array) -> NDArray[np.bool_]:
    """Which rows differ in any bit."""
    bits = np.dtype(f"u{values.dtype.itemsize}")
    differs = np.not_equal(values.view(bits), others.view(bits)).reshape(len(values), -1)
    return np.asarray(differs.any(axis=1))
