"""The fault ops on samples that do not lie along axis 0: onnxruntime and qonnx's executor against the reference."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwfault.codes import CodeFormat
from hwfault.errors import HwfaultError
from hwfault.graph.read.layouts import align_to_tensor, inverse
from hwfault.graph.read.nodes import fault_node
from hwfault.graph.run.strike import strike_values
from hwfault.laws.models import BitFlips, Clusters, ProfileFaults, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis, arrange, restore
from hwfault.program.mapped import MapProcess
from hwfault.program.processes import Site, SitePlan, Step
from hwfault.stream.array_reference import accumulate
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.protection_scheme import Protection
from tests.graph.run.test_array_op import node_of, session_of
from tests.helpers.graph.ops import assert_same, by_qonnx, load
from tests.helpers.stream.accumulator_cases import Case, case

BITS, FIRST = 6, 5
FMT = CodeFormat(BITS, True)
LYING = {  # (shape of the tensor, where the samples lie): 3 samples each
    "tokens first": ((40, 3, 30), BatchAxis(axis=1)),
    "samples last": ((40, 30, 3), BatchAxis(axis=2)),
    "heads in front": ((12, 10, 9), BatchAxis(inner=4, rows=4)),
    "tokens in front": ((120, 9), BatchAxis(rows=40)),
    "tokens and heads": ((90, 12), BatchAxis(inner=3, rows=30)),
    "both in the middle": ((5, 36, 2, 7), BatchAxis(axis=1, inner=2, rows=12)),
    "a single word": ((3,), BatchAxis()),
}
KNOWN = json.loads((Path(__file__).parents[2] / "stream" / "batch_axes.json").read_text())["cases"]


def site_of(shape, batch) -> Site:
    own = batch.sample_shape(shape)
    return Site(name="q", kind="activation", bit_width=BITS, signed=True, shape=own, batch=batch)


def cells(site, share=0.1) -> FaultMap:
    rng = np.random.default_rng(site.words)
    word, bit = np.nonzero(rng.random((site.words, BITS)) < share)
    return FaultMap.from_cells(site.words, BITS, word, bit, rng.integers(0, 3, len(word)))


def of_map(site, **numbers) -> Step:
    process = MapProcess(fault=0, site_number=77, map=cells(site), **numbers)
    return SitePlan(site=site, processes=(process,)).steps(())[0]


def resolved(*faults):
    def steps(site) -> Step:
        (step,) = resolve([site], faults, device=3).steps("q")
        return step

    return steps


PROTECTED = {"protection": Protection(kind="secded", data_bits=16), "sites": "*"}
STEPS = {
    "flips": resolved(BitFlips(probability=0.05)),
    "more than flips": resolved(BitFlips(p01=0.05, p10=0.01), WordFaults(probability=0.1)),
    "bursts": resolved(Clusters(probability=0.03, sizes=[0.5, 0.3, 0.2], axis="word")),
    "map": of_map,
    "by inference": lambda site: of_map(site, threshold=2**31, refresh="inference"),
    "by batch": lambda site: of_map(site, threshold=2**31, refresh="batch"),
    "held": lambda site: of_map(site, threshold=2**31, refresh="epoch"),
    "protected flips": resolved(ProfileFaults(profile="uniform-flips", at={"ber": 0.05}, **PROTECTED)),
    "protected map": resolved(ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0}, **PROTECTED)),
}


@dataclass
class Node:
    """A fault op on values that lie by `layout`, and what it has to make of them."""

    shape: tuple[int, ...]
    batch: BatchAxis
    step: Step
    scale: NDArray
    dtype: type = np.float32
    layout: tuple[int, ...] = ()

    def __post_init__(self):
        rng = np.random.default_rng(len(self.shape))
        q = rng.integers(-32, 32, self.shape)
        self.x = (q * self.scale).astype(self.dtype)
        self.zero = np.zeros((), self.dtype)

    def lies(self, values):
        return np.ascontiguousarray(values.transpose(self.layout)) if self.layout else values

    def parts(self):
        site = site_of(self.shape, self.batch)
        return fault_node(site, self.step, ("x", "scale", "zeropt"), "y", "the node", self.layout)

    def feeds(self, first=FIRST):
        scale = align_to_tensor(self.scale.astype(self.dtype), self.layout)
        numbers = {"hwfault_seed": np.array(9), "hwfault_first_sample": np.array(first)}
        return {"x": self.lies(self.x), "scale": np.ascontiguousarray(scale), "zeropt": self.zero} | numbers

    def expected(self, batch=None):
        samples = np.arange(self.shape[self.batch.axis] // self.batch.rows) + FIRST
        given = (self.x, self.scale.astype(self.dtype), self.zero, FMT)
        own = {"seed": 9, "samples": samples, "batched": True, "batch": batch or self.batch}
        return self.lies(strike_values(self.step, *given, **own))

    def by_onnxruntime(self, threads=2, feeds=None):
        node, constants = self.parts()
        feeds = feeds or self.feeds()
        kind = TensorProto.DOUBLE if self.dtype is np.float64 else TensorProto.FLOAT
        own = dict.fromkeys(("x", "scale", "zeropt"), kind)
        infos = [
            helper.make_tensor_value_info(name, own.get(name, TensorProto.INT64), None)
            for name in feeds
            if name in node.input
        ]
        out = helper.make_tensor_value_info("y", kind, None)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
        body = helper.make_graph([node], "one", infos, [out], constants)
        session = load(helper.make_model(body, opset_imports=opsets, ir_version=8), threads)
        (got,) = session.run(None, {info.name: feeds[info.name] for info in infos})
        return got

    def by_qonnx(self):
        node, constants = self.parts()
        return by_qonnx(node, self.feeds() | {c.name: numpy_helper.to_array(c) for c in constants})


def one_scale(shape):
    return np.full((), 0.25)


@pytest.mark.parametrize("lying", LYING)
@pytest.mark.parametrize("what", STEPS)
def test_both_engines_equal_the_reference(what, lying):
    shape, batch = LYING[lying]
    node = Node(shape, batch, STEPS[what](site_of(shape, batch)), one_scale(shape))
    expected = node.expected()
    assert_same(node.by_onnxruntime(), expected, "onnxruntime")
    assert_same(node.by_qonnx(), expected, "qonnx")
    if np.prod(shape) > 100:
        assert (expected != node.x).any()
        # and along axis 0 they would be others
        assert batch.plain or (expected != strike_rows_as_samples(node)).any()


def strike_rows_as_samples(node):
    samples = np.arange(len(node.x)) + FIRST
    site = site_of(node.shape, BatchAxis())
    step = node.step if not hasattr(node.step, "process") else of_map(site)
    given = (step, node.x, node.scale, node.zero, FMT)
    return strike_values(*given, seed=9, samples=samples, batched=True).astype(node.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("what", ["flips", "more than flips", "map", "protected flips"])
@pytest.mark.parametrize("lying", ["tokens first", "tokens and heads", "both in the middle"])
def test_scales_of_channels_on_either_side_of_the_samples(lying, what, dtype):
    shape, batch = LYING[lying]
    step = STEPS[what](site_of(shape, batch))
    for axis in (axis for axis in range(len(shape)) if axis != batch.axis):
        scale = 2.0 ** (np.arange(shape[axis]) % 5).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        node = Node(shape, batch, step, scale, dtype)
        assert_same(node.by_onnxruntime(), node.expected(), axis)
        assert_same(node.by_qonnx(), node.expected(), axis)


@pytest.mark.parametrize("what", ["flips", "more than flips", "map", "by inference", "protected map"])
@pytest.mark.parametrize("layout", [(0, 2, 3, 1), (1, 0, 2, 3), (3, 1, 0, 2)])
@pytest.mark.parametrize("batch", [BatchAxis(rows=3), BatchAxis(axis=1), BatchAxis(axis=2, inner=2, rows=4)], ids=str)
def test_values_that_are_transposed(batch, layout, what):
    shape = (6, 3, 12, 5)
    step = STEPS[what](site_of(shape, batch))
    channel = 3 if batch.axis != 3 else 1
    scale = 2.0 ** np.arange(shape[channel]).reshape([-1 if i == channel else 1 for i in range(4)])
    node = Node(shape, batch, step, scale, layout=layout)
    assert inverse(layout) != layout or layout == (1, 0, 2, 3)
    assert_same(node.by_onnxruntime(), node.expected(), layout)
    assert_same(node.by_qonnx(), node.expected(), layout)


@pytest.mark.parametrize("known", KNOWN, ids=lambda c: f"{c['shape']}-{c['axis']}-{c['inner']}-{c['rows']}")
def test_known_answers(known):
    """A map that flips a bit of one word alone tells where the op takes that word to lie, in every sample."""
    shape, batch = known["shape"], BatchAxis(**{key: known[key] for key in ("axis", "inner", "rows")})
    site = site_of(shape, batch)
    for word in range(site.words):
        rows = FaultMap.from_cells(site.words, BITS, [word], [0], [0])
        step = SitePlan(site=site, processes=(MapProcess(fault=0, site_number=1, map=rows),)).steps(())[0]
        node = Node(tuple(shape), batch, step, one_scale(shape))
        changed = (node.by_onnxruntime() != node.x).reshape(-1)
        assert changed.tolist() == [own == word for _, own in known["words"]]


@pytest.mark.parametrize("what", ["flips", "by inference", "protected flips"])
@pytest.mark.parametrize("lying", LYING)
def test_a_batch_is_its_samples_one_by_one(lying, what):
    shape, batch = LYING[lying]
    node = Node(shape, batch, STEPS[what](site_of(shape, batch)), one_scale(shape))
    together = arrange(node.by_onnxruntime(), batch)
    for i, alone in enumerate(arrange(node.x, batch)):
        small = list(shape)
        small[batch.axis] = batch.rows
        feeds = node.feeds(FIRST + i) | {"x": restore(alone[None], small, batch)}
        assert_same(arrange(node.by_onnxruntime(feeds=feeds), batch)[0], together[i], i)


def test_the_number_of_threads_does_not_matter():
    shape, batch = (200, 3, 900), BatchAxis(axis=1)
    for what in ("flips", "more than flips", "by inference", "protected flips"):
        node = Node(shape, batch, STEPS[what](site_of(shape, batch)), one_scale(shape))
        assert_same(node.by_onnxruntime(threads=4), node.by_onnxruntime(threads=1), what)


ABSENT = {
    "an axis that is not there": (
        {"axis": 3},
        r"values of shape \(40, 3, 30\), expected 1 row of each sample along axis 3",
    ),
    "rows that do not divide": ({"axis": 0, "rows": 7}, r"expected 7 rows of each sample along axis 0"),
    "more rows than there are": ({"axis": 1, "rows": 6}, r"expected 6 rows of each sample along axis 1"),
    "a negative axis": ({"axis": -1}, "the attribute axis holds -1, expected 0 to 63"),
    "an axis far away": ({"axis": 1 << 62}, "the attribute axis holds 4611686018427387904, expected 0 to 63"),
    "no rows": ({"rows": 0}, "the attribute rows holds 0, expected 1 to 2147483648"),
    "negative rows": ({"rows": -3}, "the attribute rows holds -3"),
    "too many rows": ({"rows": 1 << 40}, "the attribute rows holds 1099511627776"),
    "none together": ({"rows": 4, "inner": 0}, "the attribute inner holds 0, expected 1 to 2147483648"),
    "no multiple": ({"rows": 4, "inner": 3}, "rows and inner are 4 and 3, expected a multiple"),
    "parameters": ({"axis": 1, "batched": 0}, "say 1 row of each sample along axis 1, but the attribute batched is 0"),
    "a number with a fraction": ({"axis": 1.0}, "the attribute axis is no integer"),
}


@pytest.mark.parametrize("case", ABSENT)
@pytest.mark.parametrize("what", ["flips", "map", "by batch", "protected flips"])
def test_numbers_that_say_no_such_thing_are_refused(what, case):
    attributes, told = ABSENT[case]
    shape, batch = LYING["tokens first"]
    node = Node(shape, batch, STEPS[what](site_of(shape, batch)), one_scale(shape))
    plain = node.parts

    def changed():
        made, constants = plain()
        for name in ("axis", "rows", "inner", *attributes):
            for entry in [entry for entry in made.attribute if entry.name == name]:
                made.attribute.remove(entry)
        made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        return made, constants

    node.parts = changed
    with pytest.raises(Exception, match=rf"(?s)(Faults|FaultMap) 'the node'.*{told}"):
        node.by_onnxruntime()
    if case not in ("parameters", "a number with a fraction"):
        with pytest.raises(HwfaultError):
            node.by_qonnx()


@pytest.mark.parametrize("what", ["flips", "map"])
def test_a_scale_along_the_samples_is_refused(what):
    shape, batch = LYING["tokens first"]
    node = Node(shape, batch, STEPS[what](site_of(shape, batch)), np.full((1, 3, 1), 0.5))
    with pytest.raises(Exception, match=r"the scale has shape \(1, 3, 1\).*one axis that holds no samples"):
        node.by_onnxruntime()
    with pytest.raises(HwfaultError, match=r"scale of 'a site' has the shape \(1, 3, 1\)"):
        node.by_qonnx()


def test_shapes_without_words_or_samples():
    step = STEPS["flips"](site_of((2, 4, 3), BatchAxis(axis=1)))
    for shape in ((2, 0, 3), (0, 4, 3), (2, 4, 0), (0, 0, 0)):
        for batch in (BatchAxis(axis=1), BatchAxis(axis=1, inner=2, rows=4), BatchAxis(axis=2)):
            if shape[batch.axis] % batch.rows == 0:
                node = Node(shape, batch, step, one_scale(shape))
                assert node.by_onnxruntime().shape == shape


@cache
def linear_cases() -> list[Case]:
    found = [c for c in (case(np.random.default_rng(seed)) for seed in range(200)) if c.layer.channels_last]
    return [c for c in found if c.exact.size]


@pytest.mark.parametrize(("axis", "inner"), [(0, 1), (0, 2), (0, 3), (1, 1)])
def test_arrays_of_processing_elements(axis, inner):
    """Positions are counted in a sample, wherever its rows lie: each sample's sums are those of the sample alone."""
    tried = 0
    for c in linear_cases():
        samples, positions = c.layer.batch, c.layer.axes[0].input
        if positions % inner:
            continue
        tried += 1
        batch = BatchAxis(axis=axis, inner=inner, rows=positions) if axis == 0 else BatchAxis(axis=1)
        shape = (samples * positions,) if axis == 0 else (positions, samples)
        acc, x = (restore(t, (*shape, t.shape[-1]), batch) for t in (c.exact, c.x))
        node = node_of(c, axis=batch.axis, rows=batch.rows, inner=batch.inner)
        expected = restore(accumulate(c.x, c.w, c.layer, c.array).reshape(c.exact.shape), acc.shape, batch)
        feeds = {"acc": acc.astype(np.float64), "x": x, "w": c.w.reshape(c.w.shape[:2])}
        (got,) = session_of(node, TensorProto.DOUBLE, threads=2).run(None, feeds)
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(by_qonnx(node, feeds), expected)
    assert tried > 3


def test_arrays_refuse_what_says_no_such_thing():
    c = linear_cases()[0]
    feeds = {"acc": c.exact.astype(np.float32), "x": c.x, "w": c.w.reshape(c.w.shape[:2])}
    for attributes, told in (
        ({"axis": 2}, "expected 1 row of each sample along axis 2"),
        ({"rows": 999}, "expected 999 rows of each sample along axis 0"),
        ({"inner": 2}, "rows and inner are 1 and 2"),
        ({"axis": -2}, "the attribute axis holds -2"),
    ):
        with pytest.raises(Exception, match=f"ArrayFaults 'the node': .*{told}"):
            session_of(node_of(c, **attributes), TensorProto.FLOAT).run(None, feeds)
    with pytest.raises(Exception, match="each row of a convolution is added up on its own"):
        session_of(node_of(c, channels_last=0, axis=1), TensorProto.FLOAT)
