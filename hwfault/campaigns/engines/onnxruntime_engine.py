"""Trials in onnxruntime: a graph of any origin, or the one that a network is exported as."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np
import onnxruntime
from onnx import ModelProto

from hwfault.campaigns.engines.cell_engine import CellEngine
from hwfault.campaigns.engines.engine import Numbers, Outputs, Ran, Trial
from hwfault.campaigns.engines.graph_engine import GivenInputs, GraphEngine
from hwfault.campaigns.engines.named_cells import cells_of
from hwfault.campaigns.engines.suffix import SuffixEngine
from hwfault.campaigns.engines.watched_graph import watch_graph
from hwfault.campaigns.engines.watching import Batch, Watched
from hwfault.errors import PlanError
from hwfault.graph.read.flat import flatten
from hwfault.graph.read.sites import sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import SiteList

_TOGETHER = 64
"""Of how many trials the outputs are held at once."""


class OnnxruntimeEngine:
    """A QONNX graph and its inputs (n, ...), by name where it has several, in batches of `batch_size`.

    `exact` says that no sum of it is rounded. Then what strikes one site alone begins there, and trials share batches;
    otherwise every trial runs as a whole in batches of its own, always the same ones, so that its outputs do not depend
    on which other trials a worker has. Raises HwfaultError for a graph of other inputs or several outputs.
    """

    name = "onnxruntime"

    def __init__(self, graph: ModelProto, inputs: GivenInputs, batch_size: int, *, exact: bool) -> None:
        graph = flatten(graph).model  # which faults go into, and whose golden run is compared with theirs
        self.version = onnxruntime.__version__
        self.batch_size = batch_size
        self._graph = graph
        self._exact = exact
        self._whole = GraphEngine(graph, inputs, batch_size=batch_size, stacks=exact)
        self._cells = CellEngine(self._whole)

    @cached_property
    def _suffix(self) -> SuffixEngine:
        """Trials from the struck site on, of exact graphs; those of a fixed batch could not be cut."""
        return SuffixEngine(self._whole)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self._whole.inputs)

    @cached_property
    def sites(self) -> SiteList:
        """The graph's sites."""
        return sites(self._graph)

    def golden(self) -> Outputs:
        """The outputs (n, ...) of all samples without faults."""
        return self._whole.golden()

    def with_batch(self, batch_size: int) -> "OnnxruntimeEngine":
        """The same in batches of another size."""
        return OnnxruntimeEngine(self._graph, self._whole.inputs, batch_size, exact=self._exact)

    def run(self, trials: Sequence[Trial], images: Numbers | None = None) -> Iterator[Ran]:
        """What each trial came to, in their order, on all samples or on `images` alone.

        Raises PlanError for a plan that does not fit the graph, and for one whose memories tell what they detect.
        """
        for key, group in groupby(trials, key=self._runs_together):
            together = list(group)
            for first in range(0, len(together), _TOGETHER):
                some = together[first : first + _TOGETHER]
                outputs = self._outputs_drawn(some, images) if key else self._outputs_of_cells(some, images)
                for one in outputs:
                    yield Ran(one)

    def _runs_together(self, trial: Trial) -> str:
        """What neighbours have alike that run together: their plan; or "", where their plans name the cells.

        Where sums are rounded a plan has a session of its own: what else one session has to strike changes the order.
        """
        return "" if self._exact and cells_of(trial.plan) else trial.plan.digest

    def _outputs_drawn(self, trials: Sequence[Trial], images: Numbers | None) -> Outputs:
        """The outputs (trials, k, ...) of trials of one plan, whose seeds decide what strikes."""
        plan, seeds = trials[0].plan, [trial.seed for trial in trials]
        _check_tells_nothing(plan)
        return (self._suffix if self._exact else self._whole).outputs(plan, seeds, images)

    def _outputs_of_cells(self, trials: Sequence[Trial], images: Numbers | None) -> Outputs:
        """The outputs (trials, k, ...) of trials whose plans name their cells; those of one site begin there."""
        found: dict[int, Outputs] = {}
        cells = [cells_of(trial.plan) or {} for trial in trials]
        of_site: dict[str, list[int]] = {}
        for number, own in enumerate(cells):
            of_site.setdefault(next(iter(own)) if len(own) == 1 else "", []).append(number)
        whole = of_site.pop("", [])
        for numbers in of_site.values():
            plan, own_cells = trials[numbers[0]].plan, [cells[number] for number in numbers]
            replayed = self._suffix.outputs_of_cells(plan, own_cells, images)
            if replayed is None:
                whole += numbers
            else:
                found.update(zip(numbers, replayed, strict=True))
        if whole:
            plans = [trials[number].plan for number in whole]
            ran = self._cells.outputs(plans, [cells[number] for number in whole], images)
            found.update(zip(whole, ran, strict=True))
        return np.stack([found[number] for number in range(len(trials))])

    def run_each(self, trials: Sequence[Trial], images: Sequence[Numbers]) -> Iterator[Ran]:
        """What each trial came to on images of its own; raises what `run` does."""
        for plan, group in groupby(zip(trials, images, strict=True), key=lambda one: one[0].plan):
            _check_tells_nothing(plan)
            own = list(group)
            for first in range(0, len(own), _TOGETHER):
                some = own[first : first + _TOGETHER]
                seeds = [trial.seed for trial, _ in some]
                engine = self._suffix if self._exact else self._whole
                for outputs in engine.outputs_each(plan, seeds, [chosen for _, chosen in some]):
                    yield Ran(outputs)

    def watch(self, trial: Trial | None, batch: Batch) -> Watched:
        """What a trial (None: the golden run) does to one sample of a batch, site by site; raises what `run` does."""
        if trial is not None:
            _check_tells_nothing(trial.plan)
        return watch_graph(self._graph, self._whole.inputs, trial, batch)


def _check_tells_nothing(plan: FaultPlan) -> None:
    """Raises PlanError where a protection's detection counts as DUE, of which a graph has no output."""
    for entry in plan.sites:
        if any(process.counts_as_due for process in entry.processes):
            raise PlanError(
                f"the protection of {entry.site.name!r} detects errors that count as DUE, which a graph does not tell; "
                "run the study's network with engine: torch"
            )
