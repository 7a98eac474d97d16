"""The sites of a graph as they are compared: every run of each, in the graph's order, and its tensor."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from hwfault.errors import PlanError
from hwfault.graph.read.integer import adds_integers, find_worths, is_double, is_integer
from hwfault.graph.read.layouts import Layout, align_to_numbered, number_words
from hwfault.graph.read.own_integers import NARROW, TYPES, find_own_integers, type_held
from hwfault.graph.read.places import Places
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.read.sums import find_sums
from hwfault.graph.run.watched import Watched, watched_sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.names import first_run
from hwfault.program.processes import Site
from hwfault.proof.manifest import Integers, RecordedSite
from hwfault.proof.sides import Side

Array = NDArray[Any]


class SiteTensor(NamedTuple):
    """One run of a site in a graph: the tensor of its words and how they lie, and what is watched of its faults."""

    site: Site
    call: int
    tensor: str
    layout: Layout
    grid: tuple[Array, Array]
    """Scale and zero point that the graph has there; float64 where the values are."""
    watched: Watched | None
    integers: Integers | None = None
    """The type of words that are ONNX' own integers, 4 bits held in 8; None where they are values on a grid."""
    constant: Array | None = None
    """The words of a constant of 4 bits, in the order of the graph: no session hands these out."""

    @property
    def types(self) -> Mapping[str, int]:
        """The tensors that tell of it, and their types as ONNX numbers them."""
        if self.constant is not None:
            return {}
        kind = TensorProto.DOUBLE if self.grid[0].dtype == np.float64 else TensorProto.FLOAT
        if self.integers is not None:
            kind = TensorProto.DataType.Value(self.integers.upper())
        if self.watched is None:
            return {self.tensor: kind}
        types = dict.fromkeys(self.watched.tensors, kind)
        if self.watched.array is not None:
            _, *operands = self.watched.array.input
            types |= dict.fromkeys(operands, TensorProto.FLOAT)
        return types

    def words(self, tensors: Mapping[str, Array]) -> list[Array]:
        """The words before and after the faults among the graph's tensors, in the order of the site's words."""
        if self.watched is not None:
            return self.watched.values(tensors)
        found = tensors[self.tensor] if self.constant is None else self.constant
        words = number_words(found, self.layout)
        return [words, words]

    def side(self, tensors: Mapping[str, Array]) -> Side:
        """What the graph has there, before and after the faults."""
        return Side(self.site, [*self.words(tensors), *self.grid])


def find_tensors(graph: ModelProto, plan: FaultPlan | None) -> list[SiteTensor]:
    """Every run of every site that a graph has, in the order in which they run; `plan` is the one that it carries."""
    order = {name: i for i, node in enumerate(graph.graph.node) for name in node.output}
    places = Places(graph, carries_faults=plan is not None)
    struck = list(_find_struck(graph, plan))
    # integers of an initializer are called after it, which has another name in front of its faults
    known = {place.tensor for place in struck}
    found = struck + [place for place in _find_left_alone(graph, places, plan) if place.tensor not in known]
    own = {held.tensor: held.type for held in find_own_integers(graph, places.tensors, places.constants)}
    calls: Counter[str] = Counter()
    out = []
    for place in sorted(found, key=lambda place: order.get(place.tensor, -1)):
        whole = _with_integers(place, own.get(place.tensor, 0), places.constants)
        out.append(whole._replace(call=calls[place.site.name]))
        calls[place.site.name] += 1
    return out


def _with_integers(place: SiteTensor, kind: int, constants: Constants) -> SiteTensor:
    """A place whose words are ONNX' own integers of a type (0: they are none), with what is to be known of these."""
    if kind not in TYPES:
        return place
    name: Any = TensorProto.DataType.Name(type_held(kind)).lower()
    constant = None
    if kind in NARROW:
        constant = np.asarray(constants.get(place.tensor)).astype(name)
    return place._replace(integers=name, constant=constant)


def match_recorded(
    found: Sequence[SiteTensor], recorded: Sequence[RecordedSite], plan: FaultPlan | None, *, whole: bool = True
) -> list[SiteTensor]:
    """The runs of a graph's sites with the sites as they were recorded.

    Raises PlanError where graph and record have others. Where the record is not meant to be the `whole` graph's, those
    that no fault strikes are left out instead. So are accumulators that the record knows nothing of, always.
    """
    known = {entry.site.name: entry for entry in recorded}
    struck = () if plan is None else plan.names
    calls = Counter(place.site.name for place in found)
    wrong: set[str] = set()
    for place in found:
        name = place.site.name
        reason = _difference(known.get(name), place, calls[name])
        if reason and name not in struck and (not whole or (name not in known and place.site.kind == "accumulator")):
            wrong.add(name)
        elif reason:
            raise PlanError(reason)
    in_runs = {first_run(name) for name in struck}
    for name, entry in known.items():
        if not calls[name] and (whole or first_run(name) in in_runs):
            raise PlanError(_other_runs(name, entry.calls, 0))
    return [place._replace(site=known[place.site.name].site) for place in found if place.site.name not in wrong]


def _difference(recorded: RecordedSite | None, place: SiteTensor, calls: int) -> str | None:
    """What a site of a graph has otherwise than was recorded; positions may be others."""
    own = place.site
    name = own.name
    if recorded is None:
        return f"the graph has the site {name!r}, of which there is no record; expected the graph of that network"
    site = recorded.site
    if (site.kind, site.bit_width, site.signed) != (own.kind, own.bit_width, own.signed):
        told = [f"{s.kind} of {s.bit_width} bits, {'signed' if s.signed else 'unsigned'}" for s in (site, own)]
        return (
            f"the site {name!r} was recorded as {told[0]}, but the graph has there {told[1]}; expected the graph of "
            "the recorded network"
        )
    if recorded.integers != place.integers:
        told = [f"{kind} integers" if kind else "values on a grid" for kind in (recorded.integers, place.integers)]
        return (
            f"the site {name!r} was recorded as {told[0]}, but the graph has there {told[1]}; expected the graph of "
            "the recorded network"
        )
    return None if calls == recorded.calls else _other_runs(name, recorded.calls, calls)


def _other_runs(name: str, recorded: int, found: int) -> str:
    return (
        f"the site {name!r} was recorded {recorded} times in a forward, but the graph has {found} nodes of it; "
        "expected the graph of the recorded network"
    )


def _find_struck(graph: ModelProto, plan: FaultPlan | None) -> Iterator[SiteTensor]:
    if plan is None:
        return
    for name, nodes in watched_sites(graph, plan).items():
        for watched in nodes:
            grid = watched.scale, watched.zero_point
            yield SiteTensor(plan.at(name).site, 0, watched.node.before, watched.layout, grid, watched)


def _find_left_alone(graph: ModelProto, places: Places, plan: FaultPlan | None) -> Iterator[SiteTensor]:
    struck = () if plan is None else plan.names
    for place in places.found:
        if place.site.name not in struck:
            grid = (
                align_to_numbered(place.grid.scale, place.layout),
                align_to_numbered(place.grid.zero_point, place.layout),
            )
            yield SiteTensor(place.site, 0, place.tensor, place.layout, grid, None)
    yield from (place for place in _find_exact_sums(graph, places) if place.site.name not in struck)


def exact_sums(graph: ModelProto) -> Collection[str]:
    """The accumulators of a graph in integer arithmetic that no fault strikes there: sums that all engines have."""
    if not is_integer(graph):
        return frozenset()
    places = Places(graph, carries_faults=bool(fault_nodes(graph)))
    return {place.site.name for place in _find_exact_sums(graph, places)}


def _find_exact_sums(graph: ModelProto, places: Places) -> Iterator[SiteTensor]:
    """The sums of integers that nothing strikes, before what says their worth."""
    if not is_integer(graph):
        return
    makers = {name: node for node in graph.graph.node for name in node.output}
    sums, _ = find_sums(graph, places)
    for layer in (layer for layer in sums if adds_integers(layer.node)):
        worths = find_worths(graph, layer.node)
        if worths:
            tensor = worths[0].input[0]
            dtype = np.float64 if is_double(makers, tensor) else np.float32
            yield SiteTensor(layer.site, 0, tensor, (), (np.ones((), dtype), np.zeros((), dtype)), None)
