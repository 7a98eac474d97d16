"""How rates and intervals are told: with few digits, and never as certainty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.campaigns.page.words import SPACE, interval, share, told
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 %"), (1, "100 %"), (0.0595, "5.95 %"), (0.5, "50 %"), (1e-4, "0.01 %")],
)
def test_shares(value, text):
    assert share(value).replace(SPACE, " ") == text


@pytest.mark.parametrize(
    ("value", "text"), [(8.25e-6, "0.000825 %"), (3.21e-7, "0.0000321 %"), (3.21e-9, "3.21e-07 %")]
)
def test_small_shares_have_the_unit_of_large_ones(value, text):
    assert share(value).replace(SPACE, " ") == text


def estimate(low, value, high):
    return Estimate(value, (low, high), 0.95, "t", "these images, new fault seeds")


def test_a_rate_with_its_interval():
    assert told(estimate(0.052, 0.0595, 0.0675)).replace(SPACE, " ") == "5.95 % (5.2 % to 6.75 %)"
    assert told(exact_estimate(0.25, 1000)).replace(SPACE, " ") == "25 % (exact, all 1,000)"


rates = st.floats(0, 1, allow_subnormal=False)


@given(st.tuples(rates, rates, rates).map(sorted))
def test_ends_that_differ_look_different(values):
    low, value, high = values
    if high - low > 1e-9 * high:
        first, last = interval(estimate(low, value, high)).split(" to ")
        assert first != last
        if min(value - low, high - value) > 1e-9 * high:
            assert told(estimate(low, value, high)).split(" (")[0] not in (first, last)
