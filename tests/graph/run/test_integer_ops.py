"""The fault ops on tensors that are integers themselves, as ONNX' own quantizers make them: the tensor is the code."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from hwfault.codes import CodeFormat, encode_integers, integers
from hwfault.graph.read.nodes import fault_node
from hwfault.program.clipped import ClipProcess
from hwfault.program.mapped import MapProcess
from hwfault.program.processes import Site, SitePlan
from hwfault.program.steps import ClipStep, StreamStep
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.reference import inject_codes
from tests.graph.run.test_batch_axis_ops import STEPS
from tests.helpers.graph.ops import by_qonnx, load
from tests.helpers.stream.programs import Mask, program

FORMATS = {  # (type, bits)
    "int8": (np.int8, 8),
    "uint8": (np.uint8, 8),
    "int16": (np.int16, 16),
    "uint16": (np.uint16, 16),
    "int32": (np.int32, 32),
    "int4 in int8": (np.int8, 4),
    "uint4 in uint8": (np.uint8, 4),
    "bipolar in int8": (np.int8, 1),
    "sums of 20 bits": (np.int32, 20),
}
SPEC = Path(__file__).parents[3] / "export" / "SPEC.md"
SHOWN = {"by inference": "inference", "by batch": "batch", "held": "epoch"}
SAMPLES, SHAPE, FIRST, SEED = 3, (40, 26), 5, 2**63 + 9


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


def site_of(dtype, bits, batched=True):
    signed = np.issubdtype(dtype, np.signedinteger)
    kind = "activation" if batched else "weight"
    return Site(name="q", kind=kind, bit_width=bits, signed=signed, shape=SHAPE if batched else (SAMPLES, *SHAPE))


def words_of(dtype, bits, shape=(SAMPLES, *SHAPE)):
    fmt = CodeFormat(bits, np.issubdtype(dtype, np.signedinteger))
    codes = np.random.default_rng(bits).integers(0, 1 << bits, shape).astype(np.uint32)
    return integers(codes, fmt).astype(dtype)


def graph_of(site, step, dtype, **changed):
    """A graph of one fault node on integers, with the scale 1 and the zero point 0 as constants."""
    node, constants = fault_node(site, step, ("x", "one", "zero"), "y", "the node")
    for key, value in changed.items():
        (held,) = [a for a in node.attribute if a.name == key]
        held.i = value
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    grid = [numpy_helper.from_array(np.float32(number), name) for name, number in (("one", 1), ("zero", 0))]
    infos = [helper.make_tensor_value_info("x", kind, None)]
    drawn = [name for name in node.input if name.startswith("hwfault_")]
    infos += [helper.make_tensor_value_info(name, 7, None) for name in drawn]
    out = helper.make_tensor_value_info("y", kind, None)
    body = helper.make_graph([node], "one", infos, [out], [*grid, *constants])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    return helper.make_model(body, opset_imports=opsets, ir_version=8)


def numbers(seed=SEED, first=FIRST):
    signed = np.asarray(np.array(seed, np.uint64).view(np.int64))
    return {"hwfault_seed": signed, "hwfault_first_sample": np.array(first)}


def by_onnxruntime(graph, x, **given):
    names = {info.name for info in graph.graph.input}
    feeds = {name: value for name, value in ({"x": x} | numbers(**given)).items() if name in names}
    return load(graph, 2).run(None, feeds)[0]


def check_same(got, expected):
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def by_reference(step, x, fmt, seed=SEED, first=FIRST, batched=True):
    """Drawn faults of each sample by the specification in code."""
    codes = encode_integers(x, fmt).reshape(len(x) if batched else 1, -1)
    own = {"program": step.program, "bit_width": fmt.bit_width}
    samples = range(first, first + len(codes)) if batched else [0]
    rows = [inject_codes(row, seed=seed, sample=s, **own) for row, s in zip(codes, samples, strict=True)]
    return integers(np.stack(rows), fmt).astype(x.dtype).reshape(x.shape)


def of_rows(site, own, **shown):
    process = MapProcess(fault=0, site_number=77, map=own, **shown)
    return SitePlan(site=site, processes=(process,)).steps(())[0]


@pytest.mark.parametrize(("bits", "x", "expected"), [(8, [-128, 127, 5], [127, -2, 5]), (4, [-8, 7, 5], [7, -2, 5])])
def test_known_words(bits, x, expected):
    """The ends of int8, and of 4 bits in int8: all bits turned, and the last bit and the sign of the next word."""
    site = Site(name="q", kind="weight", bit_width=bits, signed=True, shape=(3,))
    kept, every = np.full(2, 2**32 - 1), (1 << bits) - 1
    own = FaultMap(bits, 3, np.array([0, 1]), kept.astype(np.uint32), np.array([every, 1 | 1 << bits - 1], np.uint32))
    graph = graph_of(site, of_rows(site, own), np.int8)
    check_same(by_onnxruntime(graph, np.array(x, np.int8)), np.array(expected, np.int8))


def rows_of_spec():
    """Type, bits, words and answers of the known answers in SPEC.md."""
    table = SPEC.read_text(encoding="utf-8").partition("| type | bit_width | X | Y |")[2].splitlines()[2:]
    for line in table:
        if not line.startswith("|"):
            return
        kind, bits, *words = (cell.strip() for cell in line.strip("| ").split("|"))
        yield kind, int(bits), *(np.array([list(map(int, row.split(",")))], kind) for row in words)


@pytest.mark.parametrize(
    ("kind", "bits", "x", "y"), [pytest.param(*row, id=f"{row[0]}, {row[1]}") for row in rows_of_spec()]
)
def test_known_answers_of_the_specification(kind, bits, x, y):
    site = Site(name="q", kind="activation", bit_width=bits, signed=kind.startswith("i"), shape=(8,))
    numbers_of = program((Mask(4, 0.5, 1 | 1 << bits - 1),))
    graph = graph_of(site, StreamStep(tuple(numbers_of), bits, True, "twos_complement"), kind)
    check_same(by_onnxruntime(graph, x, seed=7, first=3), y)


def test_the_specification_knows_every_type():
    assert len(list(rows_of_spec())) == 7
    assert {kind for kind, *_ in rows_of_spec()} == {"int8", "uint8", "int16", "uint16", "int32"}


@pytest.mark.parametrize("batched", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name if FORMATS[name][1] in (8, 4, 32) else slow(name) for name in FORMATS])
def test_drawn_faults_are_the_references(name, batched):
    dtype, bits = FORMATS[name]
    site = site_of(dtype, bits, batched)
    fmt = CodeFormat(bits, site.signed)
    x = words_of(dtype, bits)
    for what in ("flips", "more than flips", "bursts"):
        step = STEPS[what](site)
        got = by_onnxruntime(graph_of(site, step, dtype), x)
        check_same(got, by_reference(step, x, fmt, batched=batched))
        assert (got != x).any(), "nothing was struck"


@pytest.mark.parametrize("representation", [0, 1, 2])
def test_representations(representation):
    dtype, bits = FORMATS["int8"]
    site = site_of(dtype, bits)
    step = STEPS["flips"](site)
    fmt = CodeFormat(bits, True, ("twos_complement", "offset_binary", "sign_magnitude")[representation])
    x = words_of(dtype, bits)
    graph = graph_of(site, step, dtype)
    graph.graph.node[0].attribute.append(helper.make_attribute("representation", representation))
    expected = by_reference(step, x, fmt)
    stays = encode_integers(x, fmt) == encode_integers(expected, fmt)
    check_same(by_onnxruntime(graph, x), np.where(stays, x, expected).astype(dtype))


@pytest.mark.parametrize("name", ["int8", "int4 in int8", *map(slow, ("uint8", "uint16", "int32"))])
@pytest.mark.parametrize("what", STEPS)
def test_faults_are_those_of_a_float_tensor_of_the_site(what, name):
    """Of the values with scale 1 and zero point 0, by qonnx's executor: maps, protected memories and all."""
    dtype, bits = FORMATS[name]
    site = site_of(dtype, bits)
    step = step_for(what, site)
    x = words_of(dtype, bits)
    node, constants = fault_node(site, step, ("x", "one", "zero"), "y", "the node")
    held = {c.name: numpy_helper.to_array(c) for c in constants} | numbers()
    grid = {"one": np.float64(1), "zero": np.float64(0)}
    expected = by_qonnx(node, {"x": x.astype(np.float64)} | grid | held).astype(dtype)
    check_same(by_onnxruntime(graph_of(site, step, dtype), x), expected)
    grid = {"one": np.float32(1), "zero": np.float32(0)}
    check_same(by_qonnx(node, {"x": x} | grid | held), expected)
    assert (expected != x).any()


def step_for(what, site):
    """A step of that name, with the rows of a map in words of the site's width."""
    if not what.startswith("map") and what not in SHOWN:
        return STEPS[what](site)
    rng = np.random.default_rng(3)
    word, bit = np.nonzero(rng.random((site.words, site.bit_width)) < 0.1)
    own = FaultMap.from_cells(site.words, site.bit_width, word, bit, rng.integers(0, 3, len(word)))
    shown = {"threshold": 2**31, "refresh": SHOWN[what]} if what in SHOWN else {}
    return of_rows(site, own, **shown)


def test_ranges():
    site = site_of(np.int8, 8)
    process = ClipProcess(fault=0, site_number=0, bit_width=8, signed=True, low=-20, high=30, below=0, above=30)
    x = words_of(np.int8, 8)
    expected = np.where(x < -20, 0, np.minimum(x, 30)).astype(np.int8)
    check_same(by_onnxruntime(graph_of(site, ClipStep(process), np.int8), x), expected)


def test_a_seed_and_a_sample_number_for_each_row():
    site = site_of(np.uint8, 8)
    step = STEPS["flips"](site)
    fmt = CodeFormat(8, False)
    x = words_of(np.uint8, 8, (4, *SHAPE))
    seeds, firsts = [7, 7, 2**64 - 1, 3], [9, 2**32 - 1, 0, 9]
    got = by_onnxruntime(graph_of(site, step, np.uint8), x, seed=seeds, first=firsts)
    alone = [by_reference(step, x[i : i + 1], fmt, seeds[i], firsts[i]) for i in range(4)]
    check_same(got, np.concatenate(alone))


@settings(max_examples=4, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 4))
def test_any_seed_and_sample(name, seed, first):
    dtype, bits = FORMATS[name]
    site = site_of(dtype, bits)
    step = STEPS["flips"](site)
    x = words_of(dtype, bits)
    got = by_onnxruntime(graph_of(site, step, dtype), x, seed=seed, first=first)
    check_same(got, by_reference(step, x, CodeFormat(bits, site.signed), seed, first))


def test_an_integer_beyond_its_width_stays_unless_its_code_changes():
    site = Site(name="q", kind="weight", bit_width=4, signed=True, shape=(3,))
    step = step_for("map", site)
    graph = graph_of(site, step, np.int8)
    x = np.array([100, -100, 55], np.int8)
    before = encode_integers(x, CodeFormat(4, True))
    after = step.active(0, 0).apply(before[None])[0]
    expected = np.where(before == after, x, integers(after, CodeFormat(4, True))).astype(np.int8)
    check_same(by_onnxruntime(graph, x), expected)


@pytest.mark.parametrize(
    ("dtype", "changed", "told"),
    [
        (np.int8, {"signed": 0}, "integers from 0 to 255, but X is of a type from -128 to 127"),
        (np.uint8, {"signed": 1}, "integers from -128 to 127, but X is of a type from 0 to 255"),
        (np.int8, {"bit_width": 9}, "integers from -256 to 255, but X is of a type from -128 to 127"),
    ],
)
def test_a_type_that_does_not_hold_the_words_is_refused(dtype, changed, told):
    site = site_of(dtype, 8)
    with pytest.raises(Exception, match=told):
        load(graph_of(site, of_clip(site), dtype, **changed))


def of_clip(site):
    return ClipStep(
        ClipProcess(fault=0, site_number=0, bit_width=8, signed=site.signed, low=0, high=1, below=0, above=1)
    )


@pytest.mark.parametrize(("name", "number"), [("one", 2), ("zero", 1)])
def test_a_grid_of_integers_is_refused(name, number):
    site = site_of(np.int8, 8)
    graph = graph_of(site, STEPS["flips"](site), np.int8)
    (held,) = [tensor for tensor in graph.graph.initializer if tensor.name == name]
    held.CopyFrom(numpy_helper.from_array(np.float32(number), name))
    with pytest.raises(Exception, match="expected the scale 1 and the zero point 0"):
        by_onnxruntime(graph, words_of(np.int8, 8))


def test_a_type_without_an_op_is_refused_when_the_graph_is_loaded():
    site = site_of(np.int8, 8)
    graph = graph_of(site, STEPS["flips"](site), np.int64)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph, match="TransientFaults"):
        load(graph)
