"""The fault plan that a graph carries, and whether the graph still does what it says."""

from collections import Counter
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph.edit.accumulators import check_accumulator
from hwfault.graph.ops import AFFINE, ARRAY_OP, DOMAIN, FAULT_OPS, GRID_OPS
from hwfault.graph.read.grids import Grid, check_steps
from hwfault.graph.read.layouts import Layout, numbered, numbered_shape
from hwfault.graph.read.nodes import drawn_inputs, fault_node
from hwfault.graph.read.places import Place, Places
from hwfault.graph.read.qonnxgraph import PLAN, PLAN_SHA256, WORDS, attribute, metadata, words_sha256
from hwfault.graph.read.struck import FaultNode, fault_nodes
from hwfault.graph.read.sums import layers
from hwfault.graph.read.versions import NEW, OLD, check_version
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site, Step

_ANEW = "it was changed after the faults were put in: export it anew"


def plan_of(model: ModelProto) -> FaultPlan:
    """The plan that a graph carries.

    Raises GraphError for a graph without one, for a version of the fault stream that is not known here or is not
    enough, and where plan, hash and the graph's fault nodes, with what they read and what reads them, do not agree.
    """
    found = metadata(model)
    if PLAN not in found:
        raise GraphError(
            f"the graph carries no fault plan (metadata {PLAN!r}); expected one that hwfault put faults into"
        )
    if sha256(found[PLAN].encode()).hexdigest() != found.get(PLAN_SHA256):
        raise GraphError(f"the graph's plan does not have the hash {found.get(PLAN_SHA256)} that it states; {_ANEW}")
    said = check_version(model)
    plan = FaultPlan.from_json(found[PLAN], "the graph's plan")
    entries = fault_nodes(model)
    wiring = _Wiring(model)
    _check_places(model, plan, wiring, entries)
    for entry in entries:
        wiring.check_steps(entry, plan)
        if plan.at(entry.site).site.kind == "accumulator":
            wiring.check_sums(entry, plan)
        else:
            wiring.check(entry, plan.at(entry.site).site)
    if said == OLD and (plan.stream is not None or any(wiring.is_fractional(entry, plan) for entry in entries)):
        raise GraphError(
            f"the graph says that its faults are those of {OLD!r}, but they need {NEW!r} (samples off axis 0, further "
            "runs, shared memories, or zero points that are no integers); put them in anew"
        )
    return plan


def _check_places(model: ModelProto, plan: FaultPlan, wiring: "_Wiring", entries: list[FaultNode]) -> None:
    """Raises GraphError unless each run of each planned quantizer and layer, and nothing else, has fault nodes."""
    struck = Counter(entry.site for entry in entries)
    again = next((name for name, count in struck.items() if count > 1 and plan.at(name).site.batched), None)
    if again is not None:
        raise GraphError(
            f"the graph has the same faults at {struck[again]} runs of the site {again!r}, as versions before 0.5 put "
            "them in; each run is a site of its own now: resolve the faults again and put them into the graph anew"
        )
    # quantizers may be folded into their weights, and weights may be integers from the start
    planned = Counter(entry.site for entry in entries if entry.before in wiring.constants.names)
    names = [wiring.names.of(node) for node in model.graph.node if node.op_type in GRID_OPS]
    names += [wiring.names.of_layer(node) for node in layers(model)]
    planned.update(name for name in names if name in plan.names)
    others = [n for n in model.graph.node if n.domain == DOMAIN and n.op_type not in (*FAULT_OPS, ARRAY_OP, AFFINE)]
    wrong = next((name for name in struck.keys() | planned.keys() if struck[name] != planned[name]), None)
    lost = next((name for name in plan.names if not struck[name]), None)
    what = (
        f"the plan strikes {lost!r}, which has no fault node"
        if lost is not None
        else f"{wrong!r} has fault nodes at {struck[wrong]} of {planned[wrong]} places"
        if wrong is not None
        else f"the node {others[0].name!r} has the op {others[0].op_type!r}"
        if others
        else None
    )
    if what is not None:
        raise GraphError(f"the graph's fault nodes are not at the sites of the plan it carries: {what}; {_ANEW}")


def _attributes(node: NodeProto) -> dict[str, bytes]:
    """A fault node's attributes, but how its values lie."""
    return {a.name: a.SerializeToString(deterministic=True) for a in node.attribute if a.name != "layout"}


def layout_of(node: NodeProto) -> Layout:
    """How the values of a fault node lie."""
    return tuple(attribute(node, "layout", ()))


class _Wiring:
    """What reads and makes the tensors around the fault nodes."""

    def __init__(self, model: ModelProto) -> None:
        self._places = Places(model, carries_faults=True)
        self.constants, self.names = self._places.constants, self._places.names
        self._readers = Counter(name for node in model.graph.node for name in node.input)
        self._readers.update(info.name for info in model.graph.output)
        initializers = {tensor.name for tensor in model.graph.initializer}
        self._inputs = {info.name for info in model.graph.input} - initializers
        self._numbers: tuple[str, str] | None = None

    def check_steps(self, entry: FaultNode, plan: FaultPlan) -> None:
        """Raises GraphError unless the nodes do what the plan says, step by step."""
        site, steps = plan.at(entry.site).site, plan.steps(entry.site)
        if len(steps) != len(entry.nodes):
            raise GraphError(
                f"the site {entry.site!r} has {len(entry.nodes)} fault nodes for {len(steps)} steps; {_ANEW}"
            )
        for node, step in zip(entry.nodes, steps, strict=True):
            if not self._does(node, site, step):
                raise GraphError(f"the fault node {node.name!r} does not do what the graph's plan says; {_ANEW}")

    def _does(self, node: NodeProto, site: Site, step: Step) -> bool:
        expected, constants = fault_node(site, step, ("x", "scale", "zero"), "y", node.name)
        made = {tensor.name: numpy_helper.to_array(tensor) for tensor in constants}
        inputs = zip(expected.input[3:], node.input[3:], strict=False)  # a map may have an input that is left out
        rows = [(made[name], self.constants.get(own)) for name, own in inputs if name in made]
        same = node.op_type == expected.op_type and _attributes(node) == _attributes(expected)
        return same and all(mine is not None and np.array_equal(row, mine) for row, mine in rows)

    def check(self, entry: FaultNode, site: Site) -> None:
        """Raises GraphError unless the nodes alone read their quantizer, with its constants, and the graph's inputs."""
        way = list(self._places.tensors.before(entry.before, lambda node: node.op_type == "Transpose"))
        place = self._places.by_tensor.get(way[-1])
        sound = (
            (
                self._is_place(entry, place)
                if place is not None and place.node is not None
                else self._on_grid(entry, site, way[-1])
            )
            and all(self._readers[name] == 1 for name in (*way, *(node.input[0] for node in entry.nodes)))
            and all(self._draws_from_inputs(node) for node in entry.nodes)
        )
        if not sound:
            raise GraphError(
                f"the fault node {entry.node.name!r} is wired otherwise than hwfault does it (behind its quantizer, "
                "which nothing else reads, with that one's scale and zero point, seed and sample number from the "
                f"graph's inputs); {_ANEW}"
            )
        self._check_layout(entry, site, place)
        grid = self._grid(entry, site)
        if grid is not None:
            check_steps(site.name, grid, len(entry.nodes))

    def is_fractional(self, entry: FaultNode, plan: FaultPlan) -> bool:
        """Whether nodes strike codes of zero points that are no integers, which version 1 strikes at other bits.

        Of wide words it strikes the same, as long as one node alone does so.
        """
        site = plan.at(entry.site).site
        grid = None if site.kind == "accumulator" else self._grid(entry, site)
        return grid is not None and not grid.whole

    def _grid(self, entry: FaultNode, site: Site) -> Grid | None:
        """The grid that a site's nodes take its values to be on, where it is constant."""
        scale, zero_point = (self.constants.get(own) for own in entry.node.input[1:3])
        if scale is None or zero_point is None:
            return None
        return Grid(scale, zero_point, site.bit_width, site.signed)

    def _is_place(self, entry: FaultNode, place: Place) -> bool:
        """Whether a site's nodes strike what its quantizer makes, on the same grid."""
        grid = place.grid
        pairs = [(node.input[i], (grid.scale, grid.zero_point)[i - 1]) for node in entry.nodes for i in (1, 2)]
        return place.site.name == entry.site and all(self._is(name, values) for name, values in pairs)

    def _on_grid(self, entry: FaultNode, site: Site, name: str) -> bool:
        """Whether a site's nodes strike constants that are integers on the grid of all of them."""
        values = self.constants.get(name)
        scale, zero_point = (self.constants.get(own) for own in entry.node.input[1:3])
        if site.batched or values is None or scale is None or zero_point is None:
            return False
        same = all(self._is(n.input[1], scale) and self._is(n.input[2], zero_point) for n in entry.nodes)
        return same and Grid(scale, zero_point, site.bit_width, site.signed).holds(values)

    def _check_layout(self, entry: FaultNode, site: Site, place: Place | None) -> None:
        """Raises GraphError where the words are known to lie otherwise than the nodes have it."""
        layouts = {layout_of(node) for node in entry.nodes}
        shape = self._places.tensors.shapes.get(entry.before)
        found = numbered_shape(shape, layout_of(entry.node))
        known = None if found is None or None in found else found[1:] if site.batched else found
        fits = known is None or site.shape is None or _same_axes(known, site)
        if place is not None and place.node is not None and not site.batched:
            values, stamp = self.constants.get(place.node.input[0]), metadata(place.node).get(WORDS)
            ours = place.tensor == entry.before and stamp is not None
            if ours and values is not None and stamp != _stamp(values, layout_of(entry.node)):
                raise GraphError(
                    f"the values of the site {entry.site!r} were changed in the graph after its export, or lie in "
                    f"another order than its fault node {entry.node.name!r} says; export it anew"
                )
        if len(layouts) > 1 or not fits:
            raise GraphError(
                f"the words of the site {entry.site!r} lie in another order than its fault node {entry.node.name!r} "
                f"says (shape {list(known or ())}, layout {list(layout_of(entry.node))}; the plan has "
                f"{list(site.shape or ())}), or are others; {_ANEW}"
            )

    def check_sums(self, entry: FaultNode, plan: FaultPlan) -> None:
        """Raises GraphError unless the nodes alone read the array of their layer, as integers."""
        one, zero = np.ones(1), np.zeros(1)
        sound = (
            check_accumulator(self._places, plan.at(entry.site), entry.before, entry.after)
            and all(self._readers[node.input[0]] == 1 for node in entry.nodes)
            and all(self._is(node.input[1], one) and self._is(node.input[2], zero) for node in entry.nodes)
            and all(self._draws_from_inputs(node) and not layout_of(node) for node in entry.nodes)
        )
        if not sound:
            raise GraphError(
                f"the accumulator {entry.site!r} is computed or struck otherwise than the graph's plan says; {_ANEW}"
            )

    def _is(self, name: str, expected: Any) -> bool:
        values = self.constants.get(name)
        return values is not None and np.array_equal(values.ravel(), expected.ravel())

    def _draws_from_inputs(self, node: NodeProto) -> bool:
        drawn = tuple(drawn_inputs(node).values())
        if not drawn:
            return True
        self._numbers = self._numbers or (drawn[0], drawn[1])
        return drawn == self._numbers and set(drawn) <= self._inputs and drawn[0] != drawn[1]


def _stamp(values: NDArray[Any], layout: Layout) -> str | None:
    """The hash of a parameter's words, None where they do not lie so."""
    return words_sha256(numbered(values, layout)) if len(layout) in (0, values.ndim) else None


def _same_axes(shape: tuple[int | None, ...], site: Site) -> bool:
    """Whether a tensor in the order of its words can be a site's; activations may have other positions."""
    planned = site.shape or ()
    return shape == planned or (site.batched and sorted(map(str, shape)) != sorted(map(str, planned)))
