"""Graphs that onnxruntime cannot run as they stand, upgraded, against qonnx's own executor, to the bit."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from qonnx.custom_op.registry import getCustomOp

import hwfault
from hwfault.errors import GraphError
from hwfault.graph.edit.upgrade import upgrade
from hwfault.graph.ops import CHANNELS_LAST, OLD_DOMAINS
from hwfault.graph.run.session import run, session
from tests.graph.run.test_quant import SAMPLE
from tests.helpers.graph.ops import FLOAT, QONNX, assert_same, by_qonnx, load, model, quant_node
from tests.helpers.graph.running import clean, copied

seeds = st.integers(0, 1 << 32)


def graph_of(nodes, constants=(), opset=11, shapes=None, imports=((CHANNELS_LAST, 1), (QONNX, 1))):
    """A graph from x to y with the constants as initializers."""
    shapes = shapes or {}
    x, y = (helper.make_tensor_value_info(name, FLOAT, shapes.get(name)) for name in "xy")
    tensors = [
        numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in dict(constants).items()
    ]
    opsets = [helper.make_opsetid(*entry) for entry in (("", opset), *imports)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=opsets, ir_version=8)


def by_executor(node, x, constants, shape, version):
    """What qonnx's executor makes of a wrapper; it wants the shape of the output beforehand."""
    context = {"x": x, "y": np.zeros(shape, np.float32), **constants}
    getCustomOp(node, version).execute_node(context, None)
    return np.ascontiguousarray(context["y"])


def by_session(graph, x):
    """Without fusions, which would change the order of additions."""
    (y,) = run(session(graph, threads=1, graph_optimization="none"), x)
    return y


@given(
    axes=st.integers(1, 2),
    image=st.tuples(st.integers(1, 3), st.integers(6, 9), st.integers(6, 9)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    dilation=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    bias=st.booleans(),
    seed=seeds,
)
def test_conv(axes, image, kernel, stride, pad, dilation, channels, bias, seed):
    rng = np.random.default_rng(seed)
    (inputs, outputs, group), pad = channels, min(pad, kernel - 1)
    attributes = {"kernel_shape": [kernel] * axes, "strides": [stride] * axes, "pads": [pad] * 2 * axes}
    attributes |= {"dilations": [dilation] * axes, "group": group}
    x = rng.normal(size=(image[0], *image[1 : 1 + axes], inputs * group)).astype(np.float32)
    constants = {"w": rng.normal(size=(outputs * group, *[kernel] * axes, inputs)).astype(np.float32)}
    constants |= {"b": rng.normal(size=outputs * group).astype(np.float32)} if bias else {}
    node = helper.make_node("Conv", ["x", *constants], ["y"], domain=CHANNELS_LAST, **attributes)
    room = [side + 2 * pad - dilation * (kernel - 1) - 1 for side in x.shape[1:-1]]
    shape = (image[0], *(r // stride + 1 for r in room), outputs * group)
    expected = by_executor(node, x, constants, shape, 1)
    assert_same(by_session(graph_of([node], constants), x), expected, attributes)


@given(
    axes=st.integers(1, 2),
    image=st.tuples(st.integers(1, 3), st.integers(6, 9), st.integers(6, 9)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    version=st.sampled_from([1, 10]),
    seed=seeds,
)
def test_max_pool(axes, image, kernel, stride, version, seed):
    attributes = {"kernel_shape": [kernel] * axes, "strides": [stride] * axes, "pads": [0] * 2 * axes}
    x = np.random.default_rng(seed).normal(size=(image[0], *image[1 : 1 + axes], 3)).astype(np.float32)
    node = helper.make_node("MaxPool", ["x"], ["y"], domain=CHANNELS_LAST, **attributes)
    shape = (image[0], *((side - kernel) // stride + 1 for side in x.shape[1:-1]), 3)
    assert_same(by_session(graph_of([node]), x), by_executor(node, x, {}, shape, version), attributes)


@given(rank=st.integers(3, 4), version=st.sampled_from([9, 14]), epsilon=st.sampled_from([1e-5, 0.1]), seed=seeds)
def test_batch_normalization(rank, version, epsilon, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *(4, 5)[: rank - 2], 3)).astype(np.float32)
    constants = {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    node = helper.make_node("BatchNormalization", ["x", *constants], ["y"], domain=CHANNELS_LAST, epsilon=epsilon)
    graph = graph_of([node], constants, version, {"x": [None] * rank})
    assert_same(by_session(graph, x), by_executor(node, x, constants, x.shape, version))


@pytest.mark.slow
def test_a_whole_graph_after_qonnxs_own_change_of_layout():
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.util.cleanup import cleanup_model

    from tests.graph.run.test_qonnx_graphs import SHIPPED

    tidy = cleanup_model(ModelWrapper(str(SHIPPED / "residual_block_clean.onnx")))
    graph = tidy.transform(ConvertToChannelsLastAndClean())
    assert {node.domain for node in graph.graph.node} == {"", CHANNELS_LAST}
    x = np.random.default_rng(0).normal(size=(1, 1, 200, 200)).astype(np.float32)
    (expected,) = execute_onnx(graph, {"global_in": x}).values()
    assert_same(by_session(graph.model, x), np.ascontiguousarray(expected))


def test_convolutions_lowered_by_qonnx_run_as_before():
    """Integers, which add up to the same in any order; Im2Col and the import of its domain are new."""
    from qonnx.core.datatype import DataType
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

    rng = np.random.default_rng(0)
    x, w = rng.integers(-9, 9, (2, 3, 8, 7)).astype(np.float32), rng.integers(-9, 9, (4, 3, 3, 3))
    settings = {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1}
    node = helper.make_node("Conv", ["x", "w"], ["y"], **settings)
    graph = graph_of([node], {"w": w}, shapes={"x": x.shape}, imports=())
    wrapped = ModelWrapper(copied(graph)).transform(InferShapes())
    wrapped.set_tensor_datatype("x", DataType["INT5"])
    lowered = wrapped.transform(LowerConvsToMatMul()).model
    assert "Im2Col" in {node.op_type for node in lowered.graph.node}
    assert_same(by_session(lowered, x), by_session(graph, x))


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER"])
def test_automatic_padding(padding):
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 3)).astype(np.float32)
    node = quant_node("MaxPoolNHWC", "x", kernel_shape=[3, 2], strides=[2, 2], auto_pad=padding)
    expected = np.ascontiguousarray(by_qonnx(node, {"x": x, "y": np.zeros((2, 4, 4, 3), np.float32)}))
    assert_same(by_session(graph_of([node]), x), expected)


def test_debug_markers_are_passed_through():
    node = quant_node("DebugMarker", "x", export_debug_name="seen")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_same(by_session(graph_of([node]), x), x)


def wrapper(**attributes):
    return helper.make_node("Conv", ["x", "w"], ["y"], domain=CHANNELS_LAST, name="the conv", **attributes)


def test_what_was_upgraded_is_said(caplog):
    graph = graph_of([wrapper()], {"w": np.ones((2, 1, 1, 3))}, imports=())
    before = graph.SerializeToString(deterministic=True)
    note = "Conv (qonnx.custom_op.channels_last) as Transpose, Transpose, Conv, Transpose, 1 node"
    assert upgrade(graph)[1] == [note]  # after which nobody uses the domain that is not imported
    with caplog.at_level(logging.WARNING, "hwfault"):
        hwfault.session(graph)
    assert caplog.messages == [f"the graph was upgraded to run in onnxruntime: {note}"]
    assert graph.SerializeToString(deterministic=True) == before


def test_a_graph_without_any_of_it_is_left_as_it_is(caplog):
    graph = clean("mlp")
    assert upgrade(graph) == (graph, [])
    assert upgrade(graph)[0] is graph
    hwfault.session(graph)
    assert not caplog.messages


@pytest.mark.parametrize("empty", [1, 2])
def test_empty_inputs_at_the_end_of_a_list(empty):
    constants = {"scale": 0.5, "zero": 0.0, "bits": 8.0, "few": 4.0}
    x = np.arange(-8, 8, dtype=np.float32)
    plain, padded = (quant_node("Trunc", "x scale zero bits few", rounding_mode="FLOOR") for _ in range(2))
    padded.input.extend([""] * empty)
    note = f"Trunc ({QONNX}) without the empty inputs at its end, 1 node"
    upgraded, notes = upgrade(graph_of([padded], constants))
    assert notes == [note]
    assert upgraded.graph.node[0] == plain
    assert_same(by_session(graph_of([padded], constants), x), by_session(graph_of([plain], constants), x))


def test_nodes_in_branches():
    """The weights of a branch's Conv are the outer graph's."""
    info = helper.make_tensor_value_info("y", FLOAT, None)
    branches = {
        f"{side}_branch": helper.make_graph([wrapper(kernel_shape=[1, 1])], side, [], [info])
        for side in ("then", "else")
    }
    graph = graph_of([helper.make_node("If", ["yes"], ["y"], **branches)], {"w": np.full((2, 1, 1, 3), 2)})
    graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    x = np.ones((1, 2, 2, 3), np.float32)
    assert_same(by_session(graph, x), np.full((1, 2, 2, 2), 6, np.float32))


def test_names_that_are_taken_already():
    first = helper.make_node("Relu", ["x"], ["y.channels_first"])
    second = helper.make_node("Relu", ["y.channels_first"], ["y.in0.channels_first"])
    last = helper.make_node("MaxPool", ["y.in0.channels_first"], ["y"], domain=CHANNELS_LAST, kernel_shape=[1])
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    assert_same(by_session(graph_of([first, second, last]), x), x)


@pytest.mark.parametrize("domain", OLD_DOMAINS)
@pytest.mark.parametrize("imported", [True, False], ids=["imported", "left-out"])
def test_old_domains(domain, imported):
    """The library knows them itself; only an import that is left out needs the upgrade."""
    node = quant_node(signed=1, narrow=0, rounding_mode="FLOOR")
    expected = by_qonnx(node, SAMPLE)
    node.domain = domain
    graph = model(node)
    graph.opset_import.extend([helper.make_opsetid(domain, 1)] if imported else [])
    assert_same(run(session(graph), SAMPLE)[0], expected)
    if imported:
        assert_same(load(graph).run(None, SAMPLE)[0], expected)


def test_a_graph_that_imports_nothing():
    graph = graph_of([helper.make_node("Relu", ["x"], ["y"])])
    del graph.opset_import[:]
    x = np.array([-1, 1], np.float32)
    assert_same(by_session(graph, x), np.array([0, 1], np.float32))


def batch_normalization(rank_known):
    names = ["scale", "shift", "mean", "variance"]
    node = helper.make_node("BatchNormalization", ["x", *names], ["y"], domain=CHANNELS_LAST, name="the norm")
    return graph_of([node], {name: np.ones(3) for name in names}, shapes={"x": [1, 3] if rank_known else None})


def two_outputs():
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], domain=CHANNELS_LAST, kernel_shape=[1], name="the pool")
    return graph_of([node])


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (
            batch_normalization(False),
            "nothing in the graph tells the axes of the node 'the norm'.*infer the graph's shapes",
        ),
        (batch_normalization(True), "the node 'the norm' .*, expected 3 or more"),
        (two_outputs(), "the node 'the pool' .* has 2 outputs, expected 1"),
    ],
    ids=["no-rank", "rank-2", "two-outputs"],
)
def test_what_cannot_be_upgraded(graph, text):
    with pytest.raises(GraphError, match=text):
        session(graph)


def test_wrappers_of_ops_that_there_are_not():
    node = helper.make_node("Sparkle", ["x"], ["y"], domain=CHANNELS_LAST, kernel_shape=[1])
    with pytest.raises(GraphError, match=r"cannot load the graph.*Sparkle"):
        session(graph_of([node]))


def test_the_type_of_a_wrappers_input():
    """onnxruntime says it, once."""
    node = helper.make_node("MaxPool", ["x"], ["y"], domain=CHANNELS_LAST, kernel_shape=[1])
    graph = graph_of([node])
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(GraphError, match="cannot load the graph"):
        session(graph)
