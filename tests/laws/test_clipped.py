"""Activations kept within a range: NumPy's clip, the operators, the op of graphs, and networks with faults."""

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx

import hwfault as hf
from hwfault.codes import CodeFormat
from hwfault.errors import HwfaultError, ModelError
from hwfault.graph.edit.strip import strip_faults
from hwfault.laws.clipped import ClippedRange
from hwfault.laws.models import load_faults
from hwfault.network.sites import sites
from hwfault.plan.expected import expected_faults
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.program.processes import Site
from hwfault.torch_ops.strike_op import strike, zero
from tests.helpers.injection.networks import batch, build

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def expected(q, low, high, below, above):
    return np.where(q < low, below, np.where(q > high, above, q))


@st.composite
def ranges(draw):
    """A word's format, and a range with what lies beyond it."""
    bits, signed = draw(st.integers(1, 8)), draw(st.booleans())
    word = CodeFormat(bits, signed)
    whole = [q for q in range(word.low, word.high + 1) if q or not word.bipolar]
    low, high = sorted((draw(st.sampled_from(whole)), draw(st.sampled_from(whole))))
    inside = [q for q in whole if low <= q <= high]
    return word, whole, (low, high, draw(st.sampled_from(inside)), draw(st.sampled_from(inside)))


def arguments(x, word, kept, scale, zero_point):
    tensors = [torch.zeros(1, dtype=torch.int64), torch.tensor(scale), torch.tensor(zero_point)]
    return [x, tensors, [word.bit_width, int(word.signed), 0, *kept], "clip", False, True]


@settings(max_examples=60)
@given(ranges(), st.sampled_from(DTYPES), st.sampled_from([1.0, 0.25]), st.sampled_from([0.0, 3.0]))
def test_operators(made, dtype, scale, zero_point):
    word, whole, kept = made
    q = torch.tensor(whole, dtype=torch.float64)
    x = ((q - zero_point) * scale).to(dtype)
    out, counts = strike(*arguments(x, word, kept, scale, zero_point))
    clipped = torch.from_numpy(expected(np.array(whole), *kept)).double()
    assert torch.equal(out, ((clipped - zero_point) * scale).to(dtype))
    assert counts.numel() == 0
    # what lay beyond has no gradient
    ones = torch.ones_like(x)
    found = zero(ones, x, *arguments(x, word, kept, scale, zero_point)[1:4])
    assert torch.equal(found, (clipped == q).to(dtype))


def test_what_is_no_number_stays():
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 7.0, -0.0])
    out, _ = strike(*arguments(x, CodeFormat(4, False), (0, 3, 0, 3), 1.0, 0.0))
    assert (
        out.numpy().tobytes() == torch.tensor([float("nan"), float("inf"), -float("inf"), 3.0, -0.0]).numpy().tobytes()
    )


def node_graph(word, kept, kind=TensorProto.FLOAT, **more):
    keys = dict(zip(("low", "high", "below", "above"), kept, strict=True))
    keys |= {"bit_width": word.bit_width, "signed": int(word.signed), "batched": 1}
    node = helper.make_node(
        "ClippedRange", ["x", "scale", "zero"], ["y"], domain="hwfault", name="clip", **(keys | more)
    )
    of = np.float32 if kind == TensorProto.FLOAT else np.float64
    constants = [numpy_helper.from_array(np.array(value, of), name) for name, value in (("scale", 0.5), ("zero", 1.0))]
    ends = [helper.make_tensor_value_info(name, kind, [3, 40]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run_graph(model, x):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(hf.onnxruntime_library())
    (y,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    return y


@pytest.mark.parametrize(
    ("word", "kept"), [(CodeFormat(6, True), (-5, 9, 0, 0)), (CodeFormat(6, False), (2, 40, 2, 40))]
)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_the_op_of_graphs(word, kept, kind):
    q = np.random.default_rng(0).integers(word.low, word.high + 1, (3, 40))
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float64
    x = ((q - 1) * 0.5).astype(dtype)
    wanted = ((expected(q, *kept) - 1) * 0.5).astype(dtype)
    model = node_graph(word, kept, kind)
    assert run_graph(model, x).tobytes() == wanted.tobytes()
    if kind == TensorProto.FLOAT:
        assert execute_onnx(ModelWrapper(model), {"x": x})["y"].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kept", [(3, 2, 2, 2), (-1, 4, 0, 4), (0, 64, 0, 3), (0, 4, 5, 4), (1, 4, 1, 0)])
def test_an_op_with_a_range_that_is_none(kept):
    with pytest.raises(Exception, match="expected"):
        run_graph(node_graph(CodeFormat(6, False), kept), np.zeros((3, 40), np.float32))


# networks

FLIPS = {"model": "bit_flips", "probability": 0.05}


def seen_by(network, faults, x, seed=3):
    seen = {}

    def look(name, _before, _after, _scale, _zero, codes_before, codes_after):
        seen[name] = codes_before.clone(), codes_after.clone()

    with hf.inject(network, faults, seed=seed, example=x[:1], observe=look):
        return network(x).detach(), seen


SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in ("cnn", "biased")]


@pytest.mark.parametrize("name", ["power_of_two", *SLOWLY])
def test_a_network_and_its_graph(name, tmp_path):
    """A struck network whose activations are clipped: each site by NumPy, the graph to the bit, and stripped again."""
    network, x = build(name).eval(), batch()
    flips = hf.BitFlips(probability=0.05)
    acts = [site for site in sites(network, x[:1]) if site.kind == "activation"]
    kept = []
    for site in acts:
        word = CodeFormat(site.bit_width, site.signed)
        kept.append(ClippedRange(sites={"name": site.name}, low=word.low // 2, high=max(1, word.high // 2)))
    plain, without = seen_by(network, [flips], x)
    out, seen = seen_by(network, [flips, *kept], x)
    assert not torch.equal(plain, out)
    # the first site's flips are the same, so that what it holds then is NumPy's
    first = acts[0]
    word = CodeFormat(first.bit_width, first.signed)
    before = without[first.name][1].numpy()
    q = before - ((before >> (first.bit_width - 1) & int(first.signed)) << first.bit_width)
    assert np.array_equal(seen[first.name][1].numpy() & word.mask, np.clip(q, kept[0].low, kept[0].high) & word.mask)
    for site, one in zip(acts, kept, strict=True):
        after = seen[site.name][1].numpy()
        after = after - ((after >> (site.bit_width - 1) & int(site.signed)) << site.bit_width)
        assert after.min() >= one.low
        assert after.max() <= one.high
    plan = hf.resolve(network, [flips, *kept], example=x[:1])
    clean = hf.export(network, x)
    graph = hf.export(network, x, plan=[flips, *kept])
    report = hf.replay(network, graph, [x], seeds=[3])
    assert report.verdict in (("pass",) if name == "power_of_two" else ("pass", "outputs differ"))  # sums of floats
    assert {(site.codes_differ, site.faults_differ) for site in report.sites} == {(0, 0)}
    assert [node.op_type for node in graph.graph.node].count("ClippedRange") == len(acts)
    assert strip_faults(graph).SerializeToString() == clean.SerializeToString()
    assert expected_faults(plan).in_trial(1) == expected_faults(hf.resolve(network, [flips], example=x[:1])).in_trial(1)


def test_gradients_and_compiled_values():
    network, x = build("cnn"), batch()
    network.eval()
    acts = [site.name for site in sites(network, x[:1]) if site.kind == "activation"]
    inner = x.clone().requires_grad_()
    with hf.inject(network, ClippedRange(sites={"name": acts[-1]}, high=3), example=x[:1]):
        network(inner).sum().backward()
    assert inner.grad.isfinite().all()
    with hf.inject(network, [hf.BitFlips(probability=0.05), ClippedRange(high=3, sites={"name": acts[-1]})], seed=1):
        alone = torch.cat([network(x[i : i + 1]) for i in range(1)])
    assert alone.isfinite().all()


def test_to_zero_and_what_is_listed():
    site = Site(name="a", kind="activation", layer="x", bit_width=4, signed=True, shape=(4,))
    faults = [hf.BitFlips(probability=0.5), ClippedRange(low=-2, high=3, beyond="zero")]
    plan = resolve([site], faults)
    process = plan.at("a").processes[1]
    assert process.clipped(np.array([0, 3, 4, 8, 14, 13], np.uint32)).tolist() == [0, 3, 0, 0, 14, 0]
    assert process.describe(plan.tables) == "kept within -2 to 3, others become 0"
    listed = faults_at(plan, "a", seed=1, codes=[0, 1, 2, 3])
    assert listed == faults_at(resolve([site], faults[:1]), "a", seed=1, codes=[0, 1, 2, 3])
    again = type(plan).from_json(plan.to_json())
    assert again == plan


def test_a_range_of_all_words_strikes_nothing():
    site = Site(name="a", kind="activation", layer="x", bit_width=4, signed=False, shape=(4,))
    plan = resolve([site], [ClippedRange(low=0, high=15)])
    assert plan.idle("a")
    assert not resolve([site], [ClippedRange(high=14)]).idle("a")


def test_yaml(tmp_path):
    file = tmp_path / "faults.yaml"
    file.write_text("faults:\n  - {model: clipped, low: 0, high: 5, beyond: zero, sites: act}\n")
    (read,) = load_faults(file)
    assert (read.low, read.high, read.beyond) == (0, 5, "zero")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "expected `low`, `high`, or both"),
        ({"low": 4, "high": 3}, "ascending integers"),
        ({"high": 3.5}, "high"),
        ({"high": 3, "beyond": "nan"}, "beyond"),
    ],
)
def test_what_is_no_range(given, words):
    with pytest.raises(ModelError, match=words):
        ClippedRange.parse({"model": "clipped"} | given, "the range")


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("activation", {"high": 16}, "integers from 0 to 15"),
        ("activation", {"low": -1}, "integers from 0 to 15"),
        ("activation", {"low": 2, "beyond": "zero"}, "is not in the range"),
        ("weight", {"high": 3}, "is a weight"),
    ],
)
def test_ranges_that_a_site_cannot_have(kind, given, words):
    site = Site(name="a", kind=kind, layer="x", bit_width=4, signed=False, shape=(4,))
    with pytest.raises(HwfaultError, match=words):
        resolve([site], [ClippedRange(sites="*", **given)])
