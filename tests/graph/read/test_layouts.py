"""Faults in graphs whose channels were put last: the words keep their numbers, in every op and in the whole graph."""

import warnings

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean

from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.channels_last import to_channels_last
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.layouts import align_to_tensor, inverse, number_words, numbered_shape, then
from hwfault.graph.read.nodes import fault_node
from hwfault.graph.read.sites import sites as sites_of_graph
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.laws.models import AccumulatorFormat, BitFlips, Clusters, LateBits, ProfileFaults, StuckElement, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import MapStep, Site
from hwfault.proof.replay import replay
from hwfault.stream.mapping import Linear, WeightStationary
from hwfault.stream.protection_scheme import Protection
from tests.helpers.graph.lowering import lowered
from tests.helpers.graph.networks import WEIGHTS, Chain, batch, network, plan, signed
from tests.helpers.graph.ops import QONNX, assert_same
from tests.helpers.graph.running import by_onnxruntime, by_qonnx, clean, copied, faulted, tidied
from tests.helpers.train.zoo import batch as zoo_batch
from tests.helpers.train.zoo import lived_in
from tests.slowly import slow

ARRAY = WeightStationary(rows=8, columns=4)
SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}, "sites": "*"}
NETWORKS = ("biased", "digits_cnn", "residual", "convolutions", "per_channel", "binary", "formats")


@given(rank=st.integers(1, 5), data=st.data())
def test_layouts_are_what_transposing_does(rank, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    one, two = (tuple(data.draw(st.permutations(range(rank)))) for _ in range(2))
    words = np.arange(np.prod(shape)).reshape(shape)
    tensor = words.transpose(one).transpose(two)
    layout = then(then((), one), two)
    np.testing.assert_array_equal(number_words(tensor, layout), words)
    assert numbered_shape(tensor.shape, layout) == shape
    assert then(layout, inverse(layout or range(rank))) == ()
    small = np.arange(shape[-1])
    np.testing.assert_array_equal(
        np.broadcast_to(align_to_tensor(small, layout), tensor.shape),
        np.broadcast_to(small, shape).transpose(layout or range(rank)),
    )


OPS = {
    "transient": [BitFlips(probability=0.2), Clusters(probability=0.1, sizes=[0.5, 0.5], axis="word")],
    "words": [WordFaults(probability=0.3, effect="random")],
    "map": [ProfileFaults(**SRAM)],
    "protected": [ProfileFaults(**SRAM, protection=Protection(kind="parity", data_bits=8))],
    "protected, drawn": [
        ProfileFaults(
            profile="uniform-flips", at={"ber": 0.1}, sites="*", protection=Protection(kind="secded", data_bits=16)
        )
    ],
    "protected, in another order": [
        ProfileFaults(
            **SRAM,
            protection=Protection(kind="parity", data_bits=16),
            mapping=Linear(row_bits=16, bit_order="msb_first"),
        )
    ],
}


def one_op(step, site, x, layout, scale, dtype):
    """A graph of one fault node on values that lie as the layout says."""
    values = np.ascontiguousarray(x.transpose(layout) if layout else x)
    node, constants = fault_node(site, step, ("x", "scale", "zero"), "y", "struck", layout)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants += [
        numpy_helper.from_array(np.ascontiguousarray(align_to_tensor(scale, layout)).astype(dtype), "scale"),
        numpy_helper.from_array(np.zeros((), dtype), "zero"),
    ]
    numbers = [helper.make_tensor_value_info(name, 7, []) for name in ("hwfault_seed", "hwfault_first_sample")]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", kind, values.shape), *numbers],
        [helper.make_tensor_value_info("y", kind, values.shape)],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), values


SHAPE = (3, 5, 4, 7)
LAYOUTS = {True: [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2)], False: [(0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3)]}


def steps_of(name, kind):
    """The site and the steps of each kind of op."""
    shape = SHAPE if kind == "weight" else SHAPE[1:]
    site = Site(name="s", kind=kind, bit_width=6, signed=True, shape=shape)
    steps = resolve([site], OPS[name]).steps("s")
    if name != "map":
        return site, steps
    coming = steps[0].process.model_copy(update={"threshold": 1 << 31, "refresh": "inference"})
    return site, (*steps, MapStep(coming))


@pytest.mark.every(2)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["activation", "weight"])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("scales", [1, SHAPE[1]])
def test_an_op_strikes_the_same_words_however_they_lie(name, kind, dtype, scales):
    site, steps = steps_of(name, kind)
    scale = np.full((scales, 1, 1) if scales > 1 else (), 0.5, dtype) * 2.0 ** np.arange(scales).reshape(-1, 1, 1)
    scale = scale if scales > 1 else scale.reshape(())
    x = (np.random.default_rng(1).integers(-32, 32, SHAPE) * scale).astype(dtype)
    for step in steps:
        straight, _ = one_op(step, site, x, (), scale, dtype)
        (expected,) = run(session(straight, threads=1), x, seed=3, first_sample=5)
        assert (expected != x).any()
        for layout in LAYOUTS[site.batched]:
            graph, values = one_op(step, site, x, layout, scale, dtype)
            for threads in (1, 3):
                (got,) = run(session(graph, threads=threads), values, seed=3, first_sample=5)
                assert_same(number_words(got, layout), expected, str(layout))
            if dtype == np.float32:
                assert_same(
                    number_words(by_qonnx(graph, torch.tensor(values), 3, 5), layout), expected, f"qonnx {layout}"
                )


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ([0, 1, 2], r"layout is \(0, 1, 2\) for values of shape \(3, 5, 4, 7\), expected one integer for each axis"),
        ([1, 0, 2, 3], "expected each axis once, the batch in front"),
        ([0, 1, 1, 3], "expected each axis once"),
        ([0, 1, 2, 9], "expected each axis once"),
    ],
)
def test_a_layout_that_is_none(layout, text):
    site, (step, *_) = steps_of("transient", "activation")
    x = np.zeros(SHAPE, np.float32)
    graph, _ = one_op(step, site, x, (), np.ones(()), np.float32)
    graph.graph.node[0].attribute.append(helper.make_attribute("layout", layout))
    with pytest.raises(GraphError, match=text):
        run(session(graph, threads=1), x)


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_faulted_graph_goes_channels_last_with_its_faults(name):
    x, graph = batch(name, 4, seed=3), tidied(faulted(name), 4)
    expected = by_onnxruntime(graph, x, seed=5, first_sample=2)
    moved = to_channels_last(graph)
    assert plan_of(moved) == plan(name)
    assert any("layout" in {a.name for a in entry.node.attribute} for entry in fault_nodes(moved))
    assert_same(by_onnxruntime(lowered(moved), x, seed=5, first_sample=2), expected)
    assert_same(by_qonnx(moved, x, 5, 2), expected)
    assert replay(network(name), lowered(moved), [x], seeds=[1, 2]).verdict == "pass"


def converted(graph):
    """A graph as qonnx's own pass converts it."""
    with warnings.catch_warnings():  # of a flattening that it leaves where it is
        warnings.filterwarnings("ignore", message="Could not")
        return ModelWrapper(copied(graph)).transform(ConvertToChannelsLastAndClean()).model


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_qonnxs_own_pass_leaves_the_faults_where_they_are(name):
    x, graph = batch(name, 4, seed=3), tidied(faulted(name), 4)
    moved = converted(graph)
    assert plan_of(moved) == plan(name)
    assert_same(by_onnxruntime(lowered(moved), x, seed=5), by_onnxruntime(graph, x, seed=5))


FAULTS = {
    "permanent": [ProfileFaults(**SRAM)],
    "protected": [ProfileFaults(**SRAM, protection=Protection(kind="secded", data_bits=8))],
    "accumulators": [BitFlips(probability=0.01), LateBits(probability=0.2, bits=8)],
    "elements": [
        AccumulatorFormat(width=20, mapping=ARRAY),
        StuckElement(mapping=ARRAY, element=(5, 2), bit=6, value=1),
        BitFlips(probability=0.02, sites={"kind": "activation"}),
    ],
    "doubles": [AccumulatorFormat(width=30, arithmetic="float64"), BitFlips(probability=0.01, sites="*accumulator")],
}


@pytest.mark.every(4)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", [slow("digits_cnn"), "biased", "residual"])
def test_faults_of_every_kind_go_along(name, faults):
    struck = resolve(sites(network(name), batch(name)), FAULTS[faults])
    graph, x = tidied(insert_faults(clean(name), struck), 4), batch(name, 4, seed=3)
    expected = by_onnxruntime(graph, x, seed=5)
    for moved in (to_channels_last(graph), converted(graph)):
        assert plan_of(moved) == struck
        assert_same(by_onnxruntime(lowered(moved), x, seed=5), expected)


@pytest.mark.slow  # qonnx takes its time
@pytest.mark.parametrize("name", ["tiny_cnn", "cnv"])
def test_networks_of_the_zoo(name):
    model, x = lived_in(name, scale="power_of_two"), zoo_batch(name)
    struck = resolve(sites(model, x), [BitFlips(probability=0.01)])
    moved = to_channels_last(tidied(export(model, x, plan=struck), 2))
    report = replay(model, lowered(moved), [x], seeds=[1])
    assert not any(site.faults_differ for site in report.sites)
    assert sum(site.faults_seen for site in report.sites) > 50


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_that_lies_channels_last_already_takes_the_networks_plan(name):
    """Its words are numbered as the network's; where they cannot be told, the site is refused."""
    moved, x = to_channels_last(tidied(clean(name), 4)), batch(name, 4, seed=3)
    found = sites_of_graph(moved)
    ours = {site.name: site for site in sites(network(name), batch(name))}
    weights = [site for site in found if site.kind in ("activation", "input", "weight")]
    assert len(weights) > 2
    assert all(site == ours[site.name] for site in weights)
    absorbed = "classifier.weight_quant" if name == "digits_cnn" else "none"  # its inputs lie in another order now
    chosen = [s for s in weights if s.name != absorbed and s.shape is not None and len(s.shape) > 2]
    struck = resolve(found, [BitFlips(probability=0.05, sites=[s.name for s in chosen])])
    expected = by_onnxruntime(insert_faults(clean(name), struck), x, seed=5)
    inserted = insert_faults(moved, struck)
    assert plan_of(inserted) == struck
    assert_same(by_onnxruntime(lowered(inserted), x, seed=5), expected)


def test_weights_whose_inputs_were_put_in_another_order_are_refused():
    moved = to_channels_last(tidied(clean("digits_cnn"), 4))
    with pytest.raises(PlanError, match=r"'classifier.weight_quant'.* lie in another order"):
        insert_faults(moved, plan("digits_cnn"))


def test_a_graph_that_was_not_tidied_is_refused():
    with pytest.raises(GraphError, match=r"tensors whose shape is not known.*cleanup_model"):
        to_channels_last(faulted("biased"))


def changed_layout(graph, layout):
    """A graph in which the first fault node with a layout has another."""
    out = copied(graph)
    entry = next(e for e in fault_nodes(out) if any(a.name == "layout" for a in e.node.attribute))
    entry.node.attribute.remove(next(a for a in entry.node.attribute if a.name == "layout"))
    if layout:
        entry.node.attribute.append(helper.make_attribute("layout", layout))
    return out


@pytest.mark.every(2)
@pytest.mark.parametrize("which", [0, 1])
def test_two_nodes_of_one_site_that_say_different_layouts_are_told(which):
    """Flips and a fault map at square weights, whose shape does not tell which node is right."""
    faults = [BitFlips(probability=0.02), ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})]
    model = Chain(signed(4), qnn.QuantConv2d(2, 3, 3, bias=False, **WEIGHTS))
    with torch.no_grad():
        graph = export(model.eval(), batch("mlp", 1), plan=resolve(sites(model), faults))
    moved = to_channels_last(tidied(graph, 4))
    assert plan_of(moved)
    (entry,) = [e for e in fault_nodes(moved) if len(e.nodes) == 2]
    attribute = next(a for a in entry.nodes[which].attribute if a.name == "layout")
    assert list(attribute.ints) == [0, 2, 3, 1]
    attribute.ints[:] = [0, 3, 2, 1]  # height and width, of three rows and columns each
    with pytest.raises(GraphError, match=r"of the site '1\.weight_quant'.* lie in another order than its fault node"):
        plan_of(moved)


@pytest.mark.every(2)
@pytest.mark.parametrize("layout", [(), (0, 3, 1, 2), (0, 1, 3, 2)])
def test_a_layout_that_was_lost_or_changed_is_told(layout):
    moved = to_channels_last(tidied(faulted("digits_cnn"), 4))
    text = "of the site 'features.0.weight_quant'.* lie in another order than its fault node"
    with pytest.raises(GraphError, match=text):
        plan_of(changed_layout(moved, layout))


JOINED = {
    "chosen": [
        helper.make_node("Greater", ["p", "half"], ["larger"]),
        helper.make_node("Where", ["larger", "p", "half"], ["j"]),
    ],
    "added up": [helper.make_node("Sum", ["p", "p", "half"], ["j"])],
    "averaged": [helper.make_node("Mean", ["p", "p"], ["j"])],
    "added": [helper.make_node("Add", ["p", "p"], ["j"])],
}


@pytest.mark.parametrize("how", JOINED)
def test_channels_stay_last_in_what_works_element_by_element(how):
    """Behind a pooling of (samples, positions, channels): words are numbered with the channels in front."""
    quant = {"domain": QONNX, "signed": 1, "narrow": 0}
    nodes = [
        helper.make_node("Quant", ["x", "half", "zero", "bits"], ["q"], name="first", **quant),
        helper.make_node("MaxPoolNHWC", ["q"], ["p"], domain=QONNX, kernel_shape=[1, 1], strides=[1, 1]),
        *JOINED[how],
        helper.make_node("Quant", ["j", "half", "zero", "bits"], ["y"], name="last", **quant),
    ]
    held = {"half": 0.5, "zero": 0.0, "bits": 4.0}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in held.items()]
    x, y = (helper.make_tensor_value_info(name, 1, [2, 3, 4, 5]) for name in "xy")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    pooled = helper.make_tensor_value_info("p", 1, [2, 3, 4, 5])
    made = helper.make_graph(nodes, "last", [x], [y], constants, value_info=[pooled])
    found = sites_of_graph(helper.make_model(made, opset_imports=opsets, ir_version=8))
    assert found.obstacles == {}
    assert [site.shape for site in found] == [(5, 3, 4), (5, 3, 4)]
