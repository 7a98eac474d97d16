"""First turns in numbers: shares by each point, the check and its interval, and when the grid runs instead."""

import numpy as np
import pytest
from scipy.stats import binomtest

from hwfault.campaigns.database import Row
from hwfault.campaigns.nesting.figures import Turned, check_of, decide_turns, figure_of_turns, turned_of
from hwfault.campaigns.nesting.told import check_told, turns_flat, turns_table, turns_to_data
from hwfault.campaigns.nesting.turns import Found, have_turned
from hwfault.campaigns.outcomes import Answers
from hwfault.campaigns.study.records import Stop

STOP = Stop(max_trials=1000)
LABELS = [{"ber": 0.001}, {"ber": 0.01}]


def seen_of(first, checked=0, back=0):
    """Trials (trials, samples) with these first turns of two points; so many answers checked, so many turned back."""
    first = np.asarray(first)
    marks = np.zeros((2, first.size), bool)
    marks[0, :checked] = True
    marks[1, :back] = True
    checked, back = marks.reshape(2, *first.shape)
    rows = [
        Row(place, Found(one, checked[place], back[place]).masks(2), faults=place) for place, one in enumerate(first)
    ]
    return turned_of(rows, 2, first.shape[1], range(len(first)))


def told(seen, stop=STOP):
    decision = decide_turns(seen, stop, "these", 0.0, None)
    return figure_of_turns("q", "q first turn", LABELS, seen, stop, "these", None, decision)


def test_shares_are_those_of_all_answers_by_each_point():
    first = np.full((20, 10), 2)
    first[:, 0] = 0
    first[::2, 1] = 1
    figure = told(seen_of(first))
    assert [point.turned.value for point in figure.points] == pytest.approx([0.1, 0.15])
    assert [point.here for point in figure.points] == pytest.approx([0.1, 0.05])
    assert figure.earliest == ((0, 1.0), (1, 0.5))
    assert figure.silent == 1, "the first trial, where no fault fell"
    assert not figure.runs_grid


def test_an_answer_that_is_detected_has_turned():
    answers = Answers({"top1": np.array([True, False, False]), "due": np.array([False, True, False])}, {})
    assert have_turned(answers, "top1").tolist() == [True, True, False]
    assert have_turned(Answers({"top1": np.array([True, False])}, {}), "top1").tolist() == [True, False]


def test_the_check_has_the_interval_of_clopper_and_pearson():
    check = check_of(seen_of(np.ones((20, 50), int), checked=400, back=3), Stop(max_trials=20))
    assert (check.pairs, check.turned, check.back) == (400, 400, 3)
    low, high = binomtest(3, 400).proportion_ci(0.95, "exact")
    assert check.share.ends == pytest.approx((low, high))
    assert not check.is_too_much
    assert check_told(check).startswith("3 of 400 (0.0075 (")
    # where there are six looks each has a sixth of the error
    low, high = binomtest(3, 400).proportion_ci(1 - 0.05 / 6, "exact")
    check = check_of(seen_of(np.ones((20, 50), int), 400, 3), Stop(max_trials=640))
    assert check.share.ends == pytest.approx((low, high))


def test_nothing_that_was_checked_is_said():
    figure = told(seen_of(np.ones((20, 5), int)))
    assert figure.check.share is None
    assert "no answer was drawn to run at all points" in figure.why
    assert check_told(figure.check) == "none checked"


@pytest.mark.parametrize(
    ("checked", "back", "stops", "grid"),
    [(1000, 0, False, False), (1000, 10, False, False), (1000, 11, False, False), (1000, 40, True, True)],
)
def test_before_the_end_the_grid_runs_where_too_many_surely_turn_back(checked, back, stops, grid):
    rng = np.random.default_rng(0)
    seen = seen_of(rng.integers(0, 3, (20, 60)), checked, back)
    decision = decide_turns(seen, Stop(max_trials=1000, relative=0.0001), "these", 0.0, None)
    assert decision.stop == stops
    figure = figure_of_turns("q", "q", LABELS, seen, STOP, "these", None, decision)
    assert figure.runs_grid == grid
    assert ("so that the grid runs" in decision.why) == grid
    assert decision.next_look == (None if stops else 40) or stops


@pytest.mark.parametrize(("back", "grid"), [(9, False), (10, False), (11, True)])
def test_at_the_end_the_grid_runs_where_more_than_one_in_a_hundred_turned_back(back, grid):
    seen = seen_of(np.random.default_rng(0).integers(0, 3, (20, 60)), 1000, back)
    decision = decide_turns(seen, Stop(max_trials=20, relative=0.0001), "these", 0.0, None)
    assert decision.stop
    assert ("above 1%, so that the grid runs" in decision.why) == grid
    assert f"{back} of 1,000 answers that ran at all points turned back" in decision.why


def test_it_stops_when_each_point_has_enough():
    rng = np.random.default_rng(0)
    often = rng.integers(0, 3, (20, 500))
    assert decide_turns(seen_of(often), STOP, "these", 0.0, None).stop
    seldom = often.copy()
    seldom[often == 0] = np.where(rng.random((often == 0).sum()) < 0.01, 0, 1)
    decision = decide_turns(seen_of(seldom), STOP, "these", 0.0, None)
    assert not decision.stop
    assert decision.next_look == 40
    # the same with new images claimed, too
    assert "images" in decide_turns(seen_of(often), STOP, "population", 0.0, None).estimate.covers


def test_faults_that_are_the_same_under_every_seed_are_told_exactly():
    decision = decide_turns(seen_of([[0, 1, 2, 2]]), STOP, "these", 0.0, 1)
    assert decision.stop
    assert (decision.estimate.value, decision.estimate.ends) == (0.5, None)
    assert "one trial tells all" in decision.why


def test_trials_that_failed_are_counted_apart():
    rows = [Row(0, np.zeros((4, 3), bool), faults=0), Row(1, None, failed="no memory"), Row(9, np.ones((4, 3), bool))]
    seen = turned_of(rows, 2, 3, range(5))
    assert (seen.number, seen.failed, seen.silent) == (1, 1, 1)
    assert turned_of(rows, 2, 3, [0, 9]).silent is None
    twice = seen.take(np.array([0, 0]))
    assert isinstance(twice, Turned)
    assert (twice.number, twice.by_point.shape) == (2, (2, 2, 3))


def test_tables_never_call_it_sdc():
    figure = told(seen_of(np.random.default_rng(1).integers(0, 3, (20, 30)), 100, 1))
    columns, rows = turns_table([figure])
    data, lines = turns_to_data(figure), turns_flat(figure)
    assert not any("sdc" in str(word).lower() for word in [*columns, *lines[0], *data["points"][0]])
    assert [row[1] for row in rows] == ["ber=0.001", "ber=0.01"]
    assert [line["ber"] for line in lines] == [0.001, 0.01]
    assert lines[0]["turned_back_high"] == figure.check.share.ends[1]
    assert data["check"]["turned_back"] == 1
    assert "no rate of SDC" in data["what"]
