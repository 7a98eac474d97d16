"""The golden run's tensors, computed where they are asked for and kept within a limit of memory."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.campaigns.engines.buffers import Kind
from hwfault.campaigns.engines.graph_engine import parts_of
from hwfault.graph.edit.cut import cut_out
from hwfault.graph.run.graph_input import InputArrays
from hwfault.graph.run.session import run, session

Array = NDArray[Any]

_PROBED = 3


class Goldens:
    """Tensors of a graph without faults for ranges of its images, of which as many are kept as `limit` bytes hold."""

    def __init__(self, graph: ModelProto, inputs: InputArrays, *, batch_size: int, threads: int, limit: int) -> None:
        self.limit = limit
        self.most_bytes = 0
        """The most that were held at once."""
        self._graph = graph
        self._inputs = inputs
        self._batch_size = batch_size
        self._threads = threads
        self._kinds: dict[str, Kind | None] = {}
        self._kept: OrderedDict[tuple[str, int, int], Array] = OrderedDict()
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}

    @property
    def bytes(self) -> int:
        """How many bytes are held now."""
        return sum(values.nbytes for values in self._kept.values())

    def kinds(self, names: Sequence[str]) -> dict[str, Kind]:
        """What tensors hold for one image; those are left out whose axis 0 does not hold the images."""
        unknown = [name for name in names if name not in self._kinds]
        if unknown:
            # one image and some: an axis that has as many rows each time is that of the images
            alone = self._run(unknown, slice(0, 1))
            some = min(_PROBED, len(self._inputs))
            together = self._run(unknown, slice(0, some))
            for name in unknown:
                first, all_of_them = alone[name], together[name]
                in_rows = first.shape[:1] == (1,) and all_of_them.shape == (some, *first.shape[1:])
                self._kinds[name] = Kind(first.dtype, first.shape[1:]) if in_rows else None
        known = {name: self._kinds[name] for name in names}
        return {name: kind for name, kind in known.items() if kind is not None}

    def blocks(self, names: Sequence[str]) -> list[slice]:
        """The images in as few parts as have all of the tensors within the limit, of equal size but for the last."""
        per_image = sum(kind.bytes for kind in self.kinds(names).values())
        images = len(self._inputs)
        size = images
        while size > 1 and size * per_image > self.limit:  # halves, so that other tensors have the same parts
            size = -(-size // 2)
        return list(parts_of(images, size))

    def rows(self, names: Sequence[str], images: slice) -> dict[str, Array]:
        """Tensors for a range of images; where there is no room, others go that were asked for longest ago."""
        keys = {name: (name, images.start, images.stop) for name in names}
        missing = [name for name, key in keys.items() if key not in self._kept]
        self._make_room(missing, images, set(keys.values()))
        if missing:
            for name, values in self._compute(missing, images).items():
                self._kept[keys[name]] = values
        for key in keys.values():
            self._kept.move_to_end(key)
        self.most_bytes = max(self.most_bytes, self.bytes)
        return {name: self._kept[key] for name, key in keys.items()}

    def _make_room(self, names: list[str], images: slice, asked: set[tuple[str, int, int]]) -> None:
        """Lets tensors go until the limit holds those to come, but none of those that are asked for now."""
        wanted = sum(kind.bytes for kind in self.kinds(names).values()) * (images.stop - images.start)
        for key in [key for key in self._kept if key not in asked]:
            if self.bytes + wanted <= self.limit:
                return
            del self._kept[key]

    def _compute(self, names: list[str], images: slice) -> dict[str, Array]:
        kinds = self.kinds(names)
        found = {name: np.empty((images.stop - images.start, *kinds[name].shape), kinds[name].dtype) for name in names}
        for part in parts_of(images.stop - images.start, self._batch_size):
            computed = self._run(names, slice(images.start + part.start, images.start + part.stop))
            for name in names:
                found[name][part] = computed[name]
        return found

    def _run(self, names: Sequence[str], images: slice) -> dict[str, Array]:
        given = self._inputs.rows(images)
        found = {name: given[name] for name in names if name in given}
        computed = tuple(name for name in names if name not in given)
        if computed and computed not in self._sessions:
            part = cut_out(self._graph, [], computed)
            self._sessions = {computed: session(part, threads=self._threads, spin=False)}  # the last one only
        if computed:
            made = self._sessions[computed]
            read = {entry.name for entry in made.get_inputs()}
            feeds = {name: values for name, values in given.items() if name in read}
            found |= dict(zip(computed, run(made, feeds), strict=True))
        return found
