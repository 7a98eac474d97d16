"""Marker nodes that say which site is which, while a network is traced: put behind quantizers, and taken out again."""

from collections import defaultdict
from typing import Any

import torch
from onnx import ModelProto, NodeProto
from torch import Tensor

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.integer import INTEGERS
from hwfault.graph.read.qonnxgraph import SITE, attribute, metadata, replace_nodes, set_metadata
from hwfault.graph.read.sums import find_summing_node
from hwfault.program.names import run_name

_MARK = "Site"


def mark(site: str, value: Tensor) -> Tensor | None:
    """Marks the values of a site while a network is traced; None at other times."""
    marked: Tensor | None = _Mark.apply(value, site) if torch.jit.is_tracing() else None  # type: ignore
    return marked


def mark_sums(site: str, value: Tensor, integers: bool) -> Tensor:
    """Marks sums of integers, or ones that are not, which have a site or ("") none."""
    marked: Tensor = _Mark.apply(value, site, int(integers)) if torch.jit.is_tracing() else value  # type: ignore
    return marked


class _Mark(torch.autograd.Function):
    """The identity, traced as a node that carries a site's name: scopes of modules that are never called are lost."""

    @staticmethod
    def symbolic(g: Any, value: Any, site: str, integers: int = 0) -> Any:
        out = g.op(f"{DOMAIN}::{_MARK}", value, site_s=site, integers_i=integers)
        out.setType(value.type())
        return out

    @staticmethod
    def forward(ctx: Any, value: Tensor, site: str, integers: int = 0) -> Tensor:
        return value.view_as(value)


def part_parameters(model: ModelProto) -> None:
    """Gives every quantizer constants of its own again: PyTorch's exporter writes equal ones once.

    The second of two is then the `Identity` of the first, which holds for their values at this moment only: zero
    biases, say, before any training. Two parameters are two memories, whose faults are not the same.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    copies = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    quantized = {name for node in graph.node if ops.of(node.op_type).quantizer for name in node.input}
    parted = set()
    for name in quantized & copies.keys():
        source = copies[name]
        while source in copies:
            source = copies[source]
        if source in values:
            own = graph.initializer.add()
            own.CopyFrom(values[source])
            own.name = name
            parted.add(name)
    replace_nodes(model, [node for node in graph.node if not parted & set(node.output)])


def name_sites(model: ModelProto, batched: set[str]) -> None:
    """Names every marked quantizer after its site, and takes the markers out again.

    Each run of a quantizer of activations (`batched`) and of a layer that adds up is a site of its own, a parameter
    one however often it is read.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    marks = [node for node in graph.node if _is_mark(node)]
    calls: dict[str, int] = defaultdict(int)
    for mark in marks:
        site, quantizer = attribute(mark, "site", b"").decode(), producers.get(mark.input[0])
        if attribute(mark, "integers", 0) and quantizer is not None:
            own = {SITE: run_name(site, calls[site])} if site else {}
            set_metadata(quantizer, {INTEGERS: "exact"} | own)
            calls[site] += 1
            continue
        if site.endswith("accumulator"):
            _name_sums(run_name(site, calls[site]), quantizer, producers)
            calls[site] += 1
            continue
        if quantizer is None or not ops.of(quantizer.op_type).quantizer or SITE in metadata(quantizer):
            raise GraphError(
                f"the export has no quantizer node of its own for the site {site!r}; please report this network"
            )
        quantizer.name = run_name(site, calls[site])
        set_metadata(quantizer, {SITE: quantizer.name if site in batched else site})
        calls[site] += 1
    _remove(model, marks, producers)


def _is_mark(node: NodeProto) -> bool:
    return (node.domain, node.op_type) == (DOMAIN, _MARK)


def _name_sums(site: str, node: NodeProto | None, producers: dict[str, NodeProto]) -> None:
    """Names the node that adds up a layer's products; without one the layer is no site of the graph."""
    sums = find_summing_node(node, producers) if node is not None else None
    if sums is not None:
        set_metadata(sums, {SITE: site})


def _remove(model: ModelProto, marks: list[NodeProto], producers: dict[str, NodeProto]) -> None:
    """Takes the markers out: what read a marker, or is a graph output in its place, becomes the quantizer's."""
    graph = model.graph
    outputs = {info.name for info in graph.output}
    renamed = {mark.output[0]: mark.input[0] for mark in marks}
    for after in outputs & renamed.keys():
        before = renamed.pop(after)
        producers[before].output[0] = after
        renamed[before] = after
    replace_nodes(model, [node for node in graph.node if not _is_mark(node)])
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for info in [info for info in graph.value_info if info.name in renamed]:
        graph.value_info.remove(info)
    if all(node.domain != DOMAIN for node in graph.node):
        for opset in [opset for opset in model.opset_import if opset.domain == DOMAIN]:
            model.opset_import.remove(opset)
    model.ir_version = max(model.ir_version, 10)  # the first with metadata on nodes
