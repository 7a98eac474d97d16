"""The fault plan that a graph carries, and whether the graph still does what it says."""

from collections import Counter
from hashlib import sha256
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from hwfault.errors import GraphError
from hwfault.graph.insert import FAULT_OPS, PLAN, PLAN_SHA256, FaultNode, fault_nodes
from hwfault.graph.qonnxgraph import DOMAIN, Constants, attribute, metadata, quantizers, site_name
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
        _check_program(entry, plan)
        wiring.check(entry)
    return plan


def _check_places(model: ModelProto, plan: FaultPlan) -> None:
    """Raises GraphError unless each run of each planned quantizer, and nothing else, has a fault node."""
    struck = Counter(entry.site for entry in fault_nodes(model))
    planned = Counter(name for name in map(site_name, quantizers(model)) if name in plan.names)
    others = [n.name for n in model.graph.node if n.domain == DOMAIN and n.op_type not in FAULT_OPS[:1]]
    if struck != planned or set(planned) != set(plan.names) or others:
        raise GraphError(f"the graph's fault nodes are not at the sites of the plan it carries; {_ANEW}")


def _check_program(entry: FaultNode, plan: FaultPlan) -> None:
    site = plan.at(entry.site).site
    expected = {"bit_width": site.bit_width, "signed": int(site.signed), "batched": int(site.batched)}
    given: dict[str, Any] = {key: attribute(entry.node, key, None) for key in expected}
    if given != expected or tuple(attribute(entry.node, "program", ())) != plan.program(entry.site):
        raise GraphError(f"the fault node {entry.node.name!r} does not do what the graph's plan says; {_ANEW}")


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

    def check(self, entry: FaultNode) -> None:
        """Raises GraphError unless the node alone reads its quantizer, with its constants, and the graph's inputs."""
        seed, first_sample = entry.node.input[3:5]
        self._numbers = self._numbers or (seed, first_sample)
        quantizer = self._makers.get(entry.before)
        sound = (
            quantizer is not None
            and site_name(quantizer) == entry.site
            and self._readers[entry.before] == 1
            and self._same_grid(entry.node, quantizer)
            and (seed, first_sample) == self._numbers
            and {seed, first_sample} <= self._inputs
            and seed != first_sample
        )
        if not sound:
            raise GraphError(
                f"the fault node {entry.node.name!r} is wired otherwise than hwfault does it (behind its quantizer, "
                "which nothing else reads, with that one's scale and zero point, seed and sample number from the "
                f"graph's inputs); {_ANEW}"
            )

    def _same_grid(self, node: NodeProto, quantizer: NodeProto) -> bool:
        zero = np.zeros(1, np.float32) if quantizer.op_type == "BipolarQuant" else self._values(quantizer.input[2])
        pairs = [(self._values(node.input[1]), self._values(quantizer.input[1])), (self._values(node.input[2]), zero)]
        return all(a is not None and b is not None and np.array_equal(a.ravel(), b.ravel()) for a, b in pairs)

    def _values(self, name: str) -> Any:
        return self._constants.get(name)
