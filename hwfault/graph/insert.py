"""Putting a fault plan into a QONNX graph, and reading it back."""

import math
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from hwfault.errors import GraphError, PlanError
from hwfault.graph.qonnxgraph import (
    DOMAIN,
    SITE,
    WORDS,
    Constants,
    GraphSite,
    attribute,
    describe,
    metadata,
    quantizers,
    replace_nodes,
    set_metadata,
    site_name,
    stamp_ir,
    words_sha256,
)
from hwfault.plan import FaultPlan, Site

SEED, FIRST_SAMPLE = "hwfault_seed", "hwfault_first_sample"
"""Graph inputs, int64 scalars: the bits of the unsigned seed, and the sample number of the batch's first element."""
FAULT_OPS = ("TransientFaults", "FaultMap")

_PLAN, _PLAN_SHA256 = f"{DOMAIN}.plan", f"{DOMAIN}.plan_sha256"
_ZERO = "hwfault_zero"


class FaultNode(NamedTuple):
    """A fault node of a graph: the site it strikes and the tensors before and after."""

    site: str
    before: str
    after: str
    node: NodeProto


def insert_faults(model: ModelProto, plan: FaultPlan) -> ModelProto:
    """A copy of a QONNX graph in which every site of the plan is followed by a TransientFaults node.

    Whatever read a quantizer's output (nodes, the graph's outputs) reads the faulty values under the same name. The
    graph gets the inputs `hwfault_seed` and `hwfault_first_sample` (int64 scalars), and the plan, its hash and the
    versions as metadata. Raises GraphError for a graph that has no quantizers or carries faults already, PlanError
    for a plan that does not fit it.
    """
    if fault_nodes(model):
        raise GraphError("the graph carries faults already; put the plan into the graph that was exported without one")
    out = ModelProto()
    out.CopyFrom(model)
    planned = _place(out, plan)
    _splice(out, [(node, _fault_node(out, node, site, plan)) for site, node in planned])
    for name in (SEED, FIRST_SAMPLE):
        out.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
    out.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    stamp_ir(out)
    set_metadata(out, _plan_metadata(plan))
    return out


def _place(model: ModelProto, plan: FaultPlan) -> list[GraphSite]:
    """The sites of the plan with their nodes; raises PlanError or GraphError for one that cannot be struck."""
    constants = Constants(model)
    named = [(site_name(node), node) for node in quantizers(model)]
    found = [GraphSite(describe(node, constants), node) for name, node in named if name in plan.names]
    others = [Site(name=name, kind="weight", bit_width=1, signed=False) for name, _ in named if name not in plan.names]
    plan.check_fits([*others, *(entry.site for entry in found)], "the graph")
    for entry in found:
        plan.check_fits([*others, *_others(found, entry), entry.site], "the graph")
        _check_words(entry, plan.at(entry.site.name).site, constants)
    return found


def _others(found: list[GraphSite], entry: GraphSite) -> list[Site]:
    return [other.site for other in found if other.site.name != entry.site.name]


def _check_words(entry: GraphSite, planned: Site, constants: Constants) -> None:
    """Raises PlanError if a parameter's words lie in another order than where the plan comes from."""
    values, stamp = constants.get(entry.node.input[0]), metadata(entry.node).get(WORDS)
    if values is None:
        return
    same = words_sha256(values) == stamp if stamp else _squeezed(values.shape) == _squeezed(planned.shape)
    if not same:
        raise PlanError(
            f"the values of the site {planned.name!r} (shape {list(values.shape)}) are not the network's "
            f"(shape {list(planned.shape or ())}), or lie in another order, so that faults would strike other words. "
            "qonnx's cleanup transposes weights: put the plan into the exported graph first, then clean it up"
        )
