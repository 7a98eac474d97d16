"""The version of the fault stream that a faulted graph says it needs."""

from onnx import ModelProto

from hwfault.errors import GraphError
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.plan.fault_plan import spec_of

SPEC = f"{DOMAIN}.spec"
"""Metadata key of a faulted graph: the specification by which its faults strike."""
OLD, NEW = spec_of(None), spec_of("1.1")


def check_version(model: ModelProto) -> str | None:
    """The version that a graph says, None where it says none; raises GraphError for one that nobody here knows."""
    said = metadata(model).get(SPEC)
    if said not in (None, OLD, NEW):
        raise GraphError(
            f"the graph's faults are those of {said!r}, but this version of hwfault knows {OLD!r} and {NEW!r} only and "
            "would strike other words; use a newer hwfault, or put the faults into the graph anew"
        )
    return said
