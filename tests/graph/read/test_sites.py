"""The sites that a graph has by itself, against those of the network it came from."""

import json

import pytest

from hwfault.errors import GraphError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import metadata, set_metadata
from hwfault.graph.read.sites import sites as sites_of_graph
from hwfault.laws.models import AccumulatorFormat, BitFlips, LateBits, ProfileFaults, StuckElement
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.mapping import OutputStationary, WeightStationary
from tests.helpers.graph.networks import ALL, batch, network
from tests.helpers.graph.running import clean, copied, tidied
from tests.helpers.train.zoo import batch as zoo_batch
from tests.helpers.train.zoo import lived_in
from tests.slowly import slow

ARRAY = WeightStationary(rows=8, columns=4)
FAULTS = [
    BitFlips(probability=0.01),
    BitFlips(probability=0.02, sites={"kind": "weight", "index": [0, 2]}),
    ProfileFaults(profile="bram28-kintex7-kc705b-undervolt", at={"voltage_v": 0.54}),
    AccumulatorFormat(width=16, mapping=ARRAY),
    StuckElement(mapping=ARRAY, element=(3, 2), bit=4, value=1),
]
PASSES = OutputStationary(rows=8, columns=4)
LATE = [
    LateBits(probability=0.1, bits=2, mapping=PASSES),
    AccumulatorFormat(width=16, mapping=PASSES),
    StuckElement(mapping=PASSES, element=(3, 2), bit=4, value=1),
]
ONE_TILE = [LateBits(probability=0.1, bits=2, mapping=WeightStationary(rows=1 << 14, columns=1 << 11))]
ZOO = ("tiny_cnn", "mlp", "cnv", "resnet20", "mobilenet_v1_cifar", "mobilenet_v1")


def exported(name):
    """A network's sites and its graph."""
    if name in ALL:
        return sites(network(name), batch(name)), clean(name)
    model = lived_in(name)
    return sites(model, zoo_batch(name)), export(model, zoo_batch(name))


def without_metadata(graph):
    """A graph that does not list its sites; its nodes still have the sites' names."""
    out = copied(graph)
    del out.metadata_props[:]
    return out


def as_op(site):
    """A site without what only the network knows: the type of its module."""
    return site.model_copy(update={"layer": ""})


@pytest.mark.every(2)
@pytest.mark.parametrize("name", [*ALL, *ZOO[:3], *map(slow, ZOO[3:])])
def test_a_graph_has_the_sites_of_its_network(name):
    ours, graph = exported(name)
    found = sites_of_graph(graph)
    assert found == ours
    assert found.obstacles == ours.obstacles
    by_itself = sites_of_graph(without_metadata(graph))
    assert sorted(map(str, map(as_op, by_itself))) == sorted(map(str, map(as_op, ours)))


KINDS = {"each": FAULTS, "late": LATE, "one tile": ONE_TILE}


QUICK = [("digits_cnn", kind) for kind in KINDS]
LONG = [(name, kind) for name in ZOO[2:5] for kind in KINDS if (name, kind) not in QUICK]


@pytest.mark.parametrize(("name", "kind"), [*QUICK, *(slow(*both) for both in LONG)])
def test_plans_for_a_graph_and_its_network_are_the_same(name, kind):
    """Late bits on arrays that give results pass by pass, or hold all weights in one tile: others are refused."""
    ours, graph = exported(name)
    plan = resolve(ours, KINDS[kind])
    faulted = insert_faults(graph, plan)
    for form in (graph, tidied(graph, None), faulted):
        found = sites_of_graph(form)
        assert not set(found.obstacles) & {site.name for site in found}
        theirs = resolve(found, KINDS[kind])
        assert theirs == plan
        assert theirs.digest == plan.digest


@pytest.mark.every(2)
@pytest.mark.parametrize("name", [name for name in ALL if name != "tied"])
def test_the_cleanup_changes_no_site(name):
    ours, graph = exported(name)
    for size in (None, 4):
        assert sites_of_graph(tidied(graph, size)) == ours


def test_a_graph_with_other_integers_than_its_metadata_says_has_its_own():
    graph = copied(clean("biased"))
    said = json.loads(metadata(graph)["hwfault.sites"])
    for record in said["sites"]:
        record["bit_width"] = 7
    set_metadata(graph, {"hwfault.sites": json.dumps(said)})
    assert [site.bit_width for site in sites_of_graph(graph)] == [
        site.bit_width for site in sites(network("biased"), batch("biased"))
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sites": [], "obstacles": 1}', '{"sites": [{}], "obstacles": {}}'])
def test_metadata_that_is_no_list_of_sites(text):
    graph = copied(clean("biased"))
    set_metadata(graph, {"hwfault.sites": text})
    with pytest.raises(GraphError, match=r"(?s)'hwfault.sites' is no list of sites.*remove it, or export anew"):
        sites_of_graph(graph)
