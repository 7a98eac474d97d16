"""The engine in onnxruntime answers what PyTorch answers trial by trial, however trials and images are batched."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwfault.campaigns.engines import graph_engine
from hwfault.campaigns.engines.graph_engine import GraphEngine
from hwfault.errors import HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.mapped import MapProcess
from hwfault.stream.fault_map import FaultMap
from tests.campaigns.engines.engine_cases import FAULTS, IMAGES, NETWORKS, SEEDS, engine, expected, images, plan
from tests.helpers.graph.networks import batch, listed, network
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_pytorch, clean, copied

QUICK = ("digits_cnn", "residual", "binary")
SEVERAL = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("what", FAULTS)
def test_trials_are_those_of_pytorch(name, what):
    got = engine(name).outputs(plan(name, what), SEEDS)
    assert_same(got, expected(name, what))
    assert (got[0] != got[1]).any()


@pytest.mark.parametrize("name", SEVERAL)
def test_the_golden_run_is_pytorchs(name):
    golden = engine(name).golden()
    assert_same(golden, by_pytorch(network(name), batch(name, IMAGES)))
    silent = resolve(listed(name), [BitFlips(probability=0.0)])
    assert_same(engine(name).outputs(silent, [4])[0], golden)


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (3, 2), (64, 2)])
def test_batches_and_threads_do_not_matter(what, batch_size, threads):
    other = GraphEngine(clean("residual"), images("residual"), batch_size=batch_size, threads=threads)
    assert_same(other.outputs(plan("residual", what), SEEDS), expected("residual", what))


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("chosen", [[2], [6, 0, 3], [1, 1, 5], []])
def test_some_of_the_images_are_as_among_all(what, chosen):
    got = engine("digits_cnn").outputs(plan("digits_cnn", what), SEEDS, chosen)
    assert_same(got, expected("digits_cnn", what)[:, chosen])


def test_no_trials():
    assert engine("digits_cnn").outputs(plan("digits_cnn", "both"), []).shape == (0, IMAGES, 10)


def test_permanent_faults_of_weights_leave_trials_in_one_batch():
    """They are the same under each seed, so that nothing has to be computed trial by trial."""
    site = next(site for site in listed("digits_cnn") if site.kind == "weight")
    rows = FaultMap.from_cells(site.words, site.bit_width, [0, 7], [1, 3], [0, 0])
    given = resolve(listed("digits_cnn"), [BitFlips(probability=0.01, sites={"kind": "activation"})])
    stuck = MapProcess(fault=0, site_number=5, map=rows)
    struck = given.model_copy(
        update={"sites": (*given.sites, type(given.sites[0])(site=site, processes=(stuck,)))},
    )
    made = engine("digits_cnn")
    assert made._load(struck).stacks
    assert not made._load(plan("digits_cnn", "both")).stacks
    got = made.outputs(struck, SEEDS)
    for trial, seed in zip(got, SEEDS, strict=True):
        (alone,) = run(session(insert_faults(clean("digits_cnn"), struck), threads=1), images("digits_cnn"), seed=seed)
        assert_same(trial, alone)


def by_batch():
    """Cells of an activation and of weights that show their fault in some batches."""
    shown = [site for site in sites(network("digits_cnn"), batch("digits_cnn")) if site.kind != "accumulator"]
    given = resolve(shown, [BitFlips(probability=0.01)])
    struck = []
    for entry in given.sites:
        rng = np.random.default_rng(entry.site.words)
        words = np.sort(rng.choice(entry.site.words, entry.site.words // 8, replace=False))
        rows = FaultMap.from_cells(entry.site.words, entry.site.bit_width, words, np.full(len(words), 1), 0 * words)
        process = MapProcess(fault=0, site_number=9, map=rows, threshold=2**31, refresh="batch")
        struck.append(entry.model_copy(update={"processes": (process,)}))
    return given.model_copy(update={"sites": tuple(struck)})


def test_faults_of_a_batch_are_those_of_the_same_batches():
    given = by_batch()
    made = session(insert_faults(clean("digits_cnn"), given), threads=1)
    got = engine("digits_cnn").outputs(given, SEEDS[:2])
    x = images("digits_cnn")
    for trial, seed in zip(got, SEEDS, strict=False):
        parts = [run(made, x[first : first + 5], seed=seed, first_sample=first)[0] for first in (0, 5)]
        assert_same(trial, np.concatenate(parts))
    assert_same(engine("digits_cnn").outputs(given, SEEDS[:2], range(IMAGES)), got)
    with pytest.raises(HwfaultError, match=r"change from batch to batch.*expected images=None"):
        engine("digits_cnn").outputs(given, SEEDS, [0, 2])


def test_sessions_that_went_are_made_again(monkeypatch):
    monkeypatch.setattr(graph_engine, "_KEPT_SESSIONS", 1)
    made = GraphEngine(clean("digits_cnn"), images("digits_cnn"))
    for what in ("both", "activations", "both"):
        assert_same(made.outputs(plan("digits_cnn", what), SEEDS), expected("digits_cnn", what))
    assert len(made._loaded) == 1


@pytest.mark.parametrize(
    ("chosen", "told"),
    [([7], "expected 0 to 6"), ([-1], "expected 0 to 6"), ([[0]], "expected 0 to 6"), ([0.5], "expected 0 to 6")],
)
def test_images_that_there_are_not(chosen, told):
    with pytest.raises(HwfaultError, match=told):
        engine("digits_cnn").outputs(plan("digits_cnn", "both"), [1], chosen)


def test_what_is_no_seed():
    with pytest.raises(HwfaultError, match="the seed is -1"):
        engine("digits_cnn").outputs(plan("digits_cnn", "both"), [-1])


def test_nothing_to_run():
    with pytest.raises(HwfaultError, match="given 0 images"):
        GraphEngine(clean("digits_cnn"), images("digits_cnn")[:0])
    with pytest.raises(HwfaultError, match="batches of 0"):
        GraphEngine(clean("digits_cnn"), images("digits_cnn"), batch_size=0)


def test_a_graph_of_two_outputs():
    graph = copied(clean("digits_cnn"))
    name = graph.graph.node[-1].input[0]
    graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    with pytest.raises(HwfaultError, match="expected one output"):
        GraphEngine(graph, images("digits_cnn"))


def test_a_graph_whose_answers_are_not_one_for_each_image():
    graph = copied(clean("digits_cnn"))
    made = graph.graph.output[0].name
    graph.graph.node.append(helper.make_node("ReduceSum", [made], ["total"], keepdims=0))
    graph.graph.output[0].CopyFrom(helper.make_tensor_value_info("total", TensorProto.FLOAT, None))
    with pytest.raises(HwfaultError, match="lie along axis 0"):
        GraphEngine(graph, images("digits_cnn")).golden()
