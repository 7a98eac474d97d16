"""Sums of layers among the other sites of a proof: recorded clean and under faults, in the graph's order, compared."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from hwfault.codes import CodeFormat, integers
from hwfault.errors import PlanError
from hwfault.graph.export.of_network import export
from hwfault.graph.run.session import session
from hwfault.laws.models import AccumulatorFormat, BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof import engine
from hwfault.proof.accept import Accept, refusals
from hwfault.proof.check import check
from hwfault.proof.manifest import CLEAN, seed_file
from hwfault.proof.places import exact_sums
from hwfault.proof.replay import replay
from hwfault.proof.sentences import sentence
from tests.helpers.graph.networks import batch, network
from tests.helpers.graph.running import clean, copied
from tests.helpers.proof.bundles import SAMPLES, SEEDS, opened, with_manifest, with_tensors, written

NAME, SUMS = "digits_cnn", "features.0.accumulator"
ORDER = ["input.act_quant", "features.0.weight_quant", SUMS, "features.1.act_quant", "features.2.weight_quant"]


def flips(**where):
    return resolve(sites(network(NAME), batch(NAME)), [BitFlips(probability=0.02, **where)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle in integer arithmetic whose faults strike activations alone; leave it as it is."""
    folder = tmp_path_factory.mktemp("sums") / "b"
    return written(folder, NAME, faults=flips(sites={"kind": "activation"}), arithmetic="integer", batch_size=4)


@pytest.fixture
def mine(bundle, tmp_path):
    from tests.helpers.proof.bundles import copied

    return copied(bundle, tmp_path / "mine")


def test_clean_sums_are_recorded(bundle):
    """Against a product of one's own of the recorded integers."""
    record = opened(bundle)
    clean = record.tensors(CLEAN)
    known = {entry.site.name: entry.site for entry in record.manifest.sites}

    def read(name):
        site = known[name]
        return integers(clean[f"{name}#0.codes"].astype(np.uint32), CodeFormat(site.bit_width, site.signed))

    name = "classifier.accumulator"
    x, w = read(known[name].source), read("classifier.weight_quant").reshape(known["classifier.weight_quant"].shape)
    assert np.array_equal(read(name), x.reshape(SAMPLES, -1) @ w.T)
    for seed in SEEDS:
        tensors = record.tensors(seed_file(seed))
        assert not tensors[f"{name}#0.at"].size, "nothing strikes them"


@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_sums_stand_among_the_other_sites(tmp_path, arithmetic):
    """In the manifest, in every run of a graph, of a runner, and beside the network."""
    faults, x = flips(sites={"kind": "accumulator"}), batch(NAME, SAMPLES, 3)
    folder = written(tmp_path / "b", NAME, faults=faults, arithmetic=arithmetic)
    bundle = opened(folder)
    assert [entry.site.name for entry in bundle.manifest.sites][:5] == ORDER
    for run in check(bundle).runs:
        has_sums = run.seed is not None or arithmetic == "integer"
        expected = ORDER if has_sums else [name for name in ORDER if name != SUMS]
        assert [site.name for site in run.sites][: len(expected)] == expected
    beside = replay(network(NAME), export(network(NAME), x, plan=faults, arithmetic=arithmetic), [x], seeds=SEEDS)
    assert [site.name for site in beside.sites][:5] == ORDER
    answer = told_of(bundle, SEEDS[0], [*reversed(ORDER)])
    report = check(bundle, seeds=SEEDS[:1], which="faulty", runner=lambda _: answer)
    assert (report.verdict, [site.name for site in report.runs[0].sites]) == ("pass", ORDER)


def told_of(bundle, seed, names):
    """A runner's answer: the codes of sites after the faults, as they were recorded."""
    clean, own = bundle.tensors(CLEAN), bundle.tensors(seed_file(seed))
    answer = {}
    for name in names:
        codes = own.get(f"{name}#0.before", clean.get(f"{name}#0.codes")).copy()
        codes.ravel()[own[f"{name}#0.at"]] = own[f"{name}#0.after"]
        answer[name] = codes
    return answer


def test_every_sum_is_compared_clean_and_under_seeds(bundle):
    report = check(opened(bundle))
    assert report.verdict == "pass"
    for run in report.runs:
        found = [site for site in run.sites if site.kind == "accumulator"]
        assert len(found) == len(exact_sums(clean_graph())) == 4
        assert all(site.words == site.words_recorded > 0 for site in found)
    assert "12 sites" in sentence(report)
    assert "every code, output and prediction is the recorded one" in sentence(report)


def clean_graph():
    return export(network(NAME), batch(NAME), arithmetic="integer")


def test_graphs_of_float_arithmetic_have_no_exact_sums():
    assert not exact_sums(clean(NAME))


def test_one_clean_sum_that_is_another(mine):
    """It is told where it is, as what it is, and never accepted."""

    def change(tensors):
        tensors[f"{SUMS}#0.codes"][5, 7] ^= 1

    with_tensors(mine, CLEAN, change)
    report = check(opened(mine), which="clean")
    run, first = report.first
    assert (report.verdict, report.exit_code) == ("codes differ", 3)
    assert (first.site, first.sample, first.word) == (SUMS, 5, 7)
    assert first.recorded == int(first.found) ^ 1
    assert sum(site.codes_differ for site in run.sites) == 1
    assert f"the site {SUMS} (3 of 12), sample 5, word 7" in sentence(report)
    assert refusals(report, Accept(codes=True)) == [f"sums of integers differ at {SUMS} in the clean run"]


def test_a_runner_tells_of_clean_sums(bundle):
    record = opened(bundle)
    codes = record.tensors(CLEAN)[f"{SUMS}#0.codes"]
    wrong = codes.copy()
    wrong[1, 2] ^= 4

    def verdict(sums):
        begins = iter((0, 4))

        def runner(arrays):
            begin = next(begins)
            return {SUMS: sums[begin : begin + len(arrays["input"])]}

        return check(record, which="clean", runner=runner).verdict

    assert (verdict(codes), verdict(wrong)) == ("pass", "codes differ")


def off_by_one(graph):
    """Each sum of the first convolution is one more."""
    node = next(node for node in graph.graph.node if node.op_type == "Conv")
    (sums,) = node.output
    node.output[0] = "right"
    graph.graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), "one"))
    at = list(graph.graph.node).index(node)
    graph.graph.node.insert(at + 1, helper.make_node("Add", ["right", "one"], [sums]))


def test_sums_that_no_fault_strikes_are_compared_beside_the_network(monkeypatch):
    faults, x = flips(sites={"kind": "activation"}), batch(NAME, SAMPLES, 3)
    graph = export(network(NAME), x, plan=faults, arithmetic="integer")
    report = replay(network(NAME), graph, x.split(2), seeds=SEEDS)
    assert report.verdict == "pass"
    assert [site.name for site in report.sites][:5] == ORDER

    def changed(graph, **options):
        graph = copied(graph)
        off_by_one(graph)
        return session(graph, **options)

    monkeypatch.setattr(engine, "session", changed)
    report = replay(network(NAME), graph, x.split(2), seeds=SEEDS)
    found = {site.name: site for site in report.sites}
    assert (report.verdict, report.exit_code) == ("codes differ", 3)
    assert found[SUMS].codes_differ == found[SUMS].words > 0
    assert report.first[1].site == SUMS
    assert found["features.0.weight_quant"].first is None


@pytest.mark.every(2)
@pytest.mark.parametrize("width", [8, 24])
def test_a_width_of_the_plan_is_that_of_the_faulty_runs(tmp_path, width):
    """Clean sums have the bits that they need."""
    faults = resolve(sites(network(NAME), batch(NAME)), [AccumulatorFormat(width=width, sites=SUMS)])
    bundle = opened(written(tmp_path / "b", NAME, faults=faults, arithmetic="integer"))
    entry = next(entry for entry in bundle.manifest.sites if entry.site.name == SUMS)
    assert (entry.site.bit_width, entry.clean.bit_width) == (width, 16)
    assert check(bundle).verdict == "pass"


def test_a_record_without_clean_sums_is_one_of_0_4_0(mine):
    """What it does not have is not compared, and the rest passes."""

    def forget(tensors):
        for name in [name for name in tensors if "accumulator" in name]:
            del tensors[name]

    def forget_sites(manifest):
        manifest["sites"] = [entry for entry in manifest["sites"] if "accumulator" not in entry["site"]["name"]]

    for name in (CLEAN, *map(seed_file, SEEDS)):
        with_tensors(mine, name, forget)
    with_manifest(mine, forget_sites)
    assert check(opened(mine)).verdict == "pass"


def test_sums_that_the_graph_does_not_have(mine, tmp_path):
    """A graph in float arithmetic is not that of the record."""
    with pytest.raises(PlanError, match=rf"'{SUMS}' was recorded 1 times in a forward, but the graph has 0 nodes"):
        check(opened(mine), graph=clean(NAME))
