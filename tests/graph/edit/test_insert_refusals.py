"""Plans that a graph does not take, and faulted graphs that somebody changed."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from onnx import helper, numpy_helper
from torch import nn

from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import set_metadata
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from tests.graph.edit.test_insert import full, tiny
from tests.helpers.graph.networks import batch, fresh, network, plan
from tests.helpers.graph.ops import QONNX
from tests.helpers.graph.running import clean, copied, faulted, tidied


def refused(graph, plan, error, text):
    """Insertion fails with a text, the graph given stays as it was."""
    before = graph.SerializeToString(deterministic=True)
    with pytest.raises(error, match=text) as caught:
        insert_faults(graph, plan)
    assert type(caught.value) is error
    assert graph.SerializeToString(deterministic=True) == before


def test_a_site_the_graph_does_not_have():
    other = resolve(sites(network("residual")), [BitFlips(probability=0.1, sites="stem.act_quant")])
    text = r"strikes the site 'stem.act_quant', which the graph does not have: did you mean '2.act_quant'"
    refused(clean("biased"), other, PlanError, text)


@pytest.mark.parametrize("known", [2, 1])
def test_more_runs_than_the_plan_knows(known):
    graph, inputs = export(quantized_again(3), torch.zeros(1, 4)), torch.zeros(1, 4)
    others = resolve(sites(quantized_again(known), inputs), [BitFlips(probability=0.1)])
    text = (
        rf"the graph has the run '0\.act_quant#{known}' of the site '0\.act_quant', but {known} are known to the plan"
    )
    refused(graph, others, PlanError, text)
    insert_faults(graph, resolve(sites(quantized_again(3), inputs), [BitFlips(probability=0.1)]))


def quantized_again(times):
    """A network with one quantizer that runs so often in a forward."""
    quantizer = qnn.QuantIdentity(bit_width=4)
    return nn.Sequential(*[part for _ in range(times) for part in (quantizer, nn.ReLU())]).eval()


def test_the_nearest_name_is_told():
    refused(tiny(name="stem.act_quant"), full("stem.act_quan"), PlanError, "did you mean 'stem.act_quant'")


@pytest.mark.parametrize(
    ("bits", "kind", "text"),
    [
        (5, "activation", r"= \(5, True, True\), but the graph has \(4, True, True\)"),
        (3, "activation", r"= \(3, True, True\), but the graph has \(4, True, True\)"),
        (4, "weight", r"= \(4, True, False\), but the graph has \(4, True, True\)"),
    ],
)
def test_another_format(bits, kind, text):
    refused(tiny(), full("the quantizer", kind, bits), PlanError, f"'the quantizer' with .*{text}")


def test_another_sign():
    graph = tiny()
    next(a for a in graph.graph.node[0].attribute if a.name == "signed").i = 0
    refused(graph, full("the quantizer"), PlanError, r"= \(4, True, True\), but the graph has \(4, False, True\)")


def test_the_sign_left_out_is_qonnxs_default():
    graph = tiny()
    graph.graph.node[0].attribute.remove(next(a for a in graph.graph.node[0].attribute if a.name == "signed"))
    assert fault_nodes(insert_faults(graph, full("the quantizer")))


def test_a_graph_without_quantizers():
    graph = tiny()
    del graph.graph.node[:]
    graph.graph.node.append(helper.make_node("Identity", ["x"], ["q"]))
    refused(graph, full("q"), GraphError, "none of the nodes Quant, IntQuant, BipolarQuant.*expected a QONNX graph")
    with pytest.raises(GraphError, match="no quantized integers to strike"):
        graph_sites(graph)


@pytest.mark.parametrize("name", ["mlp", "binary"])
def test_faults_twice(name):
    refused(faulted(name), plan(name), GraphError, "carries faults already; put the plan into the graph.*without one")


def test_faults_in_a_cleaned_graph():
    refused(tidied(faulted("mlp"), None), plan("mlp"), GraphError, "carries faults already")


def test_a_fault_map_counts_as_faults():
    graph = tiny()
    names = ["q", "scale", "zeropt", "word", "and_mask", "xor_mask"]
    graph.graph.node.append(helper.make_node("FaultMap", names, ["y"], domain="hwfault"))
    refused(graph, full("the quantizer"), GraphError, "carries faults already")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("scale", None, "its scale 'scale' is computed by the graph"),
        ("zeropt", None, "its zero point 'zeropt' is computed by the graph"),
        ("bits", None, "its bit width 'bits' is computed by the graph"),
        ("scale", np.ones((2, 3)), r"its scale has shape \[2, 3\], expected one value for the tensor or for each chan"),
        ("zeropt", np.zeros((2, 1, 3)), r"its zero point has shape \[2, 1, 3\]"),
        ("bits", [4, 4], "its bit width is nan, expected an integer from 1 to 32"),
        ("bits", 4.5, "its bit width is 4.5, expected an integer from 1 to 32"),
        ("bits", 0, "its bit width is 0"),
        ("bits", 33, "its bit width is 33"),
    ],
)
def test_quantizers_whose_integers_are_not_known(name, value, text):
    graph = tiny()
    held = next(t for t in graph.graph.initializer if t.name == name)
    if value is None:
        held.name = "before"
        graph.graph.node.insert(0, helper.make_node("Abs", ["before"], [name]))
    else:
        held.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), name))
    text = rf"the node 'the quantizer' \(site 'the quantizer'\) cannot be a site: {text}"
    refused(graph, full("the quantizer"), GraphError, text)
    assert graph_sites(graph) == []  # listed are those that can be struck


def test_such_quantizers_may_be_beside_the_planned_ones():
    graph = tiny()
    other = helper.make_node("Quant", ["q", "many", "zeropt", "bits"], ["y"], name="other", domain=QONNX)
    graph.graph.node.append(other)
    graph.graph.initializer.append(numpy_helper.from_array(np.ones((4, 3), np.float32), "many"))
    assert [entry.site for entry in fault_nodes(insert_faults(graph, full("the quantizer")))] == ["the quantizer"]


def test_two_formats_under_one_name():
    graph = tiny()
    inputs = ["q", "scale", "zeropt", "wide"]
    graph.graph.node.append(helper.make_node("Quant", inputs, ["y"], name="the quantizer", domain=QONNX, signed=1))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(5, np.float32), "wide"))
    assert [site.name for site in graph_sites(graph)] == ["q", "y"]
    refused(graph, full("the quantizer", bits=5), PlanError, "'the quantizer', which the graph does not have")


def test_transposed_weights_do_not_matter_to_a_plan_on_others():
    tidy = tidied(clean("digits_cnn"), None)
    others = resolve(sites(network("digits_cnn")), [BitFlips(probability=0.1, sites=["features.*", "input.*"])])
    assert len(fault_nodes(insert_faults(tidy, others))) == len(others.names)


def test_weights_of_another_shape_where_nothing_was_stamped():
    graph = copied(clean("biased"))
    for node in graph.graph.node:
        del node.metadata_props[:]
    shapes = {(5, 64): (5, 32)}
    changed = [s.model_copy(update={"shape": shapes.get(s.shape, s.shape)}) for s in sites(network("biased"))]
    other = resolve(changed, [BitFlips(probability=0.1)])
    refused(graph, other, PlanError, r"\(shape \[5, 64\] in the graph, \[5, 32\] in the plan\)")
    insert_faults(graph, plan("biased"))


def test_activations_whose_axes_are_in_another_order():
    """The same axes otherwise are other words; other extents are other positions, which a plan may not know."""
    graph = tiny(shape=("batch", 2, 3, 4))
    site = Site(name="the quantizer", kind="activation", bit_width=4, signed=True, shape=(3, 4, 2))
    refused(
        graph, resolve([site], [BitFlips(probability=0.1)]), PlanError, r"\(shape \[2, 3, 4\] in the graph, \[3, 4, 2\]"
    )
    for shape in ((2, 3, 4), (2, 1, 3, 4), (2, 5, 5)):
        fits = resolve([site.model_copy(update={"shape": shape})], [BitFlips(probability=0.1)])
        assert fault_nodes(insert_faults(graph, fits))


def test_weights_that_were_changed_after_the_export():
    graph = copied(clean("biased"))
    held = next(t for t in graph.graph.initializer if t.name == "1.weight")
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) + np.float32(0.01), held.name))
    refused(graph, plan("biased"), PlanError, "'1.weight_quant'.*are not those that were exported")


def test_no_plan():
    for graph in (clean("mlp"), tiny()):
        with pytest.raises(GraphError, match=r"carries no fault plan \(metadata 'hwfault.plan'\)"):
            plan_of(graph)


def tampered(name="biased", **metadata):
    graph = copied(faulted(name))
    set_metadata(graph, {f"hwfault.{key}": value for key, value in metadata.items()})
    return graph


def changed_attribute(attribute, value):
    graph = tampered()
    node = fault_nodes(graph)[1].node
    node.attribute.remove(next(a for a in node.attribute if a.name == attribute))
    if value is not None:
        node.attribute.append(helper.make_attribute(attribute, value))
    return graph


def without_node(which):
    graph = tampered()
    entry = fault_nodes(graph)[which]
    graph.graph.node.remove(entry.node)
    for node in graph.graph.node:
        node.output[:] = [entry.after if name == entry.before else name for name in node.output]
    return graph


def with_another_site():
    graph = tampered()
    set_metadata(fault_nodes(graph)[0].node, {"hwfault.site": "elsewhere"})
    return graph


def without_hash():
    graph = tampered()
    graph.metadata_props.remove(next(m for m in graph.metadata_props if m.key == "hwfault.plan_sha256"))
    return graph


def program():
    return list(plan("biased").program("1.weight_quant"))


def rewired(change):
    """A graph in which something around the fault nodes of `biased` was changed."""
    graph = tampered()
    change(graph, {entry.site: entry for entry in fault_nodes(graph)})
    return graph


def read_before(graph, entries):
    graph.graph.node.append(helper.make_node("Identity", [entries["2.act_quant"].before], ["spy"]))


def read_nothing_else(graph, entries):
    entry = entries["2.act_quant"]
    for node in graph.graph.node:
        if node != entry.node:
            node.input[:] = [entry.before if name == entry.after else name for name in node.input]


def answer_before(graph, entries):
    graph.graph.output.append(helper.make_tensor_value_info(entries["2.act_quant"].before, 1, None))


def other_constant(which, value):
    def change(graph, entries):
        graph.graph.initializer.append(numpy_helper.from_array(np.array(value), "mine"))
        entries["2.act_quant"].node.input[which] = "mine"

    return change


def swapped(graph, entries):
    node = entries["2.act_quant"].node
    node.input[3], node.input[4] = node.input[4], node.input[3]


def one_number_twice(graph, entries):
    for entry in entries.values():
        entry.node.input[4] = entry.node.input[3]


def computed_seed(graph, entries):
    graph.graph.node.insert(0, helper.make_node("Neg", ["hwfault_seed"], ["mine"]))
    for entry in entries.values():
        entry.node.input[3] = "mine"


def default_seed(graph, entries):
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1), "hwfault_seed"))


def crossed(graph, entries):
    """Each of two fault nodes behind the other's quantizer."""
    one, two = (entries[name].node for name in ("0.act_quant", "2.act_quant"))
    one.input[0], two.input[0] = two.input[0], one.input[0]


def another_seed_input(graph, entries):
    graph.graph.input.append(helper.make_tensor_value_info("mine", 7, []))
    entries["2.act_quant"].node.input[3] = "mine"


def beside_a_map(graph, entries):
    names = ["output", "scale", "scale", "word", "word", "word"]
    graph.graph.node.append(helper.make_node("FaultMap", names, ["more"], domain="hwfault"))


def crossed_twins():
    """The same with quantizers of one format, whose scales and zero points are equal."""
    graph = copied(faulted("residual"))
    entries = {entry.site: entry.node for entry in fault_nodes(graph)}
    one, two = entries["left.weight_quant"], entries["right.weight_quant"]
    one.input[0], two.input[0] = two.input[0], one.input[0]
    return graph


def twice_less_one():
    graph = copied(faulted("twice"))
    entry = fault_nodes(graph)[-1]
    graph.graph.node.remove(entry.node)
    for node in graph.graph.node:
        node.output[:] = [entry.after if name == entry.before else name for name in node.output]
    return graph


ANOTHER = resolve(sites(network("biased")), [BitFlips(probability=0.3)])
TAMPERED = {
    "the plan": (lambda: tampered(plan=ANOTHER.to_json()), "does not have the hash"),
    "a blank in the plan": (lambda: tampered(plan=plan("biased").to_json() + " "), "does not have the hash"),
    "the hash": (lambda: tampered(plan_sha256=ANOTHER.digest), "does not have the hash"),
    "no hash": (without_hash, "does not have the hash None"),
    "plan and hash": (lambda: tampered(plan=ANOTHER.to_json(), plan_sha256=ANOTHER.digest), "not do what the graph's"),
    "one integer": (lambda: changed_attribute("program", [*program()[:-1], program()[-1] + 1]), "does not do what"),
    "no program": (lambda: changed_attribute("program", None), "does not do what"),
    "the width": (lambda: changed_attribute("bit_width", 5), "does not do what the graph's plan says"),
    "the sign": (lambda: changed_attribute("signed", 0), "does not do what the graph's plan says"),
    "the batch axis": (lambda: changed_attribute("batched", 1), "does not do what the graph's plan says"),
    "no batch axis": (lambda: changed_attribute("batched", None), "does not do what the graph's plan says"),
    "one node less": (lambda: without_node(2), "are not at the sites of the plan"),
    "another site": (with_another_site, "are not at the sites of the plan"),
    "one of two runs": (twice_less_one, "are not at the sites of the plan"),
    "a map beside": (lambda: rewired(beside_a_map), "are not at the sites of the plan"),
    "a reader before": (lambda: rewired(read_before), "'2.act_quant.faults' is wired otherwise"),
    "no reader after": (lambda: rewired(read_nothing_else), "'2.act_quant.faults' is wired otherwise"),
    "an output before": (lambda: rewired(answer_before), "'2.act_quant.faults' is wired otherwise"),
    "the scale": (lambda: rewired(other_constant(1, np.float32(0.125))), "'2.act_quant.faults' is wired otherwise"),
    "the zero point": (lambda: rewired(other_constant(2, np.float32(1))), "'2.act_quant.faults' is wired otherwise"),
    "the seed": (lambda: rewired(other_constant(3, np.int64(1))), "'2.act_quant.faults' is wired otherwise"),
    "the sample": (lambda: rewired(other_constant(4, np.int64(0))), "'2.act_quant.faults' is wired otherwise"),
    "numbers swapped": (lambda: rewired(swapped), "'2.act_quant.faults' is wired otherwise"),
    "one number twice": (lambda: rewired(one_number_twice), "is wired otherwise"),
    "a computed seed": (lambda: rewired(computed_seed), "is wired otherwise"),
    "a seed with a default": (lambda: rewired(default_seed), "is wired otherwise"),
    "a seed of its own": (lambda: rewired(another_seed_input), "'2.act_quant.faults' is wired otherwise"),
    "crossed": (lambda: rewired(crossed), "'0.act_quant.faults' is wired otherwise"),
    "crossed twins": (crossed_twins, "'left.weight_quant.faults' is wired otherwise"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_changed_graphs_are_told(what):
    make, text = TAMPERED[what]
    with pytest.raises(GraphError, match=f"{text}.*it was changed after the faults were put in: export it anew"):
        plan_of(make())


def test_the_untampered_graph_is_good():
    assert plan_of(tampered()) == plan("biased")
    assert plan_of(changed_attribute("program", program())) == plan("biased")
    assert plan_of(rewired(other_constant(1, np.float32(0.25)))) == plan("biased")  # another tensor, the same scale


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "hwfault-plan/1"}', '{"format": "another/1"}'])
def test_a_plan_that_is_none_under_its_own_hash(text):
    with pytest.raises(PlanError, match="the graph's plan: not a fault plan"):
        plan_of(tampered(plan=text, plan_sha256=sha256(text.encode()).hexdigest()))


def test_a_plan_with_an_unknown_key_under_its_own_hash():
    text = json.dumps(json.loads(plan("biased").to_json()) | {"surprise": 1})
    with pytest.raises(PlanError, match="surprise"):
        plan_of(tampered(plan=text, plan_sha256=sha256(text.encode()).hexdigest()))


@pytest.mark.parametrize("inputs", [[], ["x"], ["x", "scale", "zeropt"]])
def test_quantizers_that_lack_inputs(inputs):
    graph = tiny()
    graph.graph.node[0].input[:] = inputs
    with pytest.raises(GraphError, match="the quantizer"):
        insert_faults(graph, full("the quantizer"))


def test_the_example_is_not_part_of_the_plan():
    """A plan holds for any example's batch and values."""
    graph = export(fresh("biased"), batch("biased", 9, seed=4))
    assert plan_of(insert_faults(graph, plan("biased"))) == plan("biased")
