"""Advice read from flips that were drawn from strata: weighted by what each stands for, with the strata's intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.advice import advise
from hwfault.campaigns.hardening.harm import Drawn, Harm, strata_of_sites
from hwfault.campaigns.hardening.limits import limits_of
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.statistics.strata import estimate_part_of_strata, gamma_ends, most_of_strata
from hwfault.campaigns.study.hardening import Hardening
from hwfault.campaigns.study.strata import Strata, order_strata
from hwfault.errors import HwfaultError
from tests.campaigns.hardening.test_advice import BITS, SITES, STUDY, harm_in
from tests.helpers.campaigns.stores import Store, row

WEIGHTS = (1, 1, 8, 1, 1, 2, 2, 2, 2)
TRIALS = 200
TOP = 2
"""The stratum, the top bit of `first`, half of whose flips are wrong."""


RIGHT = np.arange(10) % 5 != 0
"""The golden run's answers; those of two samples of ten are wrong."""


def drawn(tmp_path, trials=TRIALS, missing=(), right=None):
    """Flips of which every second one of the top bits of `first` is wrong, and none elsewhere.

    Where it is said which golden answers are `right`, those that are not become so under a third of the others.
    """
    store = Store(tmp_path / "campaign.sqlite", STUDY)
    where = order_strata(WEIGHTS, trials)
    of_keys = Strata((12, 28, 36), (3, 2, 4), WEIGHTS, 10, 0)
    rows, tops = [], 0
    for place, stratum in enumerate(where.tolist()):
        tops += stratum == TOP
        wrong = (0,) if stratum == TOP and tops % 2 else ()
        found = row(place, wrong, samples=1)
        if right is not None:
            _, sample = of_keys.pair(place)
            found.answers[0, 0] = not wrong and (right[sample] or place % 3 == 0)
        if stratum not in missing:
            rows.append(found)
    faults = {"flips": "single", "sites": SITES, "trials": "strata", "weights": list(WEIGHTS), "first": 0}
    store.add("critical", rows, faults=faults, draw="strata", total=BITS, looks=[(trials, True, "x")], samples=1)
    said = {}
    if right is not None:
        said["labels"] = {"classes": 2, "labels": [0] * 10, "right": right.astype(int).tolist()}
    return store.close(**said), np.bincount(where, minlength=len(WEIGHTS))


def test_each_flip_counts_for_the_bits_that_it_stands_for(tmp_path):
    path, trials = drawn(tmp_path)
    harm = harm_in(path)
    wrong = (trials[TOP] + 1) // 2
    assert (harm.whole, harm.stratified, harm.trials, harm.tried) == (False, True, TRIALS, BITS)
    assert harm.sites[0].tried == (4, 4, 4)
    assert harm.sites[0].wrong == (0, 0, pytest.approx(4 * wrong / trials[TOP]))
    rate = harm.rate([site.wrong for site in harm.sites], [3, 2, 4])
    assert rate.value == pytest.approx(4 / BITS * wrong / trials[TOP])  # 4 of the bits are top bits of `first`
    assert rate.by == "gamma"
    assert rate.ends[0] < rate.value < rate.ends[1]
    assert rate.confidence == 0.95
    # a hardened top bit leaves strata without an event, none of which was tried often enough to be sure
    rest = harm.rate([0, 0, 0], [2, 2, 4])
    assert rest.value == rest.ends[0] == 0
    assert 0 < rest.ends[1] < rate.ends[1]
    assert harm.rate([0, 0, 0], [0, 0, 0]).by == "exact"


def test_measures_have_the_interval_of_what_they_remove(tmp_path):
    advice = advise(harm_in(drawn(tmp_path)[0]), Hardening.parse({}, "hardening"))
    (top,) = [one for one in advice.worth if (one.site, one.measure) == ("first", "hardened top bit")]
    assert top.removed_ends[0] < top.removed < top.removed_ends[1]
    assert top.removed == pytest.approx(advice.baseline.sdc.value)
    assert "drawn from strata" in advice.basis
    (other,) = [one for one in advice.worth if (one.site, one.measure) == ("third", "TMR")]
    assert (other.removed, other.removed_ends[0]) == (0, 0)
    assert other.removed_ends[1] > 0


def test_what_is_required_is_held_to_the_upper_end(tmp_path):
    harm = harm_in(drawn(tmp_path, 4000)[0])
    asked = Hardening.parse({"require": {"sdc": "< 0.04"}}, "hardening")
    best = advise(harm, asked).best
    assert {one.site for one in best.measures if one.kind != "none"} >= {"first"}
    assert best.sdc.value == 0
    assert best.sdc.ends[1] < 0.04
    rates = {"first": 1e-3, "second": 0.0, "third": 0.0}
    at_rates = Hardening.parse({"require": {"sdc": "< 5e-4"}}, "hardening")
    weighted = advise(harm, at_rates, rates)
    assert weighted.baseline.sdc.value == pytest.approx(3 * advise(harm, asked).baseline.sdc.value)
    assert weighted.best.sdc.by == "exact"  # nothing is left that flips
    few = advise(harm, Hardening.parse({"require": {"sdc": "< 1e-6"}}, "hardening"))
    assert few.best is None
    assert "4,000 drawn flips are too few" in few.why
    with pytest.raises(HwfaultError, match="of samples with labels alone, whose golden answers the store keeps"):
        limits_of(harm, Hardening.parse({"require": {"accuracy_lost": "< 0.1"}}, "hardening"), None)


def test_right_answers_that_flips_cost(tmp_path):
    """Lost less won, by what each trial stands for; the interval is that of both."""
    path, trials = drawn(tmp_path, 1800, right=RIGHT)
    with Database(path, readonly=True) as database:
        (task,) = kept_tasks(database)
        rows = list(database.rows(task.stored))
    spoiled, mended = np.zeros(9), np.zeros(9)
    where = order_strata(WEIGHTS, 1800)
    for place, one in enumerate(rows):
        _, sample = task.strata.pair(one.key)
        spoiled[where[place]] += RIGHT[sample] and not one.answers[0, 0]
        mended[where[place]] += not RIGHT[sample] and one.answers[0, 0]
    assert spoiled.sum() == spoiled[TOP] > 0
    assert (mended > 0).sum() > 5
    words = np.repeat([4, 8, 2], [3, 2, 4])
    harm = harm_in(path)
    baseline = advise(harm, Hardening.parse({}, "hardening")).baseline
    expected = (words * (spoiled - mended) / trials).sum() / BITS
    assert baseline.accuracy_lost == pytest.approx(expected)
    looks = 1 - harm.each_look
    lost, won = (gamma_ends(of, words / BITS / trials, 1 - looks / 2) for of in (spoiled, mended))
    assert baseline.lost_ends == pytest.approx((lost[0] - won[1], lost[1] - won[0]))
    # each measure has its part of it; parity helps no answer
    worth = {(one.site, one.measure): one for one in advise(harm, Hardening.parse({}, "hardening")).worth}
    top = worth["first", "hardened top bit"]
    assert top.regained == pytest.approx(4 / BITS * (spoiled[TOP] - mended[TOP]) / trials[TOP])
    assert top.regained_ends[0] < top.regained < top.regained_ends[1]
    parity = worth["first", "parity on 32 data bits"]
    assert (parity.regained, parity.regained_ends) == (0, (0, 0))
    assert parity.removed > 0


def test_lost_answers_are_held_to_the_upper_end(tmp_path):
    harm = harm_in(drawn(tmp_path, 2000, right=np.ones(10, bool))[0])
    rate = harm.lost_ends()
    for limit, needed in ((rate[1] * 3, False), (0.06, True)):
        advice = advise(harm, Hardening.parse({"require": {"accuracy_lost": f"< {limit}", "due": "< 0.01"}}, "h"))
        best = advice.best
        assert any("DUE is held to the number that drawn flips came to" in note for note in advice.notes)
        assert ("first" in {one.site for one in best.measures if one.kind != "none"}) == needed
        assert best.lost_ends[1] < limit
    few = advise(harm, Hardening.parse({"require": {"accuracy_lost": "< 1e-6"}}, "hardening"))
    assert few.best is None
    assert "2,000 drawn flips are too few" in few.why


def test_a_stratum_without_a_trial_is_refused(tmp_path):
    with pytest.raises(HwfaultError, match="1 of 9 strata, site by bit, have no trial with an answer"):
        harm_in(drawn(tmp_path, missing=(4,))[0])


@settings(max_examples=30)
@given(st.data())
def test_the_limit_holds_whichever_strata_the_events_are_in(data):
    weights = np.array(data.draw(st.lists(st.floats(1e-6, 1e-2), min_size=1, max_size=6)))
    events = np.array(data.draw(st.lists(st.integers(0, 50), min_size=len(weights), max_size=len(weights))))
    total = float((weights * events).sum())
    limit = data.draw(st.floats(1e-6, 1))
    if total <= most_of_strata(limit, float(weights.max())):
        assert gamma_ends(events, weights)[1] <= limit * (1 + 1e-9)
    alike = np.full(len(weights), weights.max())
    if gamma_ends(events, alike)[1] < limit * (1 - 1e-9):
        assert float((alike * events).sum()) <= most_of_strata(limit, float(weights.max())) * (1 + 1e-6) + 1e-12


def test_strata_that_count_for_nothing():
    found = estimate_part_of_strata([3, 1], [10, 10], [0.0, 0.5])
    assert found.value == pytest.approx(0.05)
    assert found.ends[1] <= 0.5
    assert estimate_part_of_strata([3], [10], [0.0]).by == "exact"


@pytest.mark.slow
@pytest.mark.parametrize("expected", [1, 5, 60])
def test_coverage_by_resampling(expected):
    """Of the plan that hardens the top bits of one site, and of what that removes: the truth is known."""
    rng = np.random.default_rng(expected)
    widths, words = (2, 8, 4), (40, 2000, 300)
    truth = np.concatenate([4.0 ** np.arange(width) / 4.0 ** (width - 1) for width in widths])
    truth *= np.repeat([0.3, 0.05, 0.1], widths)
    weights = np.maximum(1, (1e4 * np.repeat(words, widths) * np.sqrt(truth))).astype(int)
    bits = [count * width for count, width in zip(words, widths, strict=True)]
    trials = np.bincount(order_strata(tuple(weights), 400), minlength=len(truth))
    scale = expected / (trials * truth).sum()
    truth = np.minimum(truth * scale, 1)
    left = [2, 6, 4]
    shares = Harm("q", strata_of_sites("abc", bits, widths, [Drawn(0, 0, 1)] * 14), False, 0.95, 0.95).shares
    of_plan, of_all = (shares(left) * truth).sum(), (np.array(shares()) * truth).sum()
    held = np.zeros(2)
    values = []
    for _ in range(2000):
        wrong = rng.binomial(trials, truth)
        drawn = [Drawn(int(k), 0, int(n)) for k, n in zip(wrong, trials, strict=True)]
        harm = Harm("q", strata_of_sites("abc", bits, widths, drawn), False, 0.95, 0.95)
        plan, removed = harm.rate([], left), harm.removed_ends({"b": 6})
        values.append(plan.value)
        held += plan.ends[0] <= of_plan <= plan.ends[1], removed[0] <= of_all - of_plan <= removed[1]
    assert (held / 2000 >= 0.94).all()
    assert abs(np.mean(values) - of_plan) <= 4 * np.std(values) / np.sqrt(2000)


@pytest.mark.slow
@pytest.mark.parametrize("expected", [1, 5, 60])
def test_coverage_of_lost_answers_by_resampling(expected):
    """Flips that cost right answers and, a quarter as often, win some: of a plan and of what it regains."""
    rng = np.random.default_rng(expected)
    widths, words = (2, 8, 4), (40, 2000, 300)
    spoils = np.concatenate([4.0 ** np.arange(width) / 4.0 ** (width - 1) for width in widths])
    spoils *= np.repeat([0.3, 0.05, 0.1], widths)
    weights = np.maximum(1, (1e4 * np.repeat(words, widths) * np.sqrt(spoils))).astype(int)
    bits = [count * width for count, width in zip(words, widths, strict=True)]
    trials = np.bincount(order_strata(tuple(weights), 400), minlength=len(spoils))
    spoils = np.minimum(spoils * expected / (trials * spoils).sum(), 0.7)
    mends = spoils / 4
    left = [2, 6, 4]
    shares = Harm("q", strata_of_sites("abc", bits, widths, [Drawn(0, 0, 1)] * 14), False, 0.95, 0.95).shares
    of_plan = (shares(left) * (spoils - mends)).sum()
    of_all = (np.array(shares()) * (spoils - mends)).sum()
    held, values = np.zeros(2), []
    for _ in range(2000):
        lost = rng.binomial(trials, spoils)
        won = rng.binomial(trials - lost, mends / (1 - spoils))
        drawn = [Drawn(0, 0, int(n), int(k), int(m)) for n, k, m in zip(trials, lost, won, strict=True)]
        sites = strata_of_sites("abc", bits, widths, drawn, with_answers=True)
        harm = Harm("q", sites, False, 0.95, 0.95)
        values.append(sum(sum(site.lost[:n]) for site, n in zip(sites, left, strict=True)) / harm.tried)
        plan, regained = harm.lost_ends(left), harm.regained_ends({"b": 6})
        held += plan[0] <= of_plan <= plan[1], regained[0] <= of_all - of_plan <= regained[1]
    assert (held / 2000 >= 0.94).all()
    assert abs(np.mean(values) - of_plan) <= 4 * np.std(values) / np.sqrt(2000)
