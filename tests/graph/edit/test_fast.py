"""Graphs that are only run: the same faults, and the same values where no order of rounding changes."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, helper
from onnx.numpy_helper import from_array, to_array
from torch import nn

from hwfault.errors import GraphError
from hwfault.graph.edit.fast import only_to_run
from hwfault.graph.edit.fold import keeps_codes
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.run.session import run, run_without_inputs, session
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train import networks
from hwfault.train.networks import FixedPointWeight
from tests.benchmarks.cnv import cnv
from tests.helpers.graph.networks import Chain, signed
from tests.helpers.injection.oracle import Seen
from tests.slowly import slow

FAULTS = {
    "transient": BitFlips(probability=0.02),
    "permanent": ProfileFaults(profile="bram28-kintex7-kc705b-undervolt", at={"voltage_v": 0.53}),
}


def faulted(name: str, fault: str = "transient", gain: float = 1.5) -> tuple[ModelProto, np.ndarray]:
    """A network with faults and gains that are no powers of two, and a batch for it."""
    torch.manual_seed(0)
    shape = (1, 8, 8) if name == "digits_cnn" else (3, 32, 32)
    x = torch.rand(3, *shape)
    bits = {} if name == "digits_cnn" else {"weight_bits": 4, "act_bits": 4}
    model = cnv() if name == "normalized" else networks.build(name, **bits)
    model(x)
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.copy_(torch.linspace(-gain, gain, len(norm.weight)) + 0.01)
            norm.bias.uniform_(-0.1, 0.1)
    plan = resolve(sites(model.eval()), [FAULTS[fault]], device=3)
    return export(model, x[:1], plan=plan), x.numpy()


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("seed", [None, 7])
def test_the_same_values_without_normalization(fault, seed):
    graph, x = faulted("digits_cnn", fault)
    usual, quick = session(graph, threads=1), session(graph, threads=1, fast=True, seed=seed)
    (expected,), (found,) = run(usual, x, seed=7), run(quick, x, seed=7)
    assert np.array_equal(expected, found)
    (clean,) = run(usual, x, seed=8) if fault == "transient" else (np.zeros_like(found),)
    assert not np.array_equal(clean, found)


def weight_codes(graph: ModelProto) -> dict[str, np.ndarray]:
    """The integers of all faulty weights, by their site."""
    model = ModelProto()
    model.CopyFrom(graph)
    nodes = [n for n in model.graph.node if n.domain == "hwfault" and n.output[0].find("weight") >= 0]
    struck = {node.output[0]: node.input[1] for node in nodes}
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in struck)
    feeds = {
        info.name: np.zeros([1, 3, 32, 32], np.float32) for info in model.graph.input if info.name[:7] != "hwfault"
    }
    values = run(session(model, threads=1), feeds, seed=7)
    return {
        name: np.rint(value / to_array(scales[scale]))
        for (name, scale), value in zip(struck.items(), values, strict=True)
    }


def test_folded_weights_have_the_same_faulty_codes():
    graph, _ = faulted("normalized")
    quick = only_to_run(graph, run_without_inputs)
    before, after = weight_codes(graph), weight_codes(quick)
    assert before.keys() == after.keys()
    assert len(before) == 9
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert sum(node.op_type == "BatchNormalization" for node in quick.graph.node) == 2


@pytest.mark.parametrize("seed", [slow(None), slow(7)])
def test_a_deep_network_predicts_alike(seed):
    graph, x = faulted("resnet20", gain=0.5)
    usual, quick = session(graph, threads=1), session(graph, threads=1, fast=True, seed=seed)
    (expected,), (found,) = run(usual, x, seed=7), run(quick, x, seed=7)
    assert np.array_equal(expected.argmax(1), found.argmax(1))


def test_what_is_known_is_computed_and_the_given_graph_stays():
    graph, _ = faulted("normalized")
    before = graph.SerializeToString()
    one = only_to_run(graph, run_without_inputs, 7)
    assert graph.SerializeToString() == before
    for node in one.graph.node:
        if node.op_type in ("Quant", "TransientFaults"):
            assert node.input[0] not in {tensor.name for tensor in one.graph.initializer}
    assert sum(node.op_type == "TransientFaults" for node in one.graph.node) == 9
    assert sum(node.op_type == "TransientFaults" for node in graph.graph.node) == 18


def normalized(bits: int = 4) -> tuple[nn.Module, torch.Tensor]:
    """A convolution with a bias before its BatchNorm; all numbers are short fractions, so that no order rounds."""
    weights = {"weight_quant": FixedPointWeight, "weight_bit_width": bits}
    model = Chain(signed(4), qnn.QuantConv2d(2, 3, 3, bias=True, **weights), nn.BatchNorm2d(3, eps=0.25)).eval()
    conv, norm = model[1], model[2]
    with torch.no_grad():
        conv.weight.copy_(torch.linspace(-0.75, 0.75, 54).reshape(3, 2, 3, 3))
        conv.bias.copy_(torch.tensor([0.5, -1.75, 3.0]))
        norm.weight.copy_(torch.tensor([4.0, -2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.25, 0.5, -1.0]))
        norm.running_mean.copy_(torch.tensor([0.5, -0.25, 1.0]))
        norm.running_var.fill_(0.75)  # with eps 1, whose root is exact
    return model, torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_bias_before_a_normalization_is_multiplied_too():
    model, x = normalized()
    seen = Seen()
    plan = resolve(sites(model), [BitFlips(probability=0.05)])
    graph = export(model, x[:1], plan=plan)
    quick = only_to_run(graph, run_without_inputs)
    assert not any(node.op_type == "BatchNormalization" for node in quick.graph.node)
    with torch.no_grad(), inject(model, plan, seed=7, observe=seen):
        model(x)
    conv, norm = model[1], model[2]
    # y = (conv(x) + bias - mean) gain + beta, from the faulty inputs and weights
    sums = nn.functional.conv2d(*(seen.after[name].double() for name in ("0.act_quant", "1.weight_quant")))
    per_channel = [t.detach().double()[:, None, None] for t in (conv.bias, norm.running_mean, norm.weight, norm.bias)]
    bias, mean, gain, beta = per_channel
    expected = ((sums + bias - mean) * gain + beta).float().numpy()
    for one in (session(graph, threads=1), session(graph, threads=1, fast=True)):
        assert np.array_equal(run(one, x.numpy(), seed=7)[0], expected)


@pytest.mark.parametrize(("bits", "folded"), [(16, True), (28, False)])
def test_weights_of_more_bits_than_a_float32_are_not_folded(bits, folded):
    """Their faults put integers that a gain rounds otherwise, though the integers before them stay what they were."""
    model, x = normalized(bits)
    with torch.no_grad():
        # integers of 25 bits that a float32 holds, since they are even
        model[1].weight.copy_(torch.full_like(model[1].weight, -0.75))
    graph = export(model, x[:1], plan=resolve(sites(model), [BitFlips(probability=0.05, sites="1.weight_quant")]))
    kept = sum(node.op_type == "BatchNormalization" for node in only_to_run(graph, run_without_inputs).graph.node)
    assert kept == (0 if folded else 1)


def test_weights_that_another_layer_reads_too_keep_their_gain():
    model, x = normalized()
    graph = export(model, x[:1], plan=resolve(sites(model), [BitFlips(probability=0.05)]))
    (conv,) = (node for node in graph.graph.node if node.op_type == "Conv")
    plain = helper.make_node("Conv", conv.input[:2], ["plain"], name="plain")
    plain.attribute.extend(conv.attribute)
    graph.graph.node.append(plain)
    graph.graph.output.append(helper.make_empty_tensor_value_info("plain"))
    usual, quick = (run(session(graph, threads=1, fast=fast), x.numpy(), seed=7) for fast in (False, True))
    for expected, found in zip(usual, quick, strict=True):
        assert np.array_equal(expected, found)


def test_a_gain_of_zero_is_not_folded():
    graph, _ = faulted("normalized")
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.graph.initializer if tensor.dims}
    for node in graph.graph.node:
        if node.op_type == "BatchNormalization":
            node.input[1] = f"{node.name}.no_gain"
            graph.graph.initializer.append(from_array(np.zeros(sizes[node.input[3]], np.float32), node.input[1]))
    norms = [node.output[0] for node in graph.graph.node if node.op_type == "BatchNormalization"]
    assert norms
    assert [
        n.output[0] for n in only_to_run(graph, run_without_inputs).graph.node if n.op_type == "BatchNormalization"
    ] == norms


def branching(read):
    """x (n, 6) -> Quant -> MatMul with a quantized weight, and a branch that reads `read` beside it."""
    inputs = {"x": "a", "weight": "w", "alone": "v", "only here": "offset", "raw": "W"}[read]
    branch = [helper.make_node("ReduceSum", [inputs], ["o"], keepdims=0)]
    other = [helper.make_node("Neg", ["o"], ["negated"])]
    out = [helper.make_empty_tensor_value_info(name) for name in ("o", "negated")]
    then, otherwise = (
        helper.make_graph([*branch, *rest], name, [], [info])
        for rest, name, info in (([], "then", out[0]), (other, "else", out[1]))
    )
    quant = {"domain": "qonnx.custom_op.general", "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    nodes = [
        helper.make_node("Quant", ["x", "scale", "zero", "bits"], ["a"], name="x_quant", **quant),
        helper.make_node("Quant", ["W", "scale", "zero", "bits"], ["w"], name="w_quant", **quant),
        helper.make_node("Quant", ["W", "scale", "zero", "bits"], ["v"], name="v_quant", **quant),
        helper.make_node("If", ["yes"], ["more"], then_branch=then, else_branch=otherwise),
        helper.make_node("MatMul", ["a", "w"], ["product"]),
        helper.make_node("Add", ["product", "more"], ["y"]),
    ]
    held = {"scale": 0.5, "zero": 0, "bits": 4, "offset": [3, 4], "W": np.linspace(-3, 3, 18).reshape(6, 3)}
    constants = [from_array(np.asarray(value, np.float32), name) for name, value in held.items()]
    x = helper.make_tensor_value_info("x", 1, ["batch", 6])
    y = helper.make_tensor_value_info("y", 1, ["batch", 3])
    graph = helper.make_graph(nodes, "branching", [x], [y], [*constants, from_array(np.array(True), "yes")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("faults", [False, True])
@pytest.mark.parametrize("read", ["x", "weight", "alone", "only here", "raw"])
def test_what_only_a_branch_reads_stays(read, faults):
    graph, x = branching(read), np.linspace(-2, 2, 24, dtype=np.float32).reshape(4, 6)
    if faults:
        graph = insert_faults(graph, resolve(graph_sites(graph), [BitFlips(probability=0.1)]))
    expected, found = (run(session(graph, fast=fast), x, seed=3)[0] for fast in (False, True))
    assert np.array_equal(expected, found)
    quantized = [np.clip(np.rint(v * 2), -8, 7) / 2 for v in (x, np.linspace(-3, 3, 18).reshape(6, 3))]
    more = {
        "x": quantized[0].sum(),
        "weight": quantized[1].sum(),
        "alone": quantized[1].sum(),
        "only here": 7,
        "raw": 0,
    }[read]
    assert np.allclose(expected, quantized[0] @ quantized[1] + more, atol=1e-5) == (not faults)


def test_a_layer_that_a_branch_reads_keeps_its_normalization():
    """What is folded into a layer would reach the branch, too."""
    weights = np.linspace(-1, 1, 4).reshape(2, 2, 1, 1)
    branch = helper.make_graph(
        [helper.make_node("Identity", ["sums"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")]
    )
    quant = {"domain": "qonnx.custom_op.general", "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    norm = ["gain", "shift", "mean", "variance"]
    nodes = [
        helper.make_node("Quant", ["W", "scale", "zero", "bits"], ["w"], name="w_quant", **quant),
        helper.make_node("Conv", ["x", "w"], ["sums"]),
        helper.make_node("BatchNormalization", ["sums", *norm], ["normal"]),
        helper.make_node("If", ["yes"], ["same"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["normal", "same"], ["y"]),
    ]
    held = {"scale": 0.25, "zero": 0, "bits": 4, "W": weights} | {name: [2, 3] for name in norm}
    constants = [from_array(np.asarray(value, np.float32), name) for name, value in held.items()]
    x, y = (helper.make_tensor_value_info(name, 1, ["batch", 2, 3, 3]) for name in "xy")
    graph = helper.make_graph(nodes, "norm", [x], [y], [*constants, from_array(np.array(True), "yes")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    faulted = insert_faults(model, resolve(graph_sites(model), [BitFlips(probability=0.2)]))
    data = np.linspace(-1, 1, 36, dtype=np.float32).reshape(2, 2, 3, 3)
    expected, found = (run(session(faulted, fast=fast), data, seed=3)[0] for fast in (False, True))
    assert np.allclose(expected, found, atol=1e-5)


def test_a_seed_without_fast_is_refused():
    graph, _ = faulted("digits_cnn")
    with pytest.raises(GraphError, match="for seed 3 only, which takes fast=True"):
        session(graph, seed=3)


def test_another_seed_than_the_sessions_is_refused():
    graph, x = faulted("digits_cnn")
    quick = session(graph, threads=1, fast=True, seed=7)
    with pytest.raises(GraphError, match="made for the faults of seed 7, but is to run under seed 8"):
        run(quick, x, seed=8)


@given(
    bits=st.integers(2, 16),
    scale=st.floats(2**-20, 2**10, width=32),
    gain=st.floats(2**-20, 2**20, width=32) | st.floats(-(2**20), -(2**-20), width=32),
    seed=st.integers(0, 2**31),
)
def test_gains_keep_codes(bits, scale, gain, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-(1 << bits - 1), 1 << bits - 1, (1, 64)).astype(np.float32)
    old, new = np.full((1, 1), scale, np.float32), np.full((1, 1), np.float32(scale) * np.float32(gain), np.float32)
    weights = codes * old
    assert keeps_codes(weights, old, weights * np.float32(gain), new, np.zeros(1, np.float32))


@pytest.mark.parametrize("gain", [0.0, np.inf, np.nan])
def test_gains_that_lose_codes_are_noticed(gain):
    weights, scale = np.ones((1, 4), np.float32), np.ones((1, 1), np.float32)
    assert not keeps_codes(
        weights, scale, weights * np.float32(gain), scale * np.float32(gain), np.zeros(1, np.float32)
    )
