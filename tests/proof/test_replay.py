"""Replays: the verdict, the report's numbers recounted, and what a caller sees of it."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import hwfault
from hwfault.codes import CodeFormat
from hwfault.errors import GraphError, HwfaultError, PlanError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from hwfault.proof.report import ReplayReport
from tests.graph.edit.test_faults import by_reference, watched
from tests.helpers.graph.networks import ALL, FAULTS, Chain, batch, fresh, network, plan, signed
from tests.helpers.graph.running import clean, copied, faulted, tidied
from tests.helpers.injection.snapshot import snapshot

SEEDS = (1, 2**63 + 5)
PARTS = (5, 1, 8)


def batches(name, sizes=PARTS, seed=3):
    """One data set, in batches of these sizes."""
    return list(batch(name, sum(sizes), seed).split(list(sizes)))


def replayed(name, graph=None, *, seeds=SEEDS, sizes=PARTS, **options):
    return replay(network(name), graph or faulted(name), batches(name, sizes), seeds=list(seeds), **options)


def by_name(report):
    return {site.name: site for site in report.sites}


@pytest.mark.parametrize("name", ALL)
def test_exact(name):
    report = replay(fresh(name), faulted(name), batches(name), seeds=SEEDS)
    assert (report.verdict, report.exit_code) == ("pass", 0)
    for site in report.sites:
        assert site.faults_differ == site.codes_differ == 0
        assert site.faults_seen == site.faults_expected
        assert site.first is None
    assert sum(site.faults_seen for site in report.sites) > 50
    assert report.outputs_differ == report.predictions_differ == report.outputs_changed_by_observation == 0
    assert report.outputs_max_difference == 0


def recount(name, seeds):
    """Words, and words that the reference changes in what onnxruntime has before the faults, for each site."""
    graph, x = watched(name), batch(name, sum(PARTS), 3).numpy()
    held, constants = session(graph, threads=1), Constants(graph)
    words, faults = Counter(), Counter()
    for seed in seeds:
        tensors = dict(zip((i.name for i in graph.graph.output), run(held, x, seed=seed), strict=True))
        for entry in fault_nodes(graph):
            site = plan(name).at(entry.site).site
            scale, zero_point = (constants.get(i) for i in entry.node.input[1:3])
            before = tensors[entry.before]
            what = (CodeFormat(site.bit_width, site.signed), plan(name).program(site.name), seed)
            after = by_reference(before, scale, zero_point, *what, range(len(x)) if site.batched else [0])
            words[site.name] += before.size
            faults[site.name] += int(np.count_nonzero(before != after))
    return words, faults


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["digits_cnn", "residual", "twice", "shared", "per_channel", "formats"])
def test_the_numbers_add_up(name):
    report = replayed(name)
    words, faults = recount(name, SEEDS)
    assert {site.name: site.words for site in report.sites} == words
    assert {site.name: site.faults_seen for site in report.sites} == faults
    assert {site.name: site.faults_expected for site in report.sites} == faults
    assert [site.name for site in report.sites] == list(dict.fromkeys(e.site for e in fault_nodes(faulted(name))))
    assert (report.samples, report.seeds) == (sum(PARTS), SEEDS)
    assert report.predictions == sum(PARTS) * len(SEEDS)
    assert report.outputs == report.predictions * by_network(name).shape[1]
    assert report.plan_sha256 == plan(name).digest
    assert set(report.versions) == {"hwfault", "onnxruntime"}
    assert set(report.recorded_with) == {"hwfault", "torch", "brevitas", "onnx"}
    assert report.versions["hwfault"] == hwfault.__version__


@torch.no_grad()
def by_network(name):
    return network(name)(batch(name, 1))


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["digits_cnn", "twice", "formats"])
def test_the_batch_size_does_not_matter(name):
    reports = [replayed(name, sizes=sizes) for sizes in ([64], [7] * 9 + [1], [1] * 3 + [61], [0, 32, 0, 32, 0])]
    assert reports[0].samples == 64
    assert all(report == reports[0] for report in reports)


def test_each_seed_counts_for_itself():
    both = by_name(replayed("biased"))
    apart = [by_name(replayed("biased", seeds=[seed])) for seed in SEEDS]
    for key, site in both.items():
        assert site.faults_seen == sum(report[key].faults_seen for report in apart)
        assert site.words == sum(report[key].words for report in apart)


@pytest.mark.parametrize("kind", ["path", "text", "cleaned", "cleaned for a size"])
def test_graphs_from_elsewhere(kind, tmp_path):
    path = tmp_path / "g.onnx"
    onnx.save(faulted("shared"), path)
    sizes = (4, 4) if kind == "cleaned for a size" else PARTS
    graph = {
        "path": lambda: path,
        "text": lambda: str(path),
        "cleaned": lambda: tidied(faulted("shared"), None),
        "cleaned for a size": lambda: tidied(faulted("shared"), 4),
    }[kind]()
    found, expected = replayed("shared", graph, sizes=sizes), replayed("shared", sizes=sizes)
    assert (found.verdict, found.exit_code) == ("pass", 0)
    # qonnx folds the nodes of weights, so that those come where they are read
    assert by_name(found) == by_name(expected)


def as_exported_by_0_4_0(made):
    """What hwfault 0.4.0 wrote where layers share a quantizer: the first layer's name stands at both weights."""
    graph = copied(made)
    for node in graph.graph.node:
        for entry in node.metadata_props:
            if entry.key == "hwfault.site" and entry.value == "6.weight_quant":
                entry.value = "4.weight_quant"
    return graph


def test_old_exports_that_name_two_parameters_alike_have_no_site_there():
    graph = as_exported_by_0_4_0(clean("shared"))
    listed = graph_sites(graph)
    assert "export it anew" in listed.obstacles["4.weight_quant"]
    assert not {"4.weight_quant", "6.weight_quant"} & {site.name for site in listed}
    with pytest.raises(GraphError, match="different parameters"):
        insert_faults(graph, plan("shared"))


def test_old_graphs_with_faults_that_name_two_parameters_alike_are_not_replayed():
    with pytest.raises(HwfaultError, match=r"anew|again"):
        replayed("shared", as_exported_by_0_4_0(faulted("shared")))


def test_the_plan_may_be_given_if_it_is_the_graphs():
    assert replayed("mlp", plan=plan("mlp")).verdict == "pass"
    other = resolve(sites(network("mlp")), [BitFlips(probability=0.5)])
    with pytest.raises(PlanError, match=f"carries the plan {plan('mlp').digest[:12]}, given was {other.digest[:12]}"):
        replayed("mlp", plan=other)


def test_batches_with_labels():
    pairs = [(x, torch.zeros(len(x))) for x in batches("mlp")]
    assert replay(network("mlp"), faulted("mlp"), pairs, seeds=SEEDS) == replayed("mlp")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.cat(batches("mlp"))), batch_size=6)
    assert replay(network("mlp"), faulted("mlp"), loader, seeds=SEEDS) == replayed("mlp")


def test_progress_is_told_after_each_batch():
    told = []
    replayed("mlp", progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    stream = iter(batches("mlp"))
    replay(network("mlp"), faulted("mlp"), stream, seeds=[1], progress=lambda *numbers: told.append(numbers))
    assert told == [(1, None), (2, None), (3, None)]


def test_one_batch_is_held_at_a_time():
    """A stream of batches is read as it is needed."""
    alive = []

    def stream():
        for x in batches("mlp"):
            alive.append(len(told))
            yield x

    told = []
    replay(network("mlp"), faulted("mlp"), stream(), seeds=[1], progress=lambda *n: told.append(n))
    assert alive == [0, 1, 2]


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_was(training):
    model = Chain(*fresh("biased")[:4], nn.Dropout(0.5), *fresh("biased")[4:])
    graph = export(model.eval(), batch("biased"), plan=resolve(sites(model), FAULTS[:1]))
    model.train(training)
    model[0].train(not training)
    before, state = snapshot(model), torch.random.get_rng_state()
    assert replay(model, graph, batches("biased"), seeds=[1]).verdict == "pass"
    assert snapshot(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("bad", [lambda: 1 / 0, lambda: torch.zeros(2, 3, 6, 6), lambda: batch("biased").double()])
def test_the_network_is_left_as_it_was_when_a_batch_fails(bad):
    graph = faulted("biased")  # first: Brevitas' networks share modules that have nothing but a mode
    model = fresh("biased").train()
    before = snapshot(model)

    def stream():
        yield batch("biased")
        yield bad()

    with pytest.raises((ZeroDivisionError, GraphError)):
        replay(model, graph, stream(), seeds=[1])
    assert not attached(model)
    assert snapshot(model) == before
    assert torch.is_grad_enabled()


def test_the_report_as_a_file(tmp_path):
    report = replayed("digits_cnn")
    report.save(tmp_path / "replay.json")
    data = json.loads((tmp_path / "replay.json").read_text())
    assert data["format"] == "hwfault-proof/1"
    assert data["verdict"] == "pass"
    assert [run["seed"] for run in data["runs"]] == list(SEEDS) == list(report.seeds)
    assert [site["name"] for site in data["runs"][0]["sites"]] == [site.name for site in report.sites]
    assert {site["words"] for site in data["runs"][1]["sites"]} == {site.words // 2 for site in report.sites}
    assert data["bundle_sha256"] is None
    del data["verdict"]  # it follows from the numbers
    assert ReplayReport.model_validate_json(json.dumps(data)) == report


@pytest.mark.parametrize("seeds", [[], ()])
def test_no_seed(seeds):
    with pytest.raises(HwfaultError, match="no seed was given"):
        replayed("mlp", seeds=seeds)


@pytest.mark.parametrize("seeds", [[-1], [2**64], [1, -1], [1.5]])
def test_seeds_that_are_none(seeds):
    with pytest.raises(HwfaultError, match="the seed is"):
        replayed("mlp", seeds=seeds)


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0)])
def test_no_sample(sizes):
    with pytest.raises(HwfaultError, match="no sample was given to replay"):
        replay(network("mlp"), faulted("mlp"), [batch("mlp", n) for n in sizes], seeds=[1])


def test_a_graph_without_a_plan():
    with pytest.raises(GraphError, match="carries no fault plan"):
        replayed("mlp", clean("mlp"))


def test_a_network_with_other_weights():
    for name in ("mlp", "shared", "biased"):
        with pytest.raises(GraphError, match=r"exported with other values of the site '.*weight_quant' than"):
            replay(fresh(name, seed=1), faulted(name), batches(name), seeds=[1])


def test_a_network_with_one_other_bias():
    model = fresh("biased")
    with torch.no_grad():
        model[4].bias[2] += 0.5
    with pytest.raises(GraphError, match=r"other values of the site '4.bias_quant'.*load the checkpoint"):
        replay(model, faulted("biased"), batches("biased"), seeds=[1])


def test_another_network():
    with pytest.raises(PlanError, match="which the network does not have"):
        replay(network("residual"), faulted("mlp"), batches("mlp"), seeds=[1])


def unstamped(name):
    """A graph that does not say which weights it was exported with."""
    graph = copied(faulted(name))
    for node in graph.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != "hwfault.words_sha256"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return graph


def test_a_graph_that_does_not_say_its_weights():
    """Nothing can be refused then, but weights that differ are counted."""
    found, expected = replayed("mlp", unstamped("mlp")), replayed("mlp")
    assert found.network != expected.network, "it is another graph"
    assert found.model_copy(update={"network": None}) == expected.model_copy(update={"network": None})
    assert found.data == expected.data
    report = replay(fresh("mlp", seed=1), unstamped("mlp"), batches("mlp"), seeds=[1])
    assert by_name(report)["1.weight_quant"].codes_differ > 300
    assert (report.verdict, report.exit_code) == ("codes differ", 3)


class Act(nn.Module):
    """A quantizer, and what the network does with it."""

    def __init__(self, forward):
        super().__init__()
        self.act, self.forward_of = signed(5), forward

    def forward(self, x):
        return self.forward_of(self.act, x)


def test_a_quantizer_that_runs_more_often_in_the_network():
    once, twice = Act(lambda act, x: act(x).value), Act(lambda act, x: act(act(x).value).value)
    graph = export(once.eval(), batch("mlp"), plan=resolve(sites(once), FAULTS[:1]))
    with pytest.raises(
        PlanError, match=r"'act.act_quant#1' was recorded 1 times in a forward, but the graph has 0 nodes"
    ):
        replay(twice.eval(), graph, batches("mlp"), seeds=[1])
    graph = export(twice, batch("mlp"), plan=resolve(sites(twice, batch("mlp")), FAULTS[:1]))
    with pytest.raises(PlanError, match=r"the graph has the site 'act.act_quant#1', of which there is no record"):
        replay(once, graph, batches("mlp"), seeds=[1])


def test_a_site_of_another_shape():
    whole, half = Act(lambda act, x: act(x).value), Act(lambda act, x: act(x[:, :1]).value)
    graph = export(whole.eval(), batch("mlp"), plan=resolve(sites(whole), FAULTS[:1]))
    with pytest.raises(
        PlanError, match=r"the shape \[5, 2, 6, 6\] in the graph, but 36 words of 5 samples were recorded"
    ):
        replay(half.eval(), graph, batches("mlp"), seeds=[1])


def test_an_output_of_another_shape():
    whole, half = Act(lambda act, x: act(x).value), Act(lambda act, x: act(x).value[:, :1])
    graph = export(whole.eval(), batch("mlp"), plan=resolve(sites(whole), FAULTS[:1]))
    with pytest.raises(PlanError, match=r"output has the shape \[5, 2, 6, 6\], recorded was \[5, 1, 6, 6\]"):
        replay(half.eval(), graph, batches("mlp"), seeds=[1])


def test_a_scale_that_the_graph_computes():
    graph = copied(faulted("mlp"))
    entry = fault_nodes(graph)[0]
    graph.graph.node.insert(0, helper.make_node("Abs", [entry.node.input[1]], ["computed"]))
    entry.node.input[1] = "computed"
    with pytest.raises(GraphError, match=r"'1\.input_quant\.faults' is wired otherwise"):
        replayed("mlp", graph)


def test_answers_that_are_no_logits():
    """An output of four axes, and one of a single axis."""
    dense, single = Act(lambda act, x: act(x).value), Act(lambda act, x: act(x).value.flatten(1).sum(1))
    for model in (dense, single):
        graph = export(model.eval(), batch("mlp"), plan=resolve(sites(model), FAULTS[:1]))
        report = replay(model, graph, batches("mlp"), seeds=[1])
        assert report.verdict == "pass"
        assert report.samples == sum(PARTS)
