"""Sites of biases whose single flips the sparse engine carries: each makes another addend of one channel of a layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.campaigns.sparse.description import BiasSite
from hwfault.campaigns.sparse.known import Known
from hwfault.campaigns.sparse.lowering import Addend
from hwfault.codes import CodeFormat, encode, faulty_values
from hwfault.graph.ops import of
from hwfault.graph.run.session import run, session
from hwfault.program.processes import Site


def bias_sites(
    model: ModelProto,
    known: Known,
    quantizers: Mapping[str, tuple[Site, list[NodeProto]]],
    addends: Sequence[Addend],
) -> tuple[dict[str, BiasSite], dict[str, str]]:
    """The biases of a graph whose flips can be carried, by name, and why others cannot.

    `quantizers` are the sites of biases with the nodes that make their values, `addends` the constants that layers add.
    """
    found: dict[str, BiasSite] = {}
    refused: dict[str, str] = {}
    for name, (site, nodes) in quantizers.items():
        made = _bias_site(model, known, site, nodes, addends)
        if isinstance(made, str):
            refused[name] = made
        else:
            found[name] = made
    return found, refused


def _bias_site(
    model: ModelProto, known: Known, site: Site, quantizers: list[NodeProto], addends: Sequence[Addend]
) -> BiasSite | str:
    """The site, or why its flips cannot be carried."""
    sources = [quantizer.output[0] for quantizer in quantizers]
    behind, tensors = _constants_behind(model, known, sources)
    read = {name for node in model.graph.node if not _is_constant(node, known) for name in node.input}
    reached = [addend for addend in addends if addend.source in tensors]
    if len(sources) != 1 or len(reached) != 1 or tensors & read != {reached[0].source}:
        return f"it is not the addend of one layer alone, but of {len(reached)}, or read elsewhere"
    source = sources[0]
    words = known.constants[source].size
    if reached[0].channels != words or known.constants[reached[0].source].size != words:
        return f"it has {words} words, and its layer {reached[0].channels} channels"
    mixing = [node.op_type for node in behind if not _keeps_words_apart(node)]
    if mixing:
        return f"{mixing[0]} stands between it and its layer, which may mix its words"
    flipped = _flipped_values(known, site, quantizers[0])
    if behind:
        made = session(_graph_of(model, behind, known, source, reached[0].source), threads=1)
        flipped = [run(made, values)[0] for values in flipped]
    return BiasSite(site, reached[0].node, np.stack([values.reshape(-1) for values in flipped]).astype(np.float32))


def _is_constant(node: NodeProto, known: Known) -> bool:
    return bool(node.output) and node.output[0] in known.constants


def _constants_behind(model: ModelProto, known: Known, sources: Sequence[str]) -> tuple[list[NodeProto], set[str]]:
    """What is computed of constants that is constant itself: nodes in their order, and the tensors."""
    nodes: list[NodeProto] = []
    tensors = set(sources)
    for node in model.graph.node:
        if _is_constant(node, known) and tensors.intersection(node.input):
            nodes.append(node)
            tensors.update(node.output)
    return nodes, tensors


def _keeps_words_apart(node: NodeProto) -> bool:
    """Whether each value that a node gives is made of one word of a bias, in their order."""
    op = of(node.op_type)
    return op.elementwise or op.flattens or op.samples == "squeeze"


def _flipped_values(known: Known, site: Site, quantizer: NodeProto) -> list[NDArray[Any]]:
    """The bias with one bit of every word flipped, for each bit: words are kept apart behind it."""
    form = CodeFormat(site.bit_width, site.signed)
    values, scale, zero_point = (known.constants[n] for n in (quantizer.output[0], *quantizer.input[1:3]))
    codes = encode(values, scale, zero_point, form)
    masks = [np.uint32(1 << bit) for bit in range(form.bit_width)]
    return [faulty_values(values, codes, codes ^ mask, scale, zero_point, form) for mask in masks]


def _graph_of(model: ModelProto, nodes: list[NodeProto], known: Known, source: str, result: str) -> ModelProto:
    """A graph of some nodes alone, from one constant to another; the rest of what they read is in it."""
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input if name} - made - {source}
    constants = [numpy_helper.from_array(known.constants[name], name) for name in sorted(read)]
    entry = helper.make_tensor_value_info(source, TensorProto.FLOAT, known.constants[source].shape)
    graph = helper.make_graph(nodes, "addend", [entry], [helper.make_empty_tensor_value_info(result)], constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
