"""What quantizers and layers of other people's exports are called: two constants are one site only if they are one."""

import warnings
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.export import export_qonnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwfault.errors import PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites as sites_of_graph
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import load_model, run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.networks import ACTS, WEIGHTS, signed
from tests.helpers.graph.ops import QONNX
from tests.helpers.graph.running import copied
from tests.slowly import slow

FAULTS = [BitFlips(probability=0.05), WordFaults(probability=0.02, sites={"kind": "activation"})]


class Block(nn.Module):
    """A block whose members others call."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv = qnn.QuantConv2d(channels, 4, 3, padding=1, bias=False, **WEIGHTS)
        self.act = qnn.QuantReLU(**ACTS)


class Members(nn.Module):
    """Three blocks whose members are called one by one."""

    def __init__(self):
        super().__init__()
        self.start = signed()
        self.blocks = nn.ModuleList(Block(2 if i == 0 else 4) for i in range(3))

    def forward(self, x):
        x = self.start(x)
        for block in self.blocks:
            x = block.act(block.conv(x))
        return getattr(x, "value", x)


class Inner(nn.Module):
    """A network within another one, whose own forward is never called; its layers are, and have their own."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.layer = nn.Sequential(signed(), qnn.QuantConv2d(2, 4, 3, bias=False, **WEIGHTS))
        self.backbone.last = nn.Sequential(qnn.QuantReLU(**ACTS), qnn.QuantConv2d(4, 4, 3, bias=False, **WEIGHTS))

    def forward(self, x):
        return self.backbone.last(self.backbone.layer(x))


class Tied(nn.Module):
    """Two layers that share one parameter, and a third that quantizes it to other integers."""

    def __init__(self):
        super().__init__()
        self.start = signed()
        self.a = qnn.QuantLinear(6, 6, bias=False, **WEIGHTS)
        self.mid, self.last = qnn.QuantReLU(**ACTS), qnn.QuantReLU(**ACTS)
        self.b = qnn.QuantLinear(6, 6, bias=False, **WEIGHTS)
        self.c = qnn.QuantLinear(6, 6, bias=False, **{**WEIGHTS, "weight_bit_width": 3})
        self.b.weight = self.c.weight = self.a.weight

    def forward(self, x):
        return self.c(self.last(self.b(self.mid(self.a(self.start(x))))))


@cache
def network(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind()
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.9, 0.9)
    return model.eval()


def example(n=2):
    return torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(2)) * 2 - 1


@cache
def by_brevitas(kind, dynamo):
    """Brevitas' own export of a network, by either of PyTorch's exporters."""
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        export_qonnx(deepcopy(network(kind)), example(), export_path=str(path), dynamo=dynamo)
        return load_model(path)


def names(graph, *kinds):
    kinds = kinds or ("activation", "input", "weight", "bias")
    return [site.name for site in sites_of_graph(graph) if site.kind in kinds]


@pytest.mark.parametrize("dynamo", [False, slow(True)])
def test_blocks_whose_members_are_called_one_by_one(dynamo):
    graph = by_brevitas(Members, dynamo)
    assert names(graph, "weight") == [f"blocks.{i}.conv.weight_quant" for i in range(3)]
    assert names(graph, "accumulator") == [f"blocks.{i}.conv.accumulator" for i in range(3)]
    acts = names(graph, "activation")
    assert len(set(acts)) == 4
    if dynamo:
        assert acts == ["start.act_quant", *(f"blocks.{i}.act.act_quant" for i in range(3))]


@pytest.mark.parametrize("dynamo", [False, True])
def test_no_two_sites_have_the_same_faults(dynamo):
    """Equal shapes, and so equal words: were two quantizers one site, they would be struck alike."""
    graph = by_brevitas(Members, dynamo)
    plan = resolve(sites_of_graph(graph), [BitFlips(probability=0.1)])
    faulty = insert_faults(graph, plan)
    assert plan_of(faulty) == plan
    assert strip_faults(faulty) == graph
    struck = fault_nodes(faulty)
    assert len(struck) == len({entry.site for entry in struck}) == 7
    programs = [tuple(entry.node.attribute[0].ints) for entry in struck]
    assert len(set(programs)) == 7


def test_a_networks_plan_fits_the_dynamo_export_and_strikes_the_same_words():
    model, graph = network(Members), by_brevitas(Members, True)
    plan = resolve(sites(model, example()), [*FAULTS, BitFlips(probability=0.01, sites="*accumulator")])
    assert sorted(plan.names) == sorted(names(graph) + names(graph, "accumulator"))
    compare(model, graph, plan)


def test_weights_of_a_networks_plan_fit_the_torchscript_export():
    model, graph = network(Members), by_brevitas(Members, False)
    compare(model, graph, resolve(sites(model, example()), [BitFlips(probability=0.05, sites={"kind": "weight"})]))
    with pytest.raises(PlanError, match=r"'blocks.0.act.act_quant', which the graph does not have"):
        insert_faults(graph, resolve(sites(model), FAULTS))


@pytest.mark.parametrize("dynamo", [False, True])
def test_the_layers_of_a_network_whose_own_forward_is_never_called(dynamo):
    """Parameters in the same module tell the whole path of activations, too."""
    model, graph = network(Inner), by_brevitas(Inner, dynamo)
    plan = resolve(sites(model, example()), [*FAULTS, BitFlips(probability=0.01, sites="*accumulator")])
    assert plan.names[0] == "backbone.layer.0.act_quant"
    compare(model, graph, plan)


def compare(model, graph, plan):
    """PyTorch under a plan, and onnxruntime on the graph that carries it."""
    x = example()
    with torch.no_grad(), inject(model, plan, seed=9):
        expected = model(x)
        expected = getattr(expected, "value", expected).numpy()
    (found,) = run(session(insert_faults(graph, plan), threads=1), x.numpy(), seed=9)
    np.testing.assert_array_equal(found, expected)
    with torch.no_grad():
        clean = model(x)
    assert (found != getattr(clean, "value", clean).numpy()).any()


def test_one_parameter_is_one_memory_where_it_is_the_same_integers():
    graph = by_brevitas(Tied, False)
    listed = sites_of_graph(graph)
    weights = {site.name: site.aliases for site in listed if site.kind == "weight"}
    assert weights == {"a.weight_quant": ("b.weight_quant",), "c.weight_quant": None}
    assert listed.notes.keys() == weights.keys()
    assert (
        "'a.weight' is read as other integers by 'a.weight_quant', 'c.weight_quant'" in listed.notes["c.weight_quant"]
    )
    plan = resolve(listed, [BitFlips(probability=0.2, sites="a.weight_quant")])
    faulty = insert_faults(graph, plan)
    first, second = fault_nodes(faulty)
    assert [first.site, second.site] == ["a.weight_quant"] * 2
    assert first.node.attribute[0].ints == second.node.attribute[0].ints
    assert plan_of(faulty) == plan


def test_a_plan_says_which_quantizers_are_one_memory():
    """Exporters share constants that are equal by accident; a plan for two memories strikes each on its own."""
    graph = by_brevitas(Tied, False)
    apart = [site.model_copy(update={"aliases": None}) for site in sites_of_graph(graph) if site.kind == "weight"]
    apart.append(apart[0].model_copy(update={"name": "b.weight_quant"}))
    faulty = insert_faults(graph, resolve(apart, [BitFlips(probability=0.2)]))
    assert {entry.site for entry in fault_nodes(faulty)} == {f"{layer}.weight_quant" for layer in "abc"}
    alone = insert_faults(graph, resolve(apart[:1], [BitFlips(probability=0.2)]))
    assert len(fault_nodes(alone)) == 1


def test_parameters_that_the_plan_has_as_one_and_the_graph_has_not():
    graph = copied(by_brevitas(Tied, False))
    (held,) = (tensor for tensor in graph.graph.initializer if tensor.name == "a.weight")
    graph.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(0.5), "b.weight"))
    quantizer = next(node for node in graph.graph.node if node.name == "/b/weight_quant/export_handler/Quant")
    quantizer.input[0] = "b.weight"
    plan = resolve(sites_of_graph(by_brevitas(Tied, False)), [BitFlips(probability=0.2)])
    with pytest.raises(
        PlanError, match=r"as one parameter, the site 'a.weight_quant', but in the graph they hold diff"
    ):
        insert_faults(graph, plan)


@pytest.mark.parametrize(("position", "value"), [(1, 0.375), (2, 1.0), (3, 3.0), (3, 5.0)])
@pytest.mark.parametrize("layer", "ab")
def test_parameters_that_the_plan_has_as_one_and_the_graph_reads_otherwise(position, value, layer):
    """Scale, zero point or width of one of the two, the first or the second."""
    graph = copied(by_brevitas(Tied, False))
    plan = resolve(sites_of_graph(graph), [BitFlips(probability=0.2, sites="a.weight_quant")])
    quantizer = next(node for node in graph.graph.node if node.name == f"/{layer}/weight_quant/export_handler/Quant")
    graph.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "other"))
    quantizer.input[position] = "other"
    told = r"'a\.weight_quant'.*(they are read as different integers|the graph has \([35], True)"
    with pytest.raises(PlanError, match=told):
        insert_faults(graph, plan)


def quantizers(*nodes, weights=()):
    """A chain of quantizers with the names given, those of `weights` on initializers of the names given there."""
    made, held = [], {"s": 0.5, "z": 0.0, "w": 4.0, "s2": 0.25}
    at = "x"
    for i, (name, constants) in enumerate(nodes):
        made.append(helper.make_node("Quant", [at, *constants.split()], [f"q{i}"], name=name, domain=QONNX, signed=1))
        at = f"q{i}"
    for i, (name, initializer) in enumerate(weights):
        made.append(
            helper.make_node("Quant", [initializer, "s", "z", "w"], [f"w{i}"], name=name, domain=QONNX, signed=1)
        )
        made.append(helper.make_node("MatMul", [at, f"w{i}"], [f"m{i}"], name=name.replace("weight_quant/", "")))
        held[initializer] = np.eye(3) * (i + 1)
        at = f"m{i}"
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", at)]
    tensors = [numpy_helper.from_array(np.array(value, np.float32), key) for key, value in held.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(helper.make_graph(made, "g", info[:1], info[1:], tensors), opset_imports=opsets)


SAME, OTHER = "s z w", "s2 z w"
RELU, RELU_1 = "/relu/act_quant/export_handler/Quant", "/relu/act_quant/export_handler_1/Quant"
FIRST, SECOND = (
    ("/conv/weight_quant/Quant", "blocks.0.conv.weight"),
    ("/conv/weight_quant/Quant_1", "blocks.1.conv.weight"),
)
INSIDE = "/stage/conv/weight_quant/Quant", "net.stage.conv.weight"


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        # nothing tells that scopes are cut short: two runs of one quantizer
        (quantizers((RELU, SAME), (RELU_1, SAME)), {"relu.act_quant", "relu.act_quant#1"}),
        # other constants: two quantizers
        (quantizers((RELU, SAME), (RELU_1, OTHER)), {"q0", "q1"}),
        # parameters tell that scopes are cut short
        (
            quantizers((RELU, SAME), (RELU_1, SAME), weights=[FIRST, SECOND]),
            {"q0", "q1", "blocks.0.conv.weight_quant", "blocks.1.conv.weight_quant"},
        ),
        # the input of one of two layers that are called alike
        (
            quantizers(("/conv/input_quant/export_handler/Quant", SAME), weights=[FIRST, SECOND]),
            {"conv.input_quant", "blocks.0.conv.weight_quant", "blocks.1.conv.weight_quant"},
        ),
        # a module that a parameter lies in, too
        (
            quantizers(("/stage/relu/act_quant/export_handler/Quant", SAME), weights=[INSIDE]),
            {"net.stage.relu.act_quant", "net.stage.conv.weight_quant"},
        ),
        # a parameter whose name is no path
        (quantizers(weights=[("/conv/weight_quant/Quant", "onnx::Quant_7")]), {"conv.weight_quant"}),
        # one that is reparametrized
        (
            quantizers(weights=[("/conv/weight_quant/Quant", "net.conv.parametrizations.weight.original")]),
            {"net.conv.weight_quant"},
        ),
        # names that are no scopes stay as they are
        (
            quantizers(("Quant_0", SAME), ("Quant_1", SAME), weights=[("Quant_2", "a.weight")]),
            {"Quant_0", "Quant_1", "Quant_2"},
        ),
    ],
)
def test_names_by_hand(graph, expected):
    assert set(names(graph)) == expected
    plan = resolve(sites_of_graph(graph), [BitFlips(probability=0.1)])
    assert plan_of(insert_faults(graph, plan)) == plan


def test_kinds_come_from_scopes_whatever_the_name():
    graph = quantizers(
        ("/conv/input_quant/export_handler/Quant", SAME), ("/conv/input_quant/export_handler_1/Quant", OTHER)
    )
    assert [(site.name, site.kind) for site in sites_of_graph(graph)] == [("q0", "input"), ("q1", "input")]


@pytest.mark.parametrize(
    "scopes", ["", "[", "['', 'a.act_quant']", "['']", "[" * 10**6, "None", "['', 'x' * 9, b'\\x00']"]
)
def test_scopes_that_tell_nothing(scopes):
    graph = quantizers(("mine", SAME))
    graph.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert len(names(graph)) == 1


def test_dynamos_scopes_by_hand():
    graph = quantizers(("node__symbolic", SAME))
    told = "['', 'net', 'net.relu.act_quant', 'net.relu.act_quant.export_handler', '_symbolic']"
    graph.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=told)
    assert names(graph) == ["net.relu.act_quant"]


@pytest.mark.parametrize("shape", [[3, 1, 1], [1, 3], None])
def test_a_shape_that_was_left_behind_makes_no_bias_a_weight(shape):
    graph = quantizers(("bias", SAME))
    graph.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "b"))
    graph.graph.node[0].input[0] = "b"
    del graph.graph.input[:]
    if shape is not None:
        graph.graph.value_info.append(helper.make_tensor_value_info("q0", TensorProto.FLOAT, shape))
        graph.graph.output[0].CopyFrom(helper.make_tensor_value_info("q0", TensorProto.FLOAT, shape))
    (site,) = sites_of_graph(graph)
    assert (site.kind, site.shape) == ("bias", (3,))
