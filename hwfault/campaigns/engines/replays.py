"""What there is to compute for a plan that strikes one site: from there to the next cut of the graph, and so on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.campaigns.engines.buffers import NUMBER, Kind, Runner
from hwfault.campaigns.engines.engine import changes_by_batch
from hwfault.campaigns.engines.goldens import Goldens
from hwfault.graph.edit.cut import cut_out, find_cuts, find_front
from hwfault.graph.edit.fast import only_to_run
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.open_rows import open_rows
from hwfault.graph.edit.upgrade import upgrade
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.struck import FaultNode, fault_nodes
from hwfault.graph.run.blocked import session_of_struck
from hwfault.graph.run.session import run_without_inputs, session
from hwfault.plan.fault_plan import FaultPlan

Array = NDArray[Any]


class Segment(NamedTuple):
    """A part of a graph: from a tensor that rows bring, and golden ones that are alive there, to its end."""

    runner: Runner
    given: str
    """"" where rows bring nothing, as all read the same parameters."""
    alive: list[str]
    end: str


class Struck(NamedTuple):
    """The struck site of a plan in the graph that carries its faults."""

    graph: ModelProto
    strike: Runner
    read: str
    """The input of `strike`, an activation; "" where a parameter is struck."""
    name: str
    """The struck activation, as `strike` answers it."""
    kinds: dict[str, Kind]
    """What it holds for an image; empty for a parameter."""
    parameters: dict[str, Array]
    """The struck parameters, where `strike` writes them; the first segment strikes them once more, where it reads."""
    unstruck: dict[str, Array]
    """The same without a fault."""
    numbers: dict[str, Array]
    """The seed and the first sample number under which parameters are struck."""


@dataclass
class Replay:
    """The trials of a plan: its struck site, and the segments behind that."""

    struck: Struck
    segments: list[Segment]
    """None where the struck tensor is the graph's output."""
    is_fitted: bool = False
    """Whether the segments end where samples leave: known once some have gone through all of them."""

    @property
    def tensors(self) -> list[str]:
        """The golden tensors that are read: the site's own, what is alive at it, and those at the ends of segments."""
        names = list(self.struck.kinds)
        for segment in self.segments:
            names += segment.alive
        names += [segment.end for segment in self.segments[:-1]]
        return list(dict.fromkeys(names))


class CutGraph:
    """A graph cut into segments, and what is computed of them for the plans that strike one site.

    Sessions take `rows` rows at most, on so many `threads`.
    """

    def __init__(self, graph: ModelProto, goldens: Goldens, *, rows: int, threads: int) -> None:
        self._rows = rows
        self._threads = threads
        self._whole = graph
        self._clean = prepare(graph)
        self._goldens = goldens
        self._output = self._clean.graph.output[0].name
        found = [name for name in find_cuts(self._clean) if name != self._output]
        in_rows = goldens.kinds([*found, self._output])
        self.cuts = [name for name in found if name in in_rows]
        self._between: dict[tuple[str, str], Segment] = {}

    def replay(self, plan: FaultPlan) -> Replay | None:
        """The replay of a plan, with a segment to each cut; None for one that has to run as a whole.

        That is one that strikes several sites, or an accumulator, whose faults change with the batch, or where tensors
        are alive whose axis 0 does not hold the images.
        """
        if len(plan.sites) != 1 or plan.sites[0].site.kind == "accumulator" or changes_by_batch(plan):
            return None
        graph = prepare(insert_faults(self._whole, plan))
        found = fault_nodes(graph)
        is_activation = plan.sites[0].site.batched
        if not found or (is_activation and len(found) > 1):
            return None
        struck = self._find_activation(graph, found[0]) if is_activation else self._find_parameters(graph, found)
        if struck is None:
            return None
        if struck.name == self._output:
            return Replay(struck, [])
        names = [*struck.kinds, *struck.parameters]
        known = [name for name in find_cuts(graph) if name in self.cuts]
        # behind all that reads what is struck, as parameters may be read by several layers
        read = find_front(graph, names, self._output).given
        behind = [name for name in known if find_front(graph, names, name).given == read]
        ends = [*behind, self._output]
        if not self._are_in_rows(find_front(graph, names, ends[0]).alive):
            return None
        return Replay(struck, self._segments(struck, ends))

    def strike_cells(self, plan: FaultPlan) -> tuple[onnxruntime.InferenceSession, str, tuple[str, str, str]]:
        """What strikes the one activation of a plan, whose cells are inputs: a session, its input, those of rows."""
        opened = open_rows(prepare(insert_faults(self._whole, plan)))
        (site,) = fault_nodes(opened.model)
        kind = self._goldens.kinds([site.after])[site.after]
        made = self._session(cut_out(opened.model, [kind.describe(site.before)], [site.after]))
        ((names,),) = opened.rows.values()
        return made, site.before, names

    def fit(self, replay: Replay, kept: Sequence[str]) -> None:
        """Has a replay's segments end at some of their ends only, beside the output."""
        ends = [segment.end for segment in replay.segments if segment.end in kept or segment.end == self._output]
        if len(ends) < len(replay.segments):
            replay.segments = self._segments(replay.struck, ends)
        replay.is_fitted = True

    def _find_activation(self, graph: ModelProto, site: FaultNode) -> Struck | None:
        """A struck activation; None where its tensor has no row for each image."""
        kinds = self._goldens.kinds([site.after])
        if not kinds:
            return None
        kind = kinds[site.after]
        made = self._session(cut_out(graph, [kind.describe(site.before)], [site.after]))
        numbers = {SEED: NUMBER, FIRST_SAMPLE: NUMBER}
        strike = Runner(made, {site.before: kind, **numbers}, kinds, self._rows, {})
        return Struck(graph, strike, site.before, site.after, kinds, {}, {}, {})

    def _find_parameters(self, graph: ModelProto, found: Sequence[FaultNode]) -> Struck | None:
        """Struck parameters; None where they are no constants without their faults."""
        constants = Constants(graph)
        values = {entry.after: constants.get(entry.before) for entry in found}
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) < len(values) or self._output in known:
            return None
        parameters = {name: np.array(value) for name, value in known.items()}
        numbers = {name: np.zeros((), np.int64) for name in (SEED, FIRST_SAMPLE)}
        made = self._session(cut_out(graph, [], list(known)))
        strike = Runner(made, {}, {}, 1, parameters | numbers)
        return Struck(graph, strike, "", "", {}, parameters, known, numbers)

    def _segments(self, struck: Struck, ends: Sequence[str]) -> list[Segment]:
        """The segments from what is struck to the ends; those from one end to the next are made once for all plans."""
        front = find_front(struck.graph, [*struck.kinds, *struck.parameters], ends[0])
        first = self._segment(struck.graph, struck.kinds, struck.numbers, front.alive, ends[0])
        segments = [first]
        for start, end in pairwise(ends):
            if (start, end) not in self._between:
                given = self._goldens.kinds([start])
                self._between[start, end] = self._segment(self._clean, given, {}, [], end)
            segments.append(self._between[start, end])
        return segments

    def _segment(
        self, graph: ModelProto, given: dict[str, Kind], numbers: dict[str, Array], alive: list[str], end: str
    ) -> Segment:
        """A segment from what rows bring, or from parameters that are struck in it by these numbers."""
        inputs = given | self._goldens.kinds(alive)
        part = cut_out(graph, [kind.describe(name) for name, kind in inputs.items()], [end])
        made = session_of_struck(part, threads=self._threads) if numbers else self._session(part)
        runner = Runner(made, inputs, self._goldens.kinds([end]), self._rows, numbers)
        return Segment(runner, next(iter(given), ""), alive, end)

    def _session(self, part: ModelProto) -> onnxruntime.InferenceSession:
        return session(part, threads=self._threads, spin=False)

    def _are_in_rows(self, names: list[str]) -> bool:
        return len(self._goldens.kinds(names)) == len(set(names))


def prepare(model: ModelProto) -> ModelProto:
    """The graph as `session(model, fast=True)` runs it."""
    return only_to_run(upgrade(model).model, run_without_inputs)
