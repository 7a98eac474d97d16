"""Weighted sums of stratum rates: Fay and Feuer's interval computed anew, its coverage, and how trials are divided."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hwfault.campaigns.statistics.allocation import allocate_trials
from hwfault.campaigns.statistics.stopping import StoppingRule, judge_strata
from hwfault.campaigns.statistics.strata import estimate_drawn_strata, estimate_strata, gamma_ends
from hwfault.errors import HwfaultError


def fay_and_feuer(events, weights, confidence):
    """As in their paper, by quantiles of gamma distributions given by mean and variance."""
    alpha = 1 - confidence
    total = sum(w * k for w, k in zip(weights, events, strict=True))
    variance = sum(w * w * k for w, k in zip(weights, events, strict=True))
    heaviest = max(weights)
    low = 0.0
    if total:
        low = stats.gamma.ppf(alpha / 2, total**2 / variance, scale=variance / total)
    total, variance = total + heaviest, variance + heaviest**2
    return low, stats.gamma.ppf(1 - alpha / 2, total**2 / variance, scale=variance / total)


def test_a_worked_example():
    events, trials, sizes = [2, 0, 7], [100, 50, 200], [1000, 3000, 6000]
    weights = [0.1 / 100, 0.3 / 50, 0.6 / 200]
    found = estimate_strata(events, trials, sizes)
    assert found.value == pytest.approx(0.1 * 0.02 + 0.6 * 0.035)
    assert found.ends == pytest.approx(fay_and_feuer(events, weights, 0.95))
    assert (found.by, found.covers, found.confidence) == ("gamma", "these images, new fault seeds", 0.95)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(1e-6, 1)), min_size=1, max_size=8), st.floats(0.5, 0.999))
def test_the_interval_is_that_of_the_paper(strata, confidence):
    events, weights = (np.array(column, float) for column in zip(*strata, strict=True))
    low, high = gamma_ends(events, weights, confidence)
    assert (low, high) == pytest.approx(fay_and_feuer(events, weights, confidence), rel=1e-6)
    assert 0 <= low <= (events * weights).sum() < high


def test_equal_weights_give_the_exact_interval_of_a_poisson_number():
    low, high = gamma_ends(np.array([3.0, 4.0]), np.array([1.0, 1.0]))
    assert (low, high) == pytest.approx((stats.chi2.ppf(0.025, 14) / 2, stats.chi2.ppf(0.975, 16) / 2))


def test_nothing_seen_gives_what_the_heaviest_trial_allows():
    found = estimate_strata([0, 0], [10, 100], [500, 500])
    assert found.ends == pytest.approx((0, 0.05 * -np.log(0.025)))
    assert estimate_strata([0], [1], [10]).ends[1] == 1, "not more than all"


def test_strata_that_were_tried_whole_add_no_doubt():
    whole = estimate_strata([5, 0], [10, 10], [10, 90])
    low, high = gamma_ends(np.array([0.0]), np.array([0.9 / 10]))
    assert whole.ends == pytest.approx((0.05 + low, 0.05 + high))
    assert estimate_strata([5, 10], [10, 10], [10, 90]).ends[1] == pytest.approx(0.95)
    exact = estimate_strata([5, 3], [10, 90], [10, 90])
    assert (exact.value, exact.ends, exact.by) == (pytest.approx(0.08), None, "exact")
    assert exact.covers == "exact, all 100"


def cover_strata(repeats):
    """How often the interval, and the normal one, hold a rate that a few strata are responsible for."""
    rng = np.random.default_rng(3)
    sizes = np.array([72, 288, 2000, 9000, 90_000])
    rates = np.array([0.05, 0.02, 0.004, 0.0005, 0.00002])
    truth = (sizes * rates).sum() / sizes.sum()
    trials = np.array(allocate_trials(sizes.tolist(), 2000).trials)
    covered = normal = 0
    for _ in range(repeats):
        events = rng.binomial(trials, rates)
        low, high = estimate_strata(events, trials, sizes).ends
        covered += low <= truth <= high
        shares = events / trials
        mean = (sizes * shares).sum() / sizes.sum()
        sd = ((sizes / sizes.sum()) ** 2 * shares * (1 - shares) / trials).sum() ** 0.5
        normal += abs(mean - truth) <= 1.96 * sd
    return covered / repeats, normal / repeats


def test_rare_rates_over_strata_are_covered():
    covered, normal = cover_strata(500)
    assert covered >= 0.95
    assert normal < 0.8, "the normal interval of the same trials would not hold the rate"


@pytest.mark.parametrize(
    ("events", "trials", "sizes", "message"),
    [
        ([], [], [], "expected one number of each"),
        ([1, 2], [10], [10, 20], "expected one number of each"),
        ([[1]], [[10]], [[10]], "expected one number of each"),
        ([0, 0], [1, 1], [10, 0], "stratum 1 has 0 faults, expected at least one: leave it out"),
        ([0, 0], [0, 1], [10, 10], "stratum 0 has no trials"),
        ([0, 0], [5, 11], [10, 10], "stratum 1 has 11 trials, but only 10 faults"),
        ([6, 0], [5, 5], [10, 10], "events in .* trials"),
        ([float("nan")], [5], [10], "nan"),
    ],
)
def test_bad_strata_are_refused(events, trials, sizes, message):
    with pytest.raises(HwfaultError, match=message):
        estimate_strata(events, trials, sizes)


def test_known_allocations():
    bound = allocate_trials([100, 300, 600], 100)
    assert bound.trials == (10, 30, 60)
    assert bound.exhaustive == (False, False, False)
    score = allocate_trials([100, 100, 100], 60, "estimate", [1, 2, 3])
    assert score.trials == (10, 20, 30)
    # what a small stratum cannot take goes to the others
    assert allocate_trials([5, 100, 100], 65, "estimate", [9, 1, 1]).trials == (5, 30, 30)
    assert allocate_trials([5, 100, 100], 65, "estimate", [9, 1, 1]).exhaustive == (True, False, False)
    assert allocate_trials([100, 100], 50, "estimate", [0, 1]).trials == (2, 48)
    assert allocate_trials([100, 100], 150, "estimate", [0, 1]).trials == (50, 100)
    assert allocate_trials([1, 2, 50], 5).trials == (1, 2, 2)
    assert allocate_trials([3, 3, 3], 7).trials == (3, 2, 2), "the first of equals"
    full = allocate_trials([3, 4], 100)
    assert (full.trials, full.exhaustive) == ((3, 4), (True, True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1e6)), min_size=1, max_size=12),
    st.floats(0, 1),
    st.sampled_from(["bound", "estimate"]),
)
def test_allocations_add_up_within_their_limits(strata, part, goal):
    sizes, scores = (list(column) for column in zip(*strata, strict=True))
    scores[0] += 1
    least = sum(min(2, size) for size in sizes)
    trials = least + int(part * (sum(sizes) - least))
    found = allocate_trials(sizes, trials, goal, scores)
    assert sum(found.trials) == trials
    for number, whole, size in zip(found.trials, found.exhaustive, sizes, strict=True):
        assert min(2, size) <= number <= size
        assert whole == (number == size)


@given(st.lists(st.floats(1e-300, 1), min_size=2, max_size=10))
def test_a_higher_score_never_gets_fewer(scores):
    scores.sort()
    found = allocate_trials([1000] * len(scores), 100 * len(scores), "estimate", scores).trials
    # of equals the first are rounded up
    assert all(a <= b + 1 for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("sizes", "trials", "goal", "scores", "message"),
    [
        ([], 10, "bound", None, "at least one stratum"),
        ([10, 0], 10, "bound", None, "none of them empty"),
        ([10, 10, 1], 4, "bound", None, "4 trials for 3 strata, expected at least 5"),
        ([10, 10], 5, "estimate", None, "0 scores for 2 strata"),
        ([10, 10], 5, "estimate", [1.0], "1 scores for 2 strata"),
        ([10, 10], 5, "estimate", [0.0, 0.0], "use the goal 'bound'"),
        ([10, 10], 5, "estimate", [-1.0, 1.0], "none below 0"),
        ([10, 10], 5, "estimate", [float("nan"), 1.0], "value 0 of 2 is nan"),
    ],
)
def test_bad_allocations_are_refused(sizes, trials, goal, scores, message):
    with pytest.raises(HwfaultError, match=message):
        allocate_trials(sizes, trials, goal, scores)


def test_strata_drawn_with_replacement_are_never_known_whole():
    events, trials, sizes = [2, 0, 7], [100, 50, 200], [10, 30, 60]
    weights = [0.1 / 100, 0.3 / 50, 0.6 / 200]
    found = estimate_drawn_strata(events, trials, sizes)
    assert found.value == pytest.approx(0.1 * 0.02 + 0.6 * 0.035)
    assert found.ends == pytest.approx(fay_and_feuer(events, weights, 0.95))
    assert estimate_drawn_strata([1], [1], [1]).ends[1] == 1, "not more than all"


def test_a_stratum_without_trials_may_have_any_rate():
    low, high = gamma_ends(np.array([1.0]), np.array([1 / 50]))
    found = estimate_drawn_strata([1, 0], [50, 0], [10, 30])
    assert found.value == 1 / 50
    assert found.ends == pytest.approx((0.25 * low, 0.25 * high + 0.75))
    with pytest.raises(HwfaultError, match="no stratum has a trial"):
        estimate_drawn_strata([0, 0], [0, 0], [10, 30])


def test_strata_are_looked_at_at_doubling_numbers_alone():
    rule = StoppingRule(relative=0.1, max_trials=400)
    sizes = np.array([50, 50])

    def judge(events, trials, minutes=0.0, rule=rule):
        return judge_strata(rule, np.array(events), np.array(trials), sizes, 100, minutes)

    # after 100, 200 and 400 trials, each with a third of the error
    early = judge([30, 30], [49, 50])
    assert (early.stop, early.next_look, early.why) == (False, 100, "nothing is concluded before 100 trials")
    first = judge([1, 3], [50, 50])
    assert (first.stop, first.next_look) == (False, 200)
    third = estimate_drawn_strata([1, 3], [50, 50], sizes, 1 - 0.05 / 3)
    assert first.estimate.ends == third.ends
    assert first.estimate.confidence == 0.95
    between = judge([1, 3], [60, 60])
    assert (between.stop, between.next_look) == (False, 200)
    cut = judge([1, 3], [60, 60], 2.0, rule.model_copy(update={"max_minutes": 1.0}))
    assert cut.stop
    assert "minutes, as long as was allowed" in cut.why
    last = judge([5, 7], [200, 200])
    assert (last.stop, last.next_look) == (True, None)
    wide = judge([5, 7], [50, 50], rule=StoppingRule(relative=0.9, max_trials=400))
    assert wide.stop
    assert "the interval is within" in wide.why
