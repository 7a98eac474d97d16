"""The fault plan that a graph carries, and whether the graph still does what it says."""

from collections import Counter
from hashlib import sha256
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph.accumulators import check_accumulator, planned_layers
from hwfault.graph.insert import PLAN, PLAN_SHA256, FaultNode, fault_nodes
from hwfault.graph.nodes import ARRAY_OP, FAULT_OPS, drawn_inputs, fault_node
from hwfault.graph.qonnxgraph import DOMAIN, Constants, attribute, metadata, quantizers, site_name
from hwfault.inject.affine import AFFINE
from hwfault.plan import FaultPlan

_ANEW = "it was changed after the faults were put in: export it anew"


def plan_of(model: ModelProto) -> FaultPlan:
    """The plan that a graph carries.

    Raises GraphError for a graph without one, and where plan, hash and the graph's fault nodes, with what they read
    and what reads them, do not agree.
    """
    found = metadata(model)
    if PLAN not in found:
        raise GraphError(
            f"the graph carries no fault plan (metadata {PLAN!r}); expected one that hwfault put faults into"
        )
    if sha256(found[PLAN].encode()).hexdigest() != found.get(PLAN_SHA256):
        raise GraphError(f"the graph's plan does not have the hash {found.get(PLAN_SHA256)} that it states; {_ANEW}")
    plan = FaultPlan.from_json(found[PLAN], "the graph's plan")
    _check_places(model, plan)
    wiring = _Wiring(model)
    for entry in fault_nodes(model):
        wiring.check_steps(entry, plan)
        if plan.at(entry.site).site.kind == "accumulator":
            wiring.check_sums(entry, check_accumulator(model, plan.at(entry.site), entry.before, entry.after))
        else:
            wiring.check(entry)
    return plan


def _check_places(model: ModelProto, plan: FaultPlan) -> None:
    """Raises GraphError unless each run of each planned quantizer, and nothing else, has a fault node."""
    struck = Counter(entry.site for entry in fault_nodes(model))
    sums = [layer.name for layer in planned_layers(model, plan)]
    planned = Counter([*(name for name in map(site_name, quantizers(model)) if name in plan.names), *sums])
    known = (*FAULT_OPS, ARRAY_OP, AFFINE)
    others = [n.name for n in model.graph.node if n.domain == DOMAIN and n.op_type not in known]
    if struck != planned or set(planned) != set(plan.names) or others:
        raise GraphError(f"the graph's fault nodes are not at the sites of the plan it carries; {_ANEW}")


def _attributes(node: NodeProto) -> dict[str, Any]:
    values = {a.name: attribute(node, a.name, None) for a in node.attribute}
    return {name: list(value) if name == "program" else value for name, value in values.items()}


class _Wiring:
    """What reads and makes the tensors around the fault nodes."""

    def __init__(self, model: ModelProto) -> None:
        self._constants = Constants(model)
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers = Counter(name for node in model.graph.node for name in node.input)
        self._readers.update(info.name for info in model.graph.output)
        constants = {tensor.name for tensor in model.graph.initializer}
        self._inputs = {info.name for info in model.graph.input} - constants
        self._numbers: tuple[str, str] | None = None

    def check_steps(self, entry: FaultNode, plan: FaultPlan) -> None:
        """Raises GraphError unless the nodes do what the plan says, step by step."""
        site, steps = plan.at(entry.site).site, plan.steps(entry.site)
        if len(steps) != len(entry.nodes):
            raise GraphError(
                f"the site {entry.site!r} has {len(entry.nodes)} fault nodes for {len(steps)} steps; {_ANEW}"
            )
        for node, step in zip(entry.nodes, steps, strict=True):
            expected, constants = fault_node(site, step, ("x", "scale", "zero"), "y", node.name)
            made = {tensor.name: numpy_helper.to_array(tensor) for tensor in constants}
            inputs = zip(expected.input[3:], node.input[3:], strict=True)
            rows = [(made[name], self._values(own)) for name, own in inputs if name in made]
            same = node.op_type == expected.op_type and _attributes(node) == _attributes(expected)
            if not same or any(mine is None or not np.array_equal(row, mine) for row, mine in rows):
                raise GraphError(f"the fault node {node.name!r} does not do what the graph's plan says; {_ANEW}")

    def check(self, entry: FaultNode) -> None:
        """Raises GraphError unless the nodes alone read their quantizer, with its constants, and the graph's inputs."""
        quantizer = self._makers.get(entry.before)
        sound = (
            quantizer is not None
            and site_name(quantizer) == entry.site
            and all(self._readers[node.input[0]] == 1 for node in entry.nodes)
            and all(self._same_grid(node, quantizer) for node in entry.nodes)
            and all(self._draws_from_inputs(node) for node in entry.nodes)
        )
        if not sound:
            raise GraphError(
                f"the fault node {entry.node.name!r} is wired otherwise than hwfault does it (behind its quantizer, "
                "which nothing else reads, with that one's scale and zero point, seed and sample number from the "
                f"graph's inputs); {_ANEW}"
            )

    def check_sums(self, entry: FaultNode, array_is_sound: bool) -> None:
        """Raises GraphError unless the nodes alone read the array of their layer, as integers."""
        one, zero = np.ones(1), np.zeros(1)
        sound = (
            array_is_sound
            and all(self._readers[node.input[0]] == 1 for node in entry.nodes)
            and all(self._is(node.input[1], one) and self._is(node.input[2], zero) for node in entry.nodes)
            and all(self._draws_from_inputs(node) for node in entry.nodes)
        )
        if not sound:
            raise GraphError(
                f"the accumulator {entry.site!r} is computed or struck otherwise than the graph's plan says; {_ANEW}"
            )

    def _is(self, name: str, expected: Any) -> bool:
        values = self._values(name)
        return values is not None and np.array_equal(values.ravel(), expected)

    def _draws_from_inputs(self, node: NodeProto) -> bool:
        drawn = tuple(drawn_inputs(node).values())
        if not drawn:
            return True
        self._numbers = self._numbers or (drawn[0], drawn[1])
        return drawn == self._numbers and set(drawn) <= self._inputs and drawn[0] != drawn[1]

    def _same_grid(self, node: NodeProto, quantizer: NodeProto) -> bool:
        zero = np.zeros(1, np.float32) if quantizer.op_type == "BipolarQuant" else self._values(quantizer.input[2])
        pairs = [(self._values(node.input[1]), self._values(quantizer.input[1])), (self._values(node.input[2]), zero)]
        return all(a is not None and b is not None and np.array_equal(a.ravel(), b.ravel()) for a, b in pairs)

    def _values(self, name: str) -> Any:
        return self._constants.get(name)
