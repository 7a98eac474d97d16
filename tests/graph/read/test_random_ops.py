"""Quantizers behind what answers otherwise each time, which is no constant, and with zero points that are none."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwfault.graph import ops
from hwfault.graph.ops import QUANT_DOMAIN
from hwfault.graph.read.sites import sites

DRAWS = {
    "RandomNormal": {"shape": [1, 4]},
    "RandomUniform": {"shape": [1, 4]},
    "RandomNormalLike": {},
    "RandomUniformLike": {},
    "Bernoulli": {},
}


def quantized(name, **attributes):
    """A sum of the input with what an op makes of a constant or of nothing, rounded to four bits."""
    constants = {"scale": 0.1, "zero": 0.0, "bits": 4.0, "constant": np.full((1, 4), 0.3)}
    inputs = [] if "shape" in attributes else ["constant"]
    nodes = [
        helper.make_node(name, inputs, ["drawn"], name="draw", **attributes),
        helper.make_node(
            "Quant", ["drawn", "scale", "zero", "bits"], ["q"], "q", domain=QUANT_DOMAIN, signed=1, narrow=0
        ),
        helper.make_node("Add", ["x", "q"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(end, TensorProto.FLOAT, ["N", 4])] for end in "xy"]
    values = [numpy_helper.from_array(np.asarray(value, np.float32), key) for key, value in constants.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QUANT_DOMAIN, 1)]
    return helper.make_model(helper.make_graph(nodes, "g", *ends, values), opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_anew_is_no_weight(name):
    (site,) = sites(quantized(name, **DRAWS[name]))
    assert site.kind == "activation"


def test_what_is_made_of_a_constant_is_one():
    (site,) = sites(quantized("Abs"))
    assert site.kind == "weight"


def test_every_op_that_draws_says_so():
    assert set(ops.names(lambda op: op.random)) == {*DRAWS, "Multinomial"}


@pytest.mark.parametrize("zero_point", [-8388609.0, 1e9, np.nan, np.inf])
def test_a_zero_point_beyond_what_float32_tells_apart_is_an_obstacle(zero_point):
    graph = quantized("Abs")
    (zero,) = [tensor for tensor in graph.graph.initializer if tensor.name == "zero"]
    zero.CopyFrom(numpy_helper.from_array(np.float32(zero_point), "zero"))
    found = sites(graph)
    assert not found
    assert "where float32 does not tell one integer from the next" in found.obstacles["q"]
