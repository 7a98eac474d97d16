"""Replay of a suffix: what lies behind the one site that a plan strikes, for the samples that its faults still reach.

The golden run's tensors are kept where the graph is cut. A trial begins at its site; behind it the graph is computed in
segments, each up to a quantizer that all values pass, and samples whose codes are the golden ones again there leave:
their outputs are golden. Samples of several trials go through a segment together. Segments where hardly any sample
leaves are joined once that is seen.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.engines.goldens import Goldens
from hwfault.campaigns.engines.graph_engine import GraphEngine, parts_of
from hwfault.campaigns.engines.named_cells import Cells, plan_of_sites, rows_of, rows_of_trials
from hwfault.campaigns.engines.passing import Passing, differing_rows
from hwfault.campaigns.engines.replays import CutGraph, Replay, prepare
from hwfault.campaigns.engines.strikes import CellStrike, DrawnStrike, Strike
from hwfault.errors import HwfaultError
from hwfault.graph.read.nodes import SEED
from hwfault.plan.fault_plan import FaultPlan
from hwfault.stream.check import check_seed

Array = NDArray[Any]
Numbers = NDArray[np.int64]

_KEPT_REPLAYS = 64
_BLOCK, _LANES = 1024, 16
"""Words of a block of the stream, and how many blocks its kernel draws side by side."""
_WORTH_LEAVING = 0.2
"""The share of samples that have to leave at the end of a segment for it to stay one, seen on some of them."""


class SuffixEngine:
    """Trials of an engine's graph that strike one site alone, from that site on; all other plans run as a whole.

    Outputs are those of the engine, bit for bit where its graph's sums are exact (see `GraphEngine`). At most `limit`
    bytes of the golden run's tensors are held, for all images or for a part of them at a time: `kept_bytes` and
    `most_bytes` say how many are and were.
    """

    def __init__(self, engine: GraphEngine, *, limit: int = 1 << 28) -> None:
        if limit < 1:
            raise HwfaultError(f"the limit is {limit} bytes, expected at least 1")
        self.engine = engine
        rows = {"batch_size": engine.batch_size, "threads": engine.threads, "limit": limit}
        self._goldens = Goldens(prepare(engine.graph), engine.inputs, **rows)
        self._graph = CutGraph(engine.graph, self._goldens, rows=engine.batch_size, threads=engine.threads)
        self._replays: OrderedDict[str, Replay | None] = OrderedDict()
        self._cells: dict[str, CellStrike] = {}
        self._enough = min(32, -(-len(engine.inputs) // 4))

    @property
    def kept_bytes(self) -> int:
        """How many bytes of the golden run's tensors are held now."""
        return self._goldens.bytes

    @property
    def most_bytes(self) -> int:
        """The most that were held at once."""
        return self._goldens.most_bytes

    def golden(self) -> Array:
        """The outputs (n, ...) of the clean graph."""
        return self.engine.golden()

    def can_replay(self, plan: FaultPlan) -> bool:
        """Whether a plan's trials are computed from one site on; all others run as a whole."""
        return self._load(plan) is not None

    def outputs(self, plan: FaultPlan, seeds: Sequence[int], images: Sequence[int] | Array | None = None) -> Array:
        """The outputs (trials, k, ...) under a plan for each seed; arguments and errors as of `GraphEngine.outputs`."""
        replay = self._load(plan)
        if replay is None:
            return self.engine.outputs(plan, seeds, images)
        of_trial = np.array([check_seed(seed) for seed in seeds], np.uint64).view(np.int64)
        strike = DrawnStrike(replay.struck, of_trial) if replay.struck.read else None
        return self._replay(replay, of_trial, images, strike)

    def outputs_of_cells(
        self, plan: FaultPlan, trials: Sequence[Cells], images: Sequence[int] | Array | None = None
    ) -> Array | None:
        """The outputs (trials, k, ...) of trials with faulty cells in an activation, the one that `plan` strikes.

        None where what is struck is no activation, or trials have to run as a whole.
        """
        entry = plan.sites[0]
        replay = self._load(plan_of_sites([entry], plan, by_sample=False))
        if replay is None or not replay.struck.read:
            return None
        name = entry.site.name
        if name not in self._cells:
            made = self._graph.strike_cells(plan_of_sites([entry], plan, by_sample=True))
            self._cells[name] = CellStrike(*made, rows=rows_of(None))
        strike = self._cells[name]._replace(rows=rows_of_trials(trials, name))
        return self._replay(replay, np.zeros(len(trials), np.int64), images, strike)

    def _replay(
        self, replay: Replay, seeds: Numbers, images: Sequence[int] | Array | None, strike: Strike | None
    ) -> Array:
        """The outputs of a trial for each seed; `strike` makes rows of an activation, None: parameters are struck."""
        chosen = self.engine.check_images(images)
        out = np.repeat(self.golden()[chosen][None], len(seeds), axis=0)
        first = 0
        while first < len(seeds):
            # one trial after the other until it is seen where samples leave, then all others
            last = len(seeds) if replay.is_fitted else first + 1
            self._run(replay, seeds, np.arange(first, last), chosen, out[first:last], strike)
            first = last
        return out

    def outputs_each(self, plan: FaultPlan, seeds: Sequence[int], images: Sequence[Array]) -> list[Array]:
        """The outputs (k, ...) under a plan for each seed, of images of its own; errors as of `GraphEngine.outputs`."""
        if not self.can_replay(plan):
            return self.engine.outputs_each(plan, seeds, images)
        return [self.outputs(plan, [seed], chosen)[0] for seed, chosen in zip(seeds, images, strict=True)]

    def _run(
        self, replay: Replay, seeds: Numbers, trials: Numbers, chosen: Numbers, out: Array, strike: Strike | None
    ) -> None:
        """The outputs of some trials, written over the golden ones."""
        rows = out.reshape(-1, *out.shape[2:])
        image_of = np.tile(chosen, len(trials))
        for block, numbers in self._blocks(replay, chosen, len(trials)):
            tensors = self._goldens.rows(replay.tensors, block)
            passing = Passing(replay.segments, tensors, image_of - block.start, rows, self.engine.batch_size)
            if strike is None:
                self._strike_parameters(replay, passing, numbers, seeds[trials])
            else:
                golden = tensors[replay.struck.name]
                trial_of = np.repeat(trials, len(chosen))
                for own in self._parts(numbers, golden[0].size):
                    places = image_of[own] - block.start
                    before, after = strike(golden, places, trial_of[own], image_of[own])
                    passing.enter(0, own, after, differing_rows(after, before))
            passing.finish()
            self._fit(replay, passing)

    def _parts(self, rows: Numbers, words: int) -> Iterator[Numbers]:
        """The rows (trials, images) in batches, those of all trials and one image together."""
        ordered = _image_by_image(rows, words)
        for part in parts_of(len(ordered), self.engine.batch_size):
            yield ordered[part]

    def _blocks(self, replay: Replay, chosen: Numbers, trials: int) -> Iterator[tuple[slice, Numbers]]:
        """The images in parts whose golden tensors the limit holds, and the rows (trials, images) that are theirs."""
        for block in self._goldens.blocks(replay.tensors):
            places = np.flatnonzero((chosen >= block.start) & (chosen < block.stop))
            if len(places):
                yield block, np.arange(trials)[:, None] * len(chosen) + places

    def _strike_parameters(self, replay: Replay, passing: Passing, rows: Numbers, seeds: Numbers) -> None:
        """One trial after the other, as all rows read the same parameters; behind the first segment all go together."""
        struck = replay.struck
        for seed, own in zip(seeds, rows, strict=True):
            struck.numbers[SEED][...] = seed
            struck.strike.run(1)
            if all(np.array_equal(struck.parameters[name], value) for name, value in struck.unstruck.items()):
                continue
            for part in parts_of(len(own), self.engine.batch_size):
                passing.through(0, own[part])

    def _fit(self, replay: Replay, passing: Passing) -> None:
        """Joins the segments at whose ends hardly any sample leaves, once enough have come."""
        if replay.is_fitted or not replay.segments or passing.came[0] < self._enough:
            return
        kept = []
        for segment, came, left in zip(replay.segments, passing.came, passing.left, strict=True):
            if came == 0 or left >= _WORTH_LEAVING * came:
                kept.append(segment.end)
        self._graph.fit(replay, kept)

    def _load(self, plan: FaultPlan) -> Replay | None:
        """The replay of a plan, made where it is not among those used last."""
        key = plan.digest
        if key not in self._replays:
            self._replays[key] = self._graph.replay(plan)
        self._replays.move_to_end(key)
        while len(self._replays) > _KEPT_REPLAYS:
            self._replays.popitem(last=False)
        return self._replays[key]


def _image_by_image(rows: Numbers, words: int) -> Numbers:
    """The rows (trials, images) in one list, all trials of some images together: their tensors stay in the cache.

    There are as many of these as the stream's kernel draws at once under one seed, by the words of an image.
    """
    together = -(-_LANES // -(-words // _BLOCK))
    parts = [rows[:, part].reshape(-1) for part in parts_of(rows.shape[1], together)]
    return np.concatenate(parts)
