"""Signed counts of thresholds as ConvertQONNXtoFINN writes them: the offset stands in a node behind them."""

from typing import NamedTuple

from onnx import NodeProto

from hwfault.graph import ops
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.shapes import Tensors


class Offset(NamedTuple):
    """What a node adds to each count of thresholds, and that node."""

    node: NodeProto
    value: float


def find_adder(node: NodeProto, tensors: Tensors) -> NodeProto | None:
    """The node that alone reads counts of thresholds, and adds a constant to them or takes it off."""
    if node.op_type != "MultiThreshold" or not node.output or node.output[0] in tensors.outputs:
        return None
    readers = tensors.readers[node.output[0]]
    if len(readers) != 1:
        return None
    (reader,) = readers
    others = [name for name in reader.input if name != node.output[0]]
    if not ops.of(reader.op_type).adds or len(others) != 1 or others[0] not in tensors.constants or not reader.output:
        return None
    return reader


def find_offset(node: NodeProto, tensors: Tensors, constants: Constants) -> Offset | None:
    """The one number that is added to counts of thresholds behind them; None where there is none."""
    adder = find_adder(node, tensors)
    if adder is None:
        return None
    (name,) = (name for name in adder.input if name != node.output[0])
    value = constants.get(name)
    takes_off = adder.op_type == "Sub"
    if value is None or value.size != 1 or (takes_off and adder.input[0] == name):
        return None
    number = float(value.item())
    return Offset(adder, -number if takes_off else number)
