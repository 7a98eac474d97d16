"""Every network of the zoo as a graph: the same faults in both engines, and the same codes where scales allow it."""

import pytest
import torch
from onnx import ModelProto

from hwfault.graph.export.of_network import export
from hwfault.laws.models import BitFlips, bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from hwfault.train.networks import NETWORKS
from tests.helpers.train.zoo import QUICK, batch, lived_in
from tests.slowly import slow, thinned

SEEDS = (1, 2**63 + 5)
SOON = [name for name in QUICK if name not in ("resnet18", "resnet50", "mobilenet_v1", "mobilenet_v1_cifar")]


def others(quick):
    """The names of all other networks but digits_cnn, which the graph's own networks have."""
    return sorted(NETWORKS.keys() - {*quick, "digits_cnn"})


def every(quick):
    """The names of all networks but digits_cnn, those that are not quick in the slow set."""
    return [*quick, *(slow(name) for name in others(quick))]


def replayed(name, faults=None, **options):
    """The report of a replay with faults at every site, and the network's sites."""
    network, x = lived_in(name, **options), batch(name)
    found = sites(network)
    graph = export(network, x, plan=resolve(found, faults or bit_errors(1e-2)))
    return replay(network, graph, [x[:1], x[1:]], seeds=SEEDS), found


def check_faults(report, expected):
    assert {site.name for site in report.sites} == {site.name for site in expected}
    for site in report.sites:
        assert site.faults_differ == 0
        assert site.first is None or site.first.kind == "codes"
    assert sum(site.faults_seen for site in report.sites) > 50


@pytest.mark.parametrize("name", every([name for name in SOON if name not in ("cnv", "resnet20")]))
def test_power_of_two_scales_replay_to_the_last_bit(name):
    report, expected = replayed(name, scale="power_of_two")
    check_faults(report, expected)
    assert report.verdict == "pass"
    assert all(site.codes_differ == 0 and site.faults_seen == site.faults_expected for site in report.sites)
    assert report.outputs_differ == report.outputs_changed_by_observation == 0


@pytest.mark.parametrize("name", every([name for name in SOON if name not in ("cnv", "resnet20")]))
def test_float_scales_replay_with_the_same_faults(name):
    report, expected = replayed(name)
    check_faults(report, expected)
    assert report.verdict in ("pass", "outputs differ", "codes differ")
    words = sum(site.words for site in report.sites)
    assert sum(site.codes_differ for site in report.sites) < 0.01 * words  # they spread from layer to layer


WAYS = [
    ("mlp", {"weight_bits": 2, "act_bits": 2, "hidden": [16], "channels": 1}),
    ("mlp", {"weight_bits": 1, "act_bits": 1, "classes": 3}),
    ("cnv", {"weight_bits": 1, "act_bits": 1}),
    ("cnv", {"weight_bits": 1, "act_bits": 1, "input_bits": 1, "scaling": "per_channel"}),
    ("cnv", {"weight_bits": 8, "act_bits": 8, "output_bits": 8}),
    ("resnet20", {"weight_bits": 2, "act_bits": 2, "scaling": "per_channel", "output_bits": 2}),
    ("resnet20", {"weight_bits": 8, "act_bits": 8}),
    ("mobilenet_v1_cifar", {"weight_bits": 1, "act_bits": 3, "scaling": "per_channel", "output_bits": 5}),
]


@pytest.mark.parametrize(
    ("name", "options", "scale"), thinned([(*way, scale) for scale in ("float", "power_of_two") for way in WAYS], 9)
)
def test_every_option_replays(name, options, scale):
    report, expected = replayed(name, scale=scale, **options)
    check_faults(report, expected)
    assert report.verdict == "pass" or (scale == "float" and report.verdict in ("outputs differ", "codes differ"))


@pytest.mark.parametrize("kind", ["activation", slow("weight")])
@pytest.mark.parametrize("name", ["tiny_cnn", *map(slow, ("cnv", "resnet20", "mobilenet_v1_cifar"))])
def test_onnxruntime_folds_nothing_into_the_clean_sites(name, kind):
    """Weights without faults are constants, into which normalisations could be fused."""
    faults = [BitFlips(probability=1e-2, sites={"kind": kind})]
    assert replayed(name, faults, scale="power_of_two")[0].verdict == "pass"


@pytest.mark.parametrize("name", ["tiny_cnn", slow("cnv"), slow("resnet20"), slow("mobilenet_v1_cifar")])
def test_every_layer_has_an_accumulator_that_replays(name):
    network, x = lived_in(name, scale="power_of_two"), batch(name)
    found = sites(network, x)
    assert found.obstacles == {}
    kinds = [site.kind for site in found]
    assert kinds.count("accumulator") == kinds.count("weight")
    plan = resolve(found, [BitFlips(probability=1e-3, sites={"kind": "accumulator"})])
    report = replay(network, export(network, x, plan=plan), [x], seeds=[1])
    assert report.verdict == "pass"
    assert sum(site.faults_seen for site in report.sites) > 100


def operators(graph: ModelProto):
    return {node.op_type for node in graph.graph.node}


@pytest.mark.parametrize("name", ["tiny_cnn", *map(slow, ("cnv", "resnet20", "mobilenet_v1_cifar"))])
def test_a_graph_has_one_multiplication_and_one_addition_for_each_normalisation(name):
    network = lived_in(name)
    norms = sum(isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) for layer in network.modules())
    graph = export(network, batch(name))
    assert operators(graph).isdisjoint({"BatchNormalization", "Sqrt", "Div", "Sub"})
    assert sum(node.op_type == "Mul" for node in graph.graph.node) == norms
