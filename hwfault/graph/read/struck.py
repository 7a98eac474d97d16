"""The fault nodes of a graph, and whether any were lost."""

import json
from typing import NamedTuple

from onnx import ModelProto, NodeProto

from hwfault.errors import GraphError
from hwfault.graph.ops import ARRAY_OP, DOMAIN, FAULT_OPS
from hwfault.graph.read.nodes import check_inputs
from hwfault.graph.read.qonnxgraph import PLAN, metadata, site_name
from hwfault.graph.read.shapes import is_fault


def check_kept(model: ModelProto) -> None:
    """Raises GraphError if a site of the plan that a graph carries has no fault nodes any more; see also `plan_of`."""
    try:  # a plan may be large, and names are enough here
        planned = [str(entry["site"]["name"]) for entry in json.loads(metadata(model)[PLAN])["sites"]]
    except (KeyError, TypeError, ValueError, RecursionError):
        return
    struck = {site_name(node) for node in model.graph.node if is_fault(node)}
    lost = [name for name in planned if name not in struck]
    if lost:
        others = f" and {len(lost) - 1} other sites" if len(lost) > 1 else ""
        raise GraphError(
            f"the graph's plan strikes {lost[0]!r}{others}, but the "
            "fault nodes there are gone: a transformation removed or folded them; put the faults into the transformed "
            "graph, or leave that transformation out; faults that are to be constants are made so by `hwfault bake`"
        )


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
    chains: dict[str, FaultNode] = {}  # by the tensor behind the last node so far
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        if node.op_type == ARRAY_OP:
            sums = node.output[0]
            chains[sums] = FaultNode(site_name(node), sums, sums, ())
        if node.op_type in FAULT_OPS:
            check_inputs(node)
            name = site_name(node)
            before = node.input[0]
            after = node.output[0]
            entry = chains.get(before)
            if entry is None or entry.site != name:  # the first step of a site
                entry = FaultNode(name, before, before, ())
            else:
                del chains[before]
            chains[after] = entry._replace(after=after, nodes=(*entry.nodes, node))
    return list(chains.values())
