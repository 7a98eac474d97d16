"""Graphs in integer arithmetic: not an integer differs from PyTorch, in whatever onnxruntime makes of the graph."""

import itertools
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from brevitas import nn as qnn
from onnx import helper, numpy_helper
from torch import nn

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.channels_last import to_channels_last
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.exported import SITES
from hwfault.graph.read.integer import INTEGERS, find_integers, is_integer, left
from hwfault.graph.read.qonnxgraph import Constants, metadata
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.run.session import run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import AccumulatorFormat, BitFlips, bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from hwfault.stream.native import onnxruntime_library
from tests.graph.edit.test_accumulators import FAULTS, planned
from tests.graph.export.test_zoo import others
from tests.helpers.graph.networks import ACTS, ALL, WEIGHTS, Chain, network, signed
from tests.helpers.graph.networks import batch as small_batch
from tests.helpers.graph.ops import DOUBLE, FLOAT, assert_same, load
from tests.helpers.graph.ops import by_qonnx as by_qonnx_node
from tests.helpers.graph.ops import model as one_node
from tests.helpers.graph.running import by_qonnx, copied, tidied
from tests.helpers.injection import networks as float_networks
from tests.helpers.train.zoo import batch, lived_in
from tests.proof.test_replay_arithmetic import rounding_network
from tests.slowly import slow, thinned

SMALL = ("mlp", "cnv", "tiny_cnn", "resnet20")
DEEP = (("resnet20", 8), ("mobilenet_v1_cifar", 4))
WAYS = {
    "float scales": {},
    "8 bits": {"weight_bits": 8, "act_bits": 8, "output_bits": 8},
    "channels": {"scaling": "per_channel", "weight_bits": 3, "act_bits": 5},
}


@torch.no_grad()
def by_pytorch(model, x):
    with integer_arithmetic(model) as exact:
        out = model(x)
    return getattr(out, "value", out).numpy(), exact.left


def optimized(graph, path, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    """A plain onnxruntime session, and the graph that it made of the given one."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_library())
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = level
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph.SerializeToString(), options), onnx.load(path)


def check(model, x, faults, seeds=(1, 2**63 + 5)):
    """Replays the faults; not one integer differs, nor a logit."""
    plan = resolve(sites(model, x), faults)
    graph = export(model, x, plan=plan, arithmetic="integer")
    assert is_integer(graph)
    assert left(graph) == {}
    assert plan_of(graph) == plan
    report = replay(model, graph, [x[:1], x[1:]], seeds=seeds)
    assert report.verdict == "pass"
    assert sum(site.faults_seen for site in report.sites) > 0
    assert all(site.codes_differ == site.faults_differ == 0 for site in report.sites)
    assert report.outputs_differ == report.outputs_changed_by_observation == 0
    return report


@pytest.mark.parametrize(
    ("name", "way"),
    [*thinned(itertools.product(SMALL, WAYS), 7), *(slow(name, way) for name in others(SMALL) for way in WAYS)],
)
def test_no_integer_differs(name, way):
    check(lived_in(name, **WAYS[way]), batch(name), bit_errors(1e-2))


@pytest.mark.parametrize(
    ("name", "scaling"),
    [slow("cnv", "per_tensor"), slow("cnv", "per_channel"), ("mlp", "per_tensor"), ("mlp", "per_channel")],
)
def test_binary_networks(name, scaling):
    check(lived_in(name, weight_bits=1, act_bits=1, scaling=scaling), batch(name), bit_errors(1e-2))


@pytest.mark.parametrize(
    ("name", "bits"), [("tiny_cnn", 4), slow("cnv", 8), *[pytest.param(*deep, marks=pytest.mark.slow) for deep in DEEP]]
)
def test_faults_of_accumulators(name, bits):
    """With 8 bits some layers are added up in parts."""
    model, x = lived_in(name, weight_bits=bits, act_bits=bits), batch(name)
    sums = {"kind": "accumulator"}
    arrays = [
        AccumulatorFormat(arithmetic="float64", width=22 if bits == 8 else 12),
        BitFlips(probability=1e-3, sites=sums),
    ]
    report = check(model, x, arrays)
    assert sum(site.kind == "accumulator" for site in report.sites) == sum(
        isinstance(m, (qnn.QuantConv2d, qnn.QuantLinear)) for m in model.modules()
    )


@pytest.mark.parametrize(
    ("name", "faults"), thinned(itertools.product(sorted({*ALL} - {"tied", "convolutions", "per_channel"}), FAULTS), 9)
)
def test_every_kind_of_network_and_fault(name, faults):
    graph = export(network(name), small_batch(name), plan=planned(name, faults), arithmetic="integer")
    report = replay(network(name), graph, [small_batch(name, 5)], seeds=[1, 2])
    assert report.verdict == "pass"
    assert {site.name for site in report.sites} >= set(planned(name, faults).names)


@pytest.mark.parametrize("name", ["cnn", "biased", "residual", "power_of_two", "binary", "asymmetric"])
def test_float_networks(name):
    check(float_networks.build(name), float_networks.batch(3), bit_errors(0.02))


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_what_differs_without_does_not_with(seed):
    """The networks in which engines that add in another order meet ties; those of the default are counted elsewhere."""
    model, x = rounding_network(seed)
    check(model, x, bit_errors(1e-3), seeds=[seed])


def weights_made_constant(graph):
    """The graph with quantized weights for constants, as offline quantization leaves it: what fusions wait for."""
    out, constants = copied(graph), Constants(graph)
    for node in [n for n in out.graph.node if n.op_type in ("Quant", "BipolarQuant") and n.input[0] in constants]:
        values = by_qonnx_node(node, {name: constants.get(name) for name in node.input})
        out.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        out.graph.node.remove(node)
    return out


@pytest.mark.parametrize("name", ["cnv", *[pytest.param(name, marks=pytest.mark.slow) for name, _ in DEEP]])
@pytest.mark.parametrize("bits", [4, slow(8)])
def test_onnxruntime_fuses_nothing_that_counts(name, bits, tmp_path):
    """A plain session at its highest level, on the graph and on one whose weights are constants."""
    model, x = lived_in(name, weight_bits=bits, act_bits=bits), batch(name, 3)
    graph = export(model, x, arithmetic="integer")
    expected, _ = by_pytorch(model, x)
    for i, given in enumerate((graph, weights_made_constant(graph))):
        plain, made = optimized(given, tmp_path / f"{i}.onnx")
        (out,) = plain.run(None, {"input": x.numpy()})
        assert_same(out, expected)
        ops = [node.op_type for node in made.graph.node]
        assert ops.count("Affine") == sum(node.op_type == "Affine" for node in given.graph.node)
        assert not {"FusedConv", "FusedGemm", "BatchNormalization"} & set(ops)
        sums = [node for node in made.graph.node if re.fullmatch("Conv|(Fused)?MatMul|Gemm", node.op_type)]
        assert len(sums) == len(
            [node for node in given.graph.node if INTEGERS in metadata(node) and node.op_type != "ReduceSum"]
        )
        assert all(len(node.input) == 2 for node in sums)


def test_fusions_would_happen_without_the_barrier(tmp_path):
    """The same constants as plain Mul and Add nodes behind the convolutions are folded into them."""
    model, x = lived_in("cnv"), batch("cnv")
    graph = weights_made_constant(export(model, x, arithmetic="integer"))
    for i, node in reversed(list(enumerate(graph.graph.node))):
        if node.op_type == "Affine":
            product = helper.make_node("Mul", node.input[:2], [f"{node.output[0]}_product"])
            total = helper.make_node("Add", [product.output[0], node.input[2]], node.output)
            graph.graph.node.remove(node)
            graph.graph.node.insert(i, total)
            graph.graph.node.insert(i, product)
    made = optimized(graph, tmp_path / "fused.onnx")[1]
    assert any(len(node.input) == 3 for node in made.graph.node if "Conv" in node.op_type)


@pytest.mark.every(5)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", ["biased", "twice"])
def test_qonnx_equals_pytorch(name, faults):
    x, plan = small_batch(name, 2), planned(name, faults)
    graph = tidied(export(network(name), x, plan=plan, arithmetic="integer"), 2)
    numbers = (5, 0)[: len(graph.graph.input) - 1]
    with integer_arithmetic(network(name)), inject(network(name), plan, seed=5), torch.no_grad():
        expected = network(name)(x).numpy()
    assert_same(by_qonnx(graph, x, *numbers), expected)
    assert_same(run(session(graph, threads=1), x.numpy(), seed=5)[0], expected)


def affine_session(kind, threads=1):
    node = helper.make_node("Affine", ["x", "m", "a"], ["y"], name="the node", domain="hwfault")
    graph = one_node(node, kind)
    for info in graph.graph.input[1:]:
        info.type.tensor_type.elem_type = FLOAT
    return node, load(graph, threads)


@pytest.mark.parametrize("kind", [FLOAT, DOUBLE], ids=["float", "double"])
def test_the_op_affine_rounds_once(kind):
    rng, dtype = np.random.default_rng(kind), {FLOAT: np.float32, DOUBLE: np.float64}[kind]
    for threads in (1, 2):
        node, made = affine_session(kind, threads)
        for case in range(120):
            shape = tuple(rng.integers(1, 6, rng.integers(1, 5))) if case else (3, 2, 200, 200)
            x = np.where(rng.random(shape) < 0.5, rng.integers(-(2**24), 2**24, shape), rng.normal(size=shape))
            small = [tuple(n if rng.random() < 0.5 else 1 for n in shape)[rng.integers(len(shape) + 1) :] for _ in "ma"]
            m, a = (rng.normal(size=one).astype(np.float32) for one in small)
            feeds = {"x": x.astype(dtype), "m": m, "a": a}
            expected = (x.astype(dtype).astype(np.float64) * m.astype(np.float64) + a.astype(np.float64)).astype(dtype)
            assert_same(made.run(None, feeds)[0], expected)
            assert_same(by_qonnx_node(node, feeds), expected)


def test_the_op_affine_refuses_what_does_not_broadcast():
    _, made = affine_session(FLOAT)
    feeds = {"x": np.zeros((2, 3), np.float32), "m": np.zeros(2, np.float32), "a": np.zeros((), np.float32)}
    with pytest.raises(Exception, match=r"Affine 'the node': the multiplier of shape \(2\) does not broadcast"):
        made.run(None, feeds)
    assert made.run(None, feeds | {"x": np.zeros((0, 2), np.float32)})[0].shape == (0, 2)


@pytest.mark.every(4)
@pytest.mark.parametrize("name", ALL)
def test_the_sites_are_those_of_the_network(name):
    graph = export(network(name), small_batch(name), arithmetic="integer")
    expected = sites(network(name), small_batch(name))
    assert graph_sites(graph) == expected
    graph.metadata_props.remove(next(entry for entry in graph.metadata_props if entry.key == SITES))
    names = {site.name: (site.kind, site.bit_width, site.signed, site.weights) for site in expected}
    found = {site.name: (site.kind, site.bit_width, site.signed, site.weights) for site in graph_sites(graph)}
    assert found == names


@pytest.mark.parametrize("name", [slow("cnv"), "mlp", slow("resnet20")])
def test_faults_in_a_session_made_for_a_seed(name):
    """Layers that are added up in parts, or in float64, with faults of every kind, in sessions of every kind."""
    model, x = lived_in(name, weight_bits=8, act_bits=8), batch(name)
    sums = [
        AccumulatorFormat(arithmetic="float64", width=22),
        BitFlips(probability=1e-3, sites={"kind": "accumulator"}),
    ]
    plan = resolve(sites(model, x), [*sums, *bit_errors(1e-3)])
    graph = export(model, x, plan=plan, arithmetic="integer")
    with inject(model, plan, seed=7):
        expected, _ = by_pytorch(model, x)
    for made in (session(graph), session(graph, fast=True), session(graph, fast=True, seed=7)):
        assert_same(run(made, x.numpy(), seed=7)[0], expected)


PASSES = {
    "struck, then tidied": lambda graph, plan: tidied(insert_faults(graph, plan), 3),
    "tidied, then struck": lambda graph, plan: insert_faults(tidied(graph, 3), plan),
    "channels last": lambda graph, plan: to_channels_last(tidied(insert_faults(graph, plan), 3)),
}


@pytest.mark.every(4)
@pytest.mark.parametrize("way", PASSES)
@pytest.mark.parametrize("name", ["digits_cnn", "biased", "twice", "residual", "binary"])
def test_faults_of_every_kind_outlive_passes_of_qonnx(name, way):
    model, x = network(name), small_batch(name, 3)
    kinds = ("weight", "activation", "accumulator")
    plan = resolve(sites(model, x), [BitFlips(probability=0.02, sites={"kind": kind}) for kind in kinds])
    struck = PASSES[way](export(model, x, arithmetic="integer"), plan)
    report = replay(model, struck, [x], seeds=[1, 2])
    assert report.verdict == "pass"
    assert {site.name for site in report.sites if site.faults_seen} >= {
        site.name for site in sites(model, x) if site.kind == "accumulator"
    }


def test_a_graph_that_goes_in_circles_is_refused():
    graph = export(network("biased"), small_batch("biased"), arithmetic="integer")
    sums = next(node for node in graph.graph.node if INTEGERS in metadata(node))
    graph.graph.node.append(helper.make_node("Transpose", ["b"], ["a"], perm=[0, 1, 2, 3]))
    graph.graph.node.append(helper.make_node("Transpose", ["a"], ["b"], perm=[0, 1, 2, 3]))
    sums.input[1] = "a"
    with pytest.raises(GraphError, match="cannot be struck in the graph: its weights are not quantized there"):
        insert_faults(graph, planned("biased", "stuck"))
    assert find_integers({name: node for node in graph.graph.node for name in node.output}, "a") in ("a", "b")


def test_another_scale_is_refused():
    graph = export(network("biased"), small_batch("biased"), arithmetic="integer")
    constants, makers = Constants(graph), {name: node for node in graph.graph.node for name in node.output}
    sums = next(node for node in graph.graph.node if INTEGERS in metadata(node))
    quotient = makers[makers[sums.input[0]].input[0]]
    scale = numpy_helper.from_array(constants.get(quotient.input[1]) * np.float32(2), "other")
    graph.graph.initializer.append(scale)
    quotient.input[1] = "other"
    with pytest.raises(GraphError, match=r"cannot be struck in the graph: it divides the integers of '.*' by another"):
        insert_faults(graph, planned("biased", "stuck"))


def test_what_is_left_is_told():
    graph = export(network("convolutions"), small_batch("convolutions"), arithmetic="integer")
    assert left(graph) == {"2.0.0": "a QuantConvTranspose2d is not computed on integers"}
    model = Chain(
        qnn.QuantIdentity(), qnn.QuantConv2d(2, 3, 3), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), qnn.QuantLinear(12, 2)
    ).eval()
    told = left(export(model, small_batch("mlp"), arithmetic="integer"))
    assert "no quantizer with one scale lies right before it" in told.pop("5")
    assert told == {
        "/2/Erf": "Erf is rounded in each engine's way",
        "3": "AveragePool is rounded in each engine's way",
    } or (set(told.values()) == {"Erf is rounded in each engine's way", "AveragePool is rounded in each engine's way"})


class Shuffled(nn.Module):
    """Channels into positions, and back again."""

    def __init__(self) -> None:
        super().__init__()
        self.start = signed(6)
        self.inner = qnn.QuantConv2d(2, 8, 1, bias=False, **WEIGHTS)
        self.relu = qnn.QuantReLU(**ACTS)
        self.outer = qnn.QuantConv2d(2, 5, 3, bias=False, **WEIGHTS)

    def forward(self, x):
        x = nn.functional.pixel_unshuffle(self.start(x).value, 2)
        x = self.relu(self.inner(nn.functional.pixel_shuffle(x, 2)))
        return self.outer(nn.functional.pixel_shuffle(x.value, 2)).flatten(1)


def test_what_moves_or_picks_is_not_left():
    torch.manual_seed(3)
    model, x = Shuffled().eval(), small_batch("biased")
    graph = export(model, x, arithmetic="integer")
    assert "DepthToSpace" in {node.op_type for node in graph.graph.node}
    assert left(graph) == {}
    listed = sites(model, x)
    assert {site.name for site in listed if site.kind == "accumulator"} == {"inner.accumulator", "outer.accumulator"}
    plan = resolve(listed, [BitFlips(probability=0.02)])
    assert replay(model, insert_faults(graph, plan), [x], seeds=[1]).verdict == "pass"


@pytest.mark.parametrize(
    "op", ["Im2Col", "MaxPoolNHWC", "DepthToSpace", "SpaceToDepth", "GatherND", "GatherElements", "Compress", "ArgMax"]
)
def test_ops_that_round_nothing_are_not_left(op):
    graph = copied(export(network("biased"), small_batch("biased"), arithmetic="integer"))
    graph.graph.node.add(op_type=op, name="new")
    assert left(graph) == {}
    graph.graph.node.add(op_type="Softplus", name="newer")
    assert left(graph) == {"newer": "Softplus is rounded in each engine's way"}


def test_a_network_without_integers_is_refused():
    model = Chain(nn.Flatten(), qnn.QuantLinear(72, 5)).eval()
    refused = r"no layer of the network computes on integers.*\(1: its inputs are on no known grid.*quantize what goes"
    with pytest.raises(GraphError, match=refused):
        export(model, small_batch("mlp"), arithmetic="integer")


def test_refusals():
    model, x = network("biased"), small_batch("biased")
    with pytest.raises(GraphError, match="the arithmetic is 'fixed', expected 'float' or 'integer'"):
        export(model, x, arithmetic="fixed")
    with integer_arithmetic(model), pytest.raises(GraphError, match="computes in integer arithmetic now; leave"):
        export(model, x)


def faults_put_in_twice(graph):
    return insert_faults(graph, planned("biased", "stuck"))


def without_worth(graph):
    node = next(node for node in graph.graph.node if node.op_type == "Affine")
    node.op_type, node.domain = "Where", ""
    return plan_of(graph)


def other_width(graph):
    node = next(node for node in graph.graph.node if node.op_type == "ArrayFaults")
    next(a for a in node.attribute if a.name == "width").i = 9
    return plan_of(graph)


def other_integers(graph):
    node = next(node for node in graph.graph.node if node.op_type == "ArrayFaults")
    node.input[1] = next(n for n in graph.graph.node if n.op_type == "Div").output[0]
    return plan_of(graph)


@pytest.mark.parametrize("change", [faults_put_in_twice, without_worth, other_width, other_integers])
def test_changed_graphs_are_refused(change):
    graph = export(network("biased"), small_batch("biased"), plan=planned("biased", "stuck"), arithmetic="integer")
    plan_of(graph)
    with pytest.raises(GraphError, match=r"anew|carries faults already"):
        change(copied(graph))
