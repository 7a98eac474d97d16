"""Quantizers whose scale, zero point, width or values are no float32, as other exporters write them."""

from itertools import product

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, numpy_helper
from qonnx.custom_op.general.intquant import int_quant

from hwfault.errors import GraphError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import bit_errors
from hwfault.plan.fault_plan import resolve

QONNX = "qonnx.custom_op.general"
X = np.random.default_rng(5).normal(0, 3, (6, 8)).astype(np.float32)
W = np.random.default_rng(6).normal(0, 3, (8, 4)).astype(np.float16).astype(np.float32)
PARAMETERS = ["scale", "zero_point", "width"]
TYPES = ["float32", "float64", "float16", "int64", "int32", "int8", "uint8"]
WAYS = ["initializer", "constant", "identity", "cast", "attribute"]
CASES = [
    *((kind, which, WAYS[i % len(WAYS)]) for i, (kind, which) in enumerate(product(TYPES, PARAMETERS))),
    *(("int64", which, way) for which, way in product(PARAMETERS, WAYS)),
]


def number(name, value, kind, way):
    """A number of a type as an exporter may write it: the nodes, and the initializers, that make `name`."""
    held = np.array(value, kind)
    if way == "initializer":
        return [], [numpy_helper.from_array(held, name)]
    if way == "constant":
        return [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(held))], []
    if way == "identity":
        return [helper.make_node("Identity", [f"{name}_held"], [name])], [numpy_helper.from_array(held, f"{name}_held")]
    if way == "cast":
        to = helper.np_dtype_to_tensor_dtype(held.dtype)
        node = helper.make_node("Cast", [f"{name}_held"], [name], to=to)
        return [node], [numpy_helper.from_array(np.array(value, np.float32), f"{name}_held")]
    if held.dtype.kind == "f":
        return [helper.make_node("Constant", [], [name], value_float=float(value))], []
    return [helper.make_node("Constant", [], [name], value_int=int(value))], []


def graph(scale="float32", zero_point="float32", width="float32", way="initializer", values="float32", stale=None):
    """x and w quantized, then multiplied; the numbers of both quantizers have these types."""
    nodes, held = [], [numpy_helper.from_array(W.astype(values), "w")]
    for name, value, kind in (("s", 1.0, scale), ("z", 2, zero_point), ("b", 5, width)):
        made, constants = number(name, value, kind, way)
        nodes += made
        held += constants
    for name in ("x", "w"):
        inputs = [name, "s", "z", "b"]
        quant = helper.make_node("Quant", inputs, [f"{name}q"], f"q_{name}", domain=QONNX, signed=1, narrow=0)
        quant.attribute.append(helper.make_attribute("rounding_mode", "ROUND"))
        nodes.append(quant)
    nodes.append(helper.make_node("MatMul", ["xq", "wq"], ["y"], "m"))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(values))
    said = [helper.make_tensor_value_info("xq", stale, [None, 8])] if stale else []
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [None, 8])],
        [helper.make_tensor_value_info("y", kind, [None, 4])],
        held,
        value_info=said,
    )
    imports = [helper.make_opsetid("", 13), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(made, opset_imports=imports, ir_version=10)


def by_qonnx(x):
    """The product by qonnx's own quantizer, in float32."""
    scale, zero_point, width = (np.float32(number) for number in (1.0, 2, 5))
    quantized = [int_quant(values, scale, zero_point, width, 1, 0, "ROUND") for values in (x, W)]
    return quantized[0] @ quantized[1]


def outputs(model, x=X, **numbers):
    (out,) = run(session(model, threads=1), x, **numbers)
    return out


@pytest.mark.parametrize(("kind", "which", "way"), CASES)
def test_parameters_of_any_type(kind, which, way):
    given = graph(**{which: kind}, way=way)
    checker.check_model(given)
    expected = by_qonnx(X)
    np.testing.assert_array_equal(outputs(given), expected)
    (fast,) = run(session(given, fast=True), X)
    np.testing.assert_array_equal(fast, expected)

    plan = resolve(sites(given), bit_errors(0.03))
    assert plan == resolve(sites(graph()), bit_errors(0.03))
    faulted = insert_faults(given, plan)
    struck = outputs(faulted, seed=7)
    np.testing.assert_array_equal(struck, outputs(insert_faults(graph(), plan), seed=7))
    assert (struck != expected).any()
    assert strip_faults(faulted).SerializeToString() == given.SerializeToString()


@pytest.mark.parametrize("values", ["float64", "float16"])
def test_values_of_another_type(values):
    given = graph(values=values)
    out = outputs(given, X.astype(values))
    assert out.dtype == values
    expected = by_qonnx(X.astype(values).astype(np.float32))
    np.testing.assert_array_equal(out, expected)  # integers below 2^11
    assert list(sites(given)) == list(sites(graph()))


def test_faults_of_double_values():
    given = graph(values="float64")
    plan = resolve(sites(given), bit_errors(0.03))
    struck = outputs(insert_faults(given, plan), X.astype(np.float64), seed=3)
    np.testing.assert_array_equal(struck, outputs(insert_faults(graph(), plan), seed=3))


def test_faults_of_half_values_are_refused():
    given = graph(values="float16")
    with pytest.raises(GraphError, match="'q_x' are float16, expected float32 or double"):
        insert_faults(given, resolve(sites(given), bit_errors(0.03)))


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.DOUBLE])
def test_types_that_a_pass_left_behind(kind, caplog):
    np.testing.assert_array_equal(outputs(graph(stale=kind)), outputs(graph()))
    assert "without the types said of 1 tensor that are of another" in caplog.text


def test_what_was_changed_is_said(caplog):
    given = graph(width="int64", zero_point="int32")
    before = given.SerializeToString()
    outputs(given)
    assert given.SerializeToString() == before
    assert "Quant (qonnx.custom_op.general) on numbers of int32 and int64 in float32, 2 nodes" in caplog.text


def test_a_width_that_is_no_number():
    given = graph()
    width = next(tensor for tensor in given.graph.initializer if tensor.name == "b")
    width.CopyFrom(numpy_helper.from_array(np.array("five"), "b"))
    with pytest.raises(GraphError, match="cannot load the graph"):
        session(given)
    assert "q_x" in sites(given).obstacles
