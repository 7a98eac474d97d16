"""Faults in graphs that no export of hwfault or Brevitas wrote."""

from importlib.resources import files

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.custom_op.registry import getCustomOp
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
from qonnx.util.cleanup import cleanup_model

from hwfault.codes import CodeFormat
from hwfault.errors import GraphError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.grids import NoGridError, grid_of
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.sites import sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.graph.run.strike import strike_values
from hwfault.laws.models import AccumulatorFormat, BitFlips, ProfileFaults, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.stream.protection_scheme import Protection
from tests.graph.edit.test_insert import X, tiny
from tests.helpers.graph.foreign import THRESHOLDS, WEIGHTS, graph, inputs
from tests.helpers.graph.networks import batch
from tests.helpers.graph.ops import QONNX, assert_same
from tests.helpers.graph.running import by_onnxruntime, clean, copied, tidied

SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}, "sites": "*"}
FAULTS = {
    "transient": [BitFlips(probability=0.02), WordFaults(probability=0.02, effect="random")],
    "permanent": [ProfileFaults(**SRAM)],
    "protected": [ProfileFaults(**SRAM, protection=Protection(kind="parity", data_bits=8))],
    "accumulators": [BitFlips(probability=0.02, sites=["*accumulator", "*_w"])],
    "narrow": [AccumulatorFormat(width=6)],
}
LISTED = [
    ("Thresholds_0", "activation", 4, False, (2, 6, 6)),
    ("conv_w", "weight", 3, True, (4, 2, 3, 3)),
    ("a1", "activation", 4, True, (4, 4, 4)),
    ("dense_w", "weight", 1, True, (5, 64)),
    ("a2", "activation", 1, True, (5,)),
    ("last_w", "weight", 6, True, (3, 5)),
    ("y", "activation", 8, True, (3,)),
    ("Conv_0.accumulator", "accumulator", 12, True, (4, 4, 4)),
    ("d1.accumulator", "accumulator", 11, True, (5,)),
    ("MatMul_1.accumulator", "accumulator", 9, True, (3,)),
]


def test_every_place_that_holds_integers_is_listed():
    found = sites(graph())
    assert [(s.name, s.kind, s.bit_width, s.signed, s.shape) for s in found] == LISTED
    assert [s.source for s in found[-3:]] == ["Thresholds_0", "a1", "a2"]
    assert [s.layer for s in found] == [
        *["MultiThreshold", "Conv", "MultiThreshold", "MatMul", "MultiThreshold", "MatMul"],
        "Quant",
        "Conv",
        "MatMul",
        "MatMul",
    ]


class Forward:
    """The graph in NumPy, with the faults of a plan in every tensor by hand."""

    def __init__(self, plan, seed):
        self.plan, self.seed = plan, seed

    def struck(self, name, values, scale):
        if name not in self.plan.names:
            return values
        site = self.plan.at(name).site
        grid = (np.array(scale, values.dtype), np.zeros((), values.dtype), CodeFormat(site.bit_width, site.signed))
        samples = np.arange(len(values)) if site.batched else np.zeros(1, np.int64)
        for step in self.plan.steps(name):
            values = strike_values(step, values, *grid, seed=self.seed, samples=samples, batched=site.batched)
        return values

    def sums(self, name, products):
        """Accumulators, wrapped to their width where the plan narrows them."""
        entry = self.plan.at(name) if name in self.plan.names else None
        if entry is not None and entry.array is not None:
            half = 1 << (entry.site.bit_width - 1)
            products = (products + half) % (2 * half) - half
        return self.struck(name, products.astype(np.float32), 1.0)

    def __call__(self, x):
        a0 = self.struck("Thresholds_0", (x[..., None] >= THRESHOLDS[0]).sum(-1).astype(np.float32), 1.0)
        conv_w = self.struck("conv_w", WEIGHTS["conv_w"][1], 1.0)
        windows = sliding_window_view(a0, (3, 3), axis=(2, 3))
        c0 = self.sums("Conv_0.accumulator", np.einsum("ncyxhw,kchw->nkyx", windows, conv_w))
        steps = THRESHOLDS[0] * 8 - 20
        a1 = self.struck("a1", (c0[..., None] / 2 >= steps).sum(-1).astype(np.float32) - 8, 1.0)
        dense_w = self.struck("dense_w", np.ascontiguousarray(WEIGHTS["dense_w"][1].T), 1.0).T
        d1 = self.sums("d1.accumulator", a1.reshape(len(x), -1) @ dense_w)
        a2 = self.struck("a2", np.where(d1 >= 0, 1, -1).astype(np.float32), 1.0)
        last_w = self.struck("last_w", np.ascontiguousarray(WEIGHTS["last_w"][1].T), 0.125).T
        d2 = self.sums("MatMul_1.accumulator", a2 @ (last_w * 8)) / 8
        y = np.clip(np.rint(d2 / 0.5), -128, 127) * 0.5
        return self.struck("y", y.astype(np.float32), 0.5)


def executed(model, x, seed=0):
    """What qonnx's executor answers."""
    names = [info.name for info in model.graph.input]
    feeds = dict(zip(names, [x, np.array(seed), np.array(0)], strict=False))
    (out,) = execute_onnx(ModelWrapper(copied(model)).transform(InferShapes()), feeds).values()
    return out


def planned(faults):
    return resolve(sites(graph()), FAULTS[faults])


@pytest.mark.parametrize("faults", FAULTS)
def test_the_faults_are_those_of_the_plan(faults):
    plan, x = planned(faults), inputs()
    struck = insert_faults(graph(), plan)
    onnx.checker.check_model(struck)
    assert plan_of(struck) == plan
    assert {entry.site for entry in fault_nodes(struck)} == set(plan.names)
    expected = Forward(plan, 5)(x)
    assert_same(executed(struck, x, 5), expected)
    assert (expected != Forward(resolve(sites(graph()), []), 5)(x)).any()
    assert_same(executed(graph(), x), Forward(resolve(sites(graph()), []), 5)(x))


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("faults", FAULTS)
def test_they_survive_cleanup_and_constant_folding(faults, kept):
    plan, x = planned(faults), inputs(4)
    struck = insert_faults(graph(), plan)
    expected = Forward(plan, 5)(x)
    tidy = cleanup_model(ModelWrapper(copied(struck)), preserve_qnt_ops=kept, override_inpsize=4)
    folded = tidy.transform(FoldConstants(exclude_op_types=[]))
    for model in (tidy.model, folded.model):
        assert plan_of(model) == plan
        assert_same(executed(model, x, 5), expected)


@pytest.mark.parametrize("faults", FAULTS)
def test_they_can_be_taken_out_again(faults):
    before = graph()
    assert strip_faults(insert_faults(before, planned(faults))) == before


@pytest.mark.parametrize("faults", ["transient", "permanent", "protected"])
def test_quantizers_folded_into_their_weights_leave_the_faults(faults):
    """Cleanup without its quantizers makes constants of weights; the faults strike those."""
    struck = insert_faults(clean("digits_cnn"), resolve(sites(clean("digits_cnn")), FAULTS[faults]))
    x = batch("digits_cnn", 4)
    tidy = cleanup_model(ModelWrapper(copied(struck)), preserve_qnt_ops=False).model
    assert sum(node.op_type == "Quant" for node in tidy.graph.node) < sum(
        n.op_type == "Quant" for n in struck.graph.node
    )
    assert plan_of(tidy) == plan_of(struck)
    assert_same(by_onnxruntime(tidy, x, seed=5), by_onnxruntime(struck, x, seed=5))


def lost(model):
    """Takes the fault nodes of the weights dense_w away, as a pass would that folds them."""
    entry = next(e for e in fault_nodes(model) if e.site == "dense_w")
    for node in entry.nodes:
        model.graph.node.remove(node)
    next(t for t in model.graph.initializer if t.name == entry.before).name = entry.after


def off_grid(model):
    """Scales the weights, as a pass would that folds a multiplication into them."""
    entry = next(e for e in fault_nodes(model) if e.site == "conv_w")
    held = next(t for t in model.graph.initializer if t.name == entry.before)
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(0.3), held.name))


def other_thresholds(model):
    node = next(n for n in model.graph.node if n.op_type == "MultiThreshold")
    next(a for a in node.attribute if a.name == "out_scale").f = 2.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lost, "the plan strikes 'dense_w', which has no fault node"),
        (off_grid, "the fault node 'conv_w.faults' is wired otherwise"),
        (other_thresholds, "the fault node 'Thresholds_0.faults' is wired otherwise"),
    ],
)
def test_what_a_transformation_lost_is_told(change, text):
    struck = insert_faults(graph(), planned("permanent"))
    change(struck)
    with pytest.raises(GraphError, match=text):
        plan_of(struck)


def test_a_session_refuses_a_graph_that_lost_faults():
    struck = insert_faults(graph(), planned("permanent"))
    lost(struck)
    with pytest.raises(
        GraphError, match="strikes 'dense_w', but the fault nodes there are gone: a transformation remo"
    ):
        session(struck)


def test_quantizers_that_were_converted_keep_their_faults():
    """qonnx can write quantizers as QuantizeLinear and DequantizeLinear, behind which the fault nodes then stand."""
    struck = tidied(insert_faults(clean("digits_cnn"), resolve(sites(clean("digits_cnn")), FAULTS["transient"])), 4)
    other = ModelWrapper(struck).transform(QuantToQCDQ()).model
    assert not any(node.op_type == "Quant" for node in other.graph.node)
    assert plan_of(other) == plan_of(struck)
    x = batch("digits_cnn").numpy()
    outputs = [run(session(graph, graph_optimization="none"), x, seed=5)[0] for graph in (struck, other)]
    assert_same(*outputs)


def test_gemms_written_as_matrix_products_keep_their_faults():
    from tests.helpers.graph.networks import batch

    plan = resolve(sites(clean("biased")), [BitFlips(probability=0.02)])
    struck = tidied(insert_faults(clean("biased"), plan), 4)
    with pytest.warns(UserWarning, match="only offers explicit support for version 9"):
        other = ModelWrapper(copied(struck)).transform(GemmToMatMul()).model
    assert plan_of(other) == plan
    x = batch("biased", 4)
    assert_same(by_onnxruntime(other, x, seed=5), by_onnxruntime(struck, x, seed=5))


DATA = files("qonnx") / "data" / "onnx"


@pytest.mark.parametrize("name", ["bsd300x3-espcn/subpixel", "bsd300x3-espcn/nn_resize"])
def test_graphs_that_ship_with_qonnx(name):
    model = tidied(onnx.load(str(DATA / name / "quant_model.onnx")), None)
    found = sites(model)
    kinds = [site.kind for site in found]
    assert {site.bit_width for site in found if site.kind == "weight"} == {4, 8}
    assert kinds.count("accumulator") == kinds.count("weight") - len(found.obstacles) > 0
    assert all(site.shape is not None for site in found)
    plan = resolve(found, [BitFlips(probability=1e-3), WordFaults(probability=1e-4, sites="*accumulator")])
    struck = insert_faults(model, plan)
    assert plan_of(struck) == plan
    assert strip_faults(struck) == model
    x = np.random.default_rng(1).uniform(0, 1, (1, 3, 128, 128)).astype(np.float32)
    empty = insert_faults(model, resolve(found, [BitFlips(probability=0)]))
    assert_same(by_onnxruntime_array(empty, x), by_onnxruntime_array(model, x))
    assert (by_onnxruntime_array(struck, x) != by_onnxruntime_array(model, x)).any()


def by_onnxruntime_array(model, x):
    (out,) = run(session(model, threads=1), x, seed=3)
    return out


def node(op, inputs, **attributes):
    """A node, and the constants that it may read."""
    constants = {"s": 0.5, "s2": 2.0, "z": 0.0, "z4": 4.0, "z2": 2.0, "b4": 4.0, "b8": 8.0, "ch": [0.5, 1, 2]}
    held = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    held.append(numpy_helper.from_array(np.zeros((1, 3), np.float32), "t3"))
    made = helper.make_node(op, ["x", *inputs.split()], ["y"], domain=QONNX, **attributes)
    return made, Constants(helper.make_model(helper.make_graph([made], "one", [], [], held)))


@pytest.mark.parametrize(
    ("op", "inputs_", "attributes", "bits", "signed", "scale", "zero"),
    [
        ("Trunc", "s z b8 s2 b4", {"signed": 0, "rounding_mode": "FLOOR"}, 4, False, 2.0, 0),
        ("Trunc", "s z4 b8 s2 b4", {"signed": 1, "rounding_mode": "FLOOR"}, 4, True, 2.0, 1),
        ("Trunc", "s z4 b8 b4", {"rounding_mode": "FLOOR"}, 4, True, 0.5, 4),
        ("Quant", "s z b4", {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"}, 4, False, 0.5, 0),
        ("BipolarQuant", "s", {}, 1, True, 0.5, 0),
        ("MultiThreshold", "t3", {"out_dtype": "INT4", "out_scale": 0.5, "out_bias": -1.0}, 4, True, 0.5, 0),
        ("MultiThreshold", "t3", {"out_dtype": "UINT2"}, 2, False, 1.0, 0),
    ],
)
def test_grids(op, inputs_, attributes, bits, signed, scale, zero):
    """What the node makes lies on the grid, by qonnx's executor."""
    made, constants = node(op, inputs_, **attributes)
    grid = grid_of(made, constants, signed_input=True)
    assert (grid.bit_width, grid.signed, float(grid.scale), float(grid.zero_point)) == (bits, signed, scale, zero)
    x = np.round(np.random.default_rng(1).uniform(-8, 8, (4, 3)) * 2).astype(np.float32) / 2
    context = {"x": x} | {name: constants.get(name) for name in made.input[1:]}
    getCustomOp(made, 1 if len(made.input) == 5 else None).execute_node(context, None)
    values = context["y"].astype(np.float32)
    inside = values if op != "Trunc" or len(made.input) > 5 else values[np.abs(values) < 2]
    assert inside.size
    assert grid.holds(inside)
    assert not grid.holds(inside + np.float32(0.1))


@pytest.mark.parametrize(
    ("op", "inputs_", "attributes", "text"),
    [
        ("Trunc", "s z b8 b4", {}, "the sign of its integers is not known"),
        ("Trunc", "s z2 b8 s2 b4", {}, "zero point is no integer on the scale of its output"),
        ("MultiThreshold", "t3", {}, "its datatype is '', which qonnx does not have"),
        ("MultiThreshold", "t3", {"out_dtype": "FLOAT32"}, "its datatype is FLOAT32, expected integers"),
        ("MultiThreshold", "t3", {"out_dtype": "SCALEDINT<8>"}, "its datatype is SCALEDINT<8>, expected integers"),
        ("MultiThreshold", "t3", {"out_dtype": "INT64"}, "expected 1 to 32 bits"),
        ("MultiThreshold", "t3", {"out_dtype": "INT4", "out_bias": 0.25}, "its out_bias 0.25 is no multiple"),
        ("MultiThreshold", "t3", {"out_dtype": "INT4", "out_scale": 0.0}, "is no multiple of its out_scale 0"),
        (
            "MultiThreshold",
            "t3",
            {"out_dtype": "UINT4", "out_bias": -1.0},
            "-1 to 2 are not those of its out_dtype UINT4",
        ),
        ("MultiThreshold", "t3", {"out_dtype": "INT2"}, "0 to 3 are not those of its out_dtype INT2"),
        ("MultiThreshold", "t3", {"out_dtype": "BIPOLAR"}, "BIPOLAR, but it has 3 thresholds"),
        ("MultiThreshold", "x", {"out_dtype": "INT4"}, "its thresholds are computed by the graph"),
        ("Quant", "s z", {}, "it has 3 inputs and 1 outputs, expected 4 and 1"),
    ],
)
def test_grids_that_are_not_known(op, inputs_, attributes, text):
    with pytest.raises(NoGridError, match=text):
        grid_of(*node(op, inputs_, **attributes))


def test_annotations_that_are_not_true_are_obstacles():
    model = graph()
    held = next(t for t in model.graph.initializer if t.name == "conv_w")
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) + np.float32(0.5), held.name))
    found = sites(model)
    assert "conv_w" not in [site.name for site in found]
    assert "are not the float32 integers that its datatype INT3 promises" in found.obstacles["conv_w"]
    assert found.obstacles["Conv_0.accumulator"] == "its weights are not quantized there"


def test_layers_without_accumulators_say_why():
    model = graph()
    model.graph.node[1].attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    model.graph.node[5].input[0] = "m0"
    found = sites(model)
    assert "auto_pad" in found.obstacles["Conv_0.accumulator"]
    assert found.obstacles["d1.accumulator"] == "its inputs are on the grid of no single quantizer"
    with pytest.raises(Exception, match="auto_pad"):
        resolve(found, [BitFlips(probability=0.1, sites="Conv_0.accumulator")])


def test_a_name_that_two_quantizers_share_by_accident():
    """Nodes without names are named after their outputs; those of one scope too, if they hold other integers."""
    model = tiny(name="")
    assert [site.name for site in sites(model)] == ["q"]
    model = tiny(name="/block/Quant")
    second = helper.make_node("Quant", ["q", "scale", "zeropt", "wide"], ["y"], name="/block/Quant_1", domain=QONNX)
    model.graph.node.append(second)
    model.graph.initializer.append(numpy_helper.from_array(np.array(5, np.float32), "wide"))
    assert [site.name for site in sites(model)] == ["q", "y"]
    faulty = insert_faults(model, resolve(sites(model), [WordFaults(probability=1.0, effect="full", sites="q")]))
    assert [entry.site for entry in fault_nodes(faulty)] == ["q"]
    np.testing.assert_array_equal(by_onnxruntime(faulty, X) / 0.5, -1 - by_onnxruntime(model, X) / 0.5)


@pytest.mark.parametrize("cycle", ["self", "two"])
def test_cyclic_graphs_end(cycle):
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    quant = helper.make_node("Quant", ["a", "scale", "zeropt", "bits"], ["q"], domain=QONNX)
    matmul = helper.make_node("MatMul", ["a" if cycle == "two" else "m", "w"], ["m"])
    model = tiny()
    model.graph.node.extend([*nodes, matmul])
    model.graph.node[0].CopyFrom(quant)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 3), np.float32), "w"))
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 3]))
    assert [site.name for site in sites(model)] == ["q"]
