"""Tensors of a graph whose content lies in files beside it: what they may refer to."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from hwfault.errors import GraphError
from hwfault.inputs import check_regular


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside its nodes (branches, loop bodies), the outer first."""
    yield graph
    for attribute in _attributes(graph):
        for inner in graphs_of(attribute):
            yield from graphs(inner)


def graphs_of(attribute: AttributeProto) -> Iterable[GraphProto]:
    """The graphs that an attribute holds: a branch, or the body of a loop."""
    return [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs


def walk_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, each followed by those inside it."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for inner in graphs_of(attribute):
                yield from walk_nodes(inner.node)


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """The tensors, of initializers and attributes, whose content is not in the graph itself."""
    return [tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]


def check_in_memory(model: ModelProto) -> None:
    """Raises GraphError for a graph that has tensors in other files."""
    if elsewhere := external_tensors(model):
        raise GraphError(
            f"the tensor {elsewhere[0].name!r} of the graph lies in another file; expected a graph with all of its "
            "tensors (hwfault.graph.run.session.load_model), or the path of its file"
        )


def files_of(path: Path) -> list[Path]:
    """The files in which tensors of the graph in a file lie, whether they are there or not; raises GraphError."""
    try:
        check_regular(path)
        model = onnx.load(path, load_external_data=False)
        said = [{entry.key: entry.value for entry in tensor.external_data} for tensor in external_tensors(model)]
    except Exception as error:  # protobuf's DecodeError
        raise GraphError(f"{path}: not an ONNX file ({error})") from None
    locations = {entry["location"] for entry in said if entry.get("location") and "\0" not in entry["location"]}
    return [path.parent / location for location in sorted(locations)]


def check_files(path: Path, model: ModelProto) -> bool:
    """Whether a graph read from `path` has tensors in other files.

    Raises GraphError for files that do not lie in its folder or below, or are shorter than the graph says, and for a
    tensor that would have more bytes than its shape holds. Where the graph says no length, it does afterwards.
    """
    tensors = external_tensors(model)
    for tensor in tensors:
        _check_file(path, tensor)
    return bool(tensors)


def _check_file(path: Path, tensor: TensorProto) -> None:
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    what = f"{path}: the tensor {tensor.name!r} lies in the file {location!r}"
    try:
        folder, file = path.parent.resolve(), (path.parent / location).resolve()
        first, length = int(said.get("offset") or 0), int(said.get("length") or 0)
        size = file.stat().st_size if file.is_file() else None
        most = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:  # names with a zero, texts for numbers, bytes that are no text
        raise GraphError(f"{what}, which cannot be read ({error})") from None
    if Path(location).is_absolute() or not file.is_relative_to(folder):
        raise GraphError(f"{what}, expected one in the graph's own folder or below it: others are not read")
    if size is None:
        raise GraphError(f"{what}, and there is no such file; put it beside the graph")
    if min(first, length) < 0 or first + length > size:
        raise GraphError(f"{what}, from byte {first} on, {length} bytes long, but the file has {size} bytes")
    if length > most:
        raise GraphError(f"{what}, {length} bytes long, but has {most} bytes by its shape {list(tensor.dims)}")
    if not said.get("length"):  # otherwise the rest of the file would be read
        tensor.external_data.add(key="length", value=str(min(most, size - first)))


def read_content(path: Path, tensor: TensorProto) -> bytes:
    """The bytes of a tensor in another file, which `check_files` has seen, of a graph at `path`."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    with open(path.parent / said["location"], "rb") as file:
        file.seek(int(said.get("offset") or 0))
        return file.read(int(said["length"]))


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """The tensors of a graph and of those inside its nodes, in a fixed order: initializers, then attributes."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for attribute in _attributes(graph):
            yield from attribute.tensors
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


def _attributes(graph: GraphProto) -> Iterator[AttributeProto]:
    for node in graph.node:
        yield from node.attribute
