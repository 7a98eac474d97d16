"""What a replay says of layers that are added up on an array of processing elements."""

import numpy as np
import pytest
import torch

from hwfault.graph.export.of_network import export
from hwfault.graph.ops import DOMAIN
from hwfault.graph.run.session import session
from hwfault.injection.attach import inject
from hwfault.laws.models import AccumulatorFormat, BitFlips, BypassedElements, LateBits, StuckElement
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof import engine, recorder
from hwfault.proof import sides as room
from hwfault.proof.accept import Accept, refusals
from hwfault.proof.replay import replay
from hwfault.proof.sentences import sentence
from hwfault.stream.mapping import WeightStationary
from tests.helpers.graph.networks import batch, network
from tests.helpers.graph.running import copied

ARRAY = WeightStationary(rows=4, columns=2)
STUCK = StuckElement(element=(1, 1), bit=9, value=1, mapping=ARRAY)
FORMATS = [AccumulatorFormat(width=16, mapping=ARRAY), AccumulatorFormat(mapping=ARRAY, arithmetic="float64")]
FIRST = {"bypassed": "1.weight_quant"}
"""Where faults are first seen, if not at the sums: a bypassed element holds no weights."""


def planned(*faults):
    return resolve(sites(network("biased"), batch("biased")), faults)


def replayed(plan, n=6, **options):
    x = batch("biased", n)
    graph = export(network("biased"), x, plan=plan, **options)
    return replay(network("biased"), graph, torch.split(x, 2), seeds=(1, 2))


def sums_of(report):
    """The records of accumulators, over all runs."""
    return [site for site in report.sites if site.kind == "accumulator"]


def values_of(plan, n=6):
    """The accumulators of each layer in PyTorch after all faults, for the seeds 1 and 2."""
    seen = {1: {}, 2: {}}
    with torch.no_grad():
        for seed, values in seen.items():

            def note(name, _before, after, *_grid, values=values):
                values[name] = after

            with inject(network("biased"), plan, seed=seed, observe=note):
                network("biased")(batch("biased", n))
    return seen


@pytest.mark.parametrize("form", FORMATS, ids=["float32", "float64"])
def test_sums_that_the_array_changed_are_faults(form):
    faulty, clean = planned(form, STUCK), planned(form, BitFlips(probability=0.0, sites="*.accumulator"))
    report = replayed(faulty)
    assert report.verdict == "pass"
    own, healthy = values_of(faulty), values_of(clean)
    first = sums_of(report)[0]
    differing = sum(int((own[seed][first.name] != healthy[seed][first.name]).sum()) for seed in (1, 2))
    assert differing > 0
    if form.arithmetic == "float32":
        assert first.faults_seen == first.faults_expected == differing
    assert all(site.faults_seen == 0 for site in replayed(clean).sites)


def test_a_stuck_element_and_flips_are_counted_once_a_word():
    both = replayed(planned(FORMATS[0], STUCK, BitFlips(probability=0.5, sites="*.accumulator")))
    assert both.verdict == "pass"
    assert all(site.words >= site.faults_seen > 0.9 * site.words for site in sums_of(both))


def test_an_array_that_does_something_else_is_a_fault_that_differs(monkeypatch):
    honest = room.add_up

    def wrong(*node_and_inputs):
        """Adds one to the first sum."""
        out = np.array(honest(*node_and_inputs))
        out.flat[0] += 1
        return out

    monkeypatch.setattr(room, "add_up", wrong)
    report = replayed(planned(FORMATS[0], STUCK))
    assert (report.verdict, report.exit_code) == ("faults differ", 3)
    first = sums_of(report)[0]
    assert first.faults_differ == 3 * 2, "one word of each of three batches under each of two seeds"
    assert first.first.word == 0


FAULTS = {
    "stuck": STUCK,
    "bypassed": BypassedElements(elements=[(1, 1)], mapping=ARRAY),
    "late": LateBits(probability=0.2, bits=4),
    "flips": BitFlips(probability=0.1, sites={"kind": "accumulator"}),
}
OTHERS = {
    "stuck": StuckElement(element=(2, 1), bit=9, value=1, mapping=ARRAY),
    "bypassed": BypassedElements(elements=[(2, 1)], mapping=ARRAY),
    "late": LateBits(probability=0.2, bits=5),
    "flips": BitFlips(probability=0.12, sites={"kind": "accumulator"}),
}


def check_told(report, kind):
    """Whether it is a fault of the first layer."""
    where = FIRST.get(kind, "1.accumulator")
    assert (report.verdict, report.exit_code) == ("faults differ", 3)
    _, first = report.first
    assert (first.kind, first.site) == ("faults", where)
    assert f"First difference, in the run under seed 1: the site {where}" in sentence(report)
    for accept in (Accept(outputs=0.99), Accept(codes=True)):
        assert "faults differ in the run under seed 1" in refusals(report, accept)[0]


@pytest.mark.every(5)
@pytest.mark.parametrize("arithmetic", ["float", "integer"])
@pytest.mark.parametrize("kind", FAULTS)
def test_pytorch_with_other_faults_of_an_array(monkeypatch, kind, arithmetic):
    """The graph does what its plan says, and so agrees with itself: the record alone tells."""
    plan, other = planned(FAULTS[kind]), planned(OTHERS[kind])
    assert replayed(plan, arithmetic=arithmetic).verdict == "pass"
    attached = recorder.Recorder.attached
    monkeypatch.setattr(recorder.Recorder, "attached", lambda self, _plan: attached(self, other))
    check_told(replayed(plan, arithmetic=arithmetic), kind)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", sorted(FAULTS.keys() - {"bypassed"}))
def test_a_graph_with_other_faults_of_an_array(monkeypatch, kind):
    """onnxruntime with ops that do what those of another plan do."""
    plan = planned(FAULTS[kind])
    others = export(network("biased"), batch("biased"), plan=planned(OTHERS[kind])).graph.node
    attributes = {node.name: node.attribute for node in others if node.domain == DOMAIN}

    def changed(graph, **options):
        graph = copied(graph)
        for node in graph.graph.node:
            if node.domain == DOMAIN and node.name in attributes:
                del node.attribute[:]
                node.attribute.extend(attributes[node.name])
        return session(graph, **options)

    monkeypatch.setattr(engine, "session", changed)
    check_told(replayed(plan), kind)


def test_sums_of_other_integers_are_no_faults(monkeypatch):
    """Inputs that PyTorch rounds otherwise: their sums differ, which is no fault of the array."""
    plan = planned(STUCK)

    class Other(recorder.Recording):
        def run(self, inputs, *numbers, **options):
            x = inputs.clone()
            x[0] *= 1.02
            return super().run(x, *numbers, **options)

    monkeypatch.setattr(recorder, "Recording", Other)
    report = replayed(plan)
    assert report.verdict == "codes differ"
    found = {site.name: site for site in report.sites}
    assert found["0.act_quant"].codes_differ > 0
    assert found["1.accumulator"].codes_differ > 0
    assert all(site.faults_differ == 0 for site in report.sites)
