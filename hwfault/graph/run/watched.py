"""The sites of a faulted graph as they are looked at while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from hwfault.errors import GraphError
from hwfault.graph.edit.carried import layout_of
from hwfault.graph.ops import ARRAY_OP
from hwfault.graph.read.integer import is_double
from hwfault.graph.read.layouts import Layout, align_to_numbered, number_words
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.struck import FaultNode, fault_nodes
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site, SitePlan, Step

Array = NDArray[Any]


@dataclass
class Watched:
    """One fault node: its site, its constants, its program."""

    site: Site
    node: FaultNode
    scale: Array
    zero_point: Array
    steps: tuple[Step, ...]
    layout: Layout = ()
    array: NodeProto | None = None
    """What adds an accumulator up; the sums, and the integers of inputs and weights, are its inputs."""
    changes: bool = True
    """Whether its faults may differ from batch to batch of a seed."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The graph's tensors that tell of the site."""
        return (self.node.before, self.node.after, *(() if self.array is None else self.array.input))

    def values(self, tensors: Mapping[str, Array]) -> list[Array]:
        """The values before and after the faults among the graph's tensors, in the order of the site's words."""
        return [number_words(tensors[name], self.layout) for name in (self.node.before, self.node.after)]


def watched_sites(graph: ModelProto, plan: FaultPlan) -> dict[str, list[Watched]]:
    """The fault nodes of each site, in the order in which they run.

    Raises GraphError for one whose scale or zero point is no constant.
    """
    constants, makers = Constants(graph), {name: node for node in graph.graph.node for name in node.output}
    found: dict[str, list[Watched]] = {name: [] for name in plan.names}
    for entry in fault_nodes(graph):
        planned, maker = plan.at(entry.site), makers.get(entry.before)
        array = maker if maker is not None and maker.op_type == ARRAY_OP else None
        scale, zero_point = _read_grid(entry, planned, constants)
        if array is not None and is_double(makers, array.input[0]):
            scale = scale.astype(np.float64)
        layout = layout_of(entry.node) if entry.nodes else ()
        watched = Watched(
            planned.site,
            entry,
            align_to_numbered(scale, layout),
            align_to_numbered(zero_point, layout),
            plan.steps(entry.site),
            layout,
            array,
            planned.changes_with_batches,
        )
        found[entry.site].append(watched)
    return found


def _read_grid(entry: FaultNode, planned: SitePlan, constants: Constants) -> tuple[Array, Array]:
    """Scale and zero point of a site; those of the integers, where only an array strikes an accumulator."""
    if not entry.nodes:
        dtype = np.dtype(planned.array.arithmetic if planned.array is not None else "float32")
        return np.ones((), dtype), np.zeros((), dtype)
    scale, zero_point = (constants.get(name) for name in entry.node.input[1:3])
    if scale is None or zero_point is None:
        raise GraphError(f"the fault node {entry.node.name!r} has a scale or zero point that is not a constant")
    return scale, zero_point


def with_outputs(graph: ModelProto, types: Mapping[str, int]) -> ModelProto:
    """The graph with more of its tensors among its outputs, by name with their types as ONNX numbers them."""
    out = ModelProto()
    out.CopyFrom(graph)
    present = {info.name for info in graph.graph.output}
    for name, kind in types.items():
        if name not in present:
            out.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return out
