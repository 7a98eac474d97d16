"""How many trials are planned: against formulas of textbooks, by trying one fewer, and against the fault space."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.planning import plan_events, plan_margin, plan_mean, plan_requirement
from hwfault.campaigns.statistics.proportions import sequence_at_most, sequence_ends
from hwfault.campaigns.statistics.requirements import Requirement
from hwfault.campaigns.statistics.stopping import StoppingRule, judge_events
from hwfault.errors import HwfaultError


def test_a_margin_takes_about_as_many_events_as_the_textbook_says():
    plan = plan_margin(1e-3, 0.1, sequential=False)
    assert plan.events == pytest.approx(1.96**2 / 0.1**2, rel=0.03)
    assert plan.trials == pytest.approx(384_000, rel=0.03)
    assert plan.why == f"{plan.trials:,} trials for a relative margin of 0.1 at an expected rate of 0.001"
    watched = plan_margin(1e-3, 0.1)
    assert 3 * plan.trials < watched.trials < 6 * plan.trials, "that one may look costs width"


@settings(deadline=None, max_examples=8)
@given(st.floats(1e-6, 0.5), st.floats(0.05, 1))
def test_a_margin_is_just_reached(rate, relative):
    trials = plan_margin(rate, relative).trials
    low, high = sequence_ends(rate * trials, trials)
    assert (high - low) / 2 <= relative * rate
    low, high = sequence_ends(rate * (trials - 1), trials - 1)
    assert (high - low) / 2 > relative * rate


def test_expected_events():
    plan = plan_events(1e-4, 100, per_second=50)
    assert (plan.trials, plan.events) == (1_000_000, pytest.approx(100))
    assert plan.minutes == pytest.approx(1_000_000 / 50 / 60)


@pytest.mark.parametrize("limit", [1e-4, 1e-2, 0.3])
def test_without_an_event_a_requirement_takes_what_the_binomial_says(limit):
    plan = plan_requirement(Requirement.read(f"< {limit}"), sequential=False)
    assert plan.trials == int(np.floor(np.log(0.05) / np.log1p(-limit))) + 1
    assert plan.exhaustive is False
    assert plan.events is None


@pytest.mark.parametrize("events", [0, 1, 7])
def test_a_requirement_is_met_by_the_planned_trials_and_by_no_fewer(events):
    rule = StoppingRule(requirement="< 1e-3", max_trials=10**6)
    plan = plan_requirement(rule.requirement, events=events)
    assert judge_events(rule, events, plan.trials).met is True
    assert judge_events(rule, events, plan.trials - 1).met is None
    assert sequence_at_most(events, plan.trials) < 1e-3
    one_sided = plan_requirement(rule.requirement, events=events, sequential=False)
    exact = stats.binomtest(events, one_sided.trials, alternative="less").proportion_ci(0.95, "exact")
    assert exact.high < 1e-3
    assert one_sided.trials < plan.trials


def test_a_requirement_from_below_counts_the_others():
    above = plan_requirement(Requirement.read("> 0.99"), events=2)
    assert above.trials == plan_requirement(Requirement.read("< 0.01"), events=2).trials
    assert above.why == f"{above.trials:,} trials for the requirement > 0.99, with 2 others seen"
    assert "with no event seen" in plan_requirement(Requirement.read("< 0.01")).why
    assert "with nothing else seen" in plan_requirement(Requirement.read("> 0.99")).why


def test_more_trials_than_faults_means_all_of_them():
    # what the textbook's formula for an absolute margin misses, a relative one tells
    plan = plan_margin(2.5e-5, 0.1, space=102_976, per_second=10_000)
    assert (plan.trials, plan.exhaustive) == (102_976, True)
    assert plan.why.startswith("all 102,976 faults, as a relative margin of 0.1 at an expected rate of 2.5e-05 would")
    assert plan.events == pytest.approx(2.5744)
    assert plan.minutes == pytest.approx(102_976 / 10_000 / 60)
    sampled = plan_margin(0.05, 0.3, space=102_976)
    assert not sampled.exhaustive
    assert sampled.why.endswith(", of 102,976 faults")
    assert plan_requirement(Requirement.read("< 1e-9"), space=1000).exhaustive
    assert plan_events(0.1, 100, space=1000) == plan_events(0.1, 100, space=1000)
    assert plan_events(0.1, 100, space=1000).exhaustive, "as many is no fewer"
    assert not plan_events(0.1, 100, space=1001).exhaustive


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 1000))
def test_never_more_trials_than_the_space_holds(space):
    needed = plan_requirement(Requirement.read("< 1e-2")).trials
    plan = plan_requirement(Requirement.read("< 1e-2"), space=space)
    assert plan.trials == min(needed, space)
    assert plan.exhaustive == (space <= needed)


def test_a_mean_is_planned_to_a_look():
    looks = Looks.plan(1000, 0.95)
    plan = plan_mean(0.02, 0.02, 0.25, looks, per_second=2)
    assert plan.trials == 160
    assert stats.t.ppf(1 - looks.alpha / 2, 159) / 160**0.5 <= 0.25 < stats.t.ppf(1 - looks.alpha / 2, 79) / 80**0.5
    assert plan.minutes == pytest.approx(160 / 2 / 60)
    far = plan_mean(0.02, 0.04, 0.01, looks)
    assert far.trials == 1000
    needed = int((stats.norm.ppf(1 - looks.alpha / 2) * 2 / 0.01) ** 2) + 1
    assert far.why.endswith(f"needs about {needed:,} trials, more than the 1,000 allowed")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan_margin(0, 0.1), "expected rate is 0, expected more than 0"),
        (lambda: plan_margin(1, 0.1), "expected rate is 1"),
        (lambda: plan_margin(float("nan"), 0.1), "expected rate is nan"),
        (lambda: plan_margin(0.1, 0), "relative margin is 0"),
        (lambda: plan_margin(0.1, float("nan")), "relative margin is nan"),
        (lambda: plan_margin(0.1, 0.1, 1.0), "confidence is 1.0"),
        (lambda: plan_margin(1e-12, 1e-3), "needs more than 1,000,000,000,000 trials"),
        (lambda: plan_margin(0.1, 0.1, space=0), "fault space holds 0 faults"),
        (lambda: plan_margin(0.1, 0.1, per_second=0), "0 trials a second"),
        (lambda: plan_events(0.1, 0), "expected events are 0"),
        (lambda: plan_events(2, 10), "expected rate is 2"),
        (lambda: plan_requirement(Requirement.read("< 2")), "a rate lies between 0 and 1"),
        (lambda: plan_requirement(Requirement.read("< 0.1"), events=-1), "-1 events"),
        (lambda: plan_mean(0, 1, 0.1, Looks.plan(100, 0.95)), "expected a mean other than 0"),
        (lambda: plan_mean(1, -1, 0.1, Looks.plan(100, 0.95)), "no negative deviation"),
    ],
)
def test_what_cannot_be_planned_is_refused(call, message):
    with pytest.raises(HwfaultError, match=message):
        call()
