"""How far an interval reaches on two scales: against the log-odds written out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from hwfault.campaigns.statistics.scales import reach_on_both_scales


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-9, 2), st.floats(-5, 5), st.floats(0.1, 20))
def test_each_end_is_the_outer_of_two(share, half, least, span):
    mean, most = least + span * share, least + span
    low, high = reach_on_both_scales(mean, half * span, least, most)
    on_odds = half / (share * (1 - share))
    expected_low = max(0.0, min(share - half, expit(logit(share) - on_odds)))
    expected_high = min(1.0, max(share + half, expit(logit(share) + on_odds)))
    assert (low, high) == pytest.approx((least + span * expected_low, least + span * expected_high), abs=1e-6 * span)


def test_the_scales_agree_in_the_middle_and_where_little_is_left_open():
    assert reach_on_both_scales(0.5, 0.01, 0, 1) == pytest.approx((0.49, 0.51), abs=1e-5)
    assert reach_on_both_scales(1e-3, 1e-5, 0, 1) == pytest.approx((0.99e-3, 1.01e-3), rel=1e-4)
    low, high = reach_on_both_scales(1e-3, 1e-3, 0, 1)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(2.718e-3, rel=1e-2)
    # what is near the upper end reaches further down
    mirrored = reach_on_both_scales(1 - 1e-3, 1e-3, 0, 1)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_at_the_ends_there_is_only_one_scale():
    assert reach_on_both_scales(0.0, 0.1, 0, 1) == (0.0, 0.1)
    assert reach_on_both_scales(1.0, 0.1, 0, 1) == (0.9, 1.0)
    assert reach_on_both_scales(1e-200, 1.0, 0, 1) == (0.0, 1.0)
