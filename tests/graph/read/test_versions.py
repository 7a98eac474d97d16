"""The version of the fault stream that a faulted graph says: none that is newer, and none that is not enough."""

import numpy as np
import pytest
from onnx import numpy_helper

from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.qonnxgraph import set_metadata
from hwfault.graph.read.sites import sites
from hwfault.graph.read.versions import SPEC, check_version
from hwfault.graph.run.session import session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.graph.read.test_batch_axes import graph

FLIPS = [BitFlips(probability=0.05)]


def faulted(zero=0.0, bits=4.0, says=None):
    """A graph with faults, which says a version other than it needs."""
    made = graph(["batch", 6])
    for name, value in {"zeropt": zero, "bits": bits}.items():
        held = next(tensor for tensor in made.graph.initializer if tensor.name == name)
        held.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), name))
    out = insert_faults(made, resolve(sites(made), FLIPS))
    if says is not None:
        set_metadata(out, {SPEC: says})
    return out


@pytest.mark.parametrize("read", [session, plan_of, sites])
@pytest.mark.parametrize("says", ["fault-stream v2", "fault-stream v1.2", "", "another"])
def test_what_nobody_knows_is_refused(read, says):
    with pytest.raises(
        GraphError, match=rf"are those of '{says}', but .* knows 'fault-stream v1' and 'fault-stream v1.1'"
    ):
        read(faulted(says=says))


@pytest.mark.parametrize("read", [session, plan_of, sites])
def test_what_is_known_is_read(read):
    for says in (None, "fault-stream v1", "fault-stream v1.1"):
        read(faulted(says=says))
    read(faulted(zero=0.5))
    read(graph(["batch", 6])) if read is not plan_of else None


WORDS = r"those of 'fault-stream v1', but they need 'fault-stream v1\.1'.*put them in anew"


def test_a_version_that_is_not_enough_is_refused():
    assert check_version(faulted(zero=0.5)) == "fault-stream v1.1"
    with pytest.raises(GraphError, match=WORDS):
        plan_of(faulted(zero=0.5, says="fault-stream v1"))


def test_so_is_one_for_a_plan_that_says_more():
    twice = graph(["batch", 6])
    for node in twice.graph.node:  # two runs of one quantizer
        node.name = "again"
    out = insert_faults(twice, resolve(sites(twice), FLIPS))
    plan_of(out)
    set_metadata(out, {SPEC: "fault-stream v1"})
    with pytest.raises(GraphError, match=WORDS):
        plan_of(out)


def test_wide_words_of_one_node_are_struck_as_before():
    """Graphs of version 0.4.0 have such, of 32 bit biases, and say version 1."""
    assert check_version(faulted(bits=32)) == "fault-stream v1.1"
    plan_of(faulted(bits=32, says="fault-stream v1"))
