"""Nodes of QONNX with attributes and inputs of any kind: each runs, or ends in one error that names op and node."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.graph.run.test_quant import SPECIAL
from tests.helpers.graph.ops import load, model, quant_node

OPS = {
    "Quant": ("x scale zeropt bits", "signed narrow rounding_mode"),
    "BipolarQuant": ("x scale", ""),
    "Trunc": ("x scale zeropt in_bits out_scale out_bits", "signed narrow rounding_mode"),
    "FloatQuant": ("x scale e m b l", "rounding_mode has_inf has_nan has_subnormal saturation"),
    "MultiThreshold": ("x t", "out_dtype out_scale out_bias data_layout"),
    "Im2Col": ("x", "stride kernel_size pad_amount pad_value dilations depthwise input_shape"),
    "XnorPopcountMatMul": ("a b", ""),
    "QuantAvgPool2d": ("x", "kernel stride ibits obits signed data_layout"),
    "MaxPoolNHWC": ("x", "kernel_shape strides pads dilations ceil_mode auto_pad storage_order"),
}
numbers = st.sampled_from([-(1 << 63), -1, 0, 1, 2, 3, 5, 33, (1 << 20) + 1, 1 << 31, (1 << 62) + 1, (1 << 63) - 1])
usual = st.sampled_from([0, 1, 1, 2, 2, 3])
floats = st.sampled_from([0.0, -1.0, 1e38, float("inf"), float("nan")])
texts = st.sampled_from(["", "NHWC", "NCHW", "ROUND", "floor", "C" * 300, "\0", "é", "SAME_UPPER"])
values = usual | numbers | floats | texts | st.lists(usual | numbers, min_size=1, max_size=5)
values |= (
    st.lists(usual, min_size=2, max_size=2) | st.lists(usual, min_size=4, max_size=4) | st.lists(floats, min_size=1)
)
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=5).map(tuple)


@pytest.mark.every(2)
@settings(max_examples=50)
@pytest.mark.parametrize("op", OPS)
@given(data=st.data())
def test_any_node(op, data):
    inputs, attributes = (text.split() for text in OPS[op])
    given_ = data.draw(st.dictionaries(st.sampled_from(attributes), values)) if attributes else {}
    named = inputs[: data.draw(st.sampled_from([len(inputs)] * 8 + [len(inputs) - 1, 1]))]
    node = quant_node(op, " ".join(named), **given_)
    threads = data.draw(st.sampled_from([1, 2]))
    session, said = outcome(load, model(node), threads)
    if session is None:
        assert op in said or "the node" in said
        return
    one = data.draw(st.booleans())  # the smaller inputs as single values, so that more get through
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    x = data.draw(shapes)
    feeds = {name: rng.choice(SPECIAL, x if name in "xa" else () if one else data.draw(shapes)) for name in named}
    got, said = outcome(session.run, None, feeds)
    if got is None:
        assert op in said
        assert "the node" in said
    else:
        assert got[0].dtype == np.float32


def outcome(function, *arguments):
    """What a function answers, or None and what its error says."""
    try:
        return function(*arguments), ""
    except Exception as error:
        return None, str(error)


@pytest.mark.parametrize("op", OPS)
def test_inputs_of_another_type(op):
    node = quant_node(op, OPS[op][0])
    for kind in (TensorProto.DOUBLE, TensorProto.INT8, TensorProto.STRING):
        graph = model(node)
        for info in graph.graph.input:
            info.type.tensor_type.elem_type = kind
        with pytest.raises(Exception, match=rf"{op}|the node"):
            load(graph)


@pytest.mark.parametrize("op", OPS)
def test_more_inputs_and_outputs_than_there_are(op):
    many = quant_node(op, OPS[op][0] + " more still")
    with pytest.raises(Exception, match=rf"{op}|the node"):
        load(model(many))
    node = quant_node(op, OPS[op][0])
    node.output.append("second")
    graph = model(node)
    graph.graph.output.append(helper.make_tensor_value_info("second", 1, None))
    with pytest.raises(Exception, match=rf"{op}|the node"):
        load(graph)
