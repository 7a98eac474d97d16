"""Samples off axis 0: the same faults in PyTorch, onnxruntime, qonnx's executor, NumPy and bundles."""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from onnx import ModelProto

from hwfault import AccumulatorFormat, LateBits, StuckElement
from hwfault.codes import CodeFormat
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.channels_last import to_channels_last
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import attribute
from hwfault.graph.run.session import run, session
from hwfault.graph.run.strike import strike_values
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, Clusters, MapFaults, ProfileFaults, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.batch_axes import in_rows
from hwfault.proof.check import check
from hwfault.proof.record import write_bundle
from hwfault.proof.replay import replay
from hwfault.proof.storage import Bundle
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.mapping import OutputStationary
from hwfault.stream.protection_scheme import Protection
from tests.cli.conftest import good
from tests.helpers.graph.attention import NETWORKS, batch, network
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_qonnx, copied, tidied
from tests.slowly import slow

SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}, "sites": "*_quant"}
UNIFORM = {"profile": "uniform-flips", "at": {"ber": 0.02}, "sites": "*_quant"}
FLIPS = BitFlips(probability=0.005)
ARRAY = {"mapping": OutputStationary(rows=3, columns=4)}


def of_device(**given):
    """The faulty cells of one device in activations, weights and inputs."""

    def faults(folder):
        rng = np.random.default_rng(5)
        word, bit = np.nonzero(rng.random((1 << 12, 8)) < 0.01)
        cells = FaultMap.from_cells(1 << 12, 8, word, bit, rng.integers(0, 3, len(word)))
        cells.save(folder / "cells.safetensors")
        return [MapFaults(file=str(folder / "cells.safetensors"), sites="*_quant", **given)]

    return faults


CASES = {
    "flips": [FLIPS, BitFlips(probability=0.005, sites={"kind": "accumulator"})],
    "several": [FLIPS, WordFaults(probability=0.01), Clusters(probability=0.005, sizes=[0.5, 0.5], axis="word")],
    "map": of_device(),
    "by inference": of_device(p_active=0.5),
    "by batch": of_device(p_active=0.5, refresh="batch"),
    "by power cycle": of_device(p_active=0.5, refresh="power_cycle"),
    "protected": [ProfileFaults(**SRAM, protection=Protection(kind="secded", data_bits=16))],
    "protected flips": [ProfileFaults(**UNIFORM, protection=Protection(kind="parity", data_bits=8))],
    "array": [
        StuckElement(element=(1, 2), bit=3, value=1, **ARRAY),
        LateBits(probability=0.01, bits=2, **ARRAY),
    ],
    "narrow": [AccumulatorFormat(width=8), FLIPS],
}


QUICK = [*product(["tokens first"], CASES), ("frames", "array"), ("windows", "protected flips")]
PAIRS = [pair if pair in QUICK else slow(*pair) for pair in product(NETWORKS, CASES)]
"""Networks and faults, those that tell least of what the others do not only among the slow tests."""
each = pytest.mark.parametrize(("name", "case"), PAIRS)
by_node = [("tokens first", "several"), ("frames", "array")]
"""What qonnx's executor runs in the quick tests: it takes its time with each node."""
some = pytest.mark.parametrize(
    ("name", "case"),
    [
        ("tokens first", "several"),
        ("frames", "array"),
        ("windows", "protected flips"),
        slow("vision transformer", "flips"),
        slow("tokens first", "array"),
        slow("windows", "array"),
    ],
)


def planned(name, case, folder) -> FaultPlan:
    faults = CASES[case](folder) if callable(CASES[case]) else CASES[case]
    plan = resolve(listed(name), faults, device=3)
    assert plan.stream == "1.1"
    return plan


@cache
def listed(name):
    return sites(network(name), batch(name))


@cache
def clean(name) -> ModelProto:
    return export(network(name), batch(name))


def by_pytorch(name, plan, x, seed, first_sample=0, parts=1, **more):
    """The output under a plan, of batches as large as `x` in so many parts."""
    with torch.no_grad(), inject(network(name), plan, seed=seed, example=x, **more) as injection:
        injection.first_sample = first_sample
        return np.concatenate([network(name)(part).numpy() for part in x.chunk(parts)])


@pytest.mark.every(5)
@each
def test_pytorch_and_onnxruntime_have_the_same_faults(name, case, tmp_path):
    x, plan = batch(name), planned(name, case, tmp_path)
    graph = insert_faults(clean(name), plan)
    assert plan_of(graph) == plan
    expected = by_pytorch(name, plan, x, 9, 20)
    (got,) = run(session(graph, threads=2), x.numpy(), seed=9, first_sample=20)
    assert_same(got, expected)
    assert (expected != run(session(clean(name)), x.numpy())[0]).any()
    report = replay(network(name), graph, [x[:3], x[3:]], seeds=(1, 2**63 + 5))
    assert report.verdict == "pass"
    assert all(site.faults_seen == site.faults_expected for site in report.sites)
    assert strip_faults(graph) == clean(name)


@pytest.mark.every(2)
@each
def test_numpy_has_the_faults_that_pytorch_has(name, case, tmp_path):
    """Each site from the values before its faults alone; what an array does to sums is compared by replay."""
    x, plan, seen = batch(name), planned(name, case, tmp_path), {}

    def observe(site, before, after, scale, zero_point, codes_before, codes_after):
        seen[site] = [t.numpy(force=True) for t in (before, after, scale, zero_point, codes_before, codes_after)]

    by_pytorch(name, plan, x, 9, 20, observe=observe)
    struck = 0
    for entry in plan.sites:
        site, (before, after, *grid, codes, faulty) = entry.site, seen[entry.site.name]
        if entry.array is not None:
            continue
        values, samples = before, np.arange(len(x)) + 20 if site.batched else np.array([20])
        own = {"seed": 9, "samples": samples, "batched": site.batched, "batch": site.batch}
        for step in plan.steps(site.name):
            values = strike_values(step, values, *grid, CodeFormat(site.bit_width, site.signed), **own)
        assert_same(values.astype(after.dtype), after, site.name)
        assert in_rows(codes, site.batched, site.batch).shape == (len(x) if site.batched else 1, site.words)
        struck += np.count_nonzero(codes != faulty)
    assert struck or all(entry.array is not None for entry in plan.sites)


@pytest.mark.every(2)
@some
def test_a_batch_of_8_is_8_batches_of_one(name, case, tmp_path):
    plan, x = planned(name, case, tmp_path), batch(name)
    held = session(insert_faults(clean(name), plan), threads=1)
    (together,) = run(held, x.numpy(), seed=5, first_sample=100)
    alone = [run(held, x[i : i + 1].numpy(), seed=5, first_sample=100 + i)[0] for i in range(8)]
    assert_same(np.concatenate(alone), together)
    assert_same(by_pytorch(name, plan, x, 5, 100, parts=8), together)


def test_intermittent_cells_of_activations_are_drawn_for_each_sample(tmp_path):
    """Those of weights, which have no samples, once for each batch."""
    plan = resolve(listed("windows"), of_device(p_active=0.5)(tmp_path)[:1], device=3)
    kept = tuple(entry for entry in plan.sites if entry.site.batched)
    plan, x = plan.model_copy(update={"sites": kept}), batch("windows")
    held = session(insert_faults(clean("windows"), plan), threads=1)
    (together,) = run(held, x.numpy(), seed=5, first_sample=100)
    alone = [run(held, x[i : i + 1].numpy(), seed=5, first_sample=100 + i)[0] for i in range(8)]
    assert_same(np.concatenate(alone), together)
    assert_same(by_pytorch("windows", plan, x, 5, 100, parts=8), together)


def fixed(graph, samples):
    """A graph for so many samples, tidied by qonnx, which would write their number into every constant shape."""
    made = copied(graph)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = samples
    return tidied(made, None)


@pytest.mark.every(2)
@pytest.mark.parametrize(("name", "case"), [p if p in by_node else slow(*p) for p in product(NETWORKS, CASES)])
def test_qonnxs_executor_has_the_same_faults(name, case, tmp_path):
    plan, x = planned(name, case, tmp_path), batch(name, 3)
    graph = insert_faults(clean(name), plan)
    numbers = (9, 20) if len(graph.graph.input) > 1 else ()
    (expected,) = run(session(graph), x.numpy(), seed=9, first_sample=20)
    assert_same(by_qonnx(fixed(graph, 3), x, *numbers), expected)


@pytest.mark.parametrize("name", ["frames", *map(slow, ["vision transformer", "windows", "tokens first"])])
def test_channels_may_lie_last(name, tmp_path):
    """Frames in axis 0, and their channels behind the positions."""
    plan, x = planned(name, "several", tmp_path), batch(name, 3)
    graph = fixed(insert_faults(clean(name), plan), 3)
    turned = to_channels_last(graph)
    assert plan_of(turned) == plan
    if name == "frames":
        struck = [node for node in turned.graph.node if attribute(node, "layout", ())]
        assert [attribute(node, "rows", 1) for node in struck if attribute(node, "batched", 0)] == [4, 4]
    (expected,) = run(session(graph), x.numpy(), seed=3, first_sample=2)
    assert_same(run(session(turned), x.numpy(), seed=3, first_sample=2)[0], expected)


@pytest.mark.every(2)
@some
def test_a_bundle_replays(name, case, tmp_path):
    plan, x = planned(name, case, tmp_path), batch(name)
    manifest = write_bundle(tmp_path / "b", network(name), x, plan=plan, seeds=[3, 4], batch_size=5)
    assert manifest.spec == "fault-stream v1.1"
    report = check(Bundle.open(tmp_path / "b"))
    assert report.exit_code == 0
    assert sum(site.faults_seen for run in report.runs for site in run.sites) > 0
    good("replay", tmp_path / "b")


def test_a_wrong_bit_off_axis_0_is_found_where_it_is(tmp_path):
    """One word of one sample, in the record of a site whose samples lie along axis 1."""
    name, site = "tokens first", "act.act_quant"
    plan, x = resolve(listed(name), [BitFlips(probability=0.05, sites=site)]), batch(name)
    graph = insert_faults(clean(name), plan)
    entry = next(node for node in graph.graph.node if node.op_type == "TransientFaults")
    for axis in [a for a in entry.attribute if a.name == "axis"]:
        axis.i = 0  # the tokens are taken for samples
    with pytest.raises(Exception, match="does not do what the graph's plan says"):
        plan_of(graph)
    write_bundle(tmp_path / "b", network(name), x, plan=plan, seeds=[3], batch_size=5)
    asked = []

    def runner(question):
        """The network's own engine, which moves one word of sample 6 by a step."""
        asked.append(question)
        seen = {}

        def observe(own, _before, after, scale, *_):
            seen[own] = after.numpy(force=True).copy(), float(scale)

        first = int(question["hwfault_first_sample"]) if "hwfault_first_sample" in question else 0
        given = plan if "hwfault_seed" in question else resolve(listed(name), [BitFlips(probability=0.0, sites=site)])
        output = by_pytorch(name, given, torch.from_numpy(question["input"]), 3, first, observe=observe)
        values, step = seen[site]
        if "hwfault_seed" in question and first == 5:
            values[2, 1, 4] += step if values[2, 1, 4] < 1 else -step
        return {"output": output, site: values}

    report = check(Bundle.open(tmp_path / "b"), runner=runner)
    (first,) = [run.first for run in report.runs if run.seed == 3]
    assert (first.site, first.sample, first.word) == (site, 6, 2 * 8 + 4)
    assert [run.first for run in report.runs if run.seed is None] == [None]
    assert len(asked) == 4


@pytest.mark.every(2)
@pytest.mark.parametrize("told", ["rows", "flat"])
def test_a_runner_has_to_tell_the_samples_apart(told, tmp_path):
    name, site = "tokens first", "act.act_quant"
    plan, x = resolve(listed(name), [BitFlips(probability=0.05, sites=site)]), batch(name, 2)
    write_bundle(tmp_path / "b", network(name), x, plan=plan, seeds=[3])
    shape = (2, 40) if told == "rows" else (80,)
    with pytest.raises(Exception, match=r"'act.act_quant' with the shape .*samples along axis 1; expected the graph's"):
        check(Bundle.open(tmp_path / "b"), runner=lambda question: {site: np.zeros(shape)}, which="faulty")
