"""Faults taken out of a graph again: the graph before, byte for byte, or an error."""

import itertools
import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import metadata, set_metadata
from hwfault.graph.read.sites import sites
from hwfault.laws.models import AccumulatorFormat, BitFlips, LateBits, ProfileFaults, StuckElement, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.stream.mapping import WeightStationary
from hwfault.stream.protection_scheme import Protection
from tests.graph.export.test_zoo import every
from tests.helpers.graph.networks import ALL, batch, network
from tests.helpers.graph.running import clean, copied, faulted, tidied
from tests.helpers.train.zoo import batch as zoo_batch
from tests.helpers.train.zoo import lived_in
from tests.slowly import thinned

ARRAY = WeightStationary(rows=8, columns=4)
SUMS = {"kind": "accumulator"}
FAULTS = {
    "weights": [BitFlips(probability=0.01, sites={"kind": "weight"})],
    "activations": [WordFaults(probability=0.01, sites={"kind": "activation"})],
    "everything": [BitFlips(probability=0.01), BitFlips(p01=0.1, p10=0.0)],
    "accumulators": [LateBits(probability=0.1, bits=4, sites=SUMS), AccumulatorFormat(width=16)],
    "doubles": [AccumulatorFormat(width=30, arithmetic="float64"), BitFlips(probability=0.01, sites=SUMS)],
    "elements": [StuckElement(mapping=ARRAY, element=(3, 2), bit=4, value=1), BitFlips(probability=0.01)],
    "maps": [ProfileFaults(profile="bram28-kintex7-kc705b-undervolt", at={"voltage_v": 0.54})],
    "protected": [
        ProfileFaults(
            profile="bram28-kintex7-kc705b-undervolt",
            at={"voltage_v": 0.54},
            protection=Protection(kind="secded", data_bits=32),
        )
    ],
}


def planned(graph, name):
    found = sites(graph)
    kinds = {site.kind for site in found}
    return resolve(found, [f for f in FAULTS[name] if all(s.kind in (None, *kinds) for s in f.sites)])


def assert_comes_back(graph, plan):
    """Insertion, and then the same bytes again."""
    struck = insert_faults(graph, plan)
    assert any(node.domain == "hwfault" for node in struck.graph.node) == bool(plan.names)
    assert strip_faults(struck) == graph
    assert strip_faults(struck).SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)


@pytest.mark.every(7)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", ALL)
def test_the_graph_before_comes_back(name, faults):
    assert_comes_back(clean(name), planned(clean(name), faults))


@cache
def in_integer_arithmetic(name):
    return export(network(name), batch(name), arithmetic="integer")


@pytest.mark.every(2)
@pytest.mark.parametrize(("name", "faults"), thinned(itertools.product(ALL, FAULTS), 5))
def test_a_graph_in_integer_arithmetic_comes_back(name, faults):
    graph = in_integer_arithmetic(name)
    struck = insert_faults(graph, planned(graph, faults))
    assert plan_of(struck) == planned(graph, faults)
    assert strip_faults(struck).SerializeToString() == graph.SerializeToString()


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", ["digits_cnn", "residual", "twice"])
def test_a_tidied_graph_comes_back(name, faults):
    assert_comes_back(tidied(clean(name), 4), planned(clean(name), faults))


@pytest.mark.every(2)
@pytest.mark.parametrize("name", every(["tiny_cnn", "mlp", "cnv"]))
def test_the_graphs_of_the_zoo_come_back(name):
    graph = export(lived_in(name), zoo_batch(name))
    for faults in ("everything", "accumulators", "maps", "protected"):
        assert_comes_back(graph, planned(graph, faults))


@given(data=st.data())
def test_any_sites_of_any_network(data):
    name = data.draw(st.sampled_from(ALL))
    found = sites(clean(name))
    struck = data.draw(st.lists(st.sampled_from([site.name for site in found]), min_size=1, max_size=4, unique=True))
    faults = [data.draw(st.sampled_from([BitFlips, WordFaults]))(probability=0.1, sites=site) for site in struck]
    assert_comes_back(clean(name), resolve(found, faults))


def test_metadata_of_its_own_stays():
    graph = copied(clean("mlp"))
    graph.metadata_props.add(key="author", value="somebody")
    graph.graph.node[0].metadata_props.add(key="note", value="mine")
    assert_comes_back(graph, planned(clean("mlp"), "everything"))


def other_weights(graph):
    held = next(t for t in graph.graph.initializer if t.dims)
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * 2, held.name))


def another_node(graph):
    graph.graph.node.append(helper.make_node("Identity", [graph.graph.output[0].name], ["more"]))


def tidy(graph):
    graph.CopyFrom(tidied(graph, None))


@pytest.mark.parametrize("change", [other_weights, another_node, tidy])
def test_a_graph_that_was_changed_is_refused(change):
    graph = copied(faulted("biased"))
    change(graph)
    with pytest.raises(GraphError, match=r"was changed after the faults were put in.*strip the faults first"):
        strip_faults(graph)


def test_a_clean_graph_is_refused():
    with pytest.raises(GraphError, match=r"does not say what it was .*'hwfault\.undo'.*expected a graph with faults"):
        strip_faults(clean("mlp"))


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": [[0, 1 << 40]]},
        {"nodes": [[0, 1], [0, 1]]},
        {"nodes": ["AAAA"]},
        {"nodes": 3},
        {"renamed": {"99999": "x"}},
        {"ir_version": "x"},
        {"input": "x"},
        {"before_sha256": None},
        {"after_sha256": None},
    ],
    ids=str,
)
def test_a_record_that_was_edited_is_refused(change):
    graph = copied(faulted("mlp"))
    record = json.loads(metadata(graph)["hwfault.undo"])
    set_metadata(graph, {"hwfault.undo": json.dumps(record | change)})
    with pytest.raises(GraphError, match=r"'hwfault\.undo' cannot be read|was changed after the faults"):
        strip_faults(graph)
