"""Graphs of quantizers before and behind what moves the samples."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hwfault.laws.models import BitFlips
from tests.helpers.graph.ops import QONNX

FLIPS = [BitFlips(probability=0.05)]


def node(op, inputs=(), **attributes):
    """A node on the tensor before it and constants: numbers, or lists of them."""
    return op, inputs, attributes


def graph(shape, *moves, joins=False):
    """x -> Quant `first` -> moves -> Quant `last`; where it joins, the last move reads `first` again."""
    constants = {"scale": np.float32(0.5), "zeropt": np.float32(0), "bits": np.float32(4)}
    quant = {"domain": QONNX, "signed": 1, "narrow": 0}
    nodes = [helper.make_node("Quant", ["x", "scale", "zeropt", "bits"], ["t0"], name="first", **quant)]
    for i, (op, inputs, attributes) in enumerate(moves):
        names = []
        for k, given in enumerate(inputs):
            if isinstance(given, str):
                names.append(given)
                continue
            names.append(f"c{i}_{k}")
            is_float = isinstance(given, np.ndarray | np.floating)
            constants[names[-1]] = np.asarray(given) if is_float else np.array(given, np.int64)
        again = ["t0"] if joins and i == len(moves) - 1 else []
        nodes.append(helper.make_node(op, [f"t{i}", *again, *names], [f"t{i + 1}"], name=f"move{i}", **attributes))
    nodes.append(helper.make_node("Quant", [f"t{len(moves)}", "scale", "zeropt", "bits"], ["y"], name="last", **quant))
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "moved", [x], [y], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)
