"""A seed and a sample number for each row of a batch: trials stacked as rows are the trials one by one, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx

from hwfault.codes import CodeFormat
from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.stack_rows import stack_rows
from hwfault.graph.run.session import run, session
from hwfault.graph.run.strike import strike_values
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, Clusters, ProfileFaults, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis, arrange, restore
from hwfault.stream.protection_scheme import Protection
from tests.graph.run.test_batch_axis_ops import BITS, LYING, STEPS, Node, one_scale, site_of
from tests.helpers.graph.networks import batch, listed, network
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_pytorch, clean, tidied

SEEDS = [9, 2**63 + 5, 9, 0]
FIRST = 2**32 - 5
SAMPLES = 3
BY_SAMPLE = [what for what in STEPS if what != "by batch"]


def signed(seeds):
    return np.array(seeds, np.uint64).view(np.int64)


def stacked(node, trials):
    """The node's tensor so many times, samples behind samples, however they lie."""
    samples = np.concatenate([arrange(node.x, node.batch)] * trials)
    shape = list(node.shape)
    shape[node.batch.axis] = len(samples) * node.batch.rows
    return restore(samples, shape, node.batch)


def feeds_of(node, seeds, numbers):
    values = stacked(node, len(seeds) // SAMPLES)
    own = {"x": node.lies(values), "hwfault_seed": signed(seeds), "hwfault_first_sample": np.array(numbers)}
    return node.feeds() | own


def alone(node, seed, first=FIRST):
    """The reference on the samples of one trial, which begin at a number."""
    numbers = first + np.arange(SAMPLES)
    options = {"seed": seed, "samples": numbers, "batched": True, "batch": node.batch}
    given = (node.x, node.scale.astype(node.dtype), node.zero, CodeFormat(BITS, True))
    return arrange(strike_values(node.step, *given, **options), node.batch)


def check(node, threads=2):
    seeds = np.repeat(np.array(SEEDS, np.uint64), SAMPLES)
    numbers = np.tile(FIRST + np.arange(SAMPLES), len(SEEDS))
    feeds = feeds_of(node, seeds, numbers)
    expected = np.concatenate([alone(node, seed) for seed in SEEDS])
    expected = node.lies(restore(expected, stacked(node, len(SEEDS)).shape, node.batch))
    assert_same(node.by_onnxruntime(threads, feeds), expected, "onnxruntime")
    node.feeds = lambda: feeds
    assert_same(node.by_qonnx(), expected, "qonnx")
    return expected


@pytest.mark.parametrize("lying", LYING)
@pytest.mark.parametrize("what", BY_SAMPLE)
def test_rows_of_a_batch_are_trials_one_by_one(what, lying):
    shape, axis = LYING[lying]
    node = Node(shape, axis, STEPS[what](site_of(shape, axis)), one_scale(shape))
    check(node)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", [(), (0, 2, 3, 1), (3, 1, 0, 2)])
@pytest.mark.parametrize("what", ["more than flips", "by inference", "protected flips", "protected map"])
def test_values_that_are_transposed_with_a_scale_for_each_channel(what, layout, dtype):
    shape, axis = (3, 4, 9, 40), BatchAxis()
    scale = 2.0 ** np.arange(4).reshape(1, 4, 1, 1)
    node = Node(shape, axis, STEPS[what](site_of(shape, axis)), scale, dtype, layout)
    if layout and layout[0] != 0:  # then the samples have to be said to lie in front
        axis = BatchAxis(axis=2, rows=3)
        node = Node(shape, axis, STEPS[what](site_of(shape, axis)), scale, dtype, layout)
    assert (check(node, threads=4) != 0).any()


@pytest.mark.parametrize("what", ["flips", "by inference", "protected flips"])
def test_rows_in_any_order_of_seeds_and_samples(what):
    """Each row by itself, as the reference has it; so are samples that are left out, or come twice."""
    shape, axis = (SAMPLES, 900), BatchAxis()
    node = Node(shape, axis, STEPS[what](site_of(shape, axis)), one_scale(shape))

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=3))
    def run_one(rows):
        rows = (rows * SAMPLES)[: SAMPLES * (len(rows) * SAMPLES // SAMPLES)]
        seeds, numbers = zip(*rows, strict=True)
        got = node.by_onnxruntime(feeds=feeds_of(node, seeds, numbers))
        for i, (seed, number) in enumerate(rows):
            given = (node.x[i % SAMPLES][None], node.scale.astype(np.float32), node.zero, CodeFormat(BITS, True))
            expected = strike_values(node.step, *given, seed=seed, samples=np.array([number]), batched=True)
            assert_same(got[i], expected[0], (i, seed, number))

    run_one()


def test_one_number_is_for_all_rows_as_ever():
    shape, axis = (SAMPLES, 900), BatchAxis()
    node = Node(shape, axis, STEPS["flips"](site_of(shape, axis)), one_scale(shape))
    mixed = node.feeds() | {"hwfault_seed": signed([9] * SAMPLES)}
    assert_same(node.by_onnxruntime(feeds=mixed), node.by_onnxruntime())
    mixed = node.feeds() | {"hwfault_seed": signed([9])}
    assert_same(node.by_onnxruntime(feeds=mixed), node.by_onnxruntime())
    numbers = node.feeds() | {"hwfault_first_sample": node.feeds()["hwfault_first_sample"] + np.arange(SAMPLES)}
    assert_same(node.by_onnxruntime(feeds=numbers), node.by_onnxruntime())


def refused(node, feeds, told):
    """Both engines refuse these inputs, in words of their own that have this in common."""
    with pytest.raises(Exception, match=rf"(?s)'the node'.*{told}"):
        node.by_onnxruntime(feeds=node.feeds() | feeds)
    whole = node.feeds() | feeds
    node = Node(node.shape, node.batch, node.step, node.scale)
    node.feeds = lambda: whole
    with pytest.raises(HwfaultError, match=told):
        node.by_qonnx()


@pytest.mark.parametrize("what", ["flips", "by inference", "protected flips"])
def test_numbers_that_do_not_fit_the_batch(what):
    shape, axis = (SAMPLES, 90), BatchAxis()
    node = Node(shape, axis, STEPS[what](site_of(shape, axis)), one_scale(shape))
    each = r"expected one value, or one for each of 3 samples"
    refused(node, {"hwfault_seed": signed([1, 2])}, rf"the seed has shape \(2.*{each}")
    refused(node, {"hwfault_seed": signed([1, 2, 3]).reshape(3, 1)}, rf"the seed has shape \(3, 1\), {each}")
    refused(node, {"hwfault_seed": signed([])}, "the seed has shape")
    refused(node, {"hwfault_first_sample": np.arange(4)}, rf"the first sample number has shape \(4.*{each}")
    refused(node, {"hwfault_first_sample": np.array([0, -1, 2])}, r"is -1, expected.* 0 to 2\^32 - 1")
    refused(node, {"hwfault_first_sample": np.array([0, 1, 2**32])}, r"is 4294967296, expected.* 0 to 2\^32 - 1")


def test_faults_of_a_batch_take_numbers_of_one_batch_only():
    shape, axis = (SAMPLES, 90), BatchAxis()
    node = Node(shape, axis, STEPS["by batch"](site_of(shape, axis)), one_scale(shape))
    rows = {"hwfault_first_sample": 5 + np.arange(SAMPLES)}
    assert_same(node.by_onnxruntime(feeds=node.feeds() | rows), node.by_onnxruntime())
    assert_same(node.by_onnxruntime(), node.expected())
    refused(node, {"hwfault_first_sample": np.array([5, 6, 5])}, "change from batch to batch, but the sample numbers")
    # under several seeds the period is still the batch's
    seeds = node.feeds() | {"hwfault_seed": signed([9, 8, 9])}
    got = node.by_onnxruntime(feeds=seeds)
    expected = node.expected()
    assert_same(got[[0, 2]], expected[[0, 2]])
    node.feeds = lambda: seeds
    assert_same(node.by_qonnx(), got)


@pytest.mark.parametrize("what", ["flips", "by batch", "held", "protected flips"])
def test_parameters_take_one_seed_however_often_it_is_said(what):
    shape = (SAMPLES, 90)
    node = Node(shape, BatchAxis(), STEPS[what](site_of(shape, BatchAxis())), one_scale(shape))
    plain = node.parts

    def of_parameter():
        made, constants = plain()
        for entry in [entry for entry in made.attribute if entry.name == "batched"]:
            made.attribute.remove(entry)
        made.attribute.append(helper.make_attribute("batched", 0))
        return made, constants

    node.parts = of_parameter
    once = node.by_onnxruntime()
    again = node.feeds() | {"hwfault_seed": signed([9] * 7), "hwfault_first_sample": 5 + np.arange(7)}
    assert_same(node.by_onnxruntime(feeds=again), once)
    different = node.feeds() | {"hwfault_seed": signed([9, 9, 8])}
    told = "the seed has 3 values, not all the same, for a parameter"
    with pytest.raises(Exception, match=told):
        node.by_onnxruntime(feeds=different)
    node.feeds = lambda: again
    assert_same(node.by_qonnx(), once)
    node.feeds = lambda: different
    with pytest.raises(GraphError, match=told):
        node.by_qonnx()
    unlike = again | {"hwfault_first_sample": np.array([5, 5])}
    if what == "by batch":
        with pytest.raises(Exception, match="change from batch to batch"):
            node.by_onnxruntime(feeds=unlike)
    else:
        assert_same(node.by_onnxruntime(feeds=unlike), once)


ACTIVATIONS = {"kind": "activation"}
IN_MEMORY = {"profile": "uniform-flips", "at": {"ber": 0.01}, "protection": Protection(kind="parity", data_bits=16)}
FAULTS = (
    BitFlips(p01=0.03, p10=0.01, sites=ACTIVATIONS),
    WordFaults(probability=0.03, sites=ACTIVATIONS),
    Clusters(probability=0.01, sizes=[0.5, 0.3, 0.2], axis="word", sites=ACTIVATIONS),
)


def trials_of(name, faults, seeds, x, first):
    """The answers of PyTorch, a trial for each seed, and the plan."""
    plan = resolve(listed(name), faults)
    answers = []
    with inject(network(name), plan, seed=0) as injection:
        for seed in seeds:
            injection.seed, injection.first_sample = seed, first
            answers.append(by_pytorch(network(name), x))
    return plan, np.concatenate(answers)


@pytest.mark.parametrize("name", ["digits_cnn", "residual", "twice", "binary", "formats", "per_channel"])
def test_trials_of_a_network_in_one_batch_are_those_of_pytorch(name):
    x, seeds = batch(name, SAMPLES), [3, 2**64 - 1, 4]
    faults = (*FAULTS, ProfileFaults(**IN_MEMORY, sites=ACTIVATIONS)) if name == "digits_cnn" else FAULTS
    plan, expected = trials_of(name, faults, seeds, x, first=70)
    graph = insert_faults(clean(name), plan)
    rows = np.tile(x.numpy(), (len(seeds), 1, 1, 1))
    numbers = np.tile(70 + np.arange(SAMPLES), len(seeds))
    of_rows = np.repeat(np.array(seeds, np.uint64), SAMPLES)
    (got,) = run(session(graph, threads=1), rows, seed=of_rows, samples=numbers)
    assert_same(got, expected, "onnxruntime")
    assert (got[:SAMPLES] != got[SAMPLES : 2 * SAMPLES]).any()
    if name in ("residual", "twice"):
        typed = stack_rows(tidied(graph, len(rows)), len(rows)).model
        feeds = dict(zip((info.name for info in typed.graph.input), (rows, signed(of_rows), numbers), strict=True))
        (out,) = execute_onnx(ModelWrapper(typed), feeds).values()
        assert_same(out, expected, "qonnx")


@pytest.fixture(scope="module")
def digits():
    plan = resolve(listed("digits_cnn"), [BitFlips(probability=0.01)])
    return session(insert_faults(clean("digits_cnn"), plan), threads=1)


def test_a_plan_that_strikes_weights_takes_one_seed(digits):
    x = batch("digits_cnn", 4).numpy()
    (expected,) = run(digits, x, seed=3)
    (got,) = run(digits, x, seed=[3] * 4, samples=range(4))
    assert_same(got, expected)
    with pytest.raises(GraphError, match=r"not all the same, for a parameter.*once for each seed"):
        run(digits, x, seed=[3, 3, 3, 4])


def test_a_session_for_one_seed():
    plan = resolve(listed("digits_cnn"), [BitFlips(probability=0.01)])
    made = session(insert_faults(clean("digits_cnn"), plan), threads=1, fast=True, seed=2**63 + 3)
    x = batch("digits_cnn", 2).numpy()
    (expected,) = run(made, x, seed=2**63 + 3)
    assert_same(run(made, x, seed=[2**63 + 3] * 2)[0], expected)
    with pytest.raises(GraphError, match="made for the faults of seed"):
        run(made, x, seed=[2**63 + 3, 1])


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"seed": [1, -1]}, r"the seed is -1, expected an integer from 0 to 2\^64 - 1"),
        ({"seed": [1, 2**64]}, "the seed is 18446744073709551616"),
        ({"seed": [True, False]}, "the seed is True"),
        ({"seed": np.array([1.0, 2.0])}, "the seed is 1.0"),
        ({"seed": np.array([-1, 2])}, "the seed is -1"),
        ({"seed": "ab"}, "the seed is 'ab'"),
        ({"seed": np.ones((2, 1), int)}, r"the seeds have shape \(2, 1\), expected one for each row"),
        ({"seed": [1, 1, 1]}, "the seed has shape .*one for each of 2 samples"),
        ({"samples": [0, -1]}, "the sample number is -1"),
        ({"samples": [0, 2**32]}, "the sample number is 4294967296"),
        ({"samples": [0.5, 1]}, "the sample number is 0.5"),
        ({"samples": [[0, 1]]}, r"the sample numbers have shape \(1, 2\)"),
        ({"samples": [0, 1], "first_sample": 4}, "the first sample number 4 and the sample numbers; expected one"),
    ],
)
def test_numbers_that_are_none(digits, numbers, told):
    with pytest.raises(HwfaultError, match=told):
        run(digits, batch("digits_cnn", 2).numpy(), **numbers)


def test_a_graph_whose_inputs_are_typed_for_rows_runs_in_onnxruntime_too(digits):
    plan = resolve(listed("digits_cnn"), [BitFlips(probability=0.01, sites=ACTIVATIONS)])
    graph = insert_faults(clean("digits_cnn"), plan)
    edit = stack_rows(graph, "batch")
    assert edit.changes == [
        "the input hwfault_seed is one number for each row of a batch",
        "the input hwfault_first_sample is one number for each row of a batch",
    ]
    x = batch("digits_cnn", 2).numpy()
    assert_same(
        run(session(edit.model, threads=1), x, seed=[7, 8], samples=[0, 0])[0],
        run(session(graph, threads=1), x, seed=[7, 8], samples=[0, 0])[0],
    )
    assert stack_rows(clean("digits_cnn"), 3) == (clean("digits_cnn"), [])
