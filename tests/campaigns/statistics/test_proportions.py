"""Intervals of proportions: against SciPy, published numbers, the mixture integrated anew, exact chances of error."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from hwfault.campaigns.statistics.proportions import (
    bound_rate,
    estimate_rate,
    exact_at_least,
    exact_at_most,
    exact_ends,
    sequence_at_least,
    sequence_at_most,
    sequence_ends,
    share_at_most,
)
from hwfault.errors import HwfaultError

CONFIDENCES = st.floats(0.5, 0.999)


@st.composite
def counts(draw, most=10_000):
    trials = draw(st.integers(1, most))
    return draw(st.integers(0, trials)), trials


@pytest.mark.parametrize(
    ("events", "trials", "low", "high"),
    [
        # tables of Clopper and Pearson's 95 % intervals
        (0, 10, 0.0, 0.3085),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (10, 10, 0.6915, 1.0),
        (0, 100, 0.0, 0.0362),
        (2, 20, 0.0123, 0.3170),
    ],
)
def test_clopper_and_pearson_as_published(events, trials, low, high):
    assert exact_ends(events, trials) == pytest.approx((low, high), abs=5e-5)


@given(counts(), CONFIDENCES)
def test_exact_intervals_are_scipys(given_counts, confidence):
    events, trials = given_counts
    test = stats.binomtest(events, trials)
    assert exact_ends(events, trials, confidence) == pytest.approx(test.proportion_ci(confidence, "exact"), rel=1e-8)
    less = stats.binomtest(events, trials, alternative="less").proportion_ci(confidence, "exact")
    more = stats.binomtest(events, trials, alternative="greater").proportion_ci(confidence, "exact")
    assert exact_at_most(events, trials, confidence) == pytest.approx(less.high, rel=1e-8)
    assert exact_at_least(events, trials, confidence) == pytest.approx(more.low, rel=1e-8)


@pytest.mark.parametrize(("events", "trials"), [(0, 1), (0, 20), (3, 20), (19, 20), (2, 150), (40, 80)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_a_sequence_ends_where_the_mixture_integrated_anew_rules_out(events, trials, confidence):
    rate = float(sequence_at_most(events, trials, confidence))

    def relative_likelihood(root):
        # with x = root ** 2 the density of Beta(1/2, 1/2) has no pole at 0
        x = root * root
        relative = events * np.log(x / rate) + (trials - events) * (np.log1p(-x) - np.log1p(-rate))
        return np.exp(relative) * 2 / (np.pi * np.sqrt(1 - x))

    area, _ = integrate.quad(relative_likelihood, 1e-12, np.sqrt(rate), epsabs=0, epsrel=1e-9, limit=200)
    averaged = area / stats.beta(0.5, 0.5).cdf(rate)
    assert averaged == pytest.approx(1 / (1 - confidence), rel=1e-5)
    assert float(sequence_at_least(trials - events, trials, confidence)) == pytest.approx(1 - rate)


def one_sided_ends(events, trials):
    return np.zeros_like(trials), sequence_at_most(events, trials)


@cache
def ends_up_to(most, ends):
    """The intervals after 1, 2, ... trials, of each number of events there may be by then."""
    trials = np.repeat(np.arange(1.0, most + 1), np.arange(2, most + 2))
    events = np.concatenate([np.arange(number + 1.0) for number in range(1, most + 1)])
    cuts = np.cumsum(np.arange(2, most + 1))
    low, high = ends(events, trials)
    return list(zip(np.split(low, cuts), np.split(high, cuts), strict=True))


def chance_of_ever_missing(rate, most, ends):
    """The exact chance that a rate lies outside of some interval up to `most` trials, followed trial by trial."""
    alive, missed = np.ones(1), 0.0
    for low, high in ends_up_to(most, ends):
        after = np.zeros(len(alive) + 1)
        after[:-1] += alive * (1 - rate)
        after[1:] += alive * rate
        out = (low > rate) | (rate > high)
        missed += after[out].sum()
        after[out] = 0
        alive = after
    return missed


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.5, 0.9])
def test_the_chance_that_a_sequence_ever_misses_is_kept(rate):
    ever = chance_of_ever_missing(rate, 80, sequence_ends)
    assert ever <= 0.05
    assert chance_of_ever_missing(rate, 80, exact_ends) >= ever
    assert chance_of_ever_missing(rate, 80, one_sided_ends) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_the_chance_that_a_sequence_ever_misses_is_kept_for_long(rate):
    assert chance_of_ever_missing(rate, 500, sequence_ends) <= 0.05
    assert chance_of_ever_missing(rate, 500, one_sided_ends) <= 0.05
    fixed = chance_of_ever_missing(rate, 500, exact_ends)
    assert fixed > 0.05, "what was made for a number fixed beforehand is no sequence"


@settings(deadline=None)
@given(counts(10**8), CONFIDENCES)
def test_intervals_hold_the_rate_and_sequences_are_wider(given_counts, confidence):
    events, trials = given_counts
    low, high = exact_ends(events, trials, confidence)
    widest, furthest = sequence_ends(events, trials, confidence)
    rate = events / trials
    assert 0 <= widest <= low <= rate <= high <= furthest <= 1
    assert low < high
    assert sequence_at_most(events, trials, confidence) <= furthest
    assert sequence_at_least(events, trials, confidence) >= widest


@settings(deadline=None)
@given(counts(), CONFIDENCES)
def test_bounds_grow_with_events_and_shrink_with_trials(given_counts, confidence):
    events, trials = given_counts
    for bound in (exact_at_most, sequence_at_most):
        here = bound(events, trials, confidence)
        assert bound(min(events + 1, trials), trials, confidence) >= here
        assert bound(events, trials + 1, confidence) <= here
        assert bound(events, trials, (1 + confidence) / 2) >= here


@settings(deadline=None)
@given(counts())
def test_the_opposite_event_has_the_opposite_interval(given_counts):
    events, trials = given_counts
    for ends in (exact_ends, sequence_ends):
        low, high = ends(events, trials)
        assert ends(trials - events, trials) == pytest.approx((1 - high, 1 - low), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("events", [0, 1, 5, 10**4, 5 * 10**7, 10**8 - 1, 10**8])
def test_a_hundred_million_trials_are_told_soundly(events):
    low, high = sequence_ends(events, 10**8)
    sd = (max(events, 1) * (1 - events / 10**8)) ** 0.5
    near = 4 * max(sd, 1) + 16
    assert events - near * 1.5 <= low * 10**8 <= events <= high * 10**8 <= events + near * 1.5
    assert low < high
    if events in (0, 5):
        # as of a Poisson number of events, which a sixteenth of the trials shows as well
        assert high * 10**8 == pytest.approx(sequence_ends(events, 10**7)[1] * 10**7, rel=1e-5)


def test_without_events_the_bounds_are_a_few_over_the_number_of_trials():
    assert exact_at_most(0, 1000) * 1000 == pytest.approx(3.0, abs=0.01)
    assert sequence_at_most(0, 1000) * 1000 == pytest.approx(3.8, abs=0.05)


def test_estimates_say_what_they_cover_and_how():
    fixed = estimate_rate(0, 10, sequential=False)
    assert (fixed.value, fixed.by, fixed.covers) == (0.0, "clopper-pearson", "these images, new fault seeds")
    assert fixed.ends == pytest.approx((0, 0.3085), abs=5e-5)
    assert fixed.half_width == pytest.approx(0.3085 / 2, abs=5e-5)
    watched = estimate_rate(3, 100, 0.9, sequential=True, claim="population")
    assert (watched.by, watched.confidence) == ("sequence", 0.9)
    assert "new images too" in watched.covers
    assert watched.ends == tuple(map(float, sequence_ends(3, 100, 0.9)))


@pytest.mark.parametrize("sequential", [False, True])
def test_one_sided_bounds_are_open_at_the_other_end(sequential):
    above = bound_rate(3, 100, sequential=sequential)
    below = bound_rate(3, 100, sequential=sequential, above=False)
    assert above.ends[0] == 0
    assert below.ends[1] == 1
    assert below.ends[0] < 0.03 < above.ends[1]
    assert above.by == below.by == ("sequence bound" if sequential else "clopper-pearson bound")


@pytest.mark.parametrize("ends", [exact_ends, sequence_ends, share_at_most, sequence_at_least, exact_at_least])
@pytest.mark.parametrize(
    ("events", "trials", "confidence", "message"),
    [
        (1, 0, 0.95, "given 0 trials, expected at least one"),
        (0, -3, 0.95, "given -3 trials"),
        (11, 10, 0.95, "11 events in 10 trials"),
        (-1, 10, 0.95, "-1 events"),
        (float("nan"), 10, 0.95, "nan events"),
        (1, float("nan"), 0.95, "nan trials"),
        (1, float("inf"), 0.95, "inf trials"),
        (1, 10, 0.0, "confidence is 0.0, expected a number between 0 and 1"),
        (1, 10, 1.0, "confidence is 1.0"),
        (1, 10, 95, "confidence is 95"),
        (1, 10, float("nan"), "confidence is nan"),
    ],
)
def test_impossible_numbers_are_refused(ends, events, trials, confidence, message):
    with pytest.raises(HwfaultError, match=message):
        ends(events, trials, confidence)
