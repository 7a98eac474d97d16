"""The census: what every single-bit flip of a network's weights does to the answer for every image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.campaigns.sparse.describe import Network
from hwfault.campaigns.sparse.engine import MEMORY, Criterion, SparseEngine
from hwfault.campaigns.sparse.flips import Flips, all_flips
from hwfault.errors import HwfaultError

Progress = Callable[[int, int], object]
"""`progress(runs done, all runs)`, a run being one flip in one image."""

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
"""How many bits of a byte are set."""


@dataclass(frozen=True)
class Census:
    """What each flip (rows) did in each image (columns).

    `golden` are the golden outputs (images, outputs). `top1` holds a bit for each image, packed as NumPy's `packbits`
    does (image 0 is the highest bit of byte 0), set where the first largest output is another one than without the
    flip; `events` likewise where the criterion said so (None: there was none). `died` (flips, nodes) counts the images
    in which behind that node nothing differed from the golden run any more (None: not asked for); in the others the
    outputs differ. `nodes` are the nodes' names.
    """

    flips: Flips
    images: int
    golden: NDArray[np.float32]
    top1: NDArray[np.uint8]
    events: NDArray[np.uint8] | None
    died: NDArray[np.unsignedinteger[Any]] | None
    nodes: tuple[str, ...]

    @property
    def runs(self) -> int:
        """How many (flip, image) pairs there are."""
        return len(self.flips) * self.images

    def changed(self, flips: slice | NDArray[Any] = slice(None)) -> NDArray[np.bool_]:
        """Whether the top-1 answer changes, as booleans (flips, images), of some flips: all take eight times `top1`."""
        return np.unpackbits(self.top1[flips], axis=1, count=self.images).astype(bool)

    def counts(self) -> NDArray[np.int64]:
        """In how many images each flip changes the top-1 answer."""
        counts: NDArray[np.int64] = _BITS[self.top1].sum(axis=1, dtype=np.int64)
        return counts

    @property
    def rate(self) -> float:
        """The share of (flip, image) pairs whose top-1 answer changes: exact, over all of them."""
        return float(self.counts().sum() / self.runs)


def census(
    network: Network,
    inputs: ArrayLike,
    sites: Sequence[str] | None = None,
    *,
    flips: Flips | None = None,
    criterion: Criterion | None = None,
    deaths: bool = True,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Census:
    """Every single-bit flip of every weight of the sites (None: of all), or the given `flips`, in every image, exactly.

    The network (a Brevitas network, a QONNX graph of integer arithmetic, or what `describe` gave) is run in integer
    arithmetic: answers are those of `integer_arithmetic(network)` with the flip as a fault `cells`, bit for bit.
    `inputs` are (images, ...) float32 values. A flip strikes the code word in two's complement within the site's own
    width. Beside the answer, which takes flips * (images / 8 + bytes of a count * nodes if `deaths`) bytes, it takes
    `memory` for golden runs (or what eight images take, where that is more), and some MiB. `criterion` is asked about
    every run whose outputs differ from the golden ones. Disjoint sites, flips or images (in multiples of eight) may be
    run in processes of their own and put side by side.
    Raises GraphError for a network that cannot be carried, in one sentence that says what of it and why; PlanError for
    sites or flips that there are not; HwfaultError for images that do not fit, and for sites beside flips.
    """
    if flips is not None and sites is not None:
        raise HwfaultError("the sites were given beside flips, which name theirs; expected one of the two")
    engine = SparseEngine(network, inputs, memory=memory)
    chosen = all_flips(engine.description, sites) if flips is None else flips
    nodes = engine.description.node_names
    bytes_of_row = -(-engine.images // 8)
    top1 = np.zeros((len(chosen), bytes_of_row), np.uint8)
    events = None if criterion is None else np.zeros_like(top1)
    died = np.zeros((len(chosen), len(nodes)), np.min_scalar_type(engine.images)) if deaths else None

    done, runs = 0, len(chosen) * engine.images
    for piece in engine.pieces(chosen, criterion):
        columns = slice(piece.images.start // 8, -(-piece.images.stop // 8))  # parts begin at multiples of eight
        top1[piece.flips, columns] = piece.top1
        if events is not None and piece.events is not None:
            events[piece.flips, columns] = piece.events
        if died is not None:
            died[piece.flips] += piece.died.astype(died.dtype)
        done += (piece.flips.stop - piece.flips.start) * (piece.images.stop - piece.images.start)
        if progress is not None:
            progress(done, runs)
    return Census(chosen, engine.images, engine.golden, top1, events, died, nodes)
