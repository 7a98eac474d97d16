"""Intervals of means over fault seeds: against SciPy, their coverage, and that none ever looks like certainty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwfault.campaigns.campaign import Campaign
from hwfault.campaigns.points import Point
from hwfault.campaigns.report import legend, table
from hwfault.campaigns.same import varies
from hwfault.campaigns.statistics.means import MEAN_COVERS, MEANING, Interval, mean_interval
from hwfault.campaigns.statistics.proportions import share_at_most
from hwfault.campaigns.trials import Trials, paired
from hwfault.campaigns.words import accuracy, decimals, difference, points
from hwfault.laws.models import MapFaults, ProfileFaults, bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.fault_map import FaultMap
from tests.helpers.train import small

KC705 = "bram28-kintex7-kc705b-undervolt"


def trials(*correct, samples=100, golden=90, **rest):
    return Trials(seeds=range(len(correct)), correct=correct, samples=samples, golden=golden, **rest)


@given(st.integers(1, 200), st.data())
def test_the_share_of_events_is_clopper_and_pearsons(n, data):
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n, alternative="less").proportion_ci(0.95, "exact").high
    assert share_at_most(k, n) == pytest.approx(expected, rel=1e-9)


def test_known_answers():
    rare = trials(*[90] * 20)
    share = 1 - 0.05 ** (1 / 20)  # of seeds with another outcome, of which none was seen among 20
    assert share_at_most(0, 20) == pytest.approx(share)
    assert rare.told.by == "bound"
    assert rare.interval == pytest.approx((0.9 * (1 - share), 0.9 + 0.1 * share))
    assert (rare.events, rare.event_share_at_most) == (0, pytest.approx(0.1391, abs=1e-4))
    many = trials(*range(70, 90))
    low, high = stats.t.interval(0.95, 19, many.mean, many.std / 20**0.5)
    assert many.told.by == "t"
    assert many.interval == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("correct", "by"),
    [
        ([90] * 11 + [80, 81, 82, 83, 84, 85, 86, 87, 88], "bound"),  # 9 of 20 differ
        ([90] * 10 + [80, 81, 82, 83, 84, 85, 86, 87, 88, 89], "t"),  # 10 of 20 do
        (list(range(60, 79)), "bound"),  # 19 trials
        ([70] * 20, "bound"),  # every trial loses as much: nothing says that the next one does
        ([70] * 31 + list(range(50, 60)), "t"),
    ],
)
def test_enough_trials_of_which_enough_differ(correct, by):
    assert trials(*correct).told.by == by


@given(
    st.lists(st.integers(0, 7), min_size=2, max_size=60),
    st.integers(1, 7),
)
def test_no_interval_is_without_a_width_or_misses_the_mean(correct, golden):
    found = trials(*correct, samples=7, golden=golden)
    low, high = found.interval
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= found.mean <= high + 1e-12


def test_where_every_seed_has_the_same_faults_there_is_none():
    found = trials(90, 90, 90, same_faults=True)
    assert (found.told, found.interval, found.event_share_at_most) == (Interval("same", None), None, None)
    assert (found.summary()["low"], found.to_data()["interval"]) == (None, None)
    assert paired(found, found).told == Interval("same", None)
    assert paired(found, trials(90, 90, 90)).by == "bound"


@pytest.mark.parametrize("rate", [0.003, 0.02, 0.1, 0.5])
def test_coverage(rate):
    """Nominal 95 %, where a share of seeds loses something: Student's t alone covers few means of rare ones."""
    rng = np.random.default_rng(5)
    hit, sizes = rng.random((400, 20)) < rate, rng.integers(1, 30, (400, 20))
    values = 0.9 - np.where(hit, sizes, 0) / 100
    truth = 0.9 - rate * np.arange(1, 30).mean() / 100
    found = [mean_interval(row.tolist(), 0.0, 1.0).ends for row in values]
    covered = np.mean([low <= truth <= high for low, high in found])
    assert covered >= 0.92
    if rate == 0.003:
        half = stats.t.ppf(0.975, 19) * values.std(1, ddof=1) / 20**0.5
        assert np.mean(abs(values.mean(1) - truth) <= half) < 0.1


def test_words():
    t, bound, same = Interval("t", (0.89, 0.91)), Interval("bound", (0.8, 0.95)), Interval("same", None)
    assert accuracy(0.9, t, 1) == "90.0% ±1.0"
    assert accuracy(0.9, bound, 1) == "90.0% (80.0% to 95.0%)"
    assert accuracy(0.9, same, 1) == "90.0%"
    assert accuracy(0.9, Interval("t", (0.89999, 0.90001)), 1) == "90.000% ±0.001"
    # cut to the range of accuracies, so that the mean is not its middle
    assert accuracy(0.99, Interval("t", (0.97, 1.0)), 1) == "99.0% (97.0% to 100.0%)"
    assert accuracy(0.01, Interval("t", (0.0, 0.03)), 1) == "1.0% (0.0% to 3.0%)"
    assert difference(0.0, same) == "+0.00"
    assert difference(-0.0, Interval("bound", (-0.2, 0.2))) == "+0.00 (bound -20.00 to +20.00)".replace(
        "+0.00", "-0.00"
    )
    assert difference(0.1, Interval("t", (0.05, 0.15))) == "+10.00 (+5.00 to +15.00)"
    assert (points(0.012), points(-1e-9), points(-1e-9, signed=True), points(None)) == ("1.20", "0.00", "+0.00", "-")
    assert decimals((0.9, 0.9)) == 2
    assert decimals((0.90001, 0.9)) == 3


def test_ends_are_told_apart_however_near_they_are():
    found = trials(*[999_990, 999_991] * 15, samples=1_000_000, golden=1_000_000)
    columns, ((*row,),) = table([found])
    cells = dict(zip(columns, row, strict=True))
    assert len({cells["accuracy"], cells["95 % from"], cells["to"]}) == 3
    assert cells["by"] == "t"


def test_a_table_says_how_and_of_what():
    columns, rows = table([trials(*[90] * 20), trials(*range(60, 80)), trials(90, 90, same_faults=True), trials(80)])
    by = columns.index("by")
    assert [row[by] for row in rows] == ["bound", "t", "same", "-"]
    assert "lost pp" in columns
    assert rows[0][columns.index("events")] == "0 (≤ 0.14)"
    assert rows[2][columns.index("95 % from")] == "-"
    lines = legend([Interval("bound", (0, 1)), Interval("t", (0, 1))])
    assert lines == [f"95 % intervals of {MEAN_COVERS}", f"  t: {MEANING['t']}", f"  bound: {MEANING['bound']}"]


def test_which_points_have_the_same_faults_for_every_seed():
    network, data = small.network(), small.data()

    def same(faults, **options):
        return Campaign(network, data.test, **options).run(Point.of(faults), range(2)).same_faults

    permanent = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})
    assert same(())
    assert same(bit_errors(0.0))
    assert same([permanent], device=3)
    assert same([ProfileFaults(profile=KC705, at={"voltage_v": 0.6})])
    assert same(resolve(sites(network, data.test_x[:1]), [permanent]))
    assert not same(bit_errors(0.1))
    assert not same([permanent])
    assert not same([permanent, *bit_errors(0.1)], device=3)
    retention = ProfileFaults(
        profile="ddr3l-retention-70c-1v35",
        at={"refresh_interval_ms": 2048},
        protection={"kind": "parity", "data_bits": 8},
    )
    assert not varies(resolve(sites(network, data.test_x[:1]), [retention]))


@pytest.mark.parametrize("p_active", [1.0, 0.5])
@pytest.mark.parametrize("protection", [None, {"kind": "parity", "data_bits": 8}])
def test_cells_that_come_and_go_vary_over_seeds(tmp_path, p_active, protection):
    network, data = small.network(), small.data()
    FaultMap.from_cells(40, 32, [0, 1], [2, 5], [0, 0]).save(tmp_path / "m.safetensors")
    cells = MapFaults(
        file=str(tmp_path / "m.safetensors"), sites="0.weight_quant", p_active=p_active, protection=protection
    )
    assert varies(resolve(sites(network, data.test_x[:1]), [cells])) == (p_active < 1)
