"""A bundle's graph in onnxruntime, with every site of it in sight."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.errors import PlanError
from hwfault.graph.read.layouts import Layout
from hwfault.graph.read.places import Places
from hwfault.graph.run.session import run, session
from hwfault.graph.run.watched import Watched, watched_sites, with_outputs
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site
from hwfault.proof.manifest import Manifest

Array = NDArray[Any]


class SiteTensor(NamedTuple):
    """One run of a site in a graph: the tensor of its values and how they lie, and what is watched of its faults."""

    site: Site
    call: int
    tensor: str
    layout: Layout
    grid: tuple[Array, Array]
    """Scale and zero point that the graph has there."""
    watched: Watched | None


def places(graph: ModelProto, manifest: Manifest, plan: FaultPlan | None) -> list[SiteTensor]:
    """Every run of every recorded site, in the graph's order; raises PlanError where graph and record have others."""
    recorded = {entry.site.name: entry for entry in manifest.sites}
    order = {name: i for i, node in enumerate(graph.graph.node) for name in node.output}
    found = list(_struck(graph, plan)) + list(_left_alone(graph, plan))
    calls: Counter[str] = Counter()
    out = []
    for own, tensor, layout, grid, watched in sorted(found, key=lambda entry: order.get(entry[1], -1)):
        name = own.name
        if name not in recorded:
            raise PlanError(f"the graph has the site {name!r}, of which the bundle has no record; export it anew")
        _check_same(recorded[name].site, own)
        out.append(SiteTensor(recorded[name].site, calls[name], tensor, layout, grid, watched))
        calls[name] += 1
    for name, entry in recorded.items():
        expected = 0 if plan is None and entry.site.kind == "accumulator" else entry.calls
        if calls[name] != expected:
            raise PlanError(
                f"the site {name!r} was recorded {expected} times in a forward, but the graph has {calls[name]} nodes "
                "of it; expected the graph of the bundle's network"
            )
    return out


def _check_same(recorded: Site, own: Site) -> None:
    """Raises PlanError unless the codes that were recorded are of the graph's format; positions may be others."""
    if (recorded.kind, recorded.bit_width, recorded.signed) != (own.kind, own.bit_width, own.signed):
        told = [f"{s.kind} of {s.bit_width} bits, {'signed' if s.signed else 'unsigned'}" for s in (recorded, own)]
        raise PlanError(
            f"the site {own.name!r} was recorded as {told[0]}, but the graph has there {told[1]}; expected the graph "
            "of the bundle's network"
        )


_Found = tuple[Site, str, Layout, tuple[Array, Array], Watched | None]


def _struck(graph: ModelProto, plan: FaultPlan | None) -> Iterator[_Found]:
    if plan is None:
        return
    for name, nodes in watched_sites(graph, plan).items():
        for watched in nodes:
            grid = watched.scale, watched.zero_point
            yield plan.at(name).site, watched.node.before, watched.layout, grid, watched


def _left_alone(graph: ModelProto, plan: FaultPlan | None) -> Iterator[_Found]:
    for place in Places(graph, carries_faults=plan is not None).found:
        if plan is None or place.site.name not in plan.names:
            yield place.site, place.tensor, place.layout, (place.grid.scale, place.grid.zero_point), None


class Engine:
    """Two sessions of one graph: its outputs as it is, and its sites' values in a copy with more outputs."""

    def __init__(self, graph: ModelProto, found: list[SiteTensor]) -> None:
        watched = [place.watched for place in found if place.watched is not None]
        bare = [place.tensor for place in found if place.watched is None]
        self._plain = session(graph, spin=False)
        self._observed = session(with_outputs(graph, watched, bare), spin=False)
        self._output = self._plain.get_outputs()[0].name
        tensors = [name for watch in watched for name in watch.tensors]
        self._names = [name for name in dict.fromkeys([*bare, *tensors]) if name != self._output]

    def run(self, inputs: Array, seed: int | None, first_sample: int) -> tuple[Array, Array, dict[str, Array]]:
        """The output of a batch, the same when the sites are looked at, and the sites' tensors by name."""
        numbers = {"seed": seed or 0, "first_sample": first_sample}
        (plain,) = run(self._plain, inputs, **numbers, outputs=[self._output])
        names = [self._output, *self._names]
        tensors = dict(zip(names, run(self._observed, inputs, **numbers, outputs=names), strict=True))
        return plain, tensors[self._output], tensors


def engine_name() -> str:
    """What runs a bundle's graphs, and its version."""
    return f"onnxruntime {onnxruntime.__version__}"
