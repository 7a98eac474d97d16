"""Graphs of ONNX' own integers under faults, in onnxruntime: their outputs are those of the oracle in NumPy."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import hwfault
from hwfault.codes import CodeFormat, encode_integers, integers
from hwfault.graph.edit.bake import bake_faults
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.editing import copy_model
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, run_without_inputs, session
from hwfault.laws.models import BitFlips, ProfileFaults, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.reference import inject_codes
from tests.helpers.graph.qdq import by_reference, evaluate, inputs, quantized

SEED, FIRST = 2**63 + 7, 40
PARAMETERS = ("conv.weight", "conv.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
CONSTANTS = {f"{name}_quantized": name for name in PARAMETERS}
QDQ = CONSTANTS | {f"{n}_QuantizeLinear_Output": n for n in ("x", "conv", "pool", "flat", "relu", "y")}
QOPERATOR = CONSTANTS | {f"{name}_quantized": name for name in ("x", "conv", "fc1", "y")}
DYNAMIC = {f"{name}_quantized": name for name in ("x", "flat", "relu", "conv.weight")}
TURNED = {f"{name}_Transposed_quantized": name for name in ("fc1.weight", "fc2.weight")}
TENSORS = {
    "QDQ": QDQ,
    "QDQ uint8": QDQ,
    "QDQ per channel": QDQ,
    "QDQ 16 bits": QDQ,
    "QDQ 4 bits": QDQ,
    "QOperator": QOPERATOR,
    "QOperator uint8": QOPERATOR,
    "QOperator per channel": QOPERATOR,
    "dynamic": DYNAMIC | TURNED,
}
SELECTED = {"weights": {"kind": "weight"}, "biases": {"kind": "bias"}, "activations": {"kind": "activation"}}


def slow_but(*quick, of=tuple(TENSORS)):
    """The kinds of graphs, of which those named are no slow tests."""
    return [what if what in quick else pytest.param(what, marks=pytest.mark.slow) for what in of]


def planned(model, **selected):
    return resolve(sites(model), [BitFlips(probability=0.01, sites=selected or "*")])


def own(model):
    """The sites but for accumulators."""
    return [site for site in sites(model) if site.kind != "accumulator"]


@pytest.mark.parametrize("what", slow_but("QDQ", "QOperator", "dynamic"))
def test_sites_are_all_the_tensors_of_integers(what):
    found = {site.name: site for site in own(quantized(what))}
    assert found.keys() == set(TENSORS[what].values())
    for name, site in found.items():
        kind = name.rpartition(".")[2] if "." in name else "activation"
        assert site.kind == kind, name
        weights = 4 if what == "QDQ 4 bits" else 8
        activations = 16 if what == "QDQ 16 bits" else 8
        assert site.bit_width == {"weight": weights, "bias": 32, "activation": activations}[kind], name
        unsigned = what in ("QDQ uint8", "QDQ 16 bits", "QOperator uint8", "dynamic") and kind == "activation"
        assert site.signed != unsigned, name
    assert found["fc1.weight"].shape == (10, 64)
    assert found["x"].shape == (1, 8, 8)


QUICK = [
    ("QDQ 4 bits", "weights", "none"),
    ("QDQ per channel", "weights", "all"),
    ("QOperator uint8", "activations", "all"),
    ("dynamic", "weights", "all"),
]
CASES = [
    (what, selected, optimization) for what in TENSORS for selected in SELECTED for optimization in ("none", "all")
]
# biases of the dynamic graph are no integers, and struck ones take sums past 32 bits in onnxruntime's fused layers
CASES = [case for case in CASES if case[1] != "biases" or (case[0] != "dynamic" and case[2] == "none")]


@pytest.mark.parametrize(
    ("what", "selected", "optimization"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_outputs_are_the_oracles(what, selected, optimization):
    model, x = quantized(what), inputs(2)
    plan = planned(model, **SELECTED[selected])
    graph = insert_faults(model, plan)
    strike = by_reference(plan, TENSORS[what], seed=SEED, first=FIRST, turned=tuple(TURNED))
    expected = evaluate(model, x, strike)["y"]
    (got,) = run(session(graph, graph_optimization=optimization), x, seed=SEED, first_sample=FIRST)
    if what == "dynamic":  # whose scales are no powers of two
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(got, expected)
    (clean,) = run(session(model), x)
    assert not np.array_equal(got, clean), "nothing was struck"


@pytest.mark.parametrize("what", slow_but("QDQ 4 bits", "dynamic"))
def test_a_graph_with_faults_says_its_plan_and_gives_the_graph_before_back(what):
    model = quantized(what)
    faults = [BitFlips(probability=0.01), WordFaults(probability=0.01)]  # two nodes at a site
    plan = resolve(own(model), faults)
    graph = insert_faults(model, plan)
    onnx.checker.check_model(strip_faults(graph))
    assert strip_faults(graph).SerializeToString() == model.SerializeToString()
    assert plan_of(graph).digest == plan.digest


@pytest.mark.parametrize("what", slow_but("QDQ 4 bits", of=("QDQ 4 bits", "QOperator per channel")))
def test_a_batch_is_its_samples_one_by_one(what):
    model, x = quantized(what), inputs()
    struck = session(insert_faults(model, resolve(own(model), [BitFlips(probability=0.01)])))
    (together,) = run(struck, x, seed=SEED, first_sample=FIRST)
    alone = [run(struck, x[i : i + 1], seed=SEED, first_sample=FIRST + i)[0] for i in range(len(x))]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def optimized(model, folder):
    """How many of each op onnxruntime runs for a graph, in a session as hwfault makes it."""
    path = folder / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.register_custom_ops_library(hwfault.onnxruntime_library())
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("kind", ["weight", "bias", "activation"])
@pytest.mark.parametrize("what", slow_but("QDQ", of=("QDQ", "QDQ uint8", "QDQ per channel")))
def test_onnxruntime_keeps_its_kernels_of_integers(what, kind, tmp_path):
    model = quantized(what)
    kept = optimized(insert_faults(model, planned(model, kind=kind)), tmp_path)
    clean = optimized(model, tmp_path)
    for op in ("QLinearConv", "QGemm", "Conv", "Gemm"):
        assert kept[op] == clean[op], op
    assert clean["QLinearConv"] == 1
    assert clean["QGemm"] == 2


def test_the_same_network_has_the_same_parameters_and_faults_in_both_formats():
    one, other = quantized("QDQ"), quantized("QOperator")
    named = {site.name: site for site in own(other)}
    alike = [site for site in own(one) if site.name in named]
    assert {site.name for site in alike} == {*PARAMETERS, "x", "conv", "y"}
    for site in alike:
        assert named[site.name].model_copy(update={"layer": site.layer}) == site
    # but those of biases, whose highest bits take sums past 32 bits, or past what float32 holds
    struck = [name for name in PARAMETERS if "bias" not in name]
    faults = [BitFlips(probability=0.01, sites=[*struck, "x", "conv", "y"])]
    x = inputs()
    both = [
        run(session(insert_faults(m, resolve(own(m), faults)), graph_optimization="none"), x, seed=1)[0]
        for m in (one, other)
    ]
    np.testing.assert_array_equal(*both)


def test_permanent_faults_and_a_protected_memory():
    """Of a memory with SECDED, which corrects single flips, and of stuck cells, which are those of the maps."""
    model, x = quantized("QDQ"), inputs(2)
    secded = Protection(kind="secded", data_bits=16)
    few = ProfileFaults(profile="uniform-flips", at={"ber": 1e-5}, protection=secded, sites={"kind": "weight"})
    (clean,) = run(session(model), x)
    (corrected,) = run(session(insert_faults(model, resolve(own(model), [few]))), x, seed=SEED)
    np.testing.assert_array_equal(corrected, clean)

    stuck = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0}, sites={"kind": "weight"})
    plan = resolve(own(model), [stuck], device=3)
    struck = insert_faults(model, plan)
    (got,) = run(session(struck, graph_optimization="none"), x)
    held = copy_model(model)
    for tensor in held.graph.initializer:
        site = CONSTANTS.get(tensor.name)
        if site in plan.names:
            values = numpy_helper.to_array(tensor)
            codes = encode_integers(values, CodeFormat(8, True)).reshape(1, -1)
            for step in plan.steps(site):
                codes = step.active(0, 0).apply(codes)
            words = integers(codes, CodeFormat(8, True)).astype(np.int8).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(words, tensor.name))
    np.testing.assert_array_equal(got, run(session(held, graph_optimization="none"), x)[0])
    assert not np.array_equal(got, clean)


@pytest.mark.parametrize("what", slow_but("QDQ"))
def test_baked_weights_are_constants_of_the_same_integers(what):
    """A plain graph with the faults of one seed, for whoever has no ops of hwfault."""
    model, x = quantized(what), inputs(2)
    struck = insert_faults(model, planned(model, kind="weight"))
    baked = bake_faults(struck, run_without_inputs, SEED)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for tensor in baked.graph.initializer:
        if tensor.name in types:
            assert tensor.data_type == types[tensor.name], tensor.name
    assert {node.op_type for node in baked.graph.node} == {node.op_type for node in model.graph.node}
    expected = run(session(struck, graph_optimization="none"), x, seed=SEED)[0]
    np.testing.assert_array_equal(run(session(baked, graph_optimization="none"), x)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["QDQ", "QDQ uint8", "QDQ per channel"])
def test_struck_sums_are_the_oracles(what):
    """Of both linear layers: NumPy adds up integers, and strikes the codes of the sums by the specification."""
    model, x = quantized(what), inputs(3)
    layers = {node.output[0]: node for node in model.graph.node if node.op_type == "Gemm"}
    found = sites(model)
    sums = [site for site in found if site.kind == "accumulator" and len(site.shape) == 1]
    assert len(sums) == len(layers) == 2
    plan = resolve(found, [BitFlips(probability=0.02, sites=[{"name": s.name, "kind": s.kind} for s in sums])])
    values = evaluate(model, x, lambda _, given: given)
    site_of = dict(zip(layers, sums, strict=True))

    def strike(name, given):
        if name not in layers:
            return given
        site, node = site_of[name], layers[name]
        worth = given.dtype.type(1)
        for read in node.input[:2]:
            maker = next(made for made in model.graph.node if read in made.output)
            worth = worth * values[maker.input[1]]
        bias = values[node.input[2]]
        whole = np.rint((given - bias) / worth).astype(np.int64)
        fmt = CodeFormat(site.bit_width, site.signed)
        codes = encode_integers(whole, fmt)
        for step in plan.steps(site.name):
            own = {"program": step.program, "seed": SEED, "bit_width": fmt.bit_width}
            codes = np.stack([inject_codes(row, sample=FIRST + i, **own) for i, row in enumerate(codes)])
        return (integers(codes, fmt) * worth + bias).astype(np.float32)

    expected = evaluate(model, x, strike)["y"]
    assert not np.array_equal(expected, values["y"])
    (got,) = run(session(insert_faults(model, plan)), x, seed=SEED, first_sample=FIRST)
    np.testing.assert_array_equal(got, expected)
