"""The variance of a table of fault seeds and images: against sums of squares written out, and bounds where few vary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.two_way import (
    Sums,
    bound_mean,
    count_images_needed,
    estimate_population,
    half_width_by_images,
    split_variance,
)
from hwfault.errors import HwfaultError

LOOKS = Looks.plan(20, 0.95)


def mean_squares(results):
    """Of seeds, images and what is left, each deviation written out."""
    seeds, images = results.shape
    mean = results.mean()
    of_seeds = sum(images * (row.mean() - mean) ** 2 for row in results) / (seeds - 1)
    of_images = sum(seeds * (column.mean() - mean) ** 2 for column in results.T) / (images - 1)
    left = 0.0
    for i in range(seeds):
        for j in range(images):
            left += (results[i, j] - results[i].mean() - results[:, j].mean() + mean) ** 2
    return of_seeds, of_images, left / ((seeds - 1) * (images - 1))


@pytest.mark.parametrize("kind", [bool, float])
def test_the_parts_are_those_of_an_analysis_of_variance(kind):
    rng = np.random.default_rng(1)
    results = (rng.random((7, 11)) < rng.random(11)).astype(kind)
    if kind is float:
        results = results * rng.random((7, 11))
    of_seeds, of_images, left = mean_squares(results.astype(float))
    parts = split_variance(Sums.of(results))
    assert parts == pytest.approx((of_seeds / 77, of_images / 77, left / 77))
    assert parts.whole == pytest.approx(max((of_seeds + of_images - left) / 77, of_seeds / 77, of_images / 77))
    assert parts.images_alone == pytest.approx(max(of_images - left, 0) / 77)


def test_a_table_without_cells_of_its_own():
    # rows and columns add up, so that nothing is left: 1/12 each of a range of 1 and of 2, ...
    results = np.add.outer(np.arange(5) / 10, np.arange(4) / 10)
    parts = split_variance(Sums.of(results))
    assert parts.cells == pytest.approx(0, abs=1e-15)
    assert parts.seeds == pytest.approx(0.025 / 5)
    assert parts.images == pytest.approx(0.05 / 3 / 4)
    assert parts.whole == pytest.approx(parts.seeds + parts.images)


def test_the_whole_is_the_variance_of_means():
    rng = np.random.default_rng(3)
    means, wholes = [], []
    for _ in range(2000):
        results = rng.normal(0, 0.3, (10, 1)) + rng.normal(0, 0.5, 30) + rng.normal(0, 1, (10, 30))
        # real numbers of any sign, through the sums alone
        sums = Sums(results.sum(1), results.sum(0), float((results**2).sum()), (10, 30), (10, 30))
        parts = split_variance(sums)
        means.append(results.mean())
        wholes.append(parts.seeds + parts.images - parts.cells)
    truth = 0.3**2 / 10 + 0.5**2 / 30 + 1 / 300
    assert np.mean(wholes) == pytest.approx(truth, rel=0.05)
    assert np.var(means) == pytest.approx(truth, rel=0.1)


def test_the_interval_is_students_with_the_smaller_number():
    rng = np.random.default_rng(1)
    results = rng.random((20, 200)) < 0.5 * rng.random(200)
    sums = Sums.of(results)
    found = estimate_population(sums, LOOKS)
    half = stats.t.ppf(0.975, 19) * split_variance(sums).whole ** 0.5
    low, high = found.ends
    # each end is Student's on one of the two scales, whichever is further out
    assert low == pytest.approx(found.value - half)
    odds = found.value / (1 - found.value) * np.exp(half / (found.value * (1 - found.value)))
    assert high == pytest.approx(odds / (1 + odds))
    assert high > found.value + half
    assert (found.by, found.covers) == ("two-way", "new fault seeds, new images too")
    assert found.value == pytest.approx(results.mean())


@st.composite
def tables(draw):
    seeds, images = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    rate = draw(st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.99, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 99))).random((seeds, images)) < rate


@given(tables())
def test_intervals_have_a_width_and_hold_the_mean(results):
    found = estimate_population(Sums.of(results), Looks.plan(100, 0.95))
    low, high = found.ends
    assert 0 <= low < high <= 1
    assert low <= found.value <= high


@given(tables())
def test_the_opposite_event_has_the_opposite_interval(results):
    looks = Looks.plan(100, 0.95)
    low, high = estimate_population(Sums.of(results), looks).ends
    assert estimate_population(Sums.of(~results), looks).ends == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(tables(), st.floats(0.1, 100))
def test_the_unit_does_not_matter(results, unit):
    looks = Looks.plan(100, 0.95)
    low, high = estimate_population(Sums.of(results), looks).ends
    scaled = estimate_population(Sums.of(results * unit, unit), looks)
    assert scaled.ends == pytest.approx((unit * low, unit * high), abs=1e-9 * unit)


@pytest.mark.parametrize("with_events", [0, 3, 9])
def test_few_images_with_events_give_an_upper_bound(with_events):
    results = np.zeros((20, 360), bool)
    results[::2, :with_events] = True
    found = estimate_population(Sums.of(results), LOOKS)
    assert found.by == "two-way bound"
    assert found.of == "the mean over pairs of a new fault seed and a new image"
    # as of 20 pairs, of which a few have an event in the mean
    assert found.ends == (0.0, pytest.approx(bound_mean(results.mean(), 20, 0.95)))
    if not with_events:
        assert found.ends[1] == pytest.approx(1 - 0.05 ** (1 / 20))


def test_few_seeds_with_events_give_a_bound_too():
    results = np.zeros((20, 360), bool)
    results[:3] = True
    assert estimate_population(Sums.of(results), LOOKS).by == "two-way bound"
    assert estimate_population(Sums.of(results[:15] | True), LOOKS).ends[1] == 1


def test_equal_results_are_no_certainty():
    found = estimate_population(Sums.of(np.full((20, 50), 0.5)), LOOKS)
    assert found.by == "two-way bound"
    low, high = found.ends
    assert low == pytest.approx(1 - high)
    assert low < 0.3


@given(st.floats(0, 1), st.integers(1, 10_000), st.floats(0.5, 0.999))
def test_the_bound_of_a_mean_is_where_the_relative_entropy_says(mean, number, confidence):
    found = bound_mean(mean, number, confidence)
    assert mean <= found <= 1
    if mean < 1 and found < 1 - 1e-9:
        entropy = stats.entropy([mean, 1 - mean], [found, 1 - found])
        assert entropy * number == pytest.approx(-np.log1p(-confidence), rel=1e-6)


@pytest.mark.parametrize(("events", "number"), [(0, 20), (1, 20), (5, 50), (20, 1000)])
def test_the_bound_of_a_mean_is_never_below_that_of_a_proportion(events, number):
    exact = stats.binomtest(events, number, alternative="less").proportion_ci(0.95, "exact").high
    found = bound_mean(events / number, number, 0.95)
    assert exact <= found + 1e-12
    assert found <= exact * 1.3
    if not events:
        assert found == pytest.approx(exact)


def test_how_many_images_are_needed():
    rng = np.random.default_rng(1)
    results = rng.random((20, 50)) < rng.choice([0.1, 0.9], 50)
    sums = Sums.of(results)
    half = half_width_by_images(sums, LOOKS)
    assert half == pytest.approx(stats.t.ppf(0.975, 49) * split_variance(sums).images_alone ** 0.5)
    assert count_images_needed(sums, LOOKS, half) == 50
    assert count_images_needed(sums, LOOKS, 2 * half) == 50, "never fewer than were needed to say so"
    assert count_images_needed(sums, LOOKS, half / 2) in (200, 201)
    # with t for as many, found by root finding
    wanted = optimize.brentq(lambda n: half * (50 / n) ** 0.5 - half / 3, 50, 1000)
    assert count_images_needed(sums, LOOKS, half / 3) == pytest.approx(wanted, abs=1)
    with pytest.raises(HwfaultError, match="half width 0 is the goal"):
        count_images_needed(sums, LOOKS, 0)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (np.zeros(5), r"shape \(5,\), expected \(seeds, images\)"),
        (np.zeros((1, 5)), "two of each at least"),
        (np.zeros((5, 1)), "two of each at least"),
        (np.zeros((0, 5)), "two of each at least"),
        (np.full((2, 2), np.nan), "value 0 of 4 is nan"),
        (np.full((2, 2), 2), "values from 2.0 to 2.0, expected all within"),
        (np.full((2, 2), -0.5), "values from -0.5"),
    ],
)
def test_bad_tables_are_refused(results, message):
    with pytest.raises(HwfaultError, match=message):
        Sums.of(results)


def test_more_seeds_than_planned_are_refused():
    with pytest.raises(HwfaultError, match="21 seeds, but the looks were planned for 20"):
        estimate_population(Sums.of(np.zeros((21, 30), bool)), LOOKS)
