"""Means over trials at looks: against SciPy's t, their bounds, paired differences, and what is refused."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_difference, estimate_mean
from hwfault.errors import HwfaultError


def test_the_numbers_of_looks():
    assert Looks.plan(1000, 0.95).numbers == (20, 40, 80, 160, 320, 640, 1000)
    assert Looks.plan(640, 0.95).numbers == (20, 40, 80, 160, 320, 640)
    assert Looks.plan(21, 0.95).numbers == (20, 21)
    assert Looks.plan(20, 0.95).numbers == (20,)
    assert Looks.plan(7, 0.95).numbers == (7,)


@given(st.integers(1, 10**7), st.floats(0.5, 0.999))
def test_looks_double_and_share_the_error(most, confidence):
    looks = Looks.plan(most, confidence)
    numbers = looks.numbers
    assert numbers[-1] == most
    assert all(2 * a == b for a, b in pairwise(numbers[:-1]))
    assert looks.alpha * len(numbers) == pytest.approx(1 - confidence)
    for before, number in zip((0, *numbers), numbers, strict=False):
        assert looks.next_after(before) == number
        assert looks.last_until(number) == number
        assert looks.last_until(number - 1) == (before or None)
    assert looks.next_after(most) is None


def test_the_interval_of_a_look_is_students_with_its_part_of_the_error():
    rng = np.random.default_rng(1)
    values = rng.uniform(0.2, 0.4, 80)
    found = estimate_mean(values, Looks.plan(1000, 0.95))
    low, high = stats.t.interval(1 - 0.05 / 7, 79, values.mean(), values.std(ddof=1) / 80**0.5)
    assert found.ends[0] == pytest.approx(low)
    assert high < found.ends[1] < high + 0.001, "on the scale of the log-odds it reaches a little further up"
    assert (found.value, found.by, found.confidence) == (pytest.approx(values.mean()), "t", 0.95)
    assert found.covers == "these images, new fault seeds"


def test_ends_are_cut_to_what_is_possible():
    values = [0.0] * 30 + [1.0] * 10
    found = estimate_mean(values, Looks.plan(40, 0.95), 0.0, 1.0)
    assert found.by == "t"
    assert found.ends[0] > 0
    wide = estimate_mean([0.0] * 10 + [10.0] * 10, Looks.plan(20_000, 0.9999), 0.0, 10.0)
    assert wide.by == "t"
    assert wide.ends == (0.0, 10.0)


@pytest.mark.parametrize("with_events", [0, 1, 9])
def test_few_trials_with_an_event_give_the_bound_of_their_share(with_events):
    values = [0.0] * (160 - with_events) + [0.25] * with_events
    looks = Looks.plan(1000, 0.95)
    found = estimate_mean(values, looks, 0.0, 0.5)
    share = stats.binomtest(with_events, 160, alternative="less").proportion_ci(1 - 0.05 / 7, "exact").high
    assert found.by == "bound"
    assert found.ends == pytest.approx((0.0, 0.5 * share))


def test_ten_trials_with_an_event_are_enough_from_twenty_trials_on():
    looks = Looks.plan(20, 0.95)
    assert estimate_mean([0.0] * 10 + [0.1] * 10, looks).by == "t"
    assert estimate_mean([0.0] * 9 + [0.1] * 10, looks).by == "bound"


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=60), st.floats(0.5, 0.99))
def test_intervals_have_a_width_and_hold_the_mean(values, confidence):
    found = estimate_mean(values, Looks.plan(len(values), confidence))
    low, high = found.ends
    assert 0 <= low < high <= 1
    assert low <= found.value + 1e-12
    assert found.value - 1e-12 <= high


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=20, max_size=60, unique=True))
def test_more_looks_and_more_confidence_cost_width(values):
    few, many = Looks.plan(60, 0.95), Looks.plan(10_000, 0.95)
    assert estimate_mean(values, many).half_width >= estimate_mean(values, few).half_width
    assert estimate_mean(values, Looks.plan(60, 0.99)).half_width >= estimate_mean(values, few).half_width


def test_differences_are_those_of_a_paired_test():
    rng = np.random.default_rng(2)
    base = rng.uniform(0.2, 0.8, 40)
    better = base + rng.uniform(0, 0.1, 40)
    found = estimate_difference(better, base, Looks.plan(40, 0.95))
    expected = stats.ttest_rel(better, base).confidence_interval(1 - 0.05 / 2)
    assert found.ends == pytest.approx((expected.low, expected.high), abs=1e-5)
    assert found.of == "the mean difference by seed"
    # unpaired they would not be told apart
    assert found.half_width < stats.ttest_ind(better, base).confidence_interval(0.975).high / 4


def test_equal_differences_are_no_certainty():
    found = estimate_difference([0.5] * 20, [0.25] * 20, Looks.plan(20, 0.95))
    assert found.value == 0.25
    low, high = found.ends
    assert low < 0.25 < high


@pytest.mark.parametrize(
    ("values", "least", "most", "message"),
    [
        ([], 0, 1, "given no values"),
        ([0.1, float("nan")], 0, 1, "value 1 of 2 is nan"),
        ([float("inf")], 0, 1, "is inf"),
        ([0.1, 1.1], 0, 1, "values from 0.1 to 1.1, expected all within 0 and 1"),
        ([0.1], 1, 0, "two finite numbers, the smaller first"),
        ([0.1], 0, float("inf"), "two finite numbers"),
        ([0.1] * 31, 0, 1, "31 trials, but the looks were planned for 30"),
    ],
)
def test_bad_values_are_refused(values, least, most, message):
    with pytest.raises(HwfaultError, match=message):
        estimate_mean(values, Looks.plan(30, 0.95), least, most)


def test_bad_looks_and_pairs_are_refused():
    with pytest.raises(HwfaultError, match="0 trials at most"):
        Looks.plan(0, 0.95)
    with pytest.raises(HwfaultError, match="confidence is 1"):
        Looks.plan(10, 1)
    with pytest.raises(HwfaultError, match="given 2 and 1 trials, expected pairs"):
        estimate_difference([0.1, 0.2], [0.1], Looks.plan(10, 0.95))
    with pytest.raises(HwfaultError, match="expected all within"):
        estimate_difference([0.1], [7], Looks.plan(10, 0.95))
