"""Graphs of an opset without Round, whose accumulators are struck in a newer one, and stripped to what they were."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwfault
from hwfault.errors import GraphError
from hwfault.graph.edit.insert import insert_faults, put_faults_in
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.edit.upgrade import raise_opset
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.cli.conftest import good
from tests.helpers.graph.ops import QONNX, assert_same

X = np.random.default_rng(0).normal(size=(3, 2, 5, 5)).astype(np.float32)
STRUCK = [BitFlips(probability=0.02, sites="*"), BitFlips(probability=0.05, sites="*accumulator")]
TURNED = {"Pad", "Clip", "Slice"}
"""Ops whose attributes became inputs until opset 11."""


NUMBERS = {"pads": [0, 0, 1, 1, 0, 0, 0, 0], "starts": [1], "ends": [7], "axes": [1], "min": -3.0, "max": 3.0}
QUANT = {"domain": QONNX, "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}


def turned(op, before, after, names, as_inputs):
    """A node that reads numbers from attributes in old opsets, and from inputs in newer ones."""
    if as_inputs:
        return helper.make_node(op, [before, *names], [after], f"the {op}")
    return helper.make_node(op, [before], [after], f"the {op}", **{name: NUMBERS[name] for name in names})


def graph(opset, imported=True):
    """Quantizers around a convolution and a product, with ops between that opsets 10 and 11 changed; opset 9 to 11."""
    rng = np.random.default_rng(1)
    nodes = [
        turned("Pad", "x", "padded", ["pads"], opset >= 11),
        helper.make_node("Quant", ["padded", "s", "zero", "four"], ["q"], "q", **QUANT),
        helper.make_node("Quant", ["w", "s", "zero", "four"], ["wq"], "wq", **QUANT),
        helper.make_node("Conv", ["q", "wq"], ["sums"], "conv", strides=[3, 3]),
        turned("Clip", "sums", "clipped", ["min", "max"], opset >= 11),
        helper.make_node("Flatten", ["clipped"], ["flat"]),
        turned("Slice", "flat", "some", ["starts", "ends", "axes"], opset >= 10),
        helper.make_node("Quant", ["some", "s", "zero", "four"], ["r"], "r", **QUANT),
        helper.make_node("Quant", ["v", "s", "zero", "four"], ["vq"], "vq", **QUANT),
        helper.make_node("MatMul", ["r", "vq"], ["y"], "product"),
    ]
    held = {"w": rng.normal(size=(4, 2, 3, 3)), "v": rng.normal(size=(6, 5)), "s": 0.125, "zero": 0.0, "four": 4.0}
    tensors = [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in held.items()]
    for name, numbers in NUMBERS.items():
        if any(name in node.input for node in nodes):
            kind = np.float32 if isinstance(numbers, float) else np.int64
            tensors.append(numpy_helper.from_array(np.array(numbers, kind), name))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 5, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(QONNX, 1)] if imported else [])]
    made = helper.make_graph(nodes, "old", [x], [y], tensors)
    annotation = made.quantization_annotation.add(tensor_name="w")
    annotation.quant_parameter_tensor_names.add(key="finn_datatype", value="INT4")
    return helper.make_model(made, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("imported", [True, False], ids=["imported", "left-out"])
@pytest.mark.parametrize("opset", [9, pytest.param(10, marks=pytest.mark.slow)])
def test_struck_sums_are_those_of_the_same_graph_in_a_newer_opset(opset, imported):
    old, new = graph(opset, imported), graph(11)
    assert sites(old) == sites(new)
    before = old.SerializeToString(deterministic=True)
    plan = resolve(sites(old), STRUCK)
    faulted, changes = put_faults_in(old, plan)
    assert changes[0] == f"opset 11 of ONNX in place of {opset}"
    expected = hwfault.session(insert_faults(new, plan), threads=1, graph_optimization="none")
    made = hwfault.session(faulted, threads=1, graph_optimization="none")
    for seed in range(3):
        assert_same(run(made, X, seed=seed)[0], run(expected, X, seed=seed)[0])
    assert (run(made, X, seed=1)[0] != run(hwfault.session(old), X)[0]).any()
    assert strip_faults(faulted).SerializeToString(deterministic=True) == before
    assert old.SerializeToString(deterministic=True) == before


def test_without_accumulators_it_stays_in_its_opset():
    old = graph(9)
    faulted, changes = put_faults_in(old, resolve(sites(old), [BitFlips(probability=0.1, sites={"kind": "weight"})]))
    assert faulted.opset_import[0].version == 9
    assert not any("opset" in change for change in changes)


def test_all_that_onnx_need_not_change_stays():
    old = graph(9)
    for node in old.graph.node:
        node.metadata_props.add(key="kept", value=node.name)
    raised, changes = raise_opset(old, 11)
    assert changes == ["opset 11 of ONNX in place of 9"]
    kept = [node for node in old.graph.node if node.op_type not in TURNED]
    assert [node for node in raised.graph.node if node in kept] == kept
    told = {node.op_type: [entry.value for entry in node.metadata_props] for node in raised.graph.node}
    assert all(told[op] == [f"the {op}"] for op in TURNED)
    assert raised.graph.quantization_annotation == old.graph.quantization_annotation
    onnx.checker.check_model(raised)
    assert raise_opset(raised, 11) == (raised, [])
    assert raise_opset(raised, 11)[0] is raised


def test_what_cannot_be_raised():
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)])
    old = graph(9)
    old.graph.node.add().CopyFrom(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    with pytest.raises(GraphError, match="is of opset 9 and has bodies or functions, expected opset 11"):
        raise_opset(old, 11)
    wrong = graph(11)
    wrong.opset_import[0].version = 9
    with pytest.raises(GraphError, match="onnx cannot convert the graph from opset 9 to 11: "):
        raise_opset(wrong, 11)


def test_from_the_command_line(tmp_path):
    path, struck, bare = (tmp_path / name for name in ("g.onnx", "struck.onnx", "bare.onnx"))
    onnx.save(graph(9), path)
    good("insert", path, "--ber", 0.02, "--select", "*accumulator", "-o", struck)
    assert "TransientFaults" in {node.op_type for node in onnx.load(struck).graph.node}
    good("strip", struck, "-o", bare)
    assert bare.read_bytes() == path.read_bytes()
