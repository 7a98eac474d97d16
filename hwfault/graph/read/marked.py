"""Which nodes of a faulted graph say their site, noted in the graph as well: many tools drop what nodes say.

onnx' converter of opsets, onnxoptimizer, and onnxruntime where it writes an optimised file keep the metadata of the
graph and the names of tensors, but no metadata of nodes.
"""

import json

from onnx import ModelProto

from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.qonnxgraph import SITE, metadata, set_metadata
from hwfault.graph.read.shapes import is_fault

MARKS = f"{DOMAIN}.marks"
"""Metadata key of a graph: the sites that its nodes say, by the first tensor that each makes, as JSON."""


def note_marks(model: ModelProto) -> None:
    """Notes the sites that nodes say in the graph's own metadata."""
    named = [node for node in model.graph.node if SITE in metadata(node) and node.output]
    said = {node.output[0]: metadata(node)[SITE] for node in named}
    set_metadata(model, {MARKS: json.dumps(said, separators=(",", ":"))})


def with_marks(model: ModelProto) -> ModelProto:
    """The graph with its nodes' sites where a tool dropped them all.

    It is the graph itself where fault nodes say any, and where nothing is noted. Tensors may have other names
    since: whoever reads the plan checks that each node does what that has at its site.
    """
    if any(is_fault(node) and SITE in metadata(node) for node in model.graph.node):
        return model
    said = _read_marks(model)
    if not said:
        return model
    out = ModelProto()
    out.CopyFrom(model)
    for node in out.graph.node:
        name = said.get(node.output[0]) if node.output else None
        if isinstance(name, str):
            set_metadata(node, {SITE: name})
    return out


def _read_marks(model: ModelProto) -> dict[str, object]:
    """What is noted; nothing where that is no table, as after an edit by hand."""
    try:
        said = json.loads(metadata(model).get(MARKS, "{}"))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
