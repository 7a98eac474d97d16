"""Taking the faults out of a graph again: the graph before, byte for byte, or an error."""

import base64
import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from onnx import ModelProto, NodeProto

from hwfault.errors import GraphError
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.qonnxgraph import metadata, replace_nodes

UNDO = f"{DOMAIN}.undo"
"""Metadata key of a faulted graph: what the graph before was, where it is not what the faulted one has."""

_ADDED_TO = ("initializer", "value_info", "input", "quantization_annotation")
"""The lists of a graph at whose end the insertion of faults adds entries, and changes nothing else but names."""


def how_to_undo(before: ModelProto, after: ModelProto) -> str:
    """What `strip_faults` needs to make the graph before the insertion of the one after (without this), as JSON.

    Nodes are ranges of those that both have, or a node's bytes in base64; of all other lists it is their length.
    """
    renamed = {
        i: tensor.name
        for i, tensor in enumerate(before.graph.initializer)
        if tensor.name != after.graph.initializer[i].name
    }
    record = {
        "before_sha256": _sha256(before),
        "after_sha256": _sha256(after),
        "ir_version": before.ir_version,
        "opset_import": len(before.opset_import),
        "metadata_props": len(before.metadata_props),
        **{key: len(getattr(before.graph, key)) for key in _ADDED_TO},
        "renamed": renamed,
        "nodes": list(_nodes(before, after)),
    }
    return json.dumps(record, separators=(",", ":"))


def _nodes(before: ModelProto, after: ModelProto) -> Iterator[list[int] | str]:
    """[first, last] of nodes that are in both graphs side by side, or the bytes of one that is not."""
    places = {node.SerializeToString(deterministic=True): i for i, node in enumerate(after.graph.node)}
    run: list[int] = []
    for node in before.graph.node:
        text = node.SerializeToString(deterministic=True)
        place = places.get(text)
        if run and place != run[1] + 1:
            yield run
            run = []
        if place is None:
            yield base64.b64encode(text).decode()
        else:
            run = [run[0] if run else place, place]
    if run:
        yield run


def strip_faults(model: ModelProto) -> ModelProto:
    """The graph that the faults were put into, the same in every byte.

    Raises GraphError for a graph without faults, for one whose faults an older version put in, and for one that was
    changed since, so that the graph before cannot be restored.
    """
    text = metadata(model).get(UNDO)
    if text is None:
        raise GraphError(
            "the graph does not say what it was before faults were put into it "
            f"(metadata {UNDO!r}); expected a graph with faults, as `hwfault export` and `hwfault insert` write it"
        )
    try:
        record = json.loads(text)
        unchanged = _sha256(_without_record(model)) == record["after_sha256"]
        out = _undone(model, record) if unchanged else model
        unchanged = unchanged and _sha256(out) == record["before_sha256"]
    except Exception as error:  # whatever an edited record leads to
        raise GraphError(
            f"the graph's metadata {UNDO!r} cannot be read ({error}); take the graph without faults"
        ) from None
    if not unchanged:
        raise GraphError(
            "the graph was changed after the faults were put in (a cleanup, a layout, other weights), so the graph "
            "before cannot be restored byte for byte; strip the faults first, then transform, or take the graph that "
            "was exported without them"
        )
    return out


def _without_record(model: ModelProto) -> ModelProto:
    out = ModelProto()
    out.CopyFrom(model)
    out.metadata_props.remove(next(entry for entry in out.metadata_props if entry.key == UNDO))
    return out


def _undone(model: ModelProto, record: dict[str, Any]) -> ModelProto:
    out = ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    replace_nodes(out, list(_restored(model, record["nodes"])))
    for owner, key in [(out, "opset_import"), (out, "metadata_props"), *((graph, key) for key in _ADDED_TO)]:
        del getattr(owner, key)[record[key] :]
    for i, name in record["renamed"].items():
        graph.initializer[int(i)].name = name
    out.ir_version = record["ir_version"]
    return out


def _restored(model: ModelProto, nodes: list[list[int] | str]) -> Iterator[NodeProto]:
    end = 0
    for entry in nodes:
        if isinstance(entry, str):
            yield NodeProto.FromString(base64.b64decode(entry))
            continue
        if not end <= entry[0] <= entry[1] < len(model.graph.node):
            raise ValueError(f"the nodes {entry} of {len(model.graph.node)}, expected ascending ranges")
        end = entry[1] + 1
        yield from model.graph.node[entry[0] : end]


def _sha256(model: ModelProto) -> str:
    return sha256(model.SerializeToString(deterministic=True)).hexdigest()
