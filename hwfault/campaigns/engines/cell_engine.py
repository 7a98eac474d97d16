"""Trials whose faults are cells that their plans name: one session serves all of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwfault.campaigns.engines.graph_engine import GraphEngine, parts_of
from hwfault.campaigns.engines.named_cells import Cells, Rows, plan_of_sites, rows_of, rows_of_trials
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.open_rows import OpenedGraph, open_rows
from hwfault.graph.run.blocked import session_of_struck
from hwfault.graph.run.session import run, session
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import SitePlan

Array = NDArray[Any]


class _Loaded(NamedTuple):
    """A session that strikes some sites, and the inputs that are the rows of their maps."""

    session: onnxruntime.InferenceSession
    opened: OpenedGraph
    sites: dict[str, SitePlan]

    def feeds(self, rows: Mapping[str, Rows]) -> dict[str, Array]:
        """The inputs for the rows of each site; none where nothing is said of a site."""
        found: dict[str, Array] = {}
        for site, names in self.opened.rows.items():
            values = rows.get(site) or rows_of(None)
            for own in names:
                found.update(zip(own, values, strict=True))
        return found


class CellEngine:
    """Trials of an engine's graph under plans that name their cells (see `cells_of`).

    The session is made for all sites that the trials have struck so far: what differs from trial to trial are inputs of
    it. Trials that strike activations alone share batches where the engine's may (`GraphEngine.stacks`). Outputs are
    those of the engine, bit for bit where its graph's sums are exact.
    """

    def __init__(self, engine: GraphEngine) -> None:
        self.engine = engine
        self.made = 0
        """How many sessions were made."""
        self._loaded: _Loaded | None = None

    def outputs(self, plans: Sequence[FaultPlan], trials: Sequence[Cells], images: Array | None = None) -> Array:
        """The outputs (trials, k, ...) of all images, or the k whose numbers are given; plans and what they strike.

        Raises what `GraphEngine.outputs` raises.
        """
        chosen = self.engine.check_images(images)
        golden = self.engine.golden()
        out = np.empty((len(trials), len(chosen), *golden.shape[1:]), golden.dtype)
        loaded = self._load(plans)
        together = []
        for number, cells in enumerate(trials):
            if self.engine.stacks and all(loaded.sites[site].site.batched for site in cells):
                together.append(number)
            else:
                self._run_alone(loaded, cells, chosen, out[number])
        if together:
            out[together] = self._run_stacked(loaded, [trials[number] for number in together], chosen)
        return out

    def _load(self, plans: Sequence[FaultPlan]) -> _Loaded:
        """A session for all sites that are struck, and that were before."""
        known = {} if self._loaded is None else dict(self._loaded.sites)
        before = len(known)
        for plan in plans:
            known.update({entry.site.name: entry for entry in plan.sites if entry.site.name not in known})
        if self._loaded is None or len(known) > before:
            self._loaded = self._make(plan_of_sites(known.values(), plans[0], by_sample=True), known)
        return self._loaded

    def _make(self, plan: FaultPlan, sites: dict[str, SitePlan]) -> _Loaded:
        self.made += 1
        opened = open_rows(insert_faults(self.engine.graph, plan))
        threads = self.engine.threads
        if all(entry.site.batched for entry in sites.values()):
            made = session(opened.model, threads=threads, spin=False, fast=True)
        else:
            made = session_of_struck(opened.model, threads=threads)
        return _Loaded(made, opened, sites)

    def _run_stacked(self, loaded: _Loaded, trials: Sequence[Cells], images: NDArray[np.int64]) -> Array:
        """Trial behind trial in rows, whose numbers choose the rows of the maps."""
        feeds = loaded.feeds({site: rows_of_trials(trials, site) for site in loaded.sites})
        of_trial = np.repeat(np.arange(len(trials)), len(images))
        of_image = np.tile(images, len(trials))
        rows = [self._run(loaded, feeds, of_image[part], of_trial[part]) for part in self._parts(len(of_image))]
        golden = self.engine.golden()
        return np.concatenate([golden[:0], *rows]).reshape(len(trials), len(images), *golden.shape[1:])

    def _run_alone(self, loaded: _Loaded, cells: Cells, images: NDArray[np.int64], out: Array) -> None:
        feeds = loaded.feeds({site: rows_of(found) for site, found in cells.items()})
        for part in self._parts(len(images)):
            out[part] = self._run(loaded, feeds, images[part], np.zeros(part.stop - part.start, np.int64))

    def _parts(self, rows: int) -> list[slice]:
        return list(parts_of(rows, self.engine.batch_size))

    def _run(self, loaded: _Loaded, feeds: dict[str, Array], images: Array, numbers: Array) -> Array:
        (answer,) = run(loaded.session, feeds | self.engine.inputs.rows(images), samples=numbers)
        return answer
