"""Graphs whose fault maps are inputs, so that one session serves any cells of the sites that it strikes."""

from typing import NamedTuple

from onnx import ModelProto, TensorProto, helper

from hwfault.graph.edit.editing import copy_model
from hwfault.graph.read.qonnxgraph import PLAN, PLAN_SHA256, site_name
from hwfault.graph.read.struck import fault_nodes

_ROWS = slice(3, 6)
"""The inputs of a node that hold the rows of its map: word, and_mask, xor_mask."""


class OpenedGraph(NamedTuple):
    """A graph, and the names of the inputs that are the rows of each site's maps: word, and_mask, xor_mask of each."""

    model: ModelProto
    rows: dict[str, list[tuple[str, str, str]]]


def open_rows(model: ModelProto) -> OpenedGraph:
    """The same graph with the rows of all of its fault maps as inputs (rows,) of int64; it has no plan any more.

    A site has several maps where its layer runs several times. The nodes that strike have to be maps.
    """
    out = copy_model(model)
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for entry in fault_nodes(out):
        for node in entry.nodes:
            word, and_mask, xor_mask = node.input[_ROWS]
            rows.setdefault(site_name(node), []).append((word, and_mask, xor_mask))
            for name in (word, and_mask, xor_mask):
                out.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, [f"{word}_rows"]))
    opened = {info.name for info in out.graph.input}
    kept = [tensor for tensor in out.graph.initializer if tensor.name not in opened]
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)
    described = [entry for entry in out.metadata_props if entry.key not in (PLAN, PLAN_SHA256)]
    del out.metadata_props[:]
    out.metadata_props.extend(described)
    return OpenedGraph(out, rows)
