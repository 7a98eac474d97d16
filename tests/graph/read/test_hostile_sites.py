"""Graphs that somebody broke: sites, insertion, plans and stripping end in hwfault's own errors, or in an answer."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.foreign import graph
from tests.helpers.graph.running import clean, copied

VALUES = (0, -3, 1 << 40, 0.5, float("nan"), "INT4", "UINT300", "", [1, 2], [0, 0, 9], [0.5], ["a"])
FAULTS = [BitFlips(probability=0.1), BitFlips(probability=0.1, sites="*accumulator")]
GRAPHS = {
    "foreign": graph,
    "biased": lambda: copied(clean("biased")),
    "per_channel": lambda: copied(clean("per_channel")),
    "faulted": lambda: insert_faults(graph(), resolve(sites(graph()), FAULTS)),
}


def swap_attribute(model, data):
    node = data.draw(st.sampled_from([n for n in model.graph.node if n.attribute]), "node")
    entry = data.draw(st.sampled_from(list(node.attribute)), "attribute")
    entry.CopyFrom(helper.make_attribute(entry.name, data.draw(st.sampled_from(VALUES), "value")))


def swap_input(model, data):
    node = data.draw(st.sampled_from([n for n in model.graph.node if n.input]), "node")
    names = ["", "nowhere", *(name for n in model.graph.node for name in n.output)]
    node.input[data.draw(st.integers(0, len(node.input) - 1), "input")] = data.draw(st.sampled_from(names), "name")


def drop_tensors(model, data):
    node = data.draw(st.sampled_from(list(model.graph.node)), "node")
    kept = data.draw(st.integers(0, 2), "kept")
    del (node.input if data.draw(st.booleans(), "of the inputs") else node.output)[kept:]


def swap_op(model, data):
    node = data.draw(st.sampled_from(list(model.graph.node)), "node")
    ops = ["Quant", "Trunc", "MultiThreshold", "BipolarQuant", "Conv", "Transpose", "Pad", "FaultMap", "ArrayFaults"]
    node.op_type = data.draw(st.sampled_from(ops), "op")
    node.domain = data.draw(st.sampled_from(["", "hwfault", "qonnx.custom_op.channels_last"]), "domain")


def swap_constant(model, data):
    held = data.draw(st.sampled_from(list(model.graph.initializer)), "initializer")
    others = [np.zeros(0), np.zeros((2, 3), np.float32), np.array(["x"], object), np.array(np.nan), np.array(1 << 40)]
    held.CopyFrom(numpy_helper.from_array(data.draw(st.sampled_from(others), "values"), held.name))


def wrong_length(model, data):
    held = data.draw(st.sampled_from(list(model.graph.initializer)), "initializer")
    held.dims.extend([data.draw(st.sampled_from([0, 7, 1 << 40, -1]), "extent")])


def drop_node(model, data):
    model.graph.node.pop(data.draw(st.integers(0, len(model.graph.node) - 1), "node"))


CHANGES = [swap_attribute, swap_input, drop_tensors, swap_op, swap_constant, wrong_length, drop_node]


@settings(max_examples=35, deadline=None)
@given(data=st.data())
def test_a_broken_graph_ends_in_an_error_of_hwfault(data):
    model = GRAPHS[data.draw(st.sampled_from(list(GRAPHS)), "graph")]()
    for _ in range(data.draw(st.integers(1, 3), "changes")):
        if model.graph.node:
            data.draw(st.sampled_from(CHANGES), "change")(model, data)
    for asked in (sites, plan_of, strip_faults, _struck):
        with suppress(HwfaultError):
            asked(model)


def _struck(model):
    return insert_faults(model, resolve(sites(model), FAULTS))


@pytest.mark.parametrize("value", ["INT4", 3, [0.5]])
def test_an_attribute_of_another_type(value):
    model = copied(clean("mlp"))
    node = next(n for n in model.graph.node if n.op_type == "Transpose")
    node.attribute[0].CopyFrom(helper.make_attribute("perm", value))
    with pytest.raises(
        GraphError,
        match=r"the attribute 'perm' of the node .* \(Transpose\) is of type (STRING|INT|FLOATS), expected INTS",
    ):
        sites(model)
