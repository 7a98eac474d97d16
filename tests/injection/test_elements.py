"""Faulty processing elements of a 16 x 16 array on the trained digits network: stuck against bypassed."""

from functools import cache

import numpy as np
import pytest

from hwfault.campaigns.evaluate import evaluate
from hwfault.laws.models import AccumulatorFormat, BitFlips, BypassedElements, LateBits, StuckElement
from hwfault.stream.mapping import WeightStationary
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits
from tests.slowly import slow

ARRAY = WeightStationary(rows=16, columns=16)
WIDE = AccumulatorFormat(width=24)


@cache
def network():
    trained = build("digits_cnn", seed=0)
    train(trained, digits(), TrainConfig(epochs=8))
    return trained


def accuracy(faults):
    data = digits()
    return evaluate(network(), data.test_x, data.test_y, faults, seeds=[0]).mean


def stuck(rng, count):
    places = rng.choice(256, count, replace=False)
    bits, values = rng.integers(0, 24, count), rng.integers(0, 2, count)
    elements = zip(places.tolist(), bits.tolist(), values.tolist(), strict=True)
    return [StuckElement(mapping=ARRAY, pe=pe, bit=bit, value=value) for pe, bit, value in elements]


@pytest.mark.parametrize("seeds", [1, slow(3)])
def test_four_stuck_elements_destroy_what_bypassing_them_keeps(seeds):
    clean, worst, spared = accuracy([WIDE]), [], []
    for seed in range(seeds):
        elements = stuck(np.random.default_rng(seed), 4)
        worst.append(accuracy([WIDE, *elements]))
        spared.append(accuracy([BypassedElements(mapping=ARRAY, elements=[e.pe for e in elements])]))
    assert clean > 0.9
    assert min(spared) > clean - 0.05
    assert np.mean(worst) < 0.7


def test_more_bypassed_elements_cost_more():
    order = np.random.default_rng(0).permutation(256).tolist()
    found = [accuracy([BypassedElements(mapping=ARRAY, elements=order[:n])]) for n in (1, 64, 224)]
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_narrower_accumulators_cost_more_and_wrapping_the_most(overflow):
    wide, narrow = (accuracy([AccumulatorFormat(width=width, overflow=overflow)]) for width in (20, 8))
    assert wide == accuracy([WIDE])
    assert narrow < wide


def test_high_late_bits_are_worse_than_none():
    few, many = (accuracy([WIDE, LateBits(probability=p, bits=12)]) for p in (0.0, 0.5))
    assert few == accuracy([WIDE])
    assert many < few - 0.1


@pytest.mark.slow
def test_training_under_faults_of_accumulators_and_arrays():
    faults = (
        AccumulatorFormat(width=14, overflow="saturate", mapping=ARRAY),
        StuckElement(mapping=ARRAY, element=(3, 3), bit=9, value=1),
        BitFlips(probability=1e-4, sites={"kind": "accumulator"}),
    )
    trained = build("digits_cnn", seed=1)
    history = train(trained, digits(), TrainConfig(epochs=8, faults=faults, seed=1))
    data = digits()
    fit = evaluate(trained, data.test_x, data.test_y, faults, seeds=[0]).mean
    assert history[-1].loss < history[0].loss
    assert fit > accuracy(faults), "it has learnt to live with them"
