"""Which layers of a graph add up integers, by the smallest graphs that have one: two quantizers and a layer."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn

from hwfault.codes import CodeFormat, decode, encode
from hwfault.graph.export.of_network import export
from hwfault.graph.read.grids import IntegerGrid
from hwfault.graph.read.qonnxgraph import SITE, set_metadata
from hwfault.graph.read.sites import graph_sites, sites
from hwfault.network.sites import sites as network_sites
from tests.helpers.graph.networks import Chain, batch, signed
from tests.helpers.graph.ops import QONNX

SUMS = "layer.accumulator"
SQUARE = np.arange(-8, 8, dtype=np.float32).reshape(4, 4) / 8


def quant(inputs: str, output: str):
    return helper.make_node("Quant", inputs.split(), [output], name=output, domain=QONNX, signed=1, narrow=0)


def layer(op: str = "MatMul", inputs: str = "xq wq", output: str = "y", **attributes):
    """A layer that says which accumulator it is, as those of an export do."""
    node = helper.make_node(op, inputs.split(), [output], name=output, **attributes)
    set_metadata(node, {SITE: SUMS})
    return node


def graph(*nodes, **constants) -> ModelProto:
    """x (batch, 4) and the constant w (4, 4) through quantizers of 4 bits, and then the nodes, the last of which makes
    an output; constants take the place of those of the same name.
    """
    held = {"w": SQUARE, "x_scale": 0.5, "w_scale": 0.125, "zero": 0.0, "bits": 4.0} | constants
    both = [quant("x x_scale zero bits", "xq"), quant("w w_scale zero bits", "wq")]
    initializers = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in held.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    made = helper.make_graph([*both, *nodes], "sums", [x], outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def why_not(model: ModelProto) -> str | None:
    """Why the layer is no site; None if it is one."""
    found = sites(model)
    assert (SUMS in found.obstacles) != (SUMS in [site.name for site in found])
    return str(found.obstacles[SUMS]) if SUMS in found.obstacles else None


@pytest.mark.parametrize(
    ("op", "attributes", "scale"),
    [("MatMul", {}, (1, 4)), ("Gemm", {}, (1, 4)), ("Gemm", {"transB": 1, "alpha": 1.0, "beta": 1.0}, (4, 1))],
)
def test_scales_lie_along_the_outputs(op, attributes, scale):
    """Of square weights, whose shape does not tell; a matrix product has the outputs on its last axis."""
    assert why_not(graph(layer(op, **attributes))) is None
    along_outputs = np.array([0.125, 0.25, 0.5, 1.0]).reshape(scale)
    assert why_not(graph(layer(op, **attributes), w_scale=along_outputs)) is None
    along_inputs = why_not(graph(layer(op, **attributes), w_scale=along_outputs.T))
    assert "expected one value for all, or for each output" in along_inputs
    of_the_inputs = why_not(graph(layer(op, **attributes), x_scale=np.full((1, 4), 0.5)))
    assert "a scale for each channel" in of_the_inputs


@pytest.mark.parametrize("attribute", [{"alpha": 0.5}, {"beta": 0.5}, {"transA": 1}])
def test_products_that_scale_or_transpose(attribute):
    model = graph(layer("Gemm", "xq wq bias", **attribute), bias=np.zeros(4))
    assert "(alpha, beta) or transposes its inputs (transA)" in why_not(model)
    assert why_not(graph(layer("Gemm", "xq wq bias"), bias=np.zeros(4))) is None


@pytest.mark.parametrize("zero", [-8, -3, 0, 7])
def test_accumulators_are_as_wide_as_the_largest_sum_of_any_codes(zero):
    """Zero points are taken off before integers of 4 bits are added up, of inputs and of weights."""
    model = graph(layer(), zero=float(zero))
    (width,) = [site.bit_width for site in sites(model) if site.name == SUMS]
    largest = 4 * max(abs(code - zero) for code in range(-8, 8)) ** 2
    assert largest < 1 << width - 1


@pytest.mark.parametrize(
    ("scale", "zero", "bits", "signed"),
    [(1.0, 100.5, 24, True), (1.0, 0.0, 24, True), (0.3, 0.0, 24, True), (1.0, 0.25, 20, False), (0.5, 0.0, 25, True)],
)
def test_grids_whose_codes_come_back_are_told(scale, zero, bits, signed):
    """Each code, as a float32 value, is read as itself: tried at the ends of the range and in the middle."""
    grid = IntegerGrid(np.float32([scale]), np.float32([zero]), bits, signed)
    fmt, ends = CodeFormat(bits, signed), np.arange(3000)
    q = np.concatenate([fmt.low + ends, fmt.high - ends, ends])
    codes = (q & fmt.mask).astype(np.uint32)
    again = encode(decode(codes, grid.scale, grid.zero_point, fmt), grid.scale, grid.zero_point, fmt)
    assert grid.comes_back() <= np.array_equal(again, codes)


def runs(model: ModelProto) -> dict[str, tuple[str | None, tuple[int, ...] | None]]:
    """Source and shape of each run of the layer, by its name."""
    return {site.name: (site.source, site.shape) for site in sites(model) if site.name.startswith(SUMS)}


@pytest.mark.parametrize("source", ["xq", "yq"])
def test_a_layer_that_runs_on_the_integers_of_two_quantizers(source):
    """Each run is a site of its own, with the quantizer whose integers it adds up."""
    again = [quant("y y_scale zero bits", "yq"), layer(inputs=f"{source} wq", output="z")]
    both = helper.make_node("Add", ["y", "z"], ["out"])
    found = runs(graph(layer(), *again, both, y_scale=2.0))
    assert {name: run[0] for name, run in found.items()} == {SUMS: "xq", f"{SUMS}#1": source}


@pytest.mark.parametrize("rows", [0, 1])
def test_a_layer_that_runs_on_other_shapes(rows):
    pad = helper.make_node("Pad", ["xr", "rows"], ["xp"], mode="constant")
    spread = helper.make_node("Unsqueeze", ["xq", "axis"], ["xr"])
    first, second = layer(inputs="xr wq"), layer(inputs="xp wq", output="z")
    model = graph(spread, first, pad, second)
    constants = {"axis": [1], "rows": [0, 0, 0, 0, rows, 0]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items())
    assert runs(model) == {SUMS: ("xq", (1, 4)), f"{SUMS}#1": ("xq", (1 + rows, 4))}


@pytest.mark.parametrize(
    ("value", "mode", "integers"),
    [(None, "constant", True), (0.0, "constant", True), (0.5, "constant", False), (0.5, "reflect", True)],
)
def test_a_layer_behind_padding(value, mode, integers):
    """What is padded with 0, or with the tensor's own integers, holds integers; with another constant it does not."""
    inputs = ["xq", "around", *([] if value is None else ["value"])]
    model = graph(helper.make_node("Pad", inputs, ["xp"], mode=mode), layer(inputs="xp w6q"), value=value or 0.0)
    held = {"around": np.array([0, 1, 0, 1]), "w6": np.ones((6, 4), np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in held.items())
    model.graph.node.insert(2, quant("w6 w_scale zero bits", "w6q"))
    found = why_not(model)
    assert found is None if integers else found == "its inputs are on the grid of no single quantizer"


UNSQUEEZED = helper.make_node("Unsqueeze", ["xq", "two"], ["x3"])
MOVED = {
    "elements": [helper.make_node("GatherElements", ["xq", "row"], ["xm"], axis=1)],
    "elements of all axes": [helper.make_node("GatherND", ["xq", "columns"], ["xm"], batch_dims=1)],
    "some elements": [helper.make_node("Compress", ["xq", "which"], ["xm"], axis=1)],
    "the largest": [UNSQUEEZED, helper.make_node("ReduceMax", ["x3"], ["xm"], axes=[2], keepdims=0)],
    "the smallest": [UNSQUEEZED, helper.make_node("ReduceMin", ["x3"], ["xm"], axes=[2], keepdims=0)],
    "a marked tensor": [helper.make_node("DebugMarker", ["xq"], ["xm"], domain=QONNX, export_debug_name="here")],
}


@pytest.mark.parametrize("how", MOVED)
def test_a_layer_behind_what_moves_or_picks_integers(how):
    model = graph(*MOVED[how], layer(inputs="xm wq"))
    held = {"row": [[3, 2, 1, 0]], "columns": [[[0], [1], [2], [3]]], "which": [True] * 4, "two": [2]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(values), name) for name, values in held.items())
    assert runs(model) == {SUMS: ("xq", (4,))}


@pytest.mark.parametrize("value", [0, 1])
def test_a_layer_on_windows_that_are_padded(value):
    """Im2Col pads with a number of its node's; of a grid only 0 is sure to be a code."""
    attributes = {"stride": [1, 1], "kernel_size": [1, 1], "input_shape": "", "pad_amount": [0, 1, 0, 1]}
    nodes = [
        helper.make_node("Reshape", ["xq", "image"], ["x4"]),
        helper.make_node("Im2Col", ["x4"], ["xm"], domain=QONNX, pad_value=value, **attributes),
        layer(inputs="xm wq"),
    ]
    model = graph(*nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1, 1, 4]), "image"))
    assert why_not(model) == ("its inputs are on the grid of no single quantizer" if value else None)


SIGNED_AS_BEFORE = {
    "mean": helper.make_node("ReduceMean", ["xq"], ["xm"], axes=[1]),
    "sum": helper.make_node("ReduceSum", ["xq", "columns"], ["xm"]),
    "rectified": helper.make_node("Relu", ["xq"], ["xm"]),
}


@pytest.mark.parametrize("how", SIGNED_AS_BEFORE)
@pytest.mark.parametrize("signed", [0, 1])
def test_a_truncation_has_the_sign_of_what_was_added_up_before_it(how, signed):
    """In version 1, which does not say it."""
    truncated = helper.make_node("Trunc", ["xm", "x_scale", "zero", "eight", "bits"], ["y"], name="y", domain=QONNX)
    model = graph(SIGNED_AS_BEFORE[how], truncated, eight=8.0)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "columns"))
    next(a for a in model.graph.node[0].attribute if a.name == "signed").i = signed
    assert {site.name: site.signed for site in sites(model)}["y"] == bool(signed)


def network_of(weights, acts):
    """Layers of so many bits, whose sums are narrow or wide; no quantizer lies right before the last."""
    return Chain(
        signed(acts),
        qnn.QuantConv2d(2, 4, 3, bias=False, weight_bit_width=weights),
        nn.AvgPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(16, 5, bias=False, weight_bit_width=weights),
    ).eval()


@pytest.mark.every(2)
@pytest.mark.parametrize(("weights", "acts", "wide"), [(4, 8, False), (8, 16, False), (16, 16, True)])
def test_networks_and_graphs_say_the_same(weights, acts, wide):
    torch.manual_seed(0)
    model = network_of(weights, acts)
    listed, found = network_sites(model, batch("mlp")), graph_sites(export(model, batch("mlp")))
    mine = {s.name: s for s in listed if s.kind == "accumulator"}
    theirs = {entry.site.name: entry.site for entry in found.sums}
    assert mine.keys() == theirs.keys() == (set() if wide else {"1.accumulator"})
    for name, ours in mine.items():
        assert ours.model_copy(update={"layer": "Conv"}) == theirs[name]
    if wide:
        told = "its largest sum needs 36 bits, expected at most 32"
        assert listed.obstacles["1.accumulator"] == found.obstacles["1.accumulator"] == told
