"""Replays with an engine whose faults are not the plan's: each is noticed, and where it begins is named.

The engine that errs is onnxruntime with ops that do something else (the graph is changed on its way into the session,
as a faulty library would act), or PyTorch under another injection.
"""

import contextlib

import numpy as np
import pytest
from onnx import helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.injection.attach import inject_at
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof import engine, recorder
from hwfault.proof.replay import replay
from hwfault.proof.report import ReplayReport
from tests.graph.edit.test_faults import watched
from tests.helpers.graph.networks import batch, fresh, network, plan
from tests.helpers.graph.running import clean, copied, faulted
from tests.proof.test_replay import PARTS, SEEDS, Act, batches, by_name, replayed
from tests.proof.test_replay_arithmetic import offset

NAME = "digits_cnn"
SITE = "features.1.act_quant"


@pytest.fixture
def library(monkeypatch):
    """Gives replay an onnxruntime that runs every graph with some changes made to it."""

    def with_changes(*changes):
        def changed(graph, **options):
            graph = copied(graph)
            for change in changes:
                change(graph)
            return session(graph, **options)

        monkeypatch.setattr(engine, "session", changed)

    return with_changes


def fault_node(graph, name):
    """The fault node of a quantizer node."""
    return next(entry.node for entry in fault_nodes(graph) if entry.node.name == f"{name}.faults")


def constant(graph, name, values, dtype=np.float32):
    graph.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))


def adds(name, which, amount):
    """The op of a site takes another seed (3) or first sample (4): the graph's, and `amount` more."""

    def change(graph):
        node = fault_node(graph, name)
        graph.graph.node.insert(0, helper.make_node("Add", [node.input[which], "amount"], ["another"]))
        constant(graph, "amount", amount, np.int64)
        node.input[which] = "another"

    return change


def ignores(which, value):
    """All ops take this seed (3) or first sample (4), whatever the graph's is."""

    def change(graph):
        constant(graph, "always", value, np.int64)
        for entry in fault_nodes(graph):
            entry.node.input[which] = "always"

    return change


def then(name, op, values):
    """What the op of a site answers is off: `op` with constant values comes on top."""

    def change(graph):
        node = fault_node(graph, name)
        (after,) = node.output
        node.output[0] = "right"
        constant(graph, "values", values)
        at = list(graph.graph.node).index(node)
        graph.graph.node.insert(at + 1, helper.make_node(op, ["right", "values"], [after]))

    return change


def the_first_convolution_is_off(graph):
    offset(graph, next(node.output[0] for node in graph.graph.node if node.op_type == "Conv"), 0.02)


def by_itself(seed, site):
    """What onnxruntime has before and after the faults of a site: values (samples, words)."""
    x = np.concatenate([part.numpy() for part in batches(NAME)])
    entry = next(e for e in fault_nodes(faulted(NAME)) if e.site == site)
    before, after = run(session(watched(NAME)), x, seed=seed, outputs=[entry.before, entry.after])
    rows = len(x) if plan(NAME).at(site).site.batched else 1
    return before.reshape(rows, -1), after.reshape(rows, -1)


@pytest.mark.parametrize("site", ["features.2.weight_quant", "input.act_quant", "classifier.weight_quant"])
def test_another_seed_at_one_site(library, site):
    """Sites before which nothing differs, so that every number can be counted again."""
    library(adds(site, 3, 1))
    report = replayed(NAME)
    assert (report.verdict, report.exit_code) == ("faults differ", 3)
    assert {s.name for s in report.sites if s.faults_differ} == {site}
    right, wrong = ([by_itself(seed + extra, site) for seed in SEEDS] for extra in (0, 1))
    found = by_name(report)[site]
    assert found.codes_differ == 0
    differing = [np.count_nonzero(a != b) for (_, a), (_, b) in zip(right, wrong, strict=True)]
    assert found.faults_differ == sum(differing) > 10
    assert found.faults_expected == sum(np.count_nonzero(b != a) for b, a in right)
    assert found.faults_seen == sum(np.count_nonzero(b != a) for b, a in wrong)
    sample, word = np.argwhere(right[0][1] != wrong[0][1])[0]
    place = found.first
    assert (place.kind, place.sample, place.word, place.call) == ("faults", sample, word, 0)
    assert report.runs[0].seed == SEEDS[0]
    assert report.runs[0].first.site == site
    here = next(codes for codes in place.words if codes.word == word)
    assert here.recorded_before == here.found_before
    assert here.recorded_after == place.recorded != place.found == here.found_after


def test_a_site_in_the_middle(library):
    library(adds(SITE, 3, 1))
    report = replayed(NAME)
    assert report.exit_code == 3
    assert [s.name for s in report.sites if s.faults_differ] == [SITE]
    later = by_name(report)["features.3.act_quant"]
    assert later.codes_differ > 0
    assert later.first.kind == "codes"


def test_another_sample_number_at_one_site(library):
    library(adds(SITE, 4, 1))
    report = replayed(NAME)
    assert report.exit_code == 3
    assert [s.name for s in report.sites if s.faults_differ] == [SITE]


def test_a_sample_number_that_does_not_matter(library):
    """Parameters are sample 0 whatever their op is told."""
    library(adds("features.2.weight_quant", 4, 1))
    assert replayed(NAME).verdict == "pass"


def test_another_sample_number_from_the_second_batch_on(library):
    """Each batch begins at sample 0: the first one is right."""
    library(ignores(4, 0))
    assert replayed(NAME, sizes=PARTS[:1]).verdict == "pass"
    report = replayed(NAME)
    assert report.exit_code == 3
    for site in report.sites:
        assert (site.faults_differ > 0) == plan(NAME).at(site.name).site.batched
        if site.first is not None:
            assert site.first.sample >= PARTS[0]


def test_the_second_seed_alone(library):
    """A seed that is not heard is right where it happens to be asked for."""
    library(ignores(3, SEEDS[0]))
    assert replayed("mlp", seeds=SEEDS[:1]).verdict == "pass"
    report = replayed("mlp")
    assert report.exit_code == 3
    assert [run.seed for run in report.runs if run.first is not None] == [SEEDS[1]]


def test_the_second_run_of_a_quantizer(library):
    library(adds("again.weight_quant#1", 3, 1))
    report = by_name(replayed("twice"))
    assert report["again.weight_quant"].first.call == 1
    assert [key for key, site in report.items() if site.faults_differ] == ["again.weight_quant"]


def test_one_bit_of_one_word(library):
    """The smallest difference there is."""
    spot = np.zeros((PARTS[0], 5), np.float32)
    spot[3, 2] = 0.5
    library(then("5.act_quant", "Add", spot))
    report = replayed("formats", seeds=SEEDS[:1], sizes=PARTS[:1])
    assert report.exit_code == 3
    assert [site.faults_differ for site in report.sites] == [0, 0, 0, 0, 1]
    run, place = report.first
    assert (run.seed, place.kind, place.sample, place.word, place.call) == (SEEDS[0], "faults", 3, 2, 0)
    assert (place.found - place.recorded) % 2**7 == 1
    assert report.sites[-1].codes_differ == 0


def test_values_that_are_off_the_grid(library):
    """The right codes and not the right values: what the stream says is said of every bit."""
    library(then("5.act_quant", "Mul", 1 + 2.0**-20))
    report = replayed("formats")
    assert report.exit_code == 3
    site = report.sites[-1]
    assert site.faults_differ > 0.8 * site.words
    assert site.first.recorded == site.first.found


def test_faults_where_arithmetic_differs_too(library):
    """Faults are judged by the codes that each engine has: one difference does not hide the other."""
    library(the_first_convolution_is_off)
    assert replayed(NAME).verdict == "codes differ"
    library(the_first_convolution_is_off, adds(SITE, 3, 1))
    report = replayed(NAME)
    assert report.exit_code == 3
    assert by_name(report)[SITE].codes_differ > 0
    assert [s.name for s in report.sites if s.faults_differ] == [SITE]


def under(plan):
    """Injections of this plan, whatever is asked for."""
    return lambda model, _plan, known, **options: inject_at(model, plan, known, **options)


def test_pytorch_that_errs_where_codes_differ(library, monkeypatch):
    """PyTorch's own faults are held against the stream too, on the codes that it has."""
    library(the_first_convolution_is_off)
    monkeypatch.setattr(recorder, "inject_at", under(ANOTHER))
    report = replayed(NAME)
    assert report.exit_code == 3
    assert all(site.faults_differ for site in report.sites)


def test_pytorch_that_errs_where_every_code_differs(library, monkeypatch):
    """No word can be compared with the other engine, only with the stream."""
    model = Act(lambda act, x: act(x).value).eval()
    right, wrong = (resolve(sites(model), [BitFlips(probability=p)]) for p in (0.02, 0.1))
    graph, x = export(model, batch("mlp"), plan=right), [part / 2 for part in batches("mlp")]

    def one_code_up(graph):
        quantizer = next(node for node in graph.graph.node if node.op_type == "Quant")
        graph.graph.node.insert(0, helper.make_node("Add", [quantizer.input[0], "step"], ["up"]))
        constant(graph, "step", 1 / 16)
        quantizer.input[0] = "up"

    library(one_code_up)
    report = replay(model, graph, x, seeds=[1])
    assert (report.verdict, report.exit_code) == ("codes differ", 3)
    assert report.sites[0].codes_differ == report.sites[0].words == sum(PARTS) * 72
    monkeypatch.setattr(recorder, "inject_at", under(wrong))
    report = replay(model, graph, x, seeds=[1])
    assert report.exit_code == 3
    assert report.sites[0].codes_differ == report.sites[0].words


ANOTHER = resolve(sites(network(NAME)), [BitFlips(probability=0.05)])


def test_pytorch_under_another_plan(monkeypatch):
    """Graph, plan and hash agree with each other, but PyTorch draws from a plan of its own."""
    graph = insert_faults(clean(NAME), ANOTHER)
    assert replayed(NAME, graph).verdict == "pass"
    monkeypatch.setattr(recorder, "inject_at", under(plan(NAME)))
    report = replayed(NAME, graph)
    assert (report.verdict, report.exit_code) == ("faults differ", 3)
    assert all(site.faults_differ and site.first is not None for site in report.sites)


def test_pytorch_under_another_seed(monkeypatch):
    class Deaf:
        """An injection that does not hear the seed."""

        def __init__(self, held):
            self.__dict__["held"] = held

        def __setattr__(self, name, value):
            if name != "seed":
                setattr(self.held, name, value)

        def __enter__(self):
            return self

        def __exit__(self, *_args):
            self.held.remove()

    monkeypatch.setattr(
        recorder, "inject_at", lambda *args, **options: Deaf(inject_at(*args, **{**options, "seed": 77}))
    )
    report = replayed("mlp")
    assert report.exit_code == 3
    assert all(site.faults_differ for site in report.sites)


def test_pytorch_without_faults(monkeypatch):
    none = resolve(sites(network(NAME)), [BitFlips(probability=0.0)])
    monkeypatch.setattr(recorder, "inject_at", under(none))
    report = replayed(NAME)
    assert report.exit_code == 3
    assert all(site.faults_expected == 0 and site.faults_seen > 0 for site in report.sites)


def refused_or_told(name, graph):
    """A graph whose faults are not what its plan says is refused, or its faults differ; it never passes."""
    with contextlib.suppress(GraphError):
        assert replayed(name, graph).exit_code == 3


@pytest.mark.parametrize("site", [SITE, "features.2.weight_quant"])
def test_graphs_whose_faults_nobody_reads(site):
    """They are drawn, but whoever should read them reads what was before: no difference in arithmetic."""
    graph = copied(faulted(NAME))
    entry = next(e for e in fault_nodes(graph) if e.site == site)
    for node in graph.graph.node:
        if node != entry.node:
            node.input[:] = [entry.before if tensor == entry.after else tensor for tensor in node.input]
    refused_or_told(NAME, graph)


@pytest.mark.parametrize(
    "change", [adds(SITE, 3, 1), adds(SITE, 4, 1), ignores(3, 5), ignores(4, 0), adds("classifier.weight_quant", 3, 1)]
)
def test_graphs_that_are_wired_wrongly(change):
    graph = copied(faulted(NAME))
    change(graph)
    refused_or_told(NAME, graph)


@pytest.mark.parametrize("name", ["mlp", "per_channel"])
def test_graphs_with_other_weights(name):
    """Somebody changed the weights after the faults were put in: integers that no arithmetic makes."""
    graph = copied(faulted(name))
    held = next(t for t in graph.graph.initializer if t.name == "1.weight")
    held.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(held), held.name))
    refused_or_told(name, graph)


def test_the_report_of_a_difference_as_a_file(library, tmp_path):
    library(adds(SITE, 3, 1))
    report = replayed(NAME)
    report.save(tmp_path / "replay.json")
    text = (tmp_path / "replay.json").read_text()
    assert '"verdict": "faults differ"' in text
    loaded = ReplayReport.model_validate_json(text.replace(',\n "verdict": "faults differ"', ""))
    assert loaded == report
    assert loaded.exit_code == 3
    assert by_name(loaded)[SITE].first == by_name(report)[SITE].first


def test_predictions_are_not_more_than_there_are(library):
    """Also for answers of four axes, whose prediction is one for each place."""
    model = Act(lambda act, x: act(x).value).eval()
    graph = export(model, batch("mlp"), plan=resolve(sites(model), [WordFaults(probability=0.5)]))
    library(adds("act.act_quant", 3, 1))
    report = replay(model, graph, batches("mlp"), seeds=[1])
    assert report.exit_code == 3
    assert report.predictions_differ <= report.predictions


def test_a_network_that_was_never_run_and_one_that_was():
    """Brevitas clamps binary weights in place when they run; a replay is no worse for it."""
    reports = []
    for warm in (False, True):
        model = fresh("binary")
        if warm:
            model(batch("binary"))
        reports.append(replay(model, faulted("binary"), batches("binary"), seeds=[1]))
    assert reports[0] == reports[1]
    assert reports[0].verdict == "pass"
