"""Replays of graphs whose faults are not the plan's: each is noticed, and where it begins is named."""

from functools import partial

import numpy as np
import pytest
from onnx import helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph import replay as module
from hwfault.graph.insert import fault_nodes, insert_faults
from hwfault.graph.replay import replay
from hwfault.graph.report import ReplayReport
from hwfault.graph.session import run, session
from hwfault.inject import inject, sites
from hwfault.plan import resolve
from hwfault.profiles.models import BitFlips, WordFaults

from .networks import batch, fresh, network, plan
from .running import clean, copied, faulted
from .test_faults import watched
from .test_replay import PARTS, SEEDS, batches, by_name, replayed

NAME = "digits_cnn"
SITE = "features.1.act_quant"


def fault_node(graph, site):
    return next(entry.node for entry in fault_nodes(graph) if entry.site == site)


def with_number(graph, site, which, amount):
    """The site's fault node reads another seed (3) or first sample (4): the graph's, and `amount` more."""
    node = fault_node(graph, site)
    graph.graph.node.insert(0, helper.make_node("Add", [node.input[which], "amount"], ["another"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(amount, np.int64), "amount"))
    node.input[which] = "another"
    return graph


def by_itself(graph, seed, site):
    """What onnxruntime has before and after the faults of a site, in codes (samples, words)."""
    x = np.concatenate([part.numpy() for part in batches(NAME)])
    entry = next(e for e in fault_nodes(graph) if e.site == site)
    before, after = run(session(graph), x, seed=seed, outputs=[entry.before, entry.after])
    rows = len(x) if plan(NAME).at(site).site.batched else 1
    return before.reshape(rows, -1), after.reshape(rows, -1)


@pytest.mark.parametrize("site", [SITE, "features.2.weight_quant", "input.act_quant", "classifier.weight_quant"])
def test_another_seed_at_one_site(site):
    graph = with_number(copied(faulted(NAME)), site, 3, 1)
    report = replayed(NAME, graph)
    assert (report.verdict, report.exit_code) == ("faults differ", 3)
    found = by_name(report)
    assert {s.name for s in report.sites if s.faults_differ} == {site}
    right, wrong = ([by_itself(watched(NAME), seed + extra, site) for seed in SEEDS] for extra in (0, 1))
    if site in ("input.act_quant", "features.2.weight_quant", "classifier.weight_quant"):  # nothing differs before
        differing = sum(np.count_nonzero(a != b) for (_, a), (_, b) in zip(right, wrong, strict=True))
        assert found[site].faults_differ == differing > 10
        assert found[site].codes_differ == 0
        assert found[site].faults_expected == sum(np.count_nonzero(b != a) for b, a in right)
        assert found[site].faults_seen == sum(np.count_nonzero(b != a) for b, a in wrong)
        sample, word = np.argwhere(right[0][1] != wrong[0][1])[0]
        place = found[site].first_fault_difference
        assert (place.seed, place.sample, place.word, place.call) == (SEEDS[0], sample, word, 0)
        assert place.pytorch_before == place.onnxruntime_before
        assert place.pytorch_after != place.onnxruntime_after


def test_another_sample_number_at_one_site():
    report = replayed(NAME, with_number(copied(faulted(NAME)), SITE, 4, 1))
    assert report.exit_code == 3
    assert [s.name for s in report.sites if s.faults_differ] == [SITE]


def test_a_sample_number_that_does_not_matter():
    """Parameters are sample 0 whatever their node reads."""
    report = replayed(NAME, with_number(copied(faulted(NAME)), "features.2.weight_quant", 4, 1))
    assert report.verdict == "exact"


def test_another_sample_number_from_the_second_batch_on():
    """A host that begins each batch at sample 0: the first batch is right."""
    graph = copied(faulted(NAME))
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int64), "always"))
    for entry in fault_nodes(graph):
        entry.node.input[4] = "always"
    assert replayed(NAME, graph, sizes=PARTS[:1]).verdict == "exact"
    report = replayed(NAME, graph)
    assert report.exit_code == 3
    for site in report.sites:
        assert (site.faults_differ > 0) == plan(NAME).at(site.name).site.batched
        if site.first_fault_difference is not None:
            assert site.first_fault_difference.sample >= PARTS[0]


def test_the_second_seed_alone():
    """A graph that ignores the seed is right under that very one."""
    graph = copied(faulted("mlp"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(SEEDS[0], np.int64), "always"))
    for entry in fault_nodes(graph):
        entry.node.input[3] = "always"
    assert replayed("mlp", graph, seeds=SEEDS[:1]).verdict == "exact"
    report = replayed("mlp", graph)
    assert report.exit_code == 3
    assert {site.first_fault_difference.seed for site in report.sites if site.faults_differ} == {SEEDS[1]}


def another(rate=0.05):
    return resolve(sites(network(NAME)), [BitFlips(probability=rate)])


def test_pytorch_under_another_plan(monkeypatch):
    """Graph, plan and hash agree with each other, but PyTorch draws from a plan of its own."""
    graph = insert_faults(clean(NAME), another())

    def under_mine(model, _plan, **options):
        return inject(model, plan(NAME), **options)

    assert replayed(NAME, graph).verdict == "exact"
    monkeypatch.setattr(module, "inject", under_mine)
    report = replayed(NAME, graph)
    assert (report.verdict, report.exit_code) == ("faults differ", 3)
    assert all(site.faults_differ for site in report.sites)
    assert all(site.first_fault_difference for site in report.sites)


def test_pytorch_under_another_seed(monkeypatch):
    class Stuck:
        """An injection that is deaf to its seed."""

        def __init__(self, held):
            self.__dict__["held"] = held

        def __setattr__(self, name, value):
            if name != "seed":
                setattr(self.held, name, value)

        def __enter__(self):
            return self

        def __exit__(self, *_args):
            self.held.remove()

    monkeypatch.setattr(module, "inject", lambda *args, **options: Stuck(inject(*args, **{**options, "seed": 77})))
    report = replayed("mlp")
    assert report.exit_code == 3
    assert all(site.faults_differ for site in report.sites)


def test_pytorch_without_faults(monkeypatch):
    none = resolve(sites(network(NAME)), [BitFlips(probability=0.0)])
    monkeypatch.setattr(module, "inject", lambda model, _plan, **options: inject(model, none, **options))
    report = replayed(NAME)
    assert report.exit_code == 3
    assert all(site.faults_expected == 0 and site.faults_seen > 0 for site in report.sites)


def test_one_word_in_one_sample():
    """The smallest difference there is: a single code, one bit off, after the faults."""
    graph = copied(faulted("formats"))
    entry = next(e for e in fault_nodes(graph) if e.site == "5.act_quant")
    shape = (PARTS[0], 5)
    spot = np.zeros(shape, np.float32)
    spot[3, 2] = 0.5
    graph.graph.initializer.append(numpy_helper.from_array(spot, "spot"))
    # inside the op, as far as anybody outside can see: the node's own output is what is off
    entry.node.domain, entry.node.op_type, inner = "", "Add", entry.node.output[0]
    kept = copied(faulted("formats"))
    original = next(e.node for e in fault_nodes(kept) if e.site == "5.act_quant")
    original.output[0] = "right"
    entry.node.input[:] = ["right", "spot"]
    del entry.node.attribute[:]
    graph.graph.node.insert(list(graph.graph.node).index(entry.node), original)
    assert inner == "output"
    report = by_name(replay_with_tensor("formats", graph, "5.act_quant", "output"))
    assert report["5.act_quant"].faults_differ == 1
    place = report["5.act_quant"].first_fault_difference
    assert (place.sample, place.word) == (3, 2)
    assert place.pytorch_before == place.onnxruntime_before
    assert abs(place.pytorch_after - place.onnxruntime_after) in (1, 2**7 - 1)


def replay_with_tensor(name, graph, site, after):
    """A replay that takes another tensor for what comes out of a site's fault node."""
    original = module.fault_nodes

    def renamed(model):
        return [entry._replace(after=after) if entry.site == site else entry for entry in original(model)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fault_nodes", renamed)
        return replayed(name, graph, seeds=SEEDS[:1], sizes=PARTS[:1])


def test_values_that_are_off_the_grid():
    """The right codes, and not the right values: what the stream says is said of every bit."""
    graph = copied(faulted("formats"))
    node = fault_node(graph, "5.act_quant")
    node.output[0] = "right"
    graph.graph.node.append(helper.make_node("Mul", ["right", "almost 1"], ["output"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1 + 2.0**-20, np.float32), "almost 1"))
    report = replay_with_tensor("formats", graph, "5.act_quant", "output")
    assert report.exit_code == 3
    site = by_name(report)["5.act_quant"]
    assert site.faults_differ == pytest.approx(site.words, rel=0.2)
    assert site.first_fault_difference.pytorch_after == site.first_fault_difference.onnxruntime_after


def test_the_second_run_of_a_quantizer():
    graph = copied(faulted("twice"))
    node = next(e.node for e in fault_nodes(graph) if e.node.name == "again.weight_quant#1.faults")
    graph.graph.node.insert(0, helper.make_node("Add", [node.input[3], "one"], ["another"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "one"))
    node.input[3] = "another"
    report = by_name(replayed("twice", graph))
    assert report["again.weight_quant"].first_fault_difference.call == 1
    assert [key for key, site in report.items() if site.faults_differ] == ["again.weight_quant"]


def test_a_fault_where_codes_differ_too():
    """Faults are judged by the codes that each engine has, so arithmetic does not hide them."""
    graph = copied(faulted(NAME))
    conv = next(node for node in graph.graph.node if node.op_type == "Conv")
    conv_out, conv.output[0] = conv.output[0], "exact"
    at = list(graph.graph.node).index(conv) + 1
    graph.graph.node.insert(at, helper.make_node("Mul", ["exact", "factor"], [conv_out]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1.02, np.float32), "factor"))
    assert replayed(NAME, graph).verdict == "faults equal, arithmetic differs"
    report = replayed(NAME, with_number(graph, SITE, 3, 1))
    assert report.exit_code == 3
    found = by_name(report)
    assert found[SITE].codes_differ > 0
    assert [s.name for s in report.sites if s.faults_differ] == [SITE]


def bypassed(name, site):
    """A graph in which the faults of a site are drawn, but whoever read them reads what was before."""
    graph = copied(faulted(name))
    entry = next(e for e in fault_nodes(graph) if e.site == site)
    for node in graph.graph.node:
        if node != entry.node:
            node.input[:] = [entry.before if tensor == entry.after else tensor for tensor in node.input]
    return graph


@pytest.mark.parametrize("site", [SITE, "features.2.weight_quant"])
def test_faults_that_nobody_reads(site):
    """The deployed graph lacks them: that is no difference in arithmetic."""
    try:
        assert replayed(NAME, bypassed(NAME, site)).exit_code == 3
    except GraphError:
        pass


@pytest.mark.parametrize("name", ["mlp", "per_channel"])
def test_other_weights_in_the_graph(name):
    """Somebody changed the weights after the faults were put in: integers that no arithmetic makes."""
    graph = copied(faulted(name))
    held = next(t for t in graph.graph.initializer if t.name == "1.weight")
    held.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(held), held.name))
    with pytest.raises(GraphError, match=r"1\.weight_quant"):
        replayed(name, graph)


def test_the_report_of_a_difference_as_a_file(tmp_path):
    report = replayed(NAME, with_number(copied(faulted(NAME)), SITE, 3, 1))
    report.save(tmp_path / "replay.json")
    text = (tmp_path / "replay.json").read_text()
    assert '"verdict":"faults differ"' in text.replace(" ", "")
    loaded = ReplayReport.model_validate_json(text.replace(',\n "verdict": "faults differ"', ""))
    assert loaded == report
    assert loaded.exit_code == 3
    assert by_name(loaded)[SITE].first_fault_difference == by_name(report)[SITE].first_fault_difference


def test_predictions_are_not_more_than_there_are():
    """Also for answers of four axes, whose prediction is one for each place."""
    from .test_replay import Act

    model = Act(lambda act, x: act(x).value).eval()
    strong = resolve(sites(model), [WordFaults(probability=0.5)])
    from hwfault.graph.export import export

    graph = export(model, batch("mlp"), plan=strong)
    report = replay(model, with_number_of(graph), batches("mlp"), seeds=[1])
    assert report.exit_code == 3
    assert report.predictions_differ <= report.predictions


def with_number_of(graph):
    return with_number(graph, "act.act_quant", 3, 1)


def test_a_network_that_was_never_run_and_one_that_was():
    """Brevitas clamps binary weights in place when they run; a replay is no worse for it."""
    reports = []
    for warm in (False, True):
        model = fresh("binary")
        if warm:
            model(batch("binary"))
        reports.append(replay(model, faulted("binary"), batches("binary"), seeds=[1]))
    assert reports[0] == reports[1]
    assert reports[0].verdict == "exact"


_ = partial
