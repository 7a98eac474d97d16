"""Putting a fault plan into a QONNX graph."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hwfault import __version__
from hwfault.errors import GraphError, PlanError
from hwfault.graph.accumulators import layer_sites, rewrite_layers
from hwfault.graph.nodes import ARRAY_OP, FAULT_OPS, FIRST_SAMPLE, SEED, check_inputs, fault_node
from hwfault.graph.qonnxgraph import (
    DOMAIN,
    SITE,
    WORDS,
    Constants,
    GraphSite,
    describe,
    metadata,
    quantizers,
    replace_nodes,
    set_metadata,
    site_name,
    words_sha256,
)
from hwfault.plan import FaultPlan, Site

PLAN, PLAN_SHA256 = f"{DOMAIN}.plan", f"{DOMAIN}.plan_sha256"
"""Metadata keys of a graph: the plan it carries, and the hash of that text."""
_ZERO = f"{DOMAIN}_zero_point"


def insert_faults(model: ModelProto, plan: FaultPlan) -> ModelProto:
    """A copy of a QONNX graph in which every site of the plan is followed by its fault nodes, one for each step.

    Whatever read a quantizer's output (nodes, the graph's outputs) reads the faulty values under the same name. The
    graph gets the inputs `hwfault_seed` and `hwfault_first_sample` (int64 scalars) where anything is drawn, and the
    plan, its hash and the versions as metadata. Raises GraphError for a graph without quantizers or with faults
    already, PlanError for a plan that does not fit it.
    """
    if any(node.op_type in (*FAULT_OPS, ARRAY_OP) and node.domain == DOMAIN for node in model.graph.node):
        raise GraphError("the graph carries faults already; put the plan into the graph that was exported without one")
    out = ModelProto()
    out.CopyFrom(model)
    sums = layer_sites(out, plan)
    _splice(out, _place(out, plan, sums), plan)
    rewrite_layers(out, plan)
    read = {name for node in out.graph.node if node.domain == DOMAIN for name in node.input}
    for name in (SEED, FIRST_SAMPLE):
        if name in read:
            out.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
    if all(opset.domain != DOMAIN for opset in out.opset_import):  # graphs of integer arithmetic have ops of it
        out.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    out.ir_version = max(out.ir_version, 10)  # the first with metadata on nodes
    set_metadata(out, _plan_metadata(plan))
    return out


def _place(model: ModelProto, plan: FaultPlan, sums: list[Site]) -> list[GraphSite]:
    """The sites of the plan with their nodes; raises PlanError or GraphError for one that cannot be struck."""
    constants = Constants(model)
    nodes = [(site_name(node), node) for node in quantizers(model)]
    planned = [GraphSite(describe(node, constants), node) for name, node in nodes if name in plan.names]
    struck = {entry.site.name: entry.site for entry in planned}
    stubs = [Site(name=name, kind="weight", bit_width=1, signed=False) for name, _ in nodes if name not in struck]
    plan.check_fits([*stubs, *struck.values(), *sums], "the graph")
    for entry in planned:
        _check_same(entry.site, struck[entry.site.name])
        _check_words(entry, plan.at(entry.site.name).site, constants)
    return planned


def _check_same(site: Site, other: Site) -> None:
    mine, theirs = ((s.bit_width, s.signed, s.batched) for s in (site, other))
    if mine != theirs:
        raise PlanError(
            f"two quantizers of the graph are both the site {site.name!r} but have (bit width, signed, batched) = "
            f"{mine} and {theirs}; expected one name for each, set as the nodes' metadata {SITE!r}"
        )


def _check_words(entry: GraphSite, planned: Site, constants: Constants) -> None:
    """Raises PlanError if a parameter's words lie in another order than where the plan comes from."""
    values, stamp = constants.get(entry.node.input[0]), metadata(entry.node).get(WORDS)
    if values is None or (stamp is None and planned.shape is None):
        return
    if words_sha256(values) != stamp if stamp else _squeezed(values.shape) != _squeezed(planned.shape or ()):
        raise PlanError(
            f"the values of the site {planned.name!r} (shape {list(values.shape)} in the graph, "
            f"{list(planned.shape or ())} in the plan) are not those that were exported, or lie in another order, so "
            "that faults would strike other words. qonnx's cleanup transposes weights: put the plan into the exported "
            "graph first, then clean it up"
        )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)


def _splice(model: ModelProto, planned: list[GraphSite], plan: FaultPlan) -> None:
    """Puts a fault node behind each planned quantizer.

    The fault node takes over the name of the quantizer's output, so that every reader, also in subgraphs, and the
    graph's outputs see the faulty values without being touched.
    """
    types = _value_infos(model)
    if any(entry.node.op_type == "BipolarQuant" for entry in planned):  # the one quantizer without a zero point
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), _ZERO))
    chains = {entry.node.output[0]: _chain(model, entry, plan) for entry in planned}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        chain = chains.get(node.output[0], []) if node.output else []
        nodes.append(node)
        if chain:
            for follower in chain:
                _describe_before(model, types.get(node.output[0]), follower.input[0])
            node.output[0] = chain[0].input[0]
            nodes += chain
    replace_nodes(model, nodes)


def _chain(model: ModelProto, entry: GraphSite, plan: FaultPlan) -> list[NodeProto]:
    """The fault nodes behind a quantizer; the last has the name of its output, and the constants are in the graph."""
    site, quantizer = entry
    after = quantizer.output[0]
    zero_point = _ZERO if quantizer.op_type == "BipolarQuant" else quantizer.input[2]
    steps = plan.steps(site.name)
    names = [f"{after}_before_faults", *(f"{after}_after_step{i}" for i in range(1, len(steps))), after]
    nodes = []
    for i, step in enumerate(steps):
        name = f"{quantizer.name or after}.faults" + (f"{i}" if i else "")
        node, constants = fault_node(site, step, (names[i], quantizer.input[1], zero_point), names[i + 1], name)
        model.graph.initializer.extend(constants)
        nodes.append(node)
    return nodes


def _value_infos(model: ModelProto) -> Mapping[str, ValueInfoProto]:
    return {info.name: info for info in [*model.graph.value_info, *model.graph.output]}


def _describe_before(model: ModelProto, known: ValueInfoProto | None, name: str) -> None:
    """Gives the tensor before the faults the type and shape known of the one after them."""
    if known is not None:
        info = model.graph.value_info.add()
        info.CopyFrom(known)
        info.name = name


def _plan_metadata(plan: FaultPlan) -> dict[str, str]:
    own = {"version": __version__, "spec": "fault-stream v1"}
    return {
        PLAN: plan.to_json(),
        PLAN_SHA256: plan.digest,
        **{f"{DOMAIN}.{key}": value for key, value in own.items()},
    }


class FaultNode(NamedTuple):
    """The fault nodes behind one quantizer or layer of a graph: the site, and the tensors before and after them.

    An accumulator that only its array strikes has none; before and after are the same then.
    """

    site: str
    before: str
    after: str
    nodes: tuple[NodeProto, ...]

    @property
    def node(self) -> NodeProto:
        """The first of them."""
        return self.nodes[0]


def fault_nodes(model: ModelProto) -> list[FaultNode]:
    """The fault nodes of a graph, in its order; a quantizer or layer that runs twice has two entries of one site."""
    chains: dict[str, FaultNode] = {}
    for node in (node for node in model.graph.node if node.domain == DOMAIN):
        if node.op_type == ARRAY_OP:
            chains[node.output[0]] = FaultNode(site_name(node), node.output[0], node.output[0], ())
        if node.op_type in FAULT_OPS:
            check_inputs(node)
            name, before = site_name(node), node.input[0]
            entry = chains.get(before)
            if entry is None or entry.site != name:  # the first step of a site
                entry = FaultNode(name, before, before, ())
            else:
                del chains[before]
            chains[node.output[0]] = entry._replace(after=node.output[0], nodes=(*entry.nodes, node))
    return list(chains.values())
