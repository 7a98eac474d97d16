"""Weights that a convolution reads through a Transpose, as exporters of channels-last networks write them."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.ops import QONNX

W = np.random.default_rng(2).uniform(-2, 2, (4, 2, 3, 3)).astype(np.float32)
X = np.random.default_rng(3).uniform(-2, 2, (2, 2, 6, 6)).astype(np.float32)
PER_OUTPUT = np.float32([0.25, 0.5, 0.125, 1])
TURNED = (2, 3, 1, 0)
BACK = [3, 2, 0, 1]


def graph(*, turned, per_output=False):
    """x and w quantized, a Conv; w lies as (kernel, inputs, outputs) where it is turned."""
    shape = (1, 1, 1, 4) if turned else (4, 1, 1, 1)
    held = {
        "w": W.transpose(TURNED) if turned else W,
        "s": np.float32(0.25),
        "ws": PER_OUTPUT.reshape(shape) if per_output else np.float32(0.25),
        "z": np.float32(0),
        "b": np.float32(4),
        "bias": np.arange(4, dtype=np.float32),
    }
    quant = {"domain": QONNX, "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    nodes = [
        helper.make_node("Quant", ["x", "s", "z", "b"], ["xq"], "xq", **quant),
        helper.make_node("Quant", ["w", "ws", "z", "b"], ["wq"], "wq", **quant),
    ]
    if turned:
        nodes.append(helper.make_node("Transpose", ["wq"], ["wt"], "turn", perm=BACK))
    read = "wt" if turned else "wq"
    nodes.append(helper.make_node("Conv", ["xq", read, "bias"], ["y"], "conv", kernel_shape=[3, 3]))
    tensors = [numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in held.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 4, 4])
    made = helper.make_graph(nodes, "g", [x], [y], tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(made, opset_imports=imports, ir_version=10)


@pytest.mark.parametrize("per_output", [False, True])
def test_they_are_numbered_as_those_that_lie_in_order(per_output):
    """The same sites, the same faults, in weights and in accumulators."""
    one, other = (graph(turned=turned, per_output=per_output) for turned in (False, True))
    assert list(sites(one)) == list(sites(other))
    assert {site.name: site.shape for site in sites(other)}["wq"] == (4, 2, 3, 3)
    plan = resolve(sites(one), [BitFlips(probability=0.05)])
    struck = [insert_faults(model, plan) for model in (one, other)]
    assert plan_of(struck[1]) == plan
    outputs = [run(session(model, threads=1), X, seed=5)[0] for model in struck]
    np.testing.assert_array_equal(*outputs)
    assert not np.array_equal(outputs[0], run(session(one, threads=1), X)[0])


def test_what_a_matrix_product_reads_turned_is_numbered_as_it_lies():
    """That is (outputs, inputs), as Brevitas' linear layers have it."""
    model = graph(turned=True)
    del model.graph.node[2:]
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["wq"], ["wt"], "turn"),
            helper.make_node("MatMul", ["x", "wt"], ["y"], "product"),
        ]
    )
    (w,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    w.CopyFrom(numpy_helper.from_array(np.ones((5, 6), np.float32), "w"))
    assert {site.name: site.shape for site in sites(model)}["wq"] == (5, 6)
