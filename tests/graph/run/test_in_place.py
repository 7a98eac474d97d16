"""Ops that may write where they read: the same values as from memory of their own, whatever strikes, in any layout."""

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from hwfault.graph.run.session import run, session
from hwfault.stream.tables import ACCEPT_ALL
from tests.helpers.graph.ops import assert_same
from tests.helpers.stream.cases import Bit, Draw, Random
from tests.stream.test_late import late

SHAPE, BITS = (3, 8, 40, 32), 6
WORDS = 8 * 40 * 32
LATE = late(9, 0.3, 0b11, 1, 1, 8, 40 * 32)  # words of the block before
PROGRAMS = {
    "bits": Bit(1, ((0.05, ACCEPT_ALL, ACCEPT_ALL // 2),) * BITS).program(),
    "words": Random(2, 0.05).program(),
    "late": LATE,
    "late after bits": (*Bit(3, ((0.05, ACCEPT_ALL, ACCEPT_ALL),) * BITS).program(), *LATE),
}
MAP = {
    "word": np.arange(0, WORDS, 7),
    "and_mask": np.full(-(-WORDS // 7), 0b110110),
    "xor_mask": np.full(-(-WORDS // 7), 0b1001),
}
DRAWN = {"seed": np.array(5), "first_sample": np.array(1)}
QUANTIZED = ("x", "y", "values", "q", "minus")
OTHERS = {
    "FaultMap": (MAP, {}),
    "IntermittentFaults": (MAP | DRAWN, {"threshold": 2**31, "site": 3}),
}


def graph(op, constants, attributes, watched):
    """x -> Neg -> the op -> Neg -> y; with what the op reads as an output, nothing may be written there."""
    tensors = {"scale": np.array(0.5, np.float32), "zero": np.array(0, np.float32)} | constants
    negative = helper.make_node("Neg", ["x"], ["values"])
    node = helper.make_node(op, ["values", *tensors], ["struck"], domain="hwfault", signed=1, batched=1, bit_width=BITS)
    for key, value in attributes.items():
        of_type = AttributeProto.INTS if isinstance(value, tuple) else None
        node.attribute.append(helper.make_attribute(key, value, attr_type=of_type))
    last = helper.make_node("Neg", ["struck"], ["y"])  # an output's memory is never another tensor's
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y", "values")]
    outputs = infos[1 : 2 + watched]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    made = helper.make_graph([negative, node, last], "g", infos[:1], outputs, initializers)
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("layout", [(), (0, 2, 3, 1)], ids=["in order", "channels last"])
@pytest.mark.parametrize("case", [*PROGRAMS, *OTHERS])
def test_faults(case, layout):
    program = {"program": PROGRAMS[case]} if case in PROGRAMS else {}
    constants, attributes = OTHERS.get(case, (DRAWN, program))
    attributes = attributes | ({"layout": layout} if layout else {})
    x = (Draw(4).rng.integers(-32, 32, SHAPE) * 0.5).astype(np.float32)
    op = case if case in OTHERS else "TransientFaults"
    (got,) = run(session(graph(op, constants, attributes, False), threads=2), x)
    expected, before = run(session(graph(op, constants, attributes, True), threads=2), x)
    assert_same(got, expected, case)
    assert_same(before, -x)
    assert (got != x).mean() > 0.04


@pytest.mark.parametrize("scales", [np.float32(0.7), np.linspace(0.1, 2, 8, dtype=np.float32).reshape(1, 8, 1, 1)])
def test_quantizers(scales):
    x = Draw(5).rng.normal(0, 4, SHAPE).astype(np.float32)
    names = {"scale": scales, "zero": np.float32(0), "bits": np.float32(4)}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in names.items()]
    nodes = [helper.make_node("Neg", ["x"], ["values"])]
    nodes.append(helper.make_node("Quant", ["values", *names], ["q"], domain="qonnx.custom_op.general", signed=1))
    nodes.append(helper.make_node("Neg", ["q"], ["minus"]))
    nodes.append(helper.make_node("BipolarQuant", ["minus", "scale"], ["sign"], domain="qonnx.custom_op.general"))
    nodes.append(helper.make_node("Neg", ["sign"], ["y"]))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in QUANTIZED]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
    results = []
    for outputs in (infos[1:2], infos[1:]):
        made = helper.make_graph(nodes, "g", infos[:1], outputs, tensors)
        results.append(run(session(helper.make_model(made, opset_imports=opsets, ir_version=10)), x))
    assert_same(results[0][0], results[1][0])
    values = np.clip(-x / scales, -7, 7)
    assert_same(results[1][2], np.rint(values) * scales)
