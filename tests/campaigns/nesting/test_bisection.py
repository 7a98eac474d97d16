"""Bisection against answers that are known: where each first turns, which of them turn back, how little is run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.campaigns.nesting.bisection import Search, find_turns
from hwfault.campaigns.nesting.turns import Found, checked_samples
from hwfault.stream import site_number
from hwfault.stream.reference import stream_words


def search(truth, checked):
    """Has a search ask a table (points, samples) of which answers have turned; what it found, and what it ran."""
    one = Search(len(truth), checked)
    ran = np.zeros(truth.shape, int)
    rounds = 0
    while asked := one.asked():
        rounds += 1
        for point, those in asked.items():
            ran[point, those] += 1
            one.tell(point, those, truth[point, those])
    return one.found(), ran, rounds


def table(first, points):
    """The answers that turn at these points and stay so."""
    return np.asarray(first) <= np.arange(points)[:, None]


def test_known_first_turns():
    found, ran, rounds = search(table([0, 1, 2, 3, 4, 5, 5, 2], 5), np.zeros(8, bool))
    assert found.first.tolist() == [0, 1, 2, 3, 4, 5, 5, 2]
    assert not found.back.any()
    # the middle one of five, then the middle of what is left
    assert ran[:, 0].tolist() == [1, 1, 1, 0, 0]
    assert ran[:, 2].tolist() == [0, 1, 1, 0, 0]
    assert ran[:, 3].tolist() == [0, 0, 1, 1, 1]
    assert ran[:, 5].tolist() == [0, 0, 1, 0, 1]
    assert rounds == 3


@settings(max_examples=40)
@given(st.integers(1, 20), st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_answers_that_stay_turned_are_found_with_few_runs(points, first):
    first = np.minimum(first, points)
    found, ran, _ = search(table(first, points), np.zeros(len(first), bool))
    assert np.array_equal(found.first, first)
    assert ran.max() == 1
    assert ran.sum(0).max() <= points.bit_length()


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32))
def test_answers_that_are_checked_run_once_everywhere(points, samples, seed):
    rng = np.random.default_rng(seed)
    truth, checked = rng.random((points, samples)) < 0.5, rng.random(samples) < 0.5
    found, ran, rounds = search(truth, checked)
    assert (ran[:, checked] == 1).all()
    assert np.array_equal(found.checked, checked)
    for sample in np.flatnonzero(checked):
        turned = np.flatnonzero(truth[:, sample])
        assert found.first[sample] == (turned[0] if len(turned) else points)
        assert found.back[sample] == (len(turned) > 0 and not truth[turned[0] :, sample].all())
    assert not found.back[~checked].any()
    # any other answer is one that turns at its point, and is as golden before it
    for sample in np.flatnonzero(~checked):
        at = found.first[sample]
        assert at == points or truth[at, sample]
        assert at == 0 or not truth[at - 1, sample]
    assert rounds <= points.bit_length() + 1


def test_masks_hold_those_before_them():
    first = np.array([0, 2, 3, 1])
    found = Found(first, np.array([True, False, True, False]), np.array([True, False, False, False]))
    assert found.masks(3).astype(int).tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 1, 0], [1, 0, 0, 0]]


def test_seeds_that_ask_at_a_point_run_together():
    truth = {seed: table(np.arange(40) % (seed + 2), 4) for seed in range(3)}
    runs = []

    def run(point, seeds, images):
        runs.append((point, tuple(seeds)))
        for seed, own in zip(seeds, images, strict=True):
            yield truth[seed][point, own]

    found = find_turns(4, [0, 1, 2], 40, run)
    for seed, one in enumerate(found):
        assert np.array_equal(one.first, np.minimum(np.arange(40) % (seed + 2), 4))
        assert np.array_equal(one.checked, checked_samples(seed, 40))
    assert runs[0] == (2, (0, 1, 2))
    # at each point once with all seeds that ask there, and once more for answers that run at all points
    assert len(runs) <= 2 * 4


def test_two_in_a_hundred_are_checked_by_the_word_of_each_sample():
    seed, samples = 7, 5000
    words = stream_words(seed, site_number("turn#checked", 0), 0, 0, 0, samples)
    found = checked_samples(seed, samples)
    assert np.array_equal(np.flatnonzero(found), [i for i in range(samples) if words[i] < 0.02 * 2**32])
    # a sample's word does not depend on how many there are
    assert np.array_equal(checked_samples(seed, 100), found[:100])
    every = np.concatenate([checked_samples(one, samples) for one in range(40)])
    assert every.mean() == pytest.approx(0.02, abs=5 * np.sqrt(0.02 * 0.98 / every.size))
