"""Taking the faults out of a graph again: the graph before, byte for byte, or an error."""

import base64
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto

from hwfault.errors import GraphError
from hwfault.graph.edit.editing import Edit, copy_model, count_of
from hwfault.graph.edit.stored import are_contents_there, describe_stored, restore_stored
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.external import all_tensors, check_in_memory
from hwfault.graph.read.qonnxgraph import metadata, replace_nodes

UNDO = f"{DOMAIN}.undo"
"""Metadata key of a faulted graph: what the graph before was, where it is not what the faulted one has."""

_ADDED_TO = ("initializer", "value_info", "input", "quantization_annotation")
"""The lists of a graph at whose end the insertion of faults adds entries, and changes nothing else but names."""


def how_to_undo(before: ModelProto, after: ModelProto, stored: ModelProto | None = None) -> str:
    """What `strip_faults` needs to make the graph before the insertion of the one after (without this), as JSON.

    Nodes are ranges of those that both have, or a node's bytes in base64; of all other lists it is their length.
    Tensors may be written to other files and read again in between, after which each says that it is in the graph:
    `located` are the numbers of those that said so before. `stored` is the graph before as its file has it, where that
    has tensors in others (see hwfault.graph.edit.stored).
    """
    renamed = {
        i: tensor.name
        for i, tensor in enumerate(before.graph.initializer)
        if tensor.name != after.graph.initializer[i].name
    }
    record = {
        "before_sha256": _sha256(before),
        "after_sha256": _sha256(_without_locations(after)),
        "ir_version": before.ir_version,
        "opset_import": len(before.opset_import),
        "opset_versions": [entry.version for entry in before.opset_import],
        "metadata_props": len(before.metadata_props),
        **{key: len(getattr(before.graph, key)) for key in _ADDED_TO},
        "renamed": renamed,
        "nodes": list(_describe_nodes(before, after)),
        **({} if _has_same_functions(before, after) else {"functions": list(map(_encode, before.functions))}),
        "located": [i for i, tensor in enumerate(all_tensors(before)) if tensor.HasField("data_location")],
        **({} if stored is None else {"stored": describe_stored(stored)}),
    }
    return json.dumps(record, separators=(",", ":"))


def _has_same_functions(one: ModelProto, other: ModelProto) -> bool:
    return list(one.functions) == list(other.functions)


def _encode(part: NodeProto | FunctionProto) -> str:
    return base64.b64encode(part.SerializeToString(deterministic=True)).decode()


def _describe_nodes(before: ModelProto, after: ModelProto) -> Iterator[list[int] | str]:
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
            yield _encode(node)
        else:
            run = [run[0] if run else place, place]
    if run:
        yield run


def strip_faults(model: ModelProto) -> ModelProto:
    """The graph that the faults were put into, the same in every byte.

    The log `hwfault` is told what was taken out; `take_faults_out` returns it.
    Raises GraphError for a graph without faults, for one whose faults an older version put in, for one that was
    changed since, so that the graph before cannot be restored, and for one with tensors in other files.
    """
    return take_faults_out(model).log_changes()


def take_faults_out(model: ModelProto) -> Edit:
    """The same graph as by `strip_faults`, with a sentence for each kind of change."""
    text = metadata(model).get(UNDO)
    if text is None:
        raise GraphError(
            "the graph does not say what it was before faults were put into it "
            f"(metadata {UNDO!r}); expected a graph with faults, as `hwfault export` and `hwfault insert` write it"
        )
    check_in_memory(model)
    try:
        before = _restore(model, json.loads(text))
    except Exception as error:  # whatever an edited record leads to
        raise GraphError(
            f"the graph's metadata {UNDO!r} cannot be read ({error}); take the graph without faults"
        ) from None
    if before is None:
        raise GraphError(
            "the graph was changed after the faults were put in (a cleanup, a layout, other weights), so the graph "
            "before cannot be restored byte for byte; strip the faults first, then transform, or take the graph that "
            "was exported without them"
        )
    return Edit(before, _describe_changes(model, before))


def find_stored(model: ModelProto, before: ModelProto, path: Path) -> ModelProto | None:
    """The graph `before` as its file had it, with tensors in other files, for a file at `path`.

    `model` is the graph with faults. None where all tensors were in the graph itself, or the insertion was not told.
    Raises GraphError where the other files do not lie there or hold something else, and for an edited record.
    """
    record = json.loads(metadata(model)[UNDO]).get("stored")
    if record is None:
        return None
    try:
        stored = restore_stored(before, record)
    except Exception as error:  # whatever an edited record leads to
        raise GraphError(f"the graph's metadata {UNDO!r} cannot be read ({error})") from None
    if stored is None or not are_contents_there(path, stored, before):
        raise GraphError(f"the files in {path.parent} that its tensors lay in hold something else now")
    return stored


def _describe_changes(model: ModelProto, before: ModelProto) -> list[str]:
    changes = []
    fewer = len(model.graph.node) - len(before.graph.node)
    if fewer:
        changes.append(f"{count_of(fewer, 'node')} taken out")
    inputs = [info.name for info in model.graph.input[len(before.graph.input) :]]
    if inputs:
        changes.append(f"the {'input' if len(inputs) == 1 else 'inputs'} {' and '.join(inputs)} taken out")
    return [*changes, "all else that was put in with the faults taken out: constants, names, metadata"]


def _restore(model: ModelProto, record: dict[str, Any]) -> ModelProto | None:
    """The graph before by its record; None if the faulted one is not what it was, or is not restored to the bit."""
    after = copy_model(model)
    after.metadata_props.remove(next(entry for entry in after.metadata_props if entry.key == UNDO))
    located = record.get("located")  # None: of a version that did not ask
    if located is not None:
        after = _without_locations(after)
    if _sha256(after) != record["after_sha256"]:
        return None
    before = _undo(after, record)
    if located is not None:
        _locate(before, set(located))
    return before if _sha256(before) == record["before_sha256"] else None


def _without_locations(model: ModelProto) -> ModelProto:
    """The graph whose tensors do not say that they are in it, as those do that were read from another file."""
    if not any(tensor.HasField("data_location") for tensor in all_tensors(model)):
        return model
    out = copy_model(model)
    for tensor in all_tensors(out):
        tensor.ClearField("data_location")
    return out


def _locate(model: ModelProto, located: set[int]) -> None:
    """Has those tensors alone say that they are in the graph, in place."""
    for i, tensor in enumerate(all_tensors(model)):
        tensor.ClearField("data_location")
        if i in located:
            tensor.data_location = TensorProto.DEFAULT


def _undo(after: ModelProto, record: dict[str, Any]) -> ModelProto:
    out = copy_model(after)
    graph = out.graph
    replace_nodes(out, list(_restore_nodes(after, record["nodes"])))
    for owner, key in [(out, "opset_import"), (out, "metadata_props"), *((graph, key) for key in _ADDED_TO)]:
        del getattr(owner, key)[record[key] :]
    versions = record.get("opset_versions", [])  # none: of a version that raised none
    for entry, version in zip(out.opset_import, versions, strict=False):
        entry.version = version
    for i, name in record["renamed"].items():
        graph.initializer[int(i)].name = name
    if "functions" in record:  # which were written out
        del out.functions[:]
        out.functions.extend(FunctionProto.FromString(base64.b64decode(text)) for text in record["functions"])
    out.ir_version = record["ir_version"]
    return out


def _restore_nodes(model: ModelProto, nodes: list[list[int] | str]) -> Iterator[NodeProto]:
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
