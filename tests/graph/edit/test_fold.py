"""Gains and offsets behind layers with faulty weights: folded to the same values where no order of rounding changes."""

import numpy as np
import pytest
from onnx import ModelProto, helper
from onnx.numpy_helper import from_array

from hwfault.graph.edit.fast import prepare_to_run
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, run_without_inputs, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve

QUANT = {"domain": "qonnx.custom_op.general", "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
GAIN = np.array([2, -0.5, 4], np.float32)
OFFSET = np.array([0.25, -3, 1.5], np.float32)
COLUMN = (3, 1, 1)


def layer(behind, *, bias=False, more=(), outputs=("y",), **held) -> ModelProto:
    """x (n, 2, 4, 4) -> Conv to (n, 3, 2, 2), weights of 4 bits -> `behind`, which reads "sums" and makes "y"."""
    constants = {
        "scale": 0.5,
        "zero": 0,
        "bits": 4,
        "W": np.linspace(-3, 3, 54).reshape(3, 2, 3, 3),
        "bias": [0.5, -2, 1],
        **held,
    }
    nodes = [
        helper.make_node("Quant", ["W", "scale", "zero", "bits"], ["w"], name="w_quant", **QUANT),
        helper.make_node("Conv", ["x", "w", *["bias"] * bias], ["sums"]),
        *behind,
        *more,
    ]
    initializers = [from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", 1, ["batch", 2, 4, 4])
    made = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
    graph = helper.make_graph(nodes, "layer", [x], made, initializers)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return insert_faults(model, resolve(sites(model), [BitFlips(probability=0.1)]))


def mul(read="sums", by="gain", made="y"):
    return helper.make_node("Mul", [read, by], [made])


def add(read="sums", what="offset", made="y"):
    return helper.make_node("Add", [read, what], [made])


FOLDED = {
    "gain": layer([mul()], gain=GAIN.reshape(COLUMN)),
    "gain in front": layer([helper.make_node("Mul", ["gain", "sums"], ["y"])], gain=GAIN.reshape(1, *COLUMN)),
    "one gain": layer([mul()], gain=-2.0),
    "offset": layer([add()], offset=OFFSET.reshape(COLUMN)),
    "gain and offset": layer(
        [mul(made="scaled"), add("scaled")], bias=True, gain=GAIN.reshape(COLUMN), offset=OFFSET.reshape(COLUMN)
    ),
}
KEPT = {
    "gains along another axis": layer([mul()], gain=[1, 2]),
    "a gain of zero": layer([mul()], gain=np.array([2, 0, 1]).reshape(COLUMN)),
    "more axes": layer([mul()], gain=np.full((1, 1, 1, 1, 1), 2)),
    "read elsewhere": layer([mul()], more=[helper.make_node("Neg", ["sums"], ["z"])], outputs=("y", "z"), gain=2.0),
    "an output": layer([mul()], outputs=("y", "sums"), gain=2.0),
    "no constant": layer([helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0), mul(by="largest")]),
}


def outputs(graph, **options):
    x = np.round(np.random.default_rng(0).uniform(-4, 4, (3, 2, 4, 4)).astype(np.float32) * 4) / 4
    return [run(session(graph, threads=1, **options), x, seed=seed) for seed in (1, 2)]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        for got, wanted in zip(one, other, strict=True):
            assert np.array_equal(got, wanted)


@pytest.mark.parametrize("what", FOLDED)
def test_folded_layers_answer_the_same(what):
    edit = prepare_to_run(FOLDED[what], run_without_inputs)
    assert not {node.op_type for node in edit.model.graph.node} & {"Mul", "Add"}
    assert any("folded into layers with faulty weights" in change for change in edit.changes)
    usual = outputs(FOLDED[what])
    assert_equal(outputs(FOLDED[what], fast=True), usual)
    assert not np.array_equal(usual[0][0], usual[1][0])


@pytest.mark.parametrize("what", KEPT)
def test_what_cannot_be_folded_stays(what):
    edit = prepare_to_run(KEPT[what], run_without_inputs)
    assert any(node.op_type == "Mul" for node in edit.model.graph.node)
    assert not any("folded" in change for change in edit.changes)
    assert_equal(outputs(KEPT[what], fast=True), outputs(KEPT[what]))
