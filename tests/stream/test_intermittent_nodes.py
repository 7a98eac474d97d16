"""Intermittent faults in graphs and batches: nodes, periods, representations, and numbers that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import helper

from hwfault.codes import CodeFormat, decode, encode
from hwfault.errors import ModelError
from hwfault.graph.run.strike import strike_codes
from hwfault.program.processes import MapProcess, MapStep
from hwfault.stream.check import signed64
from tests.helpers.stream.capi import call
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.intermittent import (
    ALWAYS,
    Case,
    MapArguments,
    feeds,
    node,
    plain_grid,
    run_in_qonnx,
    run_node,
    threshold,
)
from tests.helpers.stream.values import Grid
from tests.helpers.torch_ops.operators import fault_map
from tests.stream.test_intermittent import FLOATS, SEED, SITE, after_periods, flips, random_case, values
from tests.stream.test_native import assert_same_bits

REFRESHES = ("inference", "batch", "held")


def periods_of(refresh, batched, first, rows):
    """The period of each row by the specification."""
    if refresh == "held":
        return [0] * rows
    return [first + i for i in range(rows)] if refresh == "inference" and batched else [first] * rows


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("batched", [1, 0])
@pytest.mark.parametrize("refresh", REFRESHES)
def test_the_node_in_onnxruntime_and_qonnx(refresh, batched, dtype):
    draw, changed = Draw(len(refresh) + batched), 0
    for _ in range(12):
        case = random_case(draw, draw.integer(1, 20))
        case = replace(case, period=case.period % (2**32 - 5))
        rows, fmt = draw.one_of((1, 2, 5)) if batched else 1, CodeFormat(case.bit_width, bool(draw.integer(0, 1)))
        scale, zero = (
            np.asarray(draw.one_of(some), FLOATS[dtype]) for some in ((0.25, 3.0), (0.0, 0.0 if fmt.bipolar else 1.0))
        )
        on = Grid(fmt, np.atleast_1d(scale).astype(np.float64), 1, np.atleast_1d(zero).astype(np.float64), 1)
        b = values(draw, case, rows, dtype, on)
        expected, faulty = after_periods(b, case, periods_of(refresh, batched, case.period, rows))
        one = node(case, signed=int(fmt.signed), batched=batched, refresh=refresh)
        given = feeds(case, b.x if batched else b.x[0], scale, zero)
        assert_same_bits(run_node(one, given, draw.integer(1, 2)).reshape(b.x.shape), expected, b)
        assert_same_bits(run_in_qonnx(one, given).reshape(b.x.shape), expected, b)
        changed += faulty.sum()
    assert changed > 20


def test_without_a_word_the_node_refreshes_each_inference():
    case = flips()
    one, given = node(case), feeds(case, np.zeros((3, 3000), np.float32))
    expected = [replace(case, period=5 + i).after(np.zeros(3000, np.uint32)) for i in range(3)]
    assert run_node(one, given).tolist() == run_in_qonnx(one, given).tolist() == expected


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"threshold": -1}, "threshold is -1, expected 0 to 4294967296"),
        ({"threshold": ALWAYS + 1}, "threshold is 4294967297"),
        ({"site": -1}, "site is -1"),
        ({"site": 2**32}, "site is 4294967296"),
        ({"refresh": "epoch"}, "refresh is 'epoch', expected inference, batch or held"),
        ({"refresh": 3}, "refresh"),
        ({"representation": 3}, "representation is 3, expected 0 to 2"),
        ({"bit_width": 33}, "bit_width is 33"),
    ],
)
def test_nodes_that_are_wrong_are_refused_at_loading(attributes, words):
    case = flips()
    one = node(case)
    for attribute in [a for a in one.attribute if a.name in attributes]:
        one.attribute.remove(attribute)
    one.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    with pytest.raises(Exception, match=f"(?s)the node.*{words}"):
        run_node(one, feeds(case, np.zeros((1, 3000), np.float32)))


@pytest.mark.parametrize("missing", ["threshold", "site"])
def test_nodes_without_a_number(missing):
    one = node(flips())
    one.attribute.remove(next(a for a in one.attribute if a.name == missing))
    with pytest.raises(Exception, match=f"(?s)the node.*{missing}"):
        run_node(one, feeds(flips(), np.zeros((1, 3000), np.float32)))


def test_a_batch_of_64_is_64_batches_of_one():
    case = replace(flips(), period=2**32 - 64)  # to the last number
    x = np.random.default_rng(3).integers(0, 256, (64, case.words)).astype(np.float64)
    together = {name: engine(x) for name, engine in batch_engines(case).items()}
    for i in range(64):
        alone = batch_engines(replace(case, period=case.period + i))
        for name in alone:
            np.testing.assert_array_equal(alone[name](x[i : i + 1])[0], together[name][i], err_msg=f"{name} {i}")
    assert len(np.unique(together["C"] - x, axis=0)) == 64


def batch_engines(case):
    """Each engine on a batch (n, words) of float64."""

    def in_c(x):
        given, out = MapArguments(case, [case.period + i for i in range(len(x))], plain_grid(8)), np.empty_like(x)
        call("apply_map", 1, np.ascontiguousarray(x), out, given.map, given.format, 1)
        return out

    def in_torch(x):
        masks = torch.from_numpy(np.stack([case.rows.and_mask, case.rows.xor_mask]).view(np.int32))
        draw = (torch.arange(len(x)) + case.period, torch.tensor(signed64(case.seed)), torch.from_numpy(case.rows.word))
        one = torch.ones((), dtype=torch.float64)
        numbers = (8, False, 0, case.threshold, case.site, False, False)
        return fault_map(torch.from_numpy(x), *draw, masks, one, 0 * one, *numbers).numpy()

    def in_numpy(x):
        samples = np.arange(len(x)) + case.period
        return strike_codes(MapStep(case.process()), x.astype(np.uint32), case.seed, samples, True).astype(np.float64)

    in_onnxruntime, in_qonnx = (lambda x, run=run: run(node(case), feeds(case, x)) for run in (run_node, run_in_qonnx))
    return {"C": in_c, "torch": in_torch, "reference": in_numpy, "onnxruntime": in_onnxruntime, "qonnx": in_qonnx}


@pytest.mark.parametrize(
    ("refresh", "batched", "periods"),
    [
        ("inference", True, [7, 9, 9]),
        ("inference", False, [7]),
        ("batch", True, [7, 7, 7]),
        ("batch", False, [7]),
        ("epoch", True, [0, 0, 0]),
        ("power_cycle", False, [0]),
    ],
)
def test_the_period_of_each_kind_of_refresh(refresh, batched, periods):
    case = flips()
    step, rows = MapStep(case.process(refresh)), len(periods)
    codes = np.stack([case.codes(i) for i in range(rows)])
    samples = np.array([7, 9, 9])[:rows]
    found = strike_codes(step, codes, SEED, samples, batched)
    assert found.tolist() == [replace(case, period=t).after(row) for t, row in zip(periods, codes, strict=True)]


def test_no_samples_at_all():
    case = flips()
    for refresh in ("inference", "batch", "epoch", "power_cycle"):
        none = strike_codes(
            MapStep(case.process(refresh)), np.zeros((0, 3000), np.uint32), SEED, np.zeros(0, np.int64), True
        )
        assert none.shape == (0, 3000)
    empty = np.zeros((0, 3000), np.float32)
    assert run_node(node(case), feeds(case, empty)).shape == (0, 3000)
    assert run_in_qonnx(node(case), feeds(case, empty)).shape == (0, 3000)


@pytest.mark.parametrize(
    "numbers_of_process", [{"threshold": -1}, {"threshold": ALWAYS + 1}, {"site_number": 2**32}, {"refresh": "day"}]
)
def test_processes_that_are_none(numbers_of_process):
    good = {"fault": 0, "map": flips().rows, "threshold": 5, "site_number": 1}
    assert MapProcess(**good).threshold == 5
    with pytest.raises(ModelError):
        MapProcess(**good | numbers_of_process)


@pytest.mark.parametrize(("p", "reads"), [(0, False), (1, True), (2, True)])
def test_only_stuck_cells_depend_on_the_code(p, reads):
    case = Case(((3, 31, p),), 10, 32, SITE, SEED, 1, 5)
    assert case.process().reads_stored() is reads
    assert replace(case, cells=((3, 0, p),), bit_width=1).process().reads_stored() is reads
    assert replace(case, cells=()).process().reads_stored() is False


@pytest.mark.parametrize("representation", range(3))
def test_representations_in_c(representation):
    """Cells are those of the stored code, whatever it stands for."""
    name = ("twos_complement", "offset_binary", "sign_magnitude")[representation]
    case = Case(tuple((w, w % 5, w % 3) for w in range(0, 64, 2)), 64, 5, SITE, SEED, 3, threshold(0.7))
    fmt = CodeFormat(5, True, name)
    q = np.tile(np.arange(-16, 16), 2)[None].astype(np.float32)
    codes = encode(q, 1.0, 0.0, fmt)
    after = np.array([case.after(codes[0])], np.uint32)
    expected = np.where(after == codes, q, decode(after, 1.0, 0.0, fmt))
    given, out = MapArguments(case, [3], Grid(fmt, np.ones(1), 1, np.zeros(1), 1), representation), np.empty_like(q)
    call("apply_map", 0, q, out, given.map, given.format, 1)
    np.testing.assert_array_equal(out, expected)
    one, fed = node(case, signed=1, representation=representation), feeds(case, q)
    np.testing.assert_array_equal(run_node(one, fed), expected)
    np.testing.assert_array_equal(run_in_qonnx(one, fed), expected)
