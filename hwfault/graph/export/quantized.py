"""Parameters whose integers Brevitas' graph does not compute: those of the network are written in their place.

Brevitas exports weights as they are trained, behind a quantizer that rounds to nearest. Weights that are rounded in
another way, or scaled before they are rounded (A2Q, A2Q+), become other integers there. The values that the network's
own quantizer makes lie on the grid of the node, which hands them on as they are.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from qonnx.custom_op.registry import getCustomOp

from hwfault.graph import ops
from hwfault.graph.read.qonnxgraph import PARAMETER, Constants, set_metadata, site_name, words_sha256
from hwfault.program.names import first_run

Array = NDArray[np.float32]


def write_quantized(model: ModelProto, values: Mapping[str, list[Array]]) -> None:
    """Replaces each parameter, in place, of which a quantizer makes other `values` than the network's, call by call.

    A parameter whose values do not lie on the grid of its node is left as it is.
    """
    constants = Constants(model)
    nodes: dict[str, list[NodeProto]] = defaultdict(list)
    for node in (node for node in model.graph.node if ops.of(node.op_type).quantizer):
        nodes[first_run(site_name(node))].append(node)
    for name, calls in values.items():
        for node, value in zip(nodes[name], calls, strict=False):  # their number is checked with all else
            given = constants.get(node.input[0])
            if given is None or given.shape != value.shape:
                continue
            if differing(node, given, value, constants) and not differing(node, value, value, constants):
                set_metadata(node, {PARAMETER: words_sha256(given)})
                _replace(model, node, value, f"{name}_quantized", own=nodes[name])


def differing(node: NodeProto, given: Array, value: Array, constants: Constants) -> int:
    """How many values a quantizer of constants makes of the given ones that are not those expected."""
    context = {name: constants.get(name) for name in node.input}
    context |= {node.input[0]: given, node.output[0]: value}
    getCustomOp(node).execute_node(context, None)
    return int(np.count_nonzero(context[node.output[0]] != value))


def _replace(model: ModelProto, node: NodeProto, value: Array, name: str, *, own: list[NodeProto]) -> None:
    """Has a quantizer read the values: under its parameter's name, or the given one where others than `own` read that.

    All runs of a quantizer read one parameter; where they need different ones, the last is written.
    """
    graph = model.graph
    others = {read for reader in graph.node if reader not in own for read in reader.input}
    if node.input[0] in others or all(tensor.name != node.input[0] for tensor in graph.initializer):
        node.input[0] = name
    held = next((tensor for tensor in graph.initializer if tensor.name == node.input[0]), None)
    if held is None:
        held = graph.initializer.add()
    held.CopyFrom(numpy_helper.from_array(value, node.input[0]))
