"""The fault plan that a graph carries, and whether the graph still does what it says."""

from collections import Counter
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.edit.check_sums import check_accumulator
from hwfault.graph.edit.number_types import find_types
from hwfault.graph.ops import DOMAIN, GRID_OPS
from hwfault.graph.read.grids import IntegerGrid, check_steps
from hwfault.graph.read.layouts import Layout, number_words, numbered_shape
from hwfault.graph.read.marked import with_marks
from hwfault.graph.read.nodes import drawn_inputs, fault_node
from hwfault.graph.read.own_integers import TYPES
from hwfault.graph.read.places import Places
from hwfault.graph.read.qonnxgraph import PLAN, PLAN_SHA256, WORDS, attribute, metadata, words_sha256
from hwfault.graph.read.shapes import Shape, read_by
from hwfault.graph.read.site_tensor import SiteTensor
from hwfault.graph.read.struck import FaultNode, fault_nodes
from hwfault.graph.read.sums import find_layers
from hwfault.graph.read.versions import NEW, OLD, check_version
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site, Step

_ANEW = "it was changed after the faults were put in: export it anew"


def plan_of(model: ModelProto) -> FaultPlan:
    """The plan that a graph carries.

    Raises GraphError for a graph without one, for a version of the fault stream that is not known here or is not
    enough, and where plan, hash and the graph's fault nodes, with what they read and what reads them, do not agree.
    """
    model = with_marks(model)
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
    _check_runs(struck, plan)
    misplaced = _find_misplaced(model, plan, struck, _count_planned(model, plan, wiring, entries))
    if misplaced is not None:
        raise GraphError(f"the graph's fault nodes are not at the sites of the plan it carries: {misplaced}; {_ANEW}")


def _check_runs(struck: Counter[str], plan: FaultPlan) -> None:
    """Raises GraphError where one site of activations or accumulators has fault nodes at several runs."""
    for name, count in struck.items():
        if count > 1 and plan.at(name).site.batched:
            raise GraphError(
                f"the graph has the same faults at {count} runs of the site {name!r}, as versions before 0.5 put "
                "them in; each run is a site of its own now: resolve the faults again and put them into the graph anew"
            )


def _count_planned(model: ModelProto, plan: FaultPlan, wiring: "_Wiring", entries: list[FaultNode]) -> Counter[str]:
    """How often what each site of the plan strikes is in the graph: its quantizer, its layer, or its weights."""
    # quantizers may be folded into their weights, and weights may be integers from the start
    planned = Counter(entry.site for entry in entries if entry.before in wiring.constants.names)
    found = [wiring.names.of(node) for node in model.graph.node if node.op_type in GRID_OPS]
    found += [wiring.names.of_layer(node) for node in find_layers(model)]
    found += wiring.own_integers()
    planned.update(name for name in found if name in plan.names)
    return planned


def _find_misplaced(model: ModelProto, plan: FaultPlan, struck: Counter[str], planned: Counter[str]) -> str | None:
    """What is not where the plan has it: a site without fault nodes, one with too few or many, an op of no kind."""
    for name in plan.names:
        if not struck[name]:
            return f"the plan strikes {name!r}, which has no fault node"
    for name in struck.keys() | planned.keys():
        if struck[name] != planned[name]:
            return f"{name!r} has fault nodes at {struck[name]} of {planned[name]} places"
    for node in model.graph.node:
        if node.domain == DOMAIN and ops.of(node.op_type).home != "hwfault":
            return f"the node {node.name!r} has the op {node.op_type!r}"
    return None


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
        self.constants = self._places.constants
        self.names = self._places.names
        self._readers = Counter(name for node in model.graph.node for name in read_by(node))
        self._readers.update(info.name for info in model.graph.output)
        initializers = {tensor.name for tensor in model.graph.initializer}
        self._inputs = {info.name for info in model.graph.input} - initializers
        self._numbers: tuple[str, str] | None = None
        self._types = find_types(model)

    def own_integers(self) -> list[str]:
        """The sites of ONNX' own integers that nodes make."""
        own = [place for place in self._places.found if place.grid.own]
        return [place.site.name for place in own if place.tensor not in self.constants.names]

    def check_steps(self, entry: FaultNode, plan: FaultPlan) -> None:
        """Raises GraphError unless the nodes do what the plan says, step by step."""
        site = plan.at(entry.site).site
        steps = plan.steps(entry.site)
        if len(steps) != len(entry.nodes):
            raise GraphError(
                f"the site {entry.site!r} has {len(entry.nodes)} fault nodes for {len(steps)} steps; {_ANEW}"
            )
        for node, step in zip(entry.nodes, steps, strict=True):
            if not self._does(node, site, step):
                raise GraphError(f"the fault node {node.name!r} does not do what the graph's plan says; {_ANEW}")

    def _does(self, node: NodeProto, site: Site, step: Step) -> bool:
        """Whether a node has the op, the attributes and the constants of a step."""
        expected, constants = fault_node(site, step, ("x", "scale", "zero"), "y", node.name)
        if node.op_type != expected.op_type or _attributes(node) != _attributes(expected):
            return False
        made = {tensor.name: numpy_helper.to_array(tensor) for tensor in constants}
        # behind values, scale and zero point; a map may have an input that is left out
        for own, name in zip(node.input[3:], expected.input[3:], strict=False):
            values = self.constants.get(own)
            if name in made and (values is None or not np.array_equal(made[name], values)):
                return False
        return True

    def check(self, entry: FaultNode, site: Site) -> None:
        """Raises GraphError unless the nodes alone read their quantizer, with its constants, and the graph's inputs."""
        way = list(self._places.tensors.before(entry.before, lambda node: node.op_type == "Transpose"))
        place = self._places.by_tensor.get(way[-1])
        if not self._is_sound(entry, site, place, way):
            raise GraphError(
                f"the fault node {entry.node.name!r} is wired otherwise than hwfault does it (behind its quantizer, "
                "which nothing else reads, with that one's scale and zero point, seed and sample number from the "
                f"graph's inputs); {_ANEW}"
            )
        self._check_layout(entry, site, place)
        grid = self._grid(entry, site)
        if grid is not None:
            check_steps(site.name, grid, len(entry.nodes))

    def _is_sound(self, entry: FaultNode, site: Site, place: SiteTensor | None, way: list[str]) -> bool:
        """Whether a site's nodes are where hwfault puts them; `way` are the tensors between them and the quantizer."""
        if place is not None and place.node is not None:
            on_grid = self._is_place(entry, place)
        else:
            on_grid = self._on_grid(entry, site, way[-1])
        between = [*way, *(node.input[0] for node in entry.nodes)]
        if not on_grid or any(self._readers[name] != 1 for name in between):
            return False
        return all(self._draws_from_inputs(node) for node in entry.nodes)

    def is_fractional(self, entry: FaultNode, plan: FaultPlan) -> bool:
        """Whether nodes strike codes of zero points that are no integers, which version 1 strikes at other bits.

        Of wide words it strikes the same, as long as one node alone does so.
        """
        site = plan.at(entry.site).site
        if site.kind == "accumulator":
            return False  # their zero point is 0
        grid = self._grid(entry, site)
        return grid is not None and not grid.whole

    def _grid(self, entry: FaultNode, site: Site) -> IntegerGrid | None:
        """The grid that a site's nodes take its values to be on, where it is constant."""
        scale, zero_point = (self.constants.get(own) for own in entry.node.input[1:3])
        if scale is None or zero_point is None:
            return None
        own = self._types.get(entry.before) in TYPES
        return IntegerGrid(scale, zero_point, site.bit_width, site.signed, own=own)

    def _is_place(self, entry: FaultNode, place: SiteTensor) -> bool:
        """Whether a site's nodes strike what its quantizer makes, on the same grid."""
        if place.site.name != entry.site:
            return False
        return self._read_grid_of(entry, place.grid.scale, place.grid.zero_point)

    def _on_grid(self, entry: FaultNode, site: Site, name: str) -> bool:
        """Whether a site's nodes strike constants that are integers on the grid of all of them."""
        values = self.constants.get(name)
        grid = self._grid(entry, site)
        if site.batched or values is None or grid is None:
            return False
        return self._read_grid_of(entry, grid.scale, grid.zero_point) and grid.holds(values)

    def _read_grid_of(self, entry: FaultNode, scale: NDArray[Any], zero_point: NDArray[Any]) -> bool:
        """Whether all of a site's nodes read that scale and zero point."""
        for node in entry.nodes:
            if not self._is(node.input[1], scale) or not self._is(node.input[2], zero_point):
                return False
        return True

    def _check_layout(self, entry: FaultNode, site: Site, place: SiteTensor | None) -> None:
        """Raises GraphError where the words are known to lie otherwise than the nodes have it."""
        layout = layout_of(entry.node)
        if place is not None and place.node is not None and not site.batched:
            self._check_stamp(entry, place, place.node, layout)
        # by the shape of one sample, or of the parameter
        known = numbered_shape(self._places.tensors.shapes.get(entry.before), layout)
        if known is not None and site.batched:
            known = _of_a_sample(known, site)
        fits = known is None or None in known or site.shape is None or _has_same_axes(known, site)
        alike = all(layout_of(node) == layout for node in entry.nodes)
        if not alike or not fits:
            raise GraphError(
                f"the words of the site {entry.site!r} lie in another order than its fault node {entry.node.name!r} "
                f"says (shape {list(known or ())}, layout {list(layout)}; the plan has {list(site.shape or ())}), or "
                f"are others; {_ANEW}"
            )

    def _check_stamp(self, entry: FaultNode, place: SiteTensor, quantizer: NodeProto, layout: Layout) -> None:
        """Raises GraphError where a parameter's words are not those whose hash the export noted."""
        values = self.constants.get(place.parameter)
        stamp = metadata(quantizer).get(WORDS)
        if place.tensor != entry.before or stamp is None or values is None:
            return
        if stamp != _stamp(values, layout):
            raise GraphError(
                f"the values of the site {entry.site!r} were changed in the graph after its export, or lie in "
                f"another order than its fault node {entry.node.name!r} says; export it anew"
            )

    def check_sums(self, entry: FaultNode, plan: FaultPlan) -> None:
        """Raises GraphError unless the nodes alone read the array of their layer, as integers."""
        sound = check_accumulator(self._places, plan.at(entry.site), entry.before, entry.after)
        if not sound or not all(self._strikes_sums(node) for node in entry.nodes):
            raise GraphError(
                f"the accumulator {entry.site!r} is computed or struck otherwise than the graph's plan says; {_ANEW}"
            )

    def _strikes_sums(self, node: NodeProto) -> bool:
        """Whether a node alone reads integers, on the grid of integers, in their own order."""
        alone = self._readers[node.input[0]] == 1
        on_integers = self._is(node.input[1], np.ones(1)) and self._is(node.input[2], np.zeros(1))
        return alone and on_integers and self._draws_from_inputs(node) and not layout_of(node)

    def _is(self, name: str, expected: Any) -> bool:
        """Whether a constant holds these numbers, in the same order; one may stand for all that are equal."""
        values = self.constants.get(name)
        if values is None:
            return False
        sizes = (values.size, expected.size)
        if 1 in sizes and 0 not in sizes:
            return bool((values.ravel() == expected.ravel()).all())
        return np.array_equal(values.ravel(), expected.ravel())

    def _draws_from_inputs(self, node: NodeProto) -> bool:
        """Whether a node reads the graph's two inputs of numbers, the same ones as all others, if it reads any."""
        drawn = tuple(drawn_inputs(node).values())
        if not drawn:
            return True
        seed, first_sample = drawn
        if self._numbers is None:
            self._numbers = (seed, first_sample)
        return drawn == self._numbers and set(drawn) <= self._inputs and seed != first_sample


def _stamp(values: NDArray[Any], layout: Layout) -> str | None:
    """The hash of a parameter's words, None where they do not lie so."""
    if len(layout) not in (0, values.ndim):
        return None
    return words_sha256(number_words(values, layout))


def _of_a_sample(shape: Shape, site: Site) -> Shape | None:
    """The shape of one sample of a tensor; None where it has no axis for them."""
    batch = site.batch_axis
    if batch.axis >= len(shape):
        return None
    return batch.sample_shape(shape)


def _has_same_axes(shape: tuple[int | None, ...], site: Site) -> bool:
    """Whether a tensor in the order of its words can be a site's; activations may have other positions."""
    planned = site.shape or ()
    if shape == planned:
        return True
    # the same extents in another order are a transposition; others are those of another example
    return site.batched and sorted(map(str, shape)) != sorted(map(str, planned))
