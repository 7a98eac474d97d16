"""Faults of graphs whose nodes lost their metadata, as onnx' converter, onnxoptimizer and onnxruntime leave them."""

import json

import numpy as np
import pytest

from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.marked import MARKS, with_marks
from hwfault.graph.read.qonnxgraph import metadata, set_metadata
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.classifier import classifier, samples
from tests.helpers.graph.running import copied


@pytest.fixture(scope="module")
def faulted():
    clean = classifier()
    return insert_faults(clean, resolve(sites(clean), [BitFlips(probability=0.05)]))


def without_metadata(model):
    out = copied(model)
    for node in out.graph.node:
        del node.metadata_props[:]
    return out


def test_faults_and_their_plan_stay(faulted, tmp_path):
    dropped, x = without_metadata(faulted), samples(3)
    assert plan_of(dropped) == plan_of(faulted)
    path = tmp_path / "dropped.onnx"
    path.write_bytes(dropped.SerializeToString())
    (expected,) = run(session(faulted, threads=1), x, seed=4)
    for graph in (dropped, path):
        np.testing.assert_array_equal(run(session(graph, threads=1), x, seed=4)[0], expected)


def test_a_graph_that_lost_nothing_is_handed_back(faulted):
    assert with_marks(faulted) is faulted
    clean = classifier()
    assert with_marks(clean) is clean
    assert strip_faults(faulted).SerializeToString() == clean.SerializeToString()


@pytest.mark.parametrize("text", ["", "no table", "[]", "3", "{", "[" * 100_000, '{"x": 1}', '{"in.act_quant": ["a"]}'])
def test_notes_of_another_kind_are_none(faulted, text):
    dropped = without_metadata(faulted)
    set_metadata(dropped, {MARKS: text})
    with pytest.raises(GraphError, match=r"the plan strikes 'in\.act_quant', which has no fault node"):
        plan_of(dropped)
    with pytest.raises(GraphError, match="the fault nodes there are gone"):
        session(dropped)


def test_notes_that_name_other_sites_are_found_out(faulted):
    """Tensors may have been renamed in between, so that the notes are about others."""
    dropped = without_metadata(faulted)
    said = json.loads(metadata(dropped)[MARKS])
    names = list(said.values())
    turned = dict(zip(said, [*names[1:], names[0]], strict=True))
    set_metadata(dropped, {MARKS: json.dumps(turned)})
    with pytest.raises(GraphError, match="fault node"):
        plan_of(dropped)
