"""What a replay says of layers that are added up on an array of processing elements."""

import numpy as np
import pytest
import torch

from hwfault.graph.export.of_network import export
from hwfault.injection.attach import inject
from hwfault.laws.models import AccumulatorFormat, BitFlips, StuckElement
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof import sides as room
from hwfault.proof.replay import replay
from hwfault.stream.mapping import WeightStationary
from tests.graph.networks import batch, network

ARRAY = WeightStationary(rows=4, columns=2)
STUCK = StuckElement(element=(1, 1), bit=9, value=1, mapping=ARRAY)
FORMATS = [AccumulatorFormat(width=16, mapping=ARRAY), AccumulatorFormat(mapping=ARRAY, arithmetic="float64")]


def planned(*faults):
    return resolve(sites(network("biased"), batch("biased")), faults)


def replayed(plan, n=6):
    x = batch("biased", n)
    return replay(network("biased"), export(network("biased"), x, plan=plan), torch.split(x, 2), seeds=(1, 2))


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
    first = next(site for site in report.sites if site.kind == "accumulator")
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
