"""MultiThreshold, Im2Col, XnorPopcountMatMul and the pools in onnxruntime against qonnx's own executor, to the bit."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, StringStringEntryProto, TensorAnnotation

from tests.graph.run.test_quant import SPECIAL
from tests.helpers.graph.ops import assert_same, by_qonnx, load, model, quant_node

seeds = st.integers(0, 1 << 32)
THREADS = (1, 2, 4)


@given(
    shape=st.lists(st.integers(0, 6), min_size=2, max_size=5).map(tuple),
    layout=st.sampled_from([None, "", "NC", "NCW", "NWC", "NCHW", "NHWC", "N", "CN", "HWNC"]),
    steps=st.sampled_from([0, 1, 2, 3, 7, 15, 127, 128, 255]),
    scale=st.none() | st.sampled_from([1.0, -1.0, 0.1, 2.5, 0.0]),
    bias=st.none() | st.sampled_from([0.0, -8.0, 0.3]),
    seed=seeds,
)
def test_multithreshold(shape, layout, steps, scale, bias, seed):
    rng = np.random.default_rng(seed)
    attributes = {"out_dtype": "UINT8", "data_layout": layout, "out_scale": scale, "out_bias": bias}
    attributes = {key: value for key, value in attributes.items() if value is not None}
    node = quant_node("MultiThreshold", "x thresholds", **attributes)
    named = layout or {2: "NC", 3: "NWC", 4: "NCHW"}.get(len(shape), "")
    axis = named.index("C") if "C" in named else 1
    channels = shape[axis] if axis < len(shape) else 1
    thresholds = rng.integers(-20, 20, (1 if seed % 3 == 0 else channels, steps)) / 4
    if seed % 5:
        thresholds.sort(axis=1)
    x = np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape), rng.integers(-24, 24, shape) / 4)
    feeds = {"x": x.astype(np.float32), "thresholds": thresholds.astype(np.float32)}
    session = load(model(node), 1 + seed % 2)
    if axis >= len(shape):
        with pytest.raises(Exception, match=rf"expected 2 or more axes, and channels on axis {axis}"):
            session.run(None, feeds)
    else:
        assert_same(session.run(None, feeds)[0], by_qonnx(node, feeds), attributes)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("steps", [3, 255])
@pytest.mark.parametrize("single", [False, True], ids=["row-each", "one-row"])
def test_thresholds_of_tensors_that_threads_share(layout, steps, single):
    rng = np.random.default_rng(steps)
    x = rng.normal(size=(2, 33, 31, 35)).astype(np.float32)
    rows = 1 if single else x.shape[layout.index("C")]
    thresholds = np.sort(rng.normal(size=(rows, steps)), axis=1).astype(np.float32)
    node = quant_node("MultiThreshold", "x thresholds", data_layout=layout, out_dtype="UINT8", out_bias=-1.0)
    feeds = {"x": x, "thresholds": thresholds}
    expected = by_qonnx(node, feeds)
    assert len(np.unique(expected)) == steps + 1
    for threads in THREADS:
        assert_same(load(model(node), threads).run(None, feeds)[0], expected)


def annotated():
    """A graph that says that x is an 8 bit integer, as qonnx's Im2Col wants it."""
    dtype = [StringStringEntryProto(key="finn_datatype", value="INT8")]
    return GraphProto(quantization_annotation=[TensorAnnotation(tensor_name="x", quant_parameter_tensor_names=dtype)])


def im2col_by_qonnx(node, x):
    """qonnx's executor on one sample after the other: it mixes the samples of a batch."""
    rows = [by_qonnx(node, {"x": x[i : i + 1]}, graph=annotated()) for i in range(len(x))]
    return np.ascontiguousarray(np.concatenate(rows))


pair = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(
    kernel=pair,
    stride=pair,
    dilations=st.none() | pair,
    pads=st.none() | st.tuples(*[st.integers(0, 3)] * 4),
    value=st.integers(-8, 8),
    image=st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5)),
    seed=seeds,
)
def test_im2col(kernel, stride, dilations, pads, value, image, seed):
    attributes = {"kernel_size": kernel, "stride": stride, "dilations": dilations, "pad_amount": pads}
    attributes = {key: list(numbers) for key, numbers in attributes.items() if numbers is not None}
    attributes |= {"pad_value": value, "input_shape": str(image), "depthwise": seed % 2}
    node = quant_node("Im2Col", "x", **attributes)
    session = load(model(node), 1 + seed % 2)
    x = np.random.default_rng(seed).integers(-99, 99, image).astype(np.float32)
    pads, spread = pads or (0, 0, 0, 0), dilations or (1, 1)
    room = [image[1 + i] + pads[i] + pads[i + 2] - spread[i] * (kernel[i] - 1) - 1 for i in range(2)]
    if all(room[i] > -2 * stride[i] for i in range(2)):
        assert_same(session.run(None, {"x": x})[0], im2col_by_qonnx(node, x), attributes)
    else:
        with pytest.raises(Exception, match="shorter than the window by"):
            session.run(None, {"x": x})


def test_im2col_of_images_that_threads_share():
    node = quant_node("Im2Col", "x", kernel_size=[3, 3], stride=[1, 1], pad_amount=[1, 1, 1, 1])
    x = np.random.default_rng(0).integers(-99, 99, (2, 33, 31, 16)).astype(np.float32)
    for threads in THREADS:
        assert_same(load(model(node), threads).run(None, {"x": x})[0], im2col_by_qonnx(node, x))


def test_im2col_and_a_matrix_product_are_a_convolution():
    """An oracle for batches, where qonnx's executor mixes the samples."""
    from torch import from_numpy
    from torch.nn.functional import conv2d

    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (3, 7, 8, 4)).astype(np.float32)
    w = rng.integers(-9, 9, (5, 4, 3, 2)).astype(np.float32)
    node = quant_node("Im2Col", "x", kernel_size=[3, 2], stride=[2, 1], pad_amount=[1, 0, 1, 0])
    (rows,) = load(model(node)).run(None, {"x": x})
    got = rows @ w.transpose(2, 3, 1, 0).reshape(-1, 5)
    expected = conv2d(from_numpy(x.transpose(0, 3, 1, 2).copy()), from_numpy(w), stride=(2, 1), padding=(1, 0))
    assert np.array_equal(got, expected.numpy().transpose(0, 2, 3, 1))


@given(
    outer=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    length=st.integers(0, 200),
    columns=st.none() | st.integers(0, 6),
    seed=seeds,
)
def test_xnorpopcountmatmul(outer, length, columns, seed):
    rng = np.random.default_rng(seed)
    node = quant_node("XnorPopcountMatMul", "a b")
    feeds = {
        "a": rng.integers(0, 2, (*outer, length)).astype(np.float32),
        "b": rng.integers(0, 2, (length,) if columns is None else (length, columns)).astype(np.float32),
    }
    expected = np.asarray(by_qonnx(node, feeds), np.float32)
    assert_same(load(model(node), 1 + seed % 2).run(None, feeds)[0], expected)


def pool_by_qonnx(node, x):
    """qonnx wants the shape of the output beforehand."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    wrapped = ModelWrapper(model(node))
    wrapped.set_tensor_shape("x", x.shape)
    shape = wrapped.transform(InferShapes()).get_tensor_shape("y")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s)Output shapes disagree.*")  # of dilations it knows nothing
        return np.ascontiguousarray(by_qonnx(node, {"x": x, "y": np.zeros(shape, np.float32)}))


@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    bits=st.tuples(st.integers(1, 12), st.integers(2, 32)),
    signed=st.integers(0, 1),
    layout=st.sampled_from([None, "NCHW", "NHWC"]),
    image=st.tuples(st.integers(1, 3), st.integers(5, 12), st.integers(5, 12), st.integers(5, 9)),
    seed=seeds,
)
def test_quantavgpool2d(kernel, stride, bits, signed, layout, image, seed):
    attributes = {"kernel": kernel, "stride": stride, "ibits": bits[0], "obits": bits[1], "signed": signed}
    node = quant_node("QuantAvgPool2d", "x", **attributes, **({"data_layout": layout} if layout else {}))
    low, high = (-(2 ** (bits[0] - 1)), 2 ** (bits[0] - 1)) if signed else (0, 2 ** bits[0])
    x = np.random.default_rng(seed).integers(low, high, image).astype(np.float32)
    assert_same(load(model(node), 1 + seed % 2).run(None, {"x": x})[0], pool_by_qonnx(node, x), attributes)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_averages_of_images_that_threads_share(layout):
    node = quant_node("QuantAvgPool2d", "x", kernel=4, stride=2, ibits=8, obits=8, signed=0, data_layout=layout)
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 30, 34)).astype(np.float32)
    for threads in THREADS:
        assert_same(load(model(node), threads).run(None, {"x": x})[0], pool_by_qonnx(node, x))


@given(
    kernel=pair,
    strides=pair,
    ceil_mode=st.none() | st.integers(0, 1),
    pads=pair,
    dilations=st.none() | pair,
    image=st.tuples(st.integers(1, 3), st.integers(5, 12), st.integers(5, 12), st.integers(1, 9)),
    seed=seeds,
)
def test_maxpoolnhwc(kernel, strides, ceil_mode, pads, dilations, image, seed):
    pads = [min(pad, side) - 1 for pad, side in zip(pads, kernel, strict=True)] * 2
    attributes = {"kernel_shape": list(kernel), "strides": list(strides), "pads": pads, "ceil_mode": ceil_mode}
    attributes |= {"dilations": None if dilations is None else list(dilations)}
    attributes = {key: value for key, value in attributes.items() if value is not None}
    node = quant_node("MaxPoolNHWC", "x", **attributes)
    session = load(model(node), 1 + seed % 2)
    x = (np.random.default_rng(seed).integers(-99, 99, image) / 4).astype(np.float32) + np.float32(0)
    spread = dilations or (1, 1)
    if any(image[1 + i] + 2 * pads[i] <= spread[i] * (kernel[i] - 1) for i in range(2)):
        with pytest.raises(Exception, match="shorter than the window by"):
            session.run(None, {"x": x})
    else:
        assert_same(session.run(None, {"x": x})[0], pool_by_qonnx(node, x), attributes)


@given(
    kernel=pair,
    strides=pair,
    pads=st.tuples(pair, pair),
    dilations=pair,
    # no window is wider than the image: 1 + 4 * 3 rows
    image=st.tuples(st.integers(1, 3), st.integers(13, 15), st.integers(13, 15), st.integers(1, 9)),
    seed=seeds,
)
def test_maxpoolnhwc_with_other_padding_in_front_than_behind(kernel, strides, pads, dilations, image, seed):
    from torch import from_numpy
    from torch.nn.functional import max_pool2d, pad

    front, behind = ([min(pad, side) - 1 for pad, side in zip(end, kernel, strict=True)] for end in pads)
    steps = {"strides": list(strides), "dilations": list(dilations)}
    node = quant_node("MaxPoolNHWC", "x", kernel_shape=list(kernel), pads=[*front, *behind], **steps)
    x = (np.random.default_rng(seed).integers(-99, 99, image) / 4).astype(np.float32) + np.float32(0)
    around = (front[1], behind[1], front[0], behind[0])
    padded = pad(from_numpy(x.transpose(0, 3, 1, 2).copy()), around, value=-np.inf)
    expected = max_pool2d(padded, kernel, strides, dilation=dilations).numpy().transpose(0, 2, 3, 1)
    assert_same(load(model(node), 1 + seed % 2).run(None, {"x": x})[0], np.ascontiguousarray(expected), node)


def test_maxima_of_images_that_threads_share():
    node = quant_node("MaxPoolNHWC", "x", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0])
    x = np.random.default_rng(0).normal(size=(3, 64, 50, 16)).astype(np.float32)
    for threads in THREADS:
        assert_same(load(model(node), threads).run(None, {"x": x})[0], pool_by_qonnx(node, x))


IMAGE = np.zeros((1, 4, 4, 2), np.float32)
SOME = {"Im2Col": {"kernel_size": [2, 2], "stride": [1, 1]}, "MaxPoolNHWC": {"kernel_shape": [2, 2]}}
INPUTS = {"MultiThreshold": "x thresholds", "XnorPopcountMatMul": "a b"}


@pytest.mark.parametrize(
    ("op", "attributes", "text"),
    [
        ("MultiThreshold", {"out_scale": "much"}, "the attribute out_scale is no number"),
        ("MultiThreshold", {"out_bias": 3}, "the attribute out_bias is no number with a fraction"),
        ("MultiThreshold", {"data_layout": 3}, "the attribute data_layout is no text"),
        ("MultiThreshold", {"out_dtype": 1.0}, "the attribute out_dtype is no text"),
        ("Im2Col", {"kernel_size": None}, "the attribute kernel_size is missing or empty, expected 2 integers"),
        ("Im2Col", {"kernel_size": [3, 3, 3]}, "the attribute kernel_size has 3 integers, expected 2"),
        ("Im2Col", {"kernel_size": 3}, "the attribute kernel_size is no list of integers"),
        ("Im2Col", {"kernel_size": [0, 3]}, "the attribute kernel_size holds 0, expected 1 to"),
        ("Im2Col", {"stride": [1, -1]}, "the attribute stride holds -1, expected 1 to"),
        ("Im2Col", {"stride": [1 << 62, 1]}, "the attribute stride holds 4611686018427387904, expected 1 to 1048576"),
        ("Im2Col", {"pad_amount": [0, -1, 0, 0]}, "the attribute pad_amount holds -1, expected 0 to"),
        ("Im2Col", {"pad_amount": [1, 1]}, "the attribute pad_amount has 2 integers, expected 4"),
        ("Im2Col", {"dilations": [0, 1]}, "the attribute dilations holds 0, expected 1 to"),
        ("Im2Col", {"depthwise": 2}, "the attribute depthwise holds 2, expected 0 to 1"),
        ("Im2Col", {"pad_value": 0.5}, "the attribute pad_value is no integer"),
        ("QuantAvgPool2d", {"kernel": 0}, "the attribute kernel holds 0, expected 1 to"),
        ("QuantAvgPool2d", {"kernel": [2, 2]}, "the attribute kernel is no integer"),
        ("QuantAvgPool2d", {"stride": -2}, "the attribute stride holds -2, expected 1 to"),
        ("QuantAvgPool2d", {"ibits": -4}, "the attribute ibits holds -4, expected 1 to 32"),
        ("QuantAvgPool2d", {"obits": 33}, "the attribute obits holds 33, expected 1 to 32"),
        ("QuantAvgPool2d", {"signed": 2}, "the attribute signed holds 2, expected 0 to 1"),
        ("QuantAvgPool2d", {"data_layout": "NC"}, "the attribute data_layout is 'NC', expected NCHW or NHWC"),
        ("MaxPoolNHWC", {"kernel_shape": [2]}, "the attribute kernel_shape has 1 integers, expected 2"),
        ("MaxPoolNHWC", {"pads": [2, 0, 0, 0]}, "the attribute pads holds 2, expected less than the kernel's 2"),
        ("MaxPoolNHWC", {"strides": [0, 1]}, "the attribute strides holds 0, expected 1 to"),
        ("MaxPoolNHWC", {"ceil_mode": 2}, "the attribute ceil_mode holds 2, expected 0 to 1"),
        ("MaxPoolNHWC", {"auto_pad": "SAME_UPPER"}, "the attribute auto_pad is 'SAME_UPPER', expected NOTSET"),
    ],
)
def test_attributes_that_nobody_can_execute(op, attributes, text):
    given = {key: value for key, value in (SOME.get(op, {}) | attributes).items() if value is not None}
    with pytest.raises(Exception, match=f"(?s){op}.*the node.*{text}"):
        load(model(quant_node(op, INPUTS.get(op, "x"), **given)))


@pytest.mark.parametrize(
    ("op", "feeds", "text"),
    [
        (
            "MultiThreshold",
            {"x": IMAGE, "thresholds": np.zeros((2, 3))},
            r"\(2, 3\), expected one row, or one for each of 4",
        ),
        (
            "MultiThreshold",
            {"x": IMAGE, "thresholds": np.zeros(3)},
            r"the thresholds have shape \(3\), expected one row",
        ),
        (
            "MultiThreshold",
            {"x": np.zeros(4), "thresholds": np.zeros((1, 3))},
            r"X has shape \(4\), expected 2 or more",
        ),
        ("Im2Col", {"x": np.zeros((4, 4))}, r"X has shape \(4, 4\), expected \(N, H, W, C\)"),
        ("QuantAvgPool2d", {"x": np.zeros((4, 4))}, r"X has shape \(4, 4\), expected \(N, C, H, W\)"),
        ("MaxPoolNHWC", {"x": np.zeros((4, 4))}, r"X has shape \(4, 4\), expected \(N, H, W, C\)"),
        (
            "XnorPopcountMatMul",
            {"a": np.zeros((2, 3)), "b": np.zeros((2, 3))},
            r"\(2, 3\) and \(2, 3\), expected \(..., K\)",
        ),
        (
            "XnorPopcountMatMul",
            {"a": np.full((2, 3), 0.5), "b": np.zeros((3, 3))},
            "the first input holds other values than 0 and 1",
        ),
        (
            "XnorPopcountMatMul",
            {"a": np.zeros((2, 3)), "b": -np.ones((3, 3))},
            "the second input holds other values than 0 and 1",
        ),
    ],
)
def test_inputs_that_do_not_fit(op, feeds, text):
    session = load(model(quant_node(op, INPUTS.get(op, "x"), **SOME.get(op, {}))))
    with pytest.raises(Exception, match=f"(?s){op}.*the node.*{text}"):
        session.run(None, {key: value.astype(np.float32) for key, value in feeds.items()})


def test_windows_of_more_values_than_there_can_be():
    node = quant_node("Im2Col", "x", kernel_size=[1 << 20, 1 << 20], stride=[1, 1], pad_amount=[1 << 20] * 4)
    with pytest.raises(Exception, match=r"(?s)Im2Col.*the node.*expected less than 2\^63 values"):
        load(model(node)).run(None, {"x": IMAGE})
