"""ONNX' own integers in graphs by hand: widths, names, layouts, and which tensor is the site."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.ops import FAULT_OPS
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips, ProfileFaults
from hwfault.plan.fault_plan import resolve

S = np.float32(0.5)


def graph(*nodes, opset=21, **constants):
    """x (n, 4) -> `nodes` -> y, with a scale s, and domains for all."""
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in ({"s": S} | constants).items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(list(nodes), "g", [x], [y], held), opset_imports=opsets, ir_version=10)


def node(op, inputs, outputs, name="", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name or op, **attributes)


def quantized(source="x", made="q"):
    return node("QuantizeLinear", f"{source} s z", made, f"{made}_of_{source}")


def clipped(low, high, dtype):
    return graph(
        quantized(),
        node("Clip", "q low high", "c"),
        node("DequantizeLinear", "c s z", "y"),
        **{"z": dtype(0), "low": dtype(low), "high": dtype(high)},
    )


@pytest.mark.parametrize(
    ("low", "high", "dtype", "bits"),
    [(-8, 7, np.int8, 4), (-7, 7, np.int8, 4), (0, 15, np.uint8, 4), (-128, 127, np.int8, 8), (0, 1, np.uint8, 1)],
)
def test_a_clip_behind_a_quantizer_tells_the_width(low, high, dtype, bits):
    (site,) = sites(clipped(low, high, dtype))
    assert (site.bit_width, site.signed, site.layer) == (bits, dtype is np.int8, "Clip")


@pytest.mark.parametrize(("ends", "dtype", "bits"), [("x high", np.uint8, 4), ("low x", np.int8, 8), ("x", np.int8, 8)])
def test_an_end_that_a_clip_leaves_out_is_that_of_the_type(ends, dtype, bits):
    """PyTorch writes the upper end alone."""
    names = ["" if name == "x" else name for name in ends.split()]
    clip = helper.make_node("Clip", ["q", *names], ["c"], "Clip")
    model = graph(quantized(), clip, node("DequantizeLinear", "c s z", "y"), z=dtype(0), low=dtype(3), high=dtype(15))
    (site,) = sites(model)
    assert site.bit_width == bits


def test_weights_quantized_and_clipped_in_the_graph_are_one_site():
    model = graph(
        node("QuantizeLinear", "w s z", "wq", "wq"),
        node("Clip", "wq low high", "wc", "wc"),
        node("DequantizeLinear", "wc s z", "b"),
        node("MatMul", "x b", "y"),
        w=np.ones((4, 3), np.float32),
        **{"z": np.int8(0), "low": np.int8(-7), "high": np.int8(7)},
    )
    found = sites(model)
    assert [(site.name, site.kind, site.bit_width) for site in found] == [("wq", "weight", 4)]
    assert list(found.obstacles) == ["MatMul.accumulator"]  # of x, which nothing quantizes


@pytest.mark.parametrize(("kind", "known"), [(TensorProto.INT8, 1), (TensorProto.INT32, 1), (TensorProto.UINT8, 0)])
def test_a_cast_that_keeps_all_codes_hands_on_what_they_are_worth(kind, known):
    """PyTorch writes one to the same type between two nodes; without it the accumulator is found, as with it."""
    zero = np.zeros((), helper.tensor_dtype_to_np_dtype(kind))
    model = graph(
        quantized(),
        node("Cast", "q", "cast", to=kind),
        node("DequantizeLinear", "cast s zero", "a"),
        node("DequantizeLinear", "w s z", "b", "reads_w"),
        node("MatMul", "a b", "y", "layer"),
        z=np.int8(0),
        zero=zero,
        w=np.ones((4, 3), np.int8),
    )
    found = sites(model)
    assert len([site for site in found if site.kind == "accumulator"]) == known
    assert ("layer.accumulator" in found.obstacles) != known


def test_a_clip_beside_another_reader_leaves_the_site_where_it_is():
    model = clipped(-8, 7, np.int8)
    model.graph.node.append(node("DequantizeLinear", "q s z", "other"))
    (site,) = sites(model)
    assert (site.bit_width, site.layer) == (8, "QuantizeLinear")


def test_a_constant_that_several_read_is_one_site():
    model = graph(
        node("DequantizeLinear", "w s", "a"),
        node("DequantizeLinear", "w s2", "b"),
        node("MatMul", "x a", "m"),
        node("MatMul", "m b", "y"),
        w=np.ones((4, 4), np.int8),
        s2=np.float32(2),
    )
    assert [site.name for site in sites(model)] == ["w"]


def test_weights_of_products_are_numbered_by_outputs():
    """QLinearMatMul reads them in its input 3, as (inputs, outputs)."""
    model = graph(
        quantized(),
        node("QLinearMatMul", "q s z w s z s z", "p_quantized"),
        node("DequantizeLinear", "p_quantized s z", "y"),
        z=np.int8(0),
        w=np.ones((4, 3), np.int8),
    )
    found = {site.name: site for site in sites(model)}
    assert {name: site.shape for name, site in found.items()} == {"q_of_x": (4,), "w": (3, 4), "p": (3,)}
    assert found["w"].layer == "QLinearMatMul"


def test_values_of_qgemm_are_no_integers():
    model = graph(
        quantized(),
        node("QGemm", "q s z w s z b", "y", domain="com.microsoft"),
        z=np.int8(0),
        w=np.ones((4, 3), np.int8),
        b=np.ones(3, np.int32),
    )
    assert {site.name: site.bit_width for site in sites(model)} == {"q_of_x": 8, "w": 8, "b": 32}


@pytest.mark.parametrize("blocked", [False, True])
def test_weights_by_channel_and_block(blocked):
    """Of blocks the sums are worth several numbers: the weights are a site, the accumulator is none."""
    scale = np.full((2, 3) if blocked else 3, 0.25, np.float32)
    attributes = {"axis": 0, "block_size": 2} if blocked else {"axis": 1}
    model = graph(
        quantized(),
        node("DequantizeLinear", "q s z", "a"),
        node("DequantizeLinear", "w scale", "b", "reads_w", **attributes),
        node("MatMul", "a b", "y", "layer"),
        z=np.int8(3),
        w=np.arange(12, dtype=np.int8).reshape(4, 3),
        scale=scale,
    )
    found = sites(model)
    names = {site.name for site in found}
    assert names == ({"q_of_x", "w"} if blocked else {"q_of_x", "w", "layer.accumulator"})
    assert ("layer.accumulator" in found.obstacles) == blocked
    struck = insert_faults(model, resolve(found, [BitFlips(probability=0.2, sites="w")]))
    x = np.ones((1, 4), np.float32)
    assert not np.array_equal(run(session(struck), x, seed=1)[0], run(session(model), x)[0])


def narrow_activation(reader):
    z = helper.make_tensor("z", TensorProto.UINT4, [], [0])
    model = graph(quantized(), *reader)
    model.graph.initializer.append(z)
    return model


def test_activations_of_4_bits_are_refused_and_may_be_written_with_a_clip():
    told = sites(narrow_activation([node("DequantizeLinear", "q s z", "y")])).obstacles["q_of_x"]
    assert "onnxruntime hands such to ops of others from 1.20 on, but hwfault's have no operand of them" in told
    wide, x = clipped(0, 15, np.uint8), np.array([[-1, 2, 7.5, 9]], np.float32)
    narrow = run(session(narrow_activation([node("DequantizeLinear", "q s z", "y")])), x)[0]
    np.testing.assert_array_equal(narrow, run(session(wide), x)[0])
    plan = resolve(sites(wide), [BitFlips(probability=0.5)])
    struck = run(session(insert_faults(wide, plan)), x, seed=1)[0]
    assert (struck != narrow).any()
    assert struck.min() >= 0
    assert struck.max() <= 15 * S


def test_layers_called_as_what_they_make_have_accumulators():
    """onnxruntime takes no name of a node twice, and its quantizer calls layers so."""
    model = graph(
        quantized(),
        node("DequantizeLinear", "q s z", "a"),
        node("DequantizeLinear", "w s z", "b", "reads_w"),
        node("DequantizeLinear", "bias bs", "c", "reads_bias"),
        node("Gemm", "a b c", "y", "y"),
        z=np.int8(0),
        w=np.eye(4, dtype=np.int8) * 3,
        bias=np.arange(4, dtype=np.int32),
        bs=S * S,
    )
    plan = resolve(sites(model), [BitFlips(probability=0.3, sites="y.accumulator")])
    struck = insert_faults(model, plan)
    names = [made.name for made in struck.graph.node]
    assert len(set(names)) == len(names)
    x = np.full((1, 4), 2, np.float32)
    assert not np.array_equal(run(session(struck), x, seed=1)[0], run(session(model), x)[0])


def test_weights_in_a_constant_node_carry_their_plan():
    """PyTorch's TorchScript exporter keeps the weights of its quantized modules there."""
    weights = numpy_helper.from_array(np.arange(12, dtype=np.int8).reshape(4, 3))
    model = graph(
        helper.make_node("Constant", [], ["w"], "held", value=weights),
        node("DequantizeLinear", "w s", "b", "reads_w"),
        node("MatMul", "x b", "y", "layer"),
    )
    plan = resolve(sites(model), [BitFlips(probability=0.2)])
    assert plan_of(insert_faults(model, plan)) == plan


def test_several_kinds_of_faults_strike_words_of_32_bits():
    """Integers hold every code from one node to the next, which float32 does not."""
    model = graph(
        node("DequantizeLinear", "bias bs", "b"),
        node("Add", "x b", "y"),
        bias=np.arange(4, dtype=np.int32),
        bs=np.float32(0.001),
    )
    stuck = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0}, sites="*")
    plan = resolve(sites(model), [BitFlips(probability=0.1), stuck], device=1)
    struck = insert_faults(model, plan)
    assert sum(made.op_type in FAULT_OPS for made in struck.graph.node) == 2
    assert plan_of(struck) == plan
