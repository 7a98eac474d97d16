"""ArrayFaults as a node, in onnxruntime and in qonnx's executor."""

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper

from hwfault.stream.array_reference import accumulate
from tests.helpers.graph.ops import DOUBLE, FLOAT, by_qonnx, load
from tests.helpers.stream.accumulator_cases import case

LISTS = ("strides", "pads", "dilations", "order", "events")


def node_of(c, **changes):
    axes = () if c.layer.channels_last else c.layer.axes
    attributes = {
        "strides": [a.stride for a in axes],
        "pads": [a.pad for a in axes] * 2,
        "dilations": [a.dilation for a in axes],
        "order": list(c.array.order),
        "events": [n for event in c.array.events for n in event],
        "group": c.layer.groups,
        "channels_last": int(c.layer.channels_last),
        "width": c.array.width,
        "overflow": "saturate" if c.array.saturate else "wrap",
        "step": c.array.step,
        "pass_steps": c.array.pass_steps,
        "recompute": int(c.array.recompute),
    } | changes
    node = helper.make_node("ArrayFaults", ["acc", "x", "w"], ["y"], name="the node", domain="hwfault")
    for key, value in attributes.items():
        kind = AttributeProto.INTS if key in LISTS else None
        node.attribute.append(helper.make_attribute(key, value, attr_type=kind))
    return node


def session_of(node, dtype, threads=1):
    infos = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in zip(("acc", "x", "w"), (dtype, 1, 1), strict=True)
    ]
    out = helper.make_tensor_value_info("y", dtype, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    return load(
        helper.make_model(helper.make_graph([node], "one", infos, [out]), opset_imports=opsets, ir_version=8), threads
    )


def feeds_of(c, dtype):
    w = c.w.reshape(c.w.shape[:2]) if c.layer.channels_last else c.w
    return {"acc": c.exact.astype(dtype), "x": c.x, "w": w}


@pytest.mark.parametrize("seed", range(60))
def test_both_engines_equal_the_reference(seed):
    c = case(np.random.default_rng(seed))
    dtype, kind = (np.float64, DOUBLE) if c.array.width > 25 or seed % 2 else (np.float32, FLOAT)
    feeds, node = feeds_of(c, dtype), node_of(c)
    expected = accumulate(c.x, c.w, c.layer, c.array).reshape(feeds["acc"].shape)
    (got,) = session_of(node, kind, threads=1 + seed % 3).run(None, feeds)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(by_qonnx(node, feeds), expected)


def test_the_whole_layer_from_its_integers():
    c = next(c for c in (case(np.random.default_rng(s)) for s in range(99)) if c.exact.size > 20)
    c = c.with_array(width=32, recompute=True, events=(), saturate=False)
    feeds = feeds_of(c, np.float64) | {"acc": np.full(c.exact.shape, 1e12)}
    (got,) = session_of(node_of(c), TensorProto.DOUBLE).run(None, feeds)
    np.testing.assert_array_equal(got, c.exact)


CONV = next(c for c in (case(np.random.default_rng(s)) for s in range(99)) if len(c.layer.axes) == 2 and c.exact.size)
BAD = {
    "width of an accumulator is 1": {"width": 1},
    "overflow is 'round'": {"overflow": "round"},
    "events has 7 integers, expected 8": {"events": [1, 0, 1, 0, 1, 0, 0]},
    "period of an event is 0": {"events": [0, 0, 1, 0, 1, 0, 0, 0]},
    "order has 1 integers, expected one for each of": {"order": [0]},
    "strides, pads and dilations have 1, 4 and 2": {"strides": [1]},
    "group is 0": {"group": 0},
    "expected those of a convolution over 1 axes": {"strides": [1], "pads": [0, 0], "dilations": [1]},
    "expected those of a linear layer": {"channels_last": 1},
    "step is 0": {"step": 0},
}


@pytest.mark.parametrize("text", BAD)
def test_nodes_that_are_wrong_are_refused(text):
    node = node_of(CONV.with_array(events=(), order=()), **BAD[text])
    text = text.replace("step is 0", "products of a step is 0")
    with pytest.raises(Exception, match=f"(?s)ArrayFaults 'the node'.*{text}"):
        session_of(node, TensorProto.FLOAT).run(None, feeds_of(CONV, np.float32))
