"""Trials in onnxruntime: a graph of any origin, or the one that a network is exported as."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby

import onnxruntime
from onnx import ModelProto

from hwfault.campaigns.engines.engine import Numbers, Outputs, Ran, Trial
from hwfault.campaigns.engines.graph_engine import GraphEngine
from hwfault.campaigns.engines.suffix import SuffixEngine
from hwfault.campaigns.engines.watched_graph import watch_graph
from hwfault.campaigns.engines.watching import Batch, Watched
from hwfault.errors import PlanError
from hwfault.graph.read.sites import sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import SiteList

_TOGETHER = 64
"""Of how many trials the outputs are held at once."""


class OnnxruntimeEngine:
    """A QONNX graph and its inputs (n, ...), in batches of `batch_size`; what strikes one site alone begins there.

    Raises HwfaultError for a graph of several inputs or outputs.
    """

    name = "onnxruntime"

    def __init__(self, graph: ModelProto, inputs: Outputs, batch_size: int) -> None:
        self.version = onnxruntime.__version__
        self.batch_size = batch_size
        self._graph = graph
        self._whole = GraphEngine(graph, inputs, batch_size=batch_size)
        self._suffix = SuffixEngine(self._whole)

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
        return OnnxruntimeEngine(self._graph, self._whole.inputs, batch_size)

    def run(self, trials: Sequence[Trial], images: Numbers | None = None) -> Iterator[Ran]:
        """What each trial came to, in their order, on all samples or on `images` alone.

        Raises PlanError for a plan that does not fit the graph, and for one whose memories tell what they detect.
        """
        for plan, group in groupby(trials, key=lambda trial: trial.plan):
            _check_tells_nothing(plan)
            seeds = [trial.seed for trial in group]
            for first in range(0, len(seeds), _TOGETHER):
                for outputs in self._suffix.outputs(plan, seeds[first : first + _TOGETHER], images):
                    yield Ran(outputs)

    def run_each(self, trials: Sequence[Trial], images: Sequence[Numbers]) -> Iterator[Ran]:
        """What each trial came to on images of its own; raises what `run` does."""
        for plan, group in groupby(zip(trials, images, strict=True), key=lambda one: one[0].plan):
            _check_tells_nothing(plan)
            own = list(group)
            for first in range(0, len(own), _TOGETHER):
                some = own[first : first + _TOGETHER]
                seeds = [trial.seed for trial, _ in some]
                for outputs in self._suffix.outputs_each(plan, seeds, [chosen for _, chosen in some]):
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
