"""Strata of a fault space: whose turn it is, what each trial strikes, how trials are divided."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.campaigns.study.strata import Strata, order_strata, weigh_strata
from hwfault.errors import FileError, HwfaultError

STRATA = Strata(ends=(12, 32), widths=(3, 2), weights=(4, 1, 1, 8, 2), samples=5, first=7)


def one_by_one(weights, trials):
    """The order as it is told, one trial at a time, in whole numbers."""
    counts = [0] * len(weights)
    found = []
    for _ in range(2):
        found += range(len(weights))
    found = found[:trials]
    for stratum in found:
        counts[stratum] += 1
    while len(found) < trials:
        best = 0
        for other in range(1, len(weights)):
            if weights[other] * (2 * counts[best] + 1) > weights[best] * (2 * counts[other] + 1):
                best = other
        counts[best] += 1
        found.append(best)
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=9), st.integers(0, 120))
def test_the_order_is_that_of_one_trial_after_the_other(weights, trials):
    assert order_strata(weights, trials).tolist() == one_by_one(weights, trials)


def test_fewer_trials_are_the_beginning_of_more():
    long = order_strata(STRATA.weights, 5000)
    for trials in (1, 9, 10, 11, 640, 4999):
        assert np.array_equal(order_strata(STRATA.weights, trials), long[:trials])
    shares = np.bincount(long) / 5000
    assert shares == pytest.approx(np.array(STRATA.weights) / 16, abs=1e-3)


def test_a_trial_lies_in_the_stratum_whose_turn_it_is():
    assert STRATA.sizes.tolist() == [20, 20, 20, 50, 50]
    keys = range(7, 7 + 300)
    strata = STRATA.of_keys(list(keys))
    assert np.array_equal(strata, order_strata(STRATA.weights, 300))
    for key, stratum in zip(keys, strata.tolist(), strict=True):
        cell, sample = STRATA.pair(key)
        site = 0 if cell < 12 else 1
        bit = cell % 3 if site == 0 else (cell - 12) % 2
        assert stratum == (bit if site == 0 else 3 + bit)
        assert 0 <= sample < 5


def test_pairs_are_uniform_within_a_stratum():
    keys = np.arange(7, 7 + 900)
    mine = keys[STRATA.of_keys(keys) == 3]
    pairs = [STRATA.pair(int(key)) for key in mine]
    counts = np.zeros((10, 5))
    np.add.at(counts, tuple(np.transpose([((cell - 12) // 2, sample) for cell, sample in pairs])), 1)
    expected = len(mine) / 50
    assert ((counts - expected) ** 2 / expected).sum() < 94, "chi square of 49 degrees of freedom, 1e-4"


def test_a_trial_depends_on_its_key_alone():
    backward = [STRATA.pair(key) for key in reversed(range(7, 107))]
    assert backward[::-1] == [STRATA.pair(key) for key in range(7, 107)]
    assert [STRATA.pair(key) for key in range(7, 12)] == [(0, 3), (7, 0), (8, 0), (16, 2), (27, 1)]


def test_weights_go_by_size_and_the_root_of_the_score():
    sizes = np.array([100, 100, 400])
    weights = weigh_strata(sizes, np.array([16.0, 1.0, 1.0]))
    assert weights == (1 << 20, 1 << 18, 1 << 20)
    # what has no score is not left out: a tenth of all goes by size
    none = weigh_strata(np.array([100, 100]), np.array([1.0, 0.0]))
    assert 0.03 < none[1] / sum(none) < 0.07
    # a machine that rounds the last bits otherwise has the same
    scores = np.random.default_rng(0).random(40)
    near = scores * (1 + 1e-9)
    assert weigh_strata(np.arange(1, 41), scores) == weigh_strata(np.arange(1, 41), near)


@pytest.mark.parametrize("scores", [[0.0, 0.0], [-1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_scores_that_are_none(scores):
    with pytest.raises(HwfaultError, match="negative, no numbers or all 0"):
        weigh_strata(np.array([3, 3]), np.array(scores))


@pytest.mark.parametrize(
    "faults",
    [{}, {"weights": [1, 1], "first": 0}, {"weights": [0] * 5, "first": 0}, {"weights": ["x"] * 5, "first": 0},
     {"weights": [1] * 5, "first": -1}, {"weights": [1 << 21] * 5, "first": 0}],
)  # fmt: skip
def test_damaged_strata(faults):
    with pytest.raises(FileError, match="damaged"):
        Strata.kept({"faults": faults, "subject": {"samples": 5}}, (12, 32), (3, 2), "store")
    good = {"faults": {"weights": list(STRATA.weights), "first": 7}, "subject": {"samples": 5}}
    assert Strata.kept(good, (12, 32), (3, 2), "store") == STRATA


def test_a_key_before_the_first():
    with pytest.raises(HwfaultError, match="trial 6, expected 7 or a later one"):
        STRATA.pair(6)
