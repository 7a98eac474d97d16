"""Intervals of many cells at once, and the ranks that they leave open."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwfault.campaigns.statistics.estimates import METHODS, Estimate, exact_estimate
from hwfault.campaigns.statistics.proportions import sequence_ends
from hwfault.campaigns.statistics.ranking import estimate_cells, rank_estimates
from hwfault.errors import HwfaultError


def told(low, high):
    return Estimate((low + high) / 2, (low, high), 0.95, "clopper-pearson", "")


def test_cells_share_the_error():
    events, trials = [0, 5, 50, 1], [100, 100, 100, 20]
    cells = estimate_cells(events, trials, 0.95, sequential=False)
    for cell, k, n in zip(cells, events, trials, strict=True):
        expected = stats.binomtest(k, n).proportion_ci(1 - 0.05 / 4, "exact")
        assert cell.ends == pytest.approx((expected.low, expected.high))
        assert (cell.confidence, cell.of, cell.by) == (0.95, "the rate, one of 4 at once", "clopper-pearson")
    watched = estimate_cells(events, trials, 0.95, sequential=True)
    assert watched[1].ends == tuple(map(float, sequence_ends(5, 100, 1 - 0.05 / 4)))


def test_known_ranks_and_ties():
    places = rank_estimates([told(0.1, 0.2), told(0.5, 0.9), told(0.15, 0.3), told(0.25, 0.4)])
    assert [(place.first, place.last) for place in places] == [(3, 4), (1, 1), (2, 4), (2, 3)]
    assert [place.tied for place in places] == [(2,), (), (0, 3), (2,)]


def test_exact_numbers_have_ranks_and_equal_ones_are_tied():
    places = rank_estimates([exact_estimate(value, 10) for value in (0.3, 0.1, 0.3, 0.7)])
    assert [(place.first, place.last) for place in places] == [(2, 3), (4, 4), (2, 3), (1, 1)]
    assert places[0].tied == (2,)


def test_nothing_seen_anywhere_is_a_tie_of_all():
    places = rank_estimates(estimate_cells([0] * 5, [100] * 5, sequential=True))
    assert all((place.first, place.last) == (1, 5) for place in places)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_order_of_the_numbers_is_always_among_the_ranks(ends):
    estimates = [told(min(pair), max(pair)) for pair in ends]
    places = rank_estimates(estimates)
    order = sorted(range(len(ends)), key=lambda i: -estimates[i].value)
    for rank, i in enumerate(order, 1):
        assert places[i].first <= rank <= places[i].last
        assert len(places[i].tied) == places[i].last - places[i].first
        assert all(i in places[j].tied for j in places[i].tied)


def test_ranks_hold_the_true_ones():
    rng = np.random.default_rng(5)
    rates = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05, 0.01, 0.001])
    held = 0
    for _ in range(300):
        cells = estimate_cells(rng.binomial(200, rates), [200] * 8, sequential=False)
        places = rank_estimates(cells)
        good = True
        for i, place in enumerate(places):
            better, worse = (rates > rates[i]).sum(), (rates < rates[i]).sum()
            good &= place.first <= 1 + better and place.last >= 8 - worse
        held += good
    assert held / 300 >= 0.95


@pytest.mark.parametrize(
    ("events", "trials", "message"),
    [
        ([], [], "expected one of each"),
        ([1], [1, 2], "given 1 numbers of events and 2 of trials"),
        ([1, 0], [1, 0], "trials, expected at least one"),
        ([2], [1], "events in"),
    ],
)
def test_bad_cells_are_refused(events, trials, message):
    with pytest.raises(HwfaultError, match=message):
        estimate_cells(events, trials, sequential=False)


def test_nothing_to_rank_is_refused():
    with pytest.raises(HwfaultError, match="nothing to rank"):
        rank_estimates([])


def test_every_method_has_its_words():
    assert set(METHODS) == set(Estimate.__annotations__["by"].__args__)
