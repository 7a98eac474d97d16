"""Trials whose plans name their cells: the same as with a session for each, whatever else they are run with."""

from functools import cache

import numpy as np
import pytest
from onnx import helper

from hwfault.campaigns.engines.engine import Trial
from hwfault.campaigns.engines.named_cells import cells_of
from hwfault.campaigns.engines.onnxruntime_engine import OnnxruntimeEngine
from hwfault.campaigns.exactness import why_not_exact
from hwfault.campaigns.study.space import drawn_flips, fault_space
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.cells import CellFaults
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.program.selectors import Select
from tests.campaigns.engines.engine_cases import IMAGES, images
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import clean, copied
from tests.slowly import slow

NETWORKS = ["digits_cnn", "residual", slow("twice"), slow("per_channel"), slow("biased"), slow("formats")]
SOME = np.array([6, 0, 3])


@cache
def known(name):
    return sites(clean(name))


@cache
def space(name, kinds):
    return fault_space(known(name), [Select(kind=kind) for kind in kinds])


def drawn(name, kinds, flips, seeds):
    return [resolve(known(name), (drawn_flips(space(name, kinds), flips, seed),)) for seed in seeds]


def alone(name, plan, chosen=None):
    """One trial, in a session that carries its cells as constants."""
    x = images(name) if chosen is None else images(name)[chosen]
    return run(session(insert_faults(clean(name), plan), threads=1), x)[0]


@cache
def engine(name, batch_size=5):
    return OnnxruntimeEngine(clean(name), images(name), batch_size, exact=True)


def outputs(made, plans, chosen=None):
    return [ran.outputs for ran in made.run([Trial(plan, 0) for plan in plans], chosen)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kinds", [("activation",), ("weight",), ("activation", "weight")])
def test_some_flips_a_trial(name, kinds):
    plans = drawn(name, kinds, 5, range(6))
    got = outputs(engine(name), plans)
    for one, plan in zip(got, plans, strict=True):
        assert_same(one, alone(name, plan))
    assert any((one != engine(name).golden()).any() for one in got)
    for one, of_all in zip(outputs(engine(name), plans, SOME), got, strict=True):
        assert_same(one, of_all[SOME])


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_single_flips_of_activations(name):
    """Also beside trials of weights and of what is drawn, in any order."""
    own = space(name, ("activation",))
    chosen = np.random.default_rng(0).choice(own.size, 12, replace=False)
    plans = [resolve(known(name), (CellFaults(cells=(own.cell(int(cell)),)),)) for cell in chosen]
    plans[4:4] = drawn(name, ("weight",), 1, [1, 2])
    plans[9:9] = [resolve(known(name), [BitFlips(probability=0.01)])]
    for one, plan in zip(outputs(engine(name), plans), plans, strict=True):
        expected = run(session(insert_faults(clean(name), plan), threads=1), images(name), seed=0)[0]
        assert_same(one, expected)


def test_one_session_serves_all():
    made = OnnxruntimeEngine(clean("digits_cnn"), images("digits_cnn"), 5, exact=True)
    plans = drawn("digits_cnn", ("activation", "weight"), 40, range(8))  # of which each strikes most sites
    outputs(made, plans)
    first = made._cells.made
    outputs(made, plans[:1])
    outputs(made, drawn("digits_cnn", ("activation", "weight"), 3, range(20, 24)))
    assert first == made._cells.made == 1


def test_a_replay_begins_at_the_one_activation():
    made = engine("digits_cnn")
    own = space("digits_cnn", ("activation",))
    plan = resolve(known("digits_cnn"), (CellFaults(cells=(own.cell(700), own.cell(701))),))
    assert made._suffix.outputs_of_cells(plan, [cells_of(plan)], None).shape == (1, IMAGES, 10)
    (weights,) = drawn("digits_cnn", ("weight",), 1, [0])
    assert made._suffix.outputs_of_cells(weights, [cells_of(weights)], None) is None


@pytest.mark.parametrize("what", ["drawn", "of one sample", "accumulator"])
def test_plans_that_are_no_cells_of_all_samples(what):
    faults = {
        "drawn": BitFlips(probability=0.1),
        "of one sample": CellFaults(
            cells=({"site": "input.act_quant", "word": 1, "bit": 0, "kind": "flip", "sample": 2},)
        ),
        "accumulator": CellFaults(cells=({"site": "classifier.accumulator", "word": 1, "bit": 0, "kind": "flip"},)),
    }
    plan = resolve(known("digits_cnn"), (faults[what],))
    assert cells_of(plan) is None
    (got,) = engine("digits_cnn").run([Trial(plan, 3)])
    expected = run(session(insert_faults(clean("digits_cnn"), plan), threads=1), images("digits_cnn"), seed=3)[0]
    assert_same(got.outputs, expected)


def mixing():
    """A graph whose answers depend on the batch that an image is in, as those may do whose sums are rounded."""
    graph = copied(clean("digits_cnn"))
    made = graph.graph.output[0].name
    graph.graph.node.append(helper.make_node("ReduceMax", [made], ["largest"], axes=[0]))
    graph.graph.node.append(helper.make_node("Add", [made, "largest"], ["mixed"]))
    graph.graph.output[0].name = "mixed"
    return graph


@pytest.mark.every(2)
@pytest.mark.parametrize("what", ["activations", "weights", "one activation", "cells"])
def test_answers_that_are_rounded_do_not_depend_on_other_trials(what):
    graph = mixing()
    assert why_not_exact(graph) is not None
    faults = {
        "activations": BitFlips(probability=0.02, sites={"kind": "activation"}),
        "weights": BitFlips(probability=0.02, sites={"kind": "weight"}),
        "one activation": BitFlips(probability=0.02, sites="input.act_quant"),
    }
    if what == "cells":
        trials = [Trial(plan, 0) for plan in drawn("digits_cnn", ("activation",), 30, range(5))]
    else:
        plan = resolve(sites(graph), (faults[what],))
        trials = [Trial(plan, seed) for seed in range(5)]

    def ran(parts):
        made = OnnxruntimeEngine(graph, images("digits_cnn"), 5, exact=False)
        return np.stack([one.outputs for part in parts for one in made.run([trials[i] for i in part])])

    together = ran([range(5)])
    assert_same(ran([[0], [1], [2], [3], [4]]), together)
    assert_same(ran([[0, 1, 2], [3, 4]]), together)
    assert_same(ran([[4, 2], [0, 3, 1]])[[2, 4, 1, 3, 0]], together)
    mixed = OnnxruntimeEngine(graph, images("digits_cnn"), 5, exact=True)
    taken = np.stack([one.outputs for one in mixed.run(trials)])
    assert (taken != together).any() or what == "weights"  # which are never run together
