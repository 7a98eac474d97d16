"""What all passes have in common: the graph that they are given stays as it is, and each says what it changed."""

import json
import logging
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.accumulators import rewrite_layers, select_sums
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.channels_last import put_channels_last, to_channels_last
from hwfault.graph.edit.editing import Edit, FreshNames, count_of
from hwfault.graph.edit.fast import only_to_run, prepare_to_run
from hwfault.graph.edit.insert import insert_faults, put_faults_in
from hwfault.graph.edit.strip import UNDO, strip_faults, take_faults_out
from hwfault.graph.edit.upgrade import upgrade
from hwfault.graph.export.of_network import export
from hwfault.graph.ops import CHANNELS_LAST
from hwfault.graph.read.qonnxgraph import metadata, set_metadata
from hwfault.graph.read.sites import graph_sites, sites
from hwfault.graph.run.session import load_model, run, run_without_inputs, session
from hwfault.laws.models import AccumulatorFormat, BitFlips, ProfileFaults
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph import foreign
from tests.helpers.graph.networks import batch, network, plan
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import clean, copied, faulted, tidied

SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}, "sites": "*"}
IN_SUMS = BitFlips(probability=0.1, sites={"kind": "accumulator"})


def struck(graph, *faults):
    """A plan of such faults for a graph."""
    return resolve(sites(graph), list(faults))


def exact():
    return copied(export(network("biased"), batch("biased"), arithmetic="integer"))


def elsewhere(graph):
    """The graph with its first tensor in another file."""
    out = copied(graph)
    tensor = out.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="other.data")
    return out


def wrapped(**attributes):
    """A graph of one pooling whose channels lie last."""
    node = helper.make_node("MaxPool", ["x"], ["y"], domain=CHANNELS_LAST, name="pool", **attributes)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    return helper.make_model(helper.make_graph([node], "one", [x], [y]), ir_version=8)


def edited_record(graph):
    out = copied(graph)
    set_metadata(out, {UNDO: json.dumps({"after_sha256": None})})
    return out


def named(graph, name):
    """The graph with one more tensor, of that name."""
    out = copied(graph)
    out.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int64), name))
    return out


def fail(_part):
    raise GraphError("nothing can be computed here")


def inserting(graph, *faults):
    """A graph, and the pass that puts faults into it."""
    made = struck(graph, *faults)
    return graph, lambda given: put_faults_in(given, made)


def rewriting(graph):
    made = struck(graph, IN_SUMS)
    return graph, lambda given: rewrite_layers(given, select_sums(graph_sites(given), made), made)


INPUTS = "the inputs hwfault_seed and hwfault_first_sample"
WORKING = {  # a graph and a pass, and what that says it changed
    "insert": (
        lambda: inserting(clean("biased"), BitFlips(probability=0.1)),
        f"6 nodes TransientFaults put in; {INPUTS}; the plan, its hash",
    ),
    "insert, sums": (
        lambda: inserting(clean("biased"), IN_SUMS),
        rf"2 nodes Tran.*; 2 layers computed on integers from now on, with faults: 1\.accumulator, 4\.acc.*; {INPUTS}",
    ),
    "insert, integer": (
        lambda: inserting(exact(), AccumulatorFormat(width=20), IN_SUMS),
        r"faults behind the integer sums of 2 layers: 1\.accumulator, 4\.accumulator",
    ),
    "insert, foreign": (
        lambda: inserting(foreign.graph(), ProfileFaults(**SRAM)),
        "7 nodes FaultMap put in; the plan, its hash and what undoes all this, as metadata",
    ),
    "strip": (
        lambda: (faulted("biased"), take_faults_out),
        rf"6 nodes taken out; {INPUTS} taken out; all else that was put in with the faults taken out",
    ),
    "upgrade": (
        lambda: (wrapped(kernel_shape=[1]), upgrade),
        r"MaxPool \(qonnx\.custom_op\.channels_last\) as Transpose, MaxPool, Transpose, 1 node",
    ),
    "channels last": (
        lambda: (tidied(faulted("biased"), 3), put_channels_last),
        "1 node with channels last from now on; 3 fault nodes that number words by a layout.*; 2 transpositions",
    ),
    "fast": (
        lambda: (faulted("biased"), lambda graph: prepare_to_run(graph, run_without_inputs)),
        "4 nodes Quant of constants computed beforehand$",
    ),
    "fast, for a seed": (
        lambda: (faulted("biased"), lambda graph: prepare_to_run(graph, run_without_inputs, 7)),
        "4 nodes TransientFaults of constants .*; the faults of constants are those of seed 7",
    ),
    "rewrite": (
        lambda: rewriting(clean("biased")),
        r"2 layers computed on integers from now on, with faults: 1\.accumulator, 4\.accumulator",
    ),
}


def content(graph):
    return graph.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", WORKING)
def test_a_pass_edits_a_copy_and_says_what_it_changed(name):
    make, told = WORKING[name]
    given, edit = make()
    before = content(given)
    made, changes = edit(given)
    assert content(given) == before
    assert content(made) != before
    assert re.search(told, "; ".join(changes)), changes
    assert len(changes) == len(set(changes))


def refusing_insertion(graph, faults=None):
    """A graph, and an insertion that cannot be made."""
    return graph, lambda given: insert_faults(given, faults or plan("biased"))


def without_worths():
    """A graph of integer arithmetic that does not say what its sums are worth."""
    graph = exact()
    faults = struck(graph, IN_SUMS)
    for node in graph.graph.node:
        if node.op_type == "Affine":
            node.op_type, node.domain = "Where", ""
    return refusing_insertion(graph, faults)


def of_an_old_opset():
    graph = copied(clean("biased"))
    faults = struck(graph, IN_SUMS)
    graph.opset_import[0].version = 10
    graph.functions.add(name="f", domain="of.its.own")
    return refusing_insertion(graph, faults)


def preparing(graph, compute):
    return graph, lambda given: only_to_run(given, compute)


REFUSED = {  # a graph and a pass, and why that refuses it
    "insert: faults twice": (lambda: refusing_insertion(faulted("biased")), "carries faults already"),
    "insert: tensors elsewhere": (lambda: refusing_insertion(elsewhere(clean("biased"))), "lies in another file"),
    "insert: another graph": (lambda: refusing_insertion(clean("mlp")), "which the graph does not have"),
    "insert: a name": (
        lambda: refusing_insertion(named(clean("biased"), "hwfault_seed")),
        "has a tensor 'hwfault_seed' already",
    ),
    "insert: an old opset": (of_an_old_opset, "the graph is of opset 10 and has bodies or functions"),
    "insert: no worths": (without_worths, "no node says what the sums of '1.accumulator' are worth"),
    "strip: no faults": (lambda: (clean("biased"), strip_faults), "does not say what it was"),
    "strip: changed": (lambda: (named(faulted("biased"), "new"), strip_faults), "was changed after the faults"),
    "strip: edited": (lambda: (edited_record(faulted("biased")), strip_faults), "was changed after the faults"),
    "strip: tensors elsewhere": (lambda: (elsewhere(faulted("biased")), strip_faults), "lies in another file"),
    "upgrade: no rank": (lambda: (wrapped(), upgrade), "nothing in the graph tells the axes"),
    "channels last: not tidied": (lambda: (clean("biased"), to_channels_last), "whose shape is not known"),
    "fast: not computed": (lambda: preparing(faulted("biased"), fail), "nothing can be computed here"),
    "fast: tensors elsewhere": (
        lambda: preparing(elsewhere(faulted("biased")), run_without_inputs),
        "lies in another file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pass_that_refuses_leaves_the_graph_alone(name):
    make, why = REFUSED[name]
    given, edit = make()
    before = content(given)
    with pytest.raises((GraphError, PlanError), match=why):
        edit(given)
    assert content(given) == before


def test_passes_that_return_the_graph_alone_tell_the_log(caplog):
    caplog.set_level(logging.INFO, "hwfault")
    made = insert_faults(clean("biased"), plan("biased"))
    assert [record.message for record in caplog.records] == [
        f"the graph was edited: {change}" for change in put_faults_in(clean("biased"), plan("biased")).changes
    ]
    caplog.clear()
    strip_faults(made)
    to_channels_last(tidied(made, 3))
    only_to_run(made, run_without_inputs)
    assert len([record for record in caplog.records if record.message.startswith("the graph was edited: ")]) > 6


def test_nothing_to_change_is_nothing_told():
    graph = clean("biased")
    assert upgrade(graph) == Edit(graph, [])
    assert upgrade(graph).model is graph
    assert rewrite_layers(graph, [], plan("biased")) == Edit(graph, [])


def test_counts_are_words():
    assert [count_of(count, "node") for count in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]


# names


def test_fresh_names_are_nobodys():
    body = helper.make_graph([helper.make_node("Relu", ["outer"], ["inner"])], "body", [], [])
    graph = helper.make_graph([helper.make_node("If", ["yes"], ["y"], then_branch=body)], "one", [], [])
    fresh = FreshNames(helper.make_model(graph))
    assert [name in fresh for name in ("outer", "inner", "yes", "y", "x")] == [True, True, True, True, False]
    assert [fresh.take("x"), fresh.take("x"), fresh.take("y"), fresh.take("inner")] == ["x", "x_", "y_", "inner_"]


def renamed(graph, names):
    """The graph with other names for some of its tensors."""
    out = copied(graph)
    for node in out.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for held in (*out.graph.initializer, *out.graph.value_info):
        held.name = names.get(held.name, held.name)
    for entry in out.graph.quantization_annotation:
        entry.tensor_name = names.get(entry.tensor_name, entry.tensor_name)
    return out


TAKEN = [
    {"c0": "a0_scale", "m0": "hwfault_zero_point", "f1": "hwfault_kept", "d1": "hwfault_kept_number"},
    {"c0": "a1_before_faults", "m0": "a1_after_step1", "f1": "conv_w_before_faults", "d1": "a2_scale"},
    {"m0": "c0_x_scale", "f1": "c0_sums", "d1": "c0_added_up"},
    {"m0": "c0_step0", "f1": "c0_one", "d1": "c0_w_integers", "half": "a0_after_step1.word"},
]
EVERYTHING = [ProfileFaults(**SRAM), BitFlips(probability=0.05), BitFlips(probability=0.02, sites="Conv_0.accumulator")]


@pytest.mark.parametrize("names", TAKEN, ids=lambda names: ", ".join(names.values()))
def test_names_that_the_graph_has_are_not_given_again(names):
    """Other tensors of the graph have the names of what is put in: the faults are the same."""
    graph, x = foreign.graph(), foreign.inputs()
    plain, odd = insert_faults(graph, struck(graph, *EVERYTHING)), renamed(graph, names)
    assert all(name in FreshNames(plain) for name in names.values())
    faulty = insert_faults(odd, struck(odd, *EVERYTHING))
    plan_of(faulty)
    assert strip_faults(faulty) == odd
    (expected,) = run(session(plain), x, seed=3)
    assert_same(run(session(faulty), x, seed=3)[0], expected)
    assert (expected != run(session(graph), x)[0]).any()


@pytest.mark.parametrize("name", ["hwfault_seed", "hwfault_first_sample"])
@pytest.mark.parametrize("where", ["initializer", "input", "node", "body"])
def test_names_of_the_inputs_are_refused_wherever_they_are(name, where):
    graph = copied(clean("biased"))
    info = helper.make_tensor_value_info(name, TensorProto.INT64, [])
    if where == "initializer":
        graph = named(graph, name)
    elif where == "input":
        graph.graph.input.append(info)
    elif where == "node":
        graph.graph.node.append(helper.make_node("Identity", ["input"], [name]))
    else:
        body = helper.make_graph([helper.make_node("Identity", ["input"], [name])], "body", [], [info])
        graph.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=body, else_branch=body))
    with pytest.raises(GraphError, match=f"the graph has a tensor '{name}' already.*give that tensor another name"):
        insert_faults(graph, plan("biased"))


# tensors in other files


@pytest.mark.parametrize("threshold", [0, 64, 1 << 20])
@pytest.mark.parametrize("first", [True, False], ids=["loaded from files", "in memory"])
def test_a_faulted_graph_whose_tensors_went_to_files_is_stripped(first, threshold, tmp_path):
    """onnx notes in each tensor that it is in the graph now, which it did not before, or did."""
    before = copied(clean("digits_cnn"))
    if first:
        before.graph.node.append(helper.make_node("Constant", [], ["held"], value=numpy_helper.from_array(np.ones(99))))
        onnx.save_model(
            copied(before), tmp_path / "before.onnx", save_as_external_data=True, location="a", size_threshold=0
        )
        before = load_model(tmp_path / "before.onnx")
    faulty = insert_faults(before, struck(before, BitFlips(probability=0.1), ProfileFaults(**SRAM)))
    assert content(strip_faults(faulty)) == content(before)
    path = tmp_path / "faulty.onnx"
    options = {"location": "b", "size_threshold": threshold, "convert_attribute": True}
    onnx.save_model(copied(faulty), path, save_as_external_data=True, **options)
    again = load_model(path)
    assert content(strip_faults(again)) == content(before)
    again.graph.initializer[0].raw_data = bytes(len(again.graph.initializer[0].raw_data))
    with pytest.raises(GraphError, match="was changed after the faults were put in"):
        strip_faults(again)


def test_a_record_of_an_older_version_is_read(tmp_path):
    """Which says nothing of where tensors are, and has the hash of the graph as it stood."""
    graph = copied(faulted("biased"))
    record = json.loads(metadata(graph)[UNDO])
    assert record.pop("located") == []
    set_metadata(graph, {UNDO: json.dumps(record)})
    assert strip_faults(graph) == clean("biased")
