"""The stopping rule: each kind of campaign stops when it should, goes on when it should, and says why."""

import numpy as np
import pytest

from hwfault.campaigns.statistics.proportions import sequence_at_least, sequence_at_most, sequence_ends
from hwfault.campaigns.statistics.requirements import Requirement
from hwfault.campaigns.statistics.stopping import (
    StoppingRule,
    judge_census,
    judge_events,
    judge_means,
    judge_population,
)
from hwfault.campaigns.statistics.two_way import Sums
from hwfault.errors import HwfaultError, ModelError

RELATIVE = StoppingRule(relative=0.2, max_trials=1000)


def test_events_go_on_until_the_margin_is_reached():
    going = judge_events(RELATIVE, 5, 100)
    assert (going.stop, going.met) == (False, None)
    assert going.estimate.ends == tuple(map(float, sequence_ends(5, 100)))
    assert going.why.startswith("a relative margin of 0.2 not reached after 100 trials: ")
    assert 100 < going.next_look <= 1000
    done = judge_events(RELATIVE, 400, 800)
    assert done.stop
    assert done.next_look is None
    assert done.estimate.half_width <= 0.2 * 0.5
    assert done.why.endswith("of the number, 0.2 was wanted")


def test_nothing_seen_is_no_reason_to_stop():
    for trials in (20, 500, 999):
        decision = judge_events(RELATIVE, 0, trials)
        assert not decision.stop
        assert decision.estimate.ends[1] > 0
    last = judge_events(RELATIVE, 0, 1000)
    assert last.stop
    assert last.why == "1,000 trials, as many as were allowed, without a relative margin of 0.2"


def test_time_ends_any_kind():
    rule = StoppingRule(relative=0.01, max_trials=1000, max_minutes=2)
    tables = Sums.of(np.random.default_rng(1).random((30, 30)) < 0.5)
    for decision in (
        judge_events(rule, 5, 100, 2.5),
        judge_means(rule, np.linspace(0, 1, 33), minutes=2.5),
        judge_population(StoppingRule(max_trials=1000, max_minutes=2), tables, 2.5),
    ):
        assert decision.stop
        assert decision.why.startswith("2.5 minutes, as long as was allowed")
    assert judge_means(rule, np.linspace(0, 1, 33), minutes=2.5).estimate.value == pytest.approx(0.5)


def test_without_a_goal_it_runs_to_the_end():
    rule = StoppingRule(max_trials=100)
    assert judge_events(rule, 50, 99) == judge_events(rule, 50, 99, 1e9)
    assert judge_events(rule, 50, 99).why == "99 of 100 trials"
    assert judge_events(rule, 50, 100).why == "100 trials, as many as were allowed"


def test_a_requirement_is_settled_by_one_sided_bounds():
    rule = StoppingRule(requirement="< 1e-2", max_trials=10_000)
    for trials in (100, 300, 370, 380, 1000):
        bound = float(sequence_at_most(0, trials))
        decision = judge_events(rule, 0, trials)
        assert decision.met is (True if bound < 0.01 else None)
        assert decision.stop == (bound < 0.01)
        assert decision.estimate.ends == (0.0, bound)
    assert judge_events(rule, 0, 1000).why.startswith("the requirement < 0.01 is met: 0 to 0.00")
    missed = judge_events(rule, 50, 1000)
    assert (missed.stop, missed.met) == (True, False)
    assert missed.estimate.ends == (float(sequence_at_least(50, 1000)), 1.0)
    assert "is missed" in missed.why
    open_still = judge_events(rule, 10, 1000)
    assert (open_still.stop, open_still.met) == (False, None)
    assert open_still.why.startswith("a verdict on < 0.01 not reached")


def test_a_requirement_from_below_is_that_of_the_opposite():
    below = judge_events(StoppingRule(requirement="< 0.1"), 10, 1000)
    above = judge_events(StoppingRule(requirement="> 0.9"), 990, 1000)
    assert (below.met, above.met) == (True, True)
    assert above.estimate.ends == pytest.approx((1 - below.estimate.ends[1], 1.0))
    assert judge_events(StoppingRule(requirement="> 0.9"), 700, 1000).met is False


def test_means_are_judged_at_looks_only():
    values = np.random.default_rng(1).uniform(0.4, 0.6, 100)
    rule = StoppingRule(relative=0.1, max_trials=100)
    early = judge_means(rule, values[:19])
    assert (early.stop, early.next_look) == (False, 20)
    assert early.why == "nothing is concluded before 20 trials"
    assert judge_means(rule, values[:20]).stop
    narrow = StoppingRule(relative=0.02, max_trials=100)
    at_look, between = judge_means(narrow, values[:40]), judge_means(narrow, values[:50])
    assert (at_look.stop, at_look.next_look) == (False, 80)
    assert (between.stop, between.next_look, between.why) == (False, 80, "the next look is after 80 trials")
    assert between.estimate == at_look.estimate
    assert judge_means(StoppingRule(relative=1e-6, max_trials=100), values).why.startswith("100 trials, as many")


def test_means_may_be_required_on_any_scale():
    psnr = np.random.default_rng(1).normal(30, 1, 40).clip(0, 100)
    for text, met in (("> 25", True), ("> 35", False), ("> 30", None), ("< 35", True)):
        decision = judge_means(StoppingRule(requirement=text, max_trials=80), psnr, 0, 100)
        assert (decision.met, decision.stop) == (met, met is not None)


def test_a_population_stops_when_its_images_are_too_few():
    rng = np.random.default_rng(1)
    rates = rng.choice([0.0, 0.9], 40, p=[0.7, 0.3])
    results = rng.random((40, 40)) < rates
    decision = judge_population(StoppingRule(relative=0.1, max_trials=1000), Sums.of(results))
    assert decision.stop
    assert decision.why.startswith("more fault seeds do not help: these 40 images are too few, about ")
    needed = int(decision.why.split("about ")[1].split()[0].replace(",", ""))
    # half the interval is about 3 sd / sqrt(images), sd / mean = 1.5 here, for a tenth of the mean
    assert 1000 < needed < 5000
    again = rng.random((40, 8 * needed)) < rng.choice([0.0, 0.9], 8 * needed, p=[0.7, 0.3])
    assert "images" not in judge_population(StoppingRule(relative=0.1, max_trials=1000), Sums.of(again)).why


def test_a_population_is_asked_at_looks():
    results = np.random.default_rng(1).random((40, 400)) < 0.5
    rule = StoppingRule(relative=0.1, max_trials=1000)
    reached = judge_population(rule, Sums.of(results))
    assert reached.stop
    assert "new images too" in reached.estimate.covers
    going = judge_population(StoppingRule(relative=0.03, max_trials=1000), Sums.of(results[:20]))
    assert (going.stop, going.next_look) == (False, 40)
    with pytest.raises(HwfaultError, match="39 seeds are no look, expected one of"):
        judge_population(rule, Sums.of(results[:39]))


def test_a_population_may_be_required():
    results = np.random.default_rng(1).random((40, 400)) < 0.1
    assert judge_population(StoppingRule(requirement="< 0.2", max_trials=1000), Sums.of(results)).met is True
    none = Sums.of(np.zeros((40, 400), bool))
    assert judge_population(StoppingRule(requirement="< 0.2", max_trials=1000), none).met is True
    assert judge_population(StoppingRule(requirement="< 0.05", max_trials=1000), none).met is None


def test_a_census_is_exact():
    decision = judge_census(StoppingRule(relative=0.1), 0.001, 102_976)
    assert (decision.stop, decision.why) == (True, "exact, all 102,976")
    assert decision.estimate.ends is None
    assert (decision.estimate.by, decision.estimate.covers) == ("exact", "exact, all 102,976")
    assert judge_census(StoppingRule(requirement="< 0.001"), 0.001, 10).met is False
    assert judge_census(StoppingRule(requirement="< 0.002"), 0.001, 10).met is True
    assert judge_census(StoppingRule(requirement="> 0.9"), 0.95, 10).met is True
    with pytest.raises(HwfaultError, match="a census of 0 faults"):
        judge_census(StoppingRule(), 0.0, 0)


@pytest.mark.parametrize(
    ("text", "side", "limit"),
    [("< 1e-4", "<", 1e-4), ("> 0.9", ">", 0.9), ("<0.01", "<", 0.01), ("  >  -3 ", ">", -3.0)],
)
def test_requirements_are_read(text, side, limit):
    found = Requirement.read(text)
    assert (found.side, found.limit) == (side, limit)
    assert Requirement.read(str(found)) == found
    assert StoppingRule(requirement=text).requirement == found
    rule = StoppingRule(requirement=found)
    assert StoppingRule(**rule.model_dump()) == rule


@pytest.mark.parametrize("text", ["1e-4", "<= 0.1", "< 1 %", "< ", "< a", "", 0.1, None, ["< 1"], "< 0.1 or so"])
def test_other_texts_are_no_requirement(text):
    with pytest.raises(ModelError, match=r"expected '<' or '>' and a number, such as '< 1e-4' or '> 0\.9'"):
        Requirement.read(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"relative": 0}, "relative"),
        ({"relative": float("inf")}, "relative"),
        ({"confidence": 1}, "confidence"),
        ({"confidence": 95}, "confidence"),
        ({"max_trials": 0}, "max_trials"),
        ({"max_minutes": 0}, "max_minutes"),
        ({"requirement": "about 3"}, "requirement: the requirement is 'about 3', expected"),
        ({"requirement": "< nan"}, "the limit is nan"),
        ({"requirement": "< inf"}, "the limit is inf"),
        ({"relative": 0.1, "requirement": "< 0.1"}, "expected one of them"),
        ({"relativ": 0.1}, "did you mean 'relative'"),
    ],
)
def test_bad_rules_are_refused(fields, message):
    with pytest.raises(ModelError, match=message):
        StoppingRule(**fields)


@pytest.mark.parametrize("text", ["< 0", "< 1", "> 1.5", "> -0.1"])
def test_a_rate_is_required_within_its_range(text):
    with pytest.raises(HwfaultError, match="a rate lies between 0 and 1"):
        judge_events(StoppingRule(requirement=text), 1, 10)
