"""Quantizers of constants, which compute once and are copied from then on, and of scales along the last axis."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.fuzz.graphs import BITS, HWFAULT, STRIKE
from tests.helpers.graph.ops import assert_same, by_qonnx, load, quant_node, quant_session
from tests.helpers.stream.programs import program

OPS = {
    "Quant": ({"signed": 1, "narrow": 0, "rounding_mode": "HALF_UP"}, (0.25, 1, 4)),
    "IntQuant": ({"signed": 0, "narrow": 1, "rounding_mode": "ROUND"}, (0.5, 0, 3)),
    "BipolarQuant": ({}, (0.5,)),
    "FloatQuant": ({"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1}, (1, 4, 3, 7, 448)),
}


@pytest.mark.every(5)
@pytest.mark.parametrize("words", [1, 3, 10, 255, 256, 257, 1000])
@pytest.mark.parametrize("of_each", [True, False])
def test_a_scale_along_the_last_axis(words, of_each):
    """Of rows that are shorter and longer than what is taken at a time, in more words than a thread takes."""
    rng = np.random.default_rng(words)
    rows = 33000 // words + 1
    scale = rng.choice([0.5, 0.3, 1 / 3], words).astype(np.float32)
    zero_point = np.asarray(rng.choice([0, 3, 0.5], words if of_each else ()), np.float32)
    x = (rng.normal(size=(rows, words)) * 4).astype(np.float32)
    feeds = {"x": x, "scale": scale, "zeropt": zero_point, "bits": np.array(4, np.float32)}
    node = quant_node(signed=1, narrow=0, rounding_mode="ROUND")
    expected = np.asarray(by_qonnx(node, feeds), np.float32)
    for threads in (1, 2):
        (got,) = quant_session(1, 0, "ROUND", threads).run(None, feeds)
        assert_same(got, expected, feeds)


def graph_of_constants(op, x, behind=()):
    """A graph of a quantizer whose inputs are all constants, and of nodes behind it that make y."""
    attributes, numbers = OPS[op]
    held = {"x": x} | {f"x{i}": np.float32(number) for i, number in enumerate(numbers, 1)}
    node = quant_node(op, " ".join(held), **attributes)
    node.output[0] = "q" if behind else "y"
    held |= {"one": np.float32(0.25), "zero": np.float32(1)} if behind else {}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("seed", "sample") if behind]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(value, name) for name, value in held.items()]
    opsets = [helper.make_opsetid(*entry) for entry in (("", 17), (node.domain, 1), (HWFAULT, 1))]
    body = helper.make_graph([node, *behind], "g", inputs, [y], tensors)
    return node, held, helper.make_model(body, opset_imports=opsets, ir_version=8)


def values(shape=(70, 1000)):
    return (np.random.default_rng(1).normal(size=shape) * 4).astype(np.float32)


@pytest.mark.parametrize("op", OPS)
def test_every_run_is_the_first(op):
    """Also where threads begin at once, and where a caller writes into what it was given."""
    node, held, graph = graph_of_constants(op, values())
    expected = np.asarray(by_qonnx(node, held), np.float32)
    made = load(graph, 2)
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(made.run, None, {}) for _ in range(8)]:
            (got,) = future.result()
            assert_same(got, expected, op)
            got[:] = 7
    assert_same(made.run(None, {})[0], expected, op)


def test_faults_behind_leave_it_alone():
    """They work in place, on memory of their own run."""
    inputs = ["q", "one", "zero", "seed", "sample"]
    faults = helper.make_node("TransientFaults", inputs, ["y"], domain=HWFAULT, program=list(program(BITS)), **STRIKE)
    _, _, graph = graph_of_constants("Quant", values(), (faults,))
    made, fresh = load(graph, 1), [load(graph, 1) for _ in range(2)]
    first, second = ({"seed": np.array(seed), "sample": np.array(0)} for seed in (1, 2))
    expected = [one.run(None, numbers)[0] for one, numbers in zip(fresh, (first, second), strict=True)]
    assert not np.array_equal(*expected)
    for numbers, y in ((first, expected[0]), (second, expected[1]), (first, expected[0])):
        np.testing.assert_array_equal(made.run(None, numbers)[0], y)


def test_an_error_is_one_at_every_run():
    """Nothing is kept of a run that failed."""
    _, _, graph = graph_of_constants("Quant", values((2, 3)))
    assert isinstance(graph, ModelProto)
    scale = next(tensor for tensor in graph.graph.initializer if tensor.name == "x1")
    scale.CopyFrom(numpy_helper.from_array(np.float32(0), "x1"))
    made = load(graph, 1)
    for _ in range(3):
        with pytest.raises(Exception, match="the scale holds 0"):
            made.run(None, {})
