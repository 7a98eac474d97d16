"""Rates between, at and beyond measured points."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from hwfault.errors import ModelError
from hwfault.profiles.curve import interval, point_interval
from hwfault.profiles.profile import Profile
from tests.helpers.profiles.profiles import curve, profile, rates

KC705 = {0.59: 2, 0.58: 8, 0.57: 26, 0.56: 62, 0.55: 252, 0.54: 690, 0.53: 2274}
BITS = 14581760


def at(p, voltage):
    return p.resolve_rate({"voltage_v": voltage})


@pytest.fixture(scope="module")
def kc705():
    return Profile.load("bram28-kintex7-kc705b-undervolt")


@pytest.mark.parametrize("voltage", KC705)
def test_the_kc705_curve_at_its_points(kc705, voltage):
    rate = at(kc705, voltage)
    assert rate.value == KC705[voltage] / BITS == rate.cells == rate.stuck_at_0 == rate.p10
    assert (rate.flip, rate.stuck_at_1, rate.p01) == (0, 0, 0)
    assert (rate.region, rate.upper_bound, rate.status, rate.sources) == ("measured", False, "read", ("counts",))


@pytest.mark.parametrize("millivolts", range(535, 590, 10))
def test_the_kc705_curve_half_way(kc705, millivolts):
    low, high = (KC705[(millivolts + step) / 1000] for step in (-5, 5))
    exact = (Decimal(low / BITS) * Decimal(high / BITS)).sqrt()
    assert at(kc705, millivolts / 1000).value == float(exact)
    assert at(kc705, millivolts / 1000).region == "interpolated"


def test_the_kc705_curve_is_log_linear_at_any_part(kc705):
    a, b = math.log10(2274 / BITS), math.log10(690 / BITS)
    assert math.log10(at(kc705, 0.5325).value) == pytest.approx(0.75 * a + 0.25 * b, rel=1e-14)


@pytest.mark.parametrize("voltage", [0.60, 0.61, 1.0, 3.3, 1])
def test_the_kc705_curve_where_nothing_fails(kc705, voltage):
    rate = at(kc705, voltage)
    assert (rate.value, rate.cells, rate.region, rate.upper_bound) == (0.0, 0.0, "fail-free", False)


@pytest.mark.parametrize("voltage", [0.5900001, 0.595, math.nextafter(0.6, 0)])
def test_the_kc705_curve_before_it_is_fail_free(kc705, voltage):
    assert at(kc705, voltage).value == 2 / BITS
    assert at(kc705, voltage).region == "clamped"


@pytest.mark.parametrize("voltage", [math.nextafter(0.53, 0), 0.52, 0.0, -1.0])
def test_the_kc705_curve_below_its_range(kc705, voltage):
    words = (
        r"bram28-kintex7-kc705b-undervolt: voltage_v = .* lies beyond the measured range, 0.53 to 0.59 V, fail-free "
        "from 0.6 V on; the device crashes below 0.53 V; rates are not extrapolated"
    )
    with pytest.raises(ModelError, match=words):
        at(kc705, voltage)


def test_an_axis_that_rises_to_the_harsh_side():
    p = rates([(512, 1e-9), (2048, 1e-7)], axis={"fail_free_from": 256, "crash_above": 4096})
    assert [at(p, v).value for v in (0, 256, 257, 512, 1280, 2048)] == [0, 0, 1e-9, 1e-9, pytest.approx(1e-8), 1e-7]
    with pytest.raises(ModelError, match=r"voltage_v = 2049 lies beyond the measured range, 512 to 2048 V, fail-free"):
        at(p, 2049)
    with pytest.raises(ModelError, match="the device crashes above 4096 V"):
        at(p, 5000)


@pytest.mark.parametrize("axis", [{}, {"worse": "lower"}, {"worse": "higher"}])
@pytest.mark.parametrize("voltage", [0.49, 0.61])
def test_without_a_fail_free_region_both_ends_are_ends(axis, voltage):
    p = rates([(0.6, 1e-4), (0.5, 1e-2)], axis=axis)
    with pytest.raises(ModelError, match=r"lies beyond the measured range, 0.5 to 0.6 V; rates are not extrapolated"):
        at(p, voltage)


def test_linear_interpolation():
    p = rates([(0, 0.0), (1, 0.25), (2, 1.0)], interpolation="linear")
    assert [at(p, v).value for v in (0, 0.5, 1, 1.5, 2)] == [0, 0.125, 0.25, 0.625, 1.0]


def test_only_the_points_themselves():
    p = rates([(0, 0.01), (1, 0.001), (2, 1e-4)], interpolation="exact")
    assert at(p, 1).value == 0.001
    with pytest.raises(ModelError, match=r"voltage_v = 1.5 is not among the points.*expected one of 0, 1, 2"):
        at(p, 1.5)
    with pytest.raises(ModelError, match="is not among the points"):
        at(p, 3)


def test_nothing_seen_is_an_upper_bound():
    p = curve([(0.6, {"n_faults": 0, "n_bits": 1000}), (0.5, {"n_faults": 30, "n_bits": 1000})])
    bound, between, seen = (at(p, v) for v in (0.6, 0.55, 0.5))
    assert (bound.value, bound.upper_bound) == (3 / 1000, True)
    assert (between.value, between.upper_bound) == (pytest.approx(math.sqrt(0.003 * 0.03)), True)
    assert (seen.value, seen.upper_bound) == (0.03, False)


def test_a_bound_that_holds_towards_the_fail_free_region():
    p = curve(
        [(0.6, {"n_faults": 0, "n_bits": 1000}), (0.5, {"rate": 0.1})], axis={"fail_free_from": 0.7}, times_listed=2
    )
    assert (at(p, 0.65).value, at(p, 0.65).upper_bound) == (6 / 1000, True)
    assert (at(p, 0.7).value, at(p, 0.7).upper_bound) == (0, False)


def test_a_bound_is_at_most_one():
    p = curve([(0.6, {"n_faults": 0, "n_bits": 2}), (0.5, {"rate": 0.1})])
    assert at(p, 0.6).value == 1.0


def test_the_written_rate_stands_beside_counts():
    p = curve([(0.6, {"rate": 1.3716e-07, "n_faults": 2, "n_bits": BITS}), (0.5, {"rate": 0.1})])
    assert at(p, 0.6).value == 1.3716e-07


GRID = {
    "quantity": "faulty_cells",
    "axes": [
        {"name": "voltage_v", "unit": "V", "fail_free_from": 0.7},
        {"name": "temperature_c", "unit": "C"},
    ],
    "points": [
        {"at": {"voltage_v": v, "temperature_c": t}, "rate": r, "source": "lab"}
        for v, t, r in ((0.6, 20, 1e-6), (0.6, 80, 1e-5), (0.5, 20, 1e-4), (0.5, 80, 1e-2))
    ],
}


def on_grid(voltage, temperature):
    return profile(rate=GRID).resolve_rate({"voltage_v": voltage, "temperature_c": temperature})


def test_two_axes():
    assert on_grid(0.5, 80).value == 1e-2
    assert on_grid(0.6, 50).value == pytest.approx(10**-5.5, rel=1e-14)
    assert on_grid(0.55, 20).value == pytest.approx(1e-5, rel=1e-14)
    middle = on_grid(0.55, 50)
    assert middle.value == pytest.approx(10 ** ((-6 - 5 - 4 - 2) / 4), rel=1e-14)
    assert middle.region == "interpolated"
    assert on_grid(0.65, 50).value == on_grid(0.6, 50).value
    assert on_grid(0.65, 50).region == "clamped"


def test_fail_free_on_one_axis_needs_the_other_in_its_range():
    assert on_grid(0.7, 50).value == 0
    with pytest.raises(ModelError, match="temperature_c = 90 lies beyond the measured range, 20 to 80 C"):
        on_grid(0.7, 90)


def test_an_axis_with_one_value_may_be_left_out():
    points = [{**p, "at": {**p["at"], "temperature_c": 20}} for p in GRID["points"][::2]]
    p = profile(rate={**GRID, "points": points})
    assert p.resolve_rate({"voltage_v": 0.5}) == p.resolve_rate({"voltage_v": 0.5, "temperature_c": 20})
    with pytest.raises(ModelError, match="temperature_c = 25 lies beyond the measured range, 20 to 20 C"):
        p.resolve_rate({"voltage_v": 0.5, "temperature_c": 25})


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({}, r"small: the operating point lacks voltage_v and temperature_c; expected voltage_v \(0.5 to 0.6 V are"),
        ({"voltage_v": 0.5}, r"lacks temperature_c; .* written as NAME@voltage_v=0.5,temperature_c=80"),
        ({"voltage": 0.5}, "unknown name 'voltage' in the operating point: did you mean 'voltage_v'"),
        (
            {"voltage_v": 0.5, "x": 3},
            "unknown name 'x' in the operating point: known are: 'voltage_v', 'temperature_c'",
        ),
        ({"voltage_v": math.nan, "temperature_c": 20}, "voltage_v = nan, expected a finite number"),
        ({"voltage_v": math.inf, "temperature_c": 20}, "voltage_v = inf, expected a finite number"),
    ],
)
def test_wrong_operating_points(point, words):
    with pytest.raises(ModelError, match=words):
        profile(rate=GRID).resolve_rate(point)


falling = st.lists(st.floats(1e-12, 0.5), min_size=2, max_size=6, unique=True).map(sorted)


@given(falling, st.data())
def test_rates_rise_with_severity_and_stay_between_their_points(values, data):
    p = rates([(1 - i / 10, r) for i, r in enumerate(values)], axis={"fail_free_from": 1.2})
    voltages = st.floats(1 - (len(values) - 1) / 10, 1.3)
    a, b = sorted(data.draw(st.tuples(voltages, voltages)))
    mild, harsh = at(p, b).value, at(p, a).value
    assert 0 <= mild <= harsh <= values[-1]
    assert mild == 0 or mild >= values[0]


@given(falling)
def test_measured_points_are_exact_in_either_order(values):
    points = [(i / 10, r) for i, r in enumerate(values)]
    for order in (points, points[::-1]):
        p = rates(order)
        assert [at(p, v).value for v, _ in points] == values


@given(st.integers(0, 400), st.integers(1, 10**9))
def test_intervals_hold_what_they_promise(seen, more):
    n = seen + more
    low, high = interval(seen, n)
    if seen == 0:
        assert (low, high) == (0.0, min(1.0, 3 / n))
        return
    assert low < seen / n < high
    assert binom.sf(seen - 1, n, low) == pytest.approx(0.025, rel=1e-6)
    assert binom.cdf(seen, n, high) == pytest.approx(0.025, rel=1e-6)


def test_all_faulty():
    assert interval(10, 10) == (pytest.approx(beta.ppf(0.025, 10, 1)), 1.0)


def test_intervals_of_points(kc705):
    assert point_interval(kc705.rate, kc705.rate.points[-1]) == interval(1137, BITS / 2)
    assert point_interval(rates([(1, 0.1), (2, 0.2)]).rate, rates([(1, 0.1), (2, 0.2)]).rate.points[0]) is None
