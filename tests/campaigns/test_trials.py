"""The numbers that sum trials up, against NumPy and SciPy, and as files tell them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwfault.campaigns.trials import Trial, Trials, paired
from hwfault.errors import HwfaultError
from hwfault.injection.site_statistics import ProtectionCounts, SiteStatistics


def trials(*correct, samples=100, golden=90, **rest):
    return Trials(seeds=range(7, 7 + len(correct)), correct=correct, samples=samples, golden=golden, **rest)


def test_known_answers():
    found = trials(80, 60, 70)
    assert found.mean == 0.7
    assert found.std == pytest.approx(0.1)
    assert found.worst == (0.6, 8)
    assert found.golden_accuracy == 0.9
    assert found.degradation == pytest.approx(0.2)
    assert found.relative_degradation == pytest.approx(0.2 / 0.9)
    assert (found.events, found.told.by) == (3, "bound"), "three trials are too few for Student's t"


@given(st.lists(st.integers(0, 50), min_size=2, max_size=30), st.integers(1, 50))
def test_mean_and_sample_standard_deviation_are_numpys(correct, golden):
    found, values = trials(*correct, samples=50, golden=golden), np.array(correct) / 50
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std(ddof=1), abs=1e-12)
    assert found.worst == (values.min(), 7 + int(values.argmin()))
    assert found.degradation == pytest.approx(golden / 50 - values.mean())
    assert found.relative_degradation == pytest.approx((golden / 50 - values.mean()) / (golden / 50))
    low, high = found.interval
    assert 0 <= low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= high <= 1


def test_what_one_trial_and_no_golden_run_do_not_tell():
    one = trials(50, golden=None)
    assert (one.std, one.golden_accuracy, one.degradation, one.relative_degradation) == (None,) * 4
    assert one.interval == (0, 1)
    assert trials(50, golden=0).relative_degradation is None
    assert trials(50, golden=0).degradation == -0.5


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=2, max_size=40))
def test_differences_are_those_of_a_paired_t_test(pairs):
    mine, first = (trials(*correct) for correct in zip(*pairs, strict=True))
    found = paired(mine, first)
    values = np.array([a - b for a, b in pairs])
    assert found.mean == pytest.approx(values.mean() / 100, abs=1e-12)
    low, high = found.interval
    assert low < high
    assert low <= found.mean + 1e-12
    assert found.mean <= high + 1e-12
    if found.by == "t":
        expected = stats.ttest_rel(mine.accuracies, first.accuracies).confidence_interval(0.95)
        assert found.interval == pytest.approx(tuple(np.clip(expected, -1, 1)), abs=1e-9)
    else:
        assert len(values) < 20 or len(values) - np.unique(values, return_counts=True)[1].max() < 10


def test_differences_of_runs_on_different_numbers_of_samples():
    found = paired(trials(80, 60, samples=100), trials(20, 10, samples=50))
    assert found.mean == pytest.approx(((0.8 - 0.4) + (0.6 - 0.2)) / 2)


def test_pairs_need_the_same_seeds():
    assert paired(trials(50), trials(40)).interval == (-1, 1)
    mine, shifted = (Trials(seeds=seeds, correct=(1, 2), samples=9) for seeds in ((1, 2), (2, 3)))
    swapped = Trials(seeds=(2, 1), correct=(1, 2), samples=9)
    for others in (trials(1, 2, 3), shifted, swapped):
        with pytest.raises(HwfaultError, match="other fault seeds"):
            paired(mine, others)


def test_a_line_of_a_table_and_json():
    found = trials(80, 60, labels={"site": "x"}, ber=0.01)
    line = found.summary()
    assert list(line)[:2] == ["site", "ber"]
    assert (line["worst"], line["worst_seed"], line["golden"]) == (0.6, 8, 0.9)
    data = json.loads(json.dumps(found.to_data()))
    assert data["labels"] == {"site": "x"}
    assert (data["seeds"], data["correct"], data["samples"], data["ber"]) == ([7, 8], [80, 60], 100, 0.01)
    assert data["worst"] == {"accuracy": 0.6, "seed": 8}
    assert data["interval"] == list(found.interval)
    assert (data["interval_by"], data["events"]) == ("bound", 2)
    assert data["interval_covers"] == "the mean over fault seeds on these samples; other samples are not covered"
    assert data["event_share_at_most"] == line["event_share_at_most"] == 1.0
    assert not {"protection", "due", "statistics", "same_faults", "notes"} & data.keys()


def test_single_trials_put_together():
    counts, seen = ProtectionCounts(1, 2, 3), SiteStatistics(site="x", words=10, faulty=1)
    parts = [Trial(seed=s, correct=s, protection=counts, due=s > 1, statistics=(seen,)) for s in (1, 2)]
    found = Trials.of(parts, samples=5, golden=4)
    assert (found.seeds, found.correct, found.due, found.protection) == ((1, 2), (1, 2), (False, True), (counts,) * 2)
    assert found.statistics == (SiteStatistics(site="x", words=20, faulty=2),)
    data = found.to_data()
    assert data["protection"][0] == {"corrected": 1, "detected": 2, "miscorrected": 3}
    assert data["statistics"][0]["rate"] == 0.1
    assert found.summary()["corrected"] == 2
    assert found.summary()["due"] == 1
