"""Graphs whose tensors lie in other files: what their own file had, so that stripping faults gives that back, too.

In memory such a graph holds all of its tensors. What tells them apart is where each was stored, which is noted with the
faults; the file of the graph before is written again where those files are there and still hold the same.
"""

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto

from hwfault.graph.edit.editing import copy_model
from hwfault.graph.read.external import all_tensors, check_files, read_content


def describe_stored(stored: ModelProto) -> dict[str, Any]:
    """What the file of a graph has in place of its tensors' content, by their numbers, and its hash."""
    elsewhere = {
        i: base64.b64encode(tensor.SerializeToString(deterministic=True)).decode()
        for i, tensor in enumerate(all_tensors(stored))
        if tensor.data_location == TensorProto.EXTERNAL
    }
    return {"sha256": _sha256(stored), "tensors": elsewhere}


def restore_stored(graph: ModelProto, record: dict[str, Any]) -> ModelProto | None:
    """A graph as its file had it, by `describe_stored`; None where that does not come out the same in every byte."""
    out = copy_model(graph)
    tensors = list(all_tensors(out))
    for i, text in record["tensors"].items():
        tensors[int(i)].CopyFrom(TensorProto.FromString(base64.b64decode(text)))
    return out if _sha256(out) == record["sha256"] else None


def are_contents_there(path: Path, stored: ModelProto, graph: ModelProto) -> bool:
    """Whether the files that `stored`, were it written to `path`, refers to hold the tensors that the graph has.

    Raises GraphError where a file is not there, is too short, or lies outside of the folder.
    """
    asked = copy_model(stored)
    check_files(path, asked)
    pairs = zip(all_tensors(asked), all_tensors(graph), strict=True)
    return all(
        read_content(path, theirs) == mine.raw_data
        for theirs, mine in pairs
        if theirs.data_location == TensorProto.EXTERNAL
    )


def _sha256(model: ModelProto) -> str:
    return sha256(model.SerializeToString(deterministic=True)).hexdigest()
