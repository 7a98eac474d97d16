"""How often the intervals that campaigns end with hold the truth: whole campaigns simulated, stopped by their rule."""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from hwfault.campaigns.statistics.stopping import StoppingRule, judge_events, judge_means, judge_population
from hwfault.campaigns.statistics.two_way import Sums
from tests.slowly import slow

FEW, MANY = 200, 2000

RULES = {
    "wide margin": StoppingRule(relative=0.5, max_trials=200_000),
    "margin": StoppingRule(relative=0.3, max_trials=200_000),
    "verdict": StoppingRule(requirement="< 2e-3", max_trials=200_000),
    "near verdict": StoppingRule(requirement="< 1.3e-3", max_trials=200_000),
}


@cache
def remembered(name, events, trials):
    """Campaigns come to the same counts again and again."""
    return judge_events(RULES[name], events, trials)


def end_of_events(rng, name, rate):
    """The decision that ends one campaign of independent trials, looked at wherever the rule says."""
    trials = 20
    events = rng.binomial(trials, rate)
    while not (decision := remembered(name, events, trials)).stop:
        events += rng.binomial(decision.next_look - trials, rate)
        trials = decision.next_look
    return decision, trials


def holds(decision, truth):
    low, high = decision.estimate.ends
    return low <= truth <= high


def cover_events(name, rate, repeats):
    rng = np.random.default_rng(7)
    ends = [end_of_events(rng, name, rate) for _ in range(repeats)]
    wrong = sum(decision.met is False for decision, _ in ends)
    covered = sum(holds(decision, rate) for decision, _ in ends)
    return covered / repeats, wrong / repeats, np.median([trials for _, trials in ends])


@pytest.mark.parametrize("name", [slow("wide margin"), "verdict"])
def test_rare_events_are_covered_when_stopped(name):
    covered, wrong, _ = cover_events(name, 1e-3, FEW)
    assert covered >= 0.94
    assert wrong <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate"), [("margin", 1e-3), ("margin", 1e-2), ("margin", 5e-2), ("verdict", 1e-3), ("near verdict", 1e-3)]
)
def test_rare_events_are_covered_when_stopped_often(name, rate):
    covered, wrong, trials = cover_events(name, rate, MANY)
    assert covered >= 0.94
    assert wrong <= 0.05
    assert trials < 200_000


def test_the_simulation_would_show_an_interval_that_does_not_cover():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(FEW):
        trials, half = 0, np.inf
        events = 0
        # the textbook's interval has no width where nothing was seen yet
        while half > 0.005:
            trials += 100
            events += rng.binomial(100, 1e-3)
            share = events / trials
            half = 1.96 * (share * (1 - share) / trials) ** 0.5
        covered += abs(share - 1e-3) <= half
    assert covered / FEW < 0.2


# numbers of one trial, as they are where the same faults strike many images: many zeros, long tails
OUTCOMES = {
    "tenth": lambda rng, size: rng.beta(0.5, 4.5, size),
    "zeros": lambda rng, size: np.where(rng.random(size) < 0.3, rng.beta(1, 9, size), 0.0),
    "rare": lambda rng, size: np.where(rng.random(size) < 0.05, rng.beta(1, 9, size), 0.0),
    "tail": lambda rng, size: np.clip(rng.lognormal(-6, 1.2, size), 0, 1),
}
MEANS = {
    "tenth": 0.1,
    "zeros": 0.03,
    "rare": 0.005,
    # lognormal cut at 1: the mean below 1, and all that lies above
    "tail": np.exp(-6 + 0.72) * stats.norm.cdf((6 - 1.44) / 1.2) + stats.norm.sf(6 / 1.2),
}


def cover_means(name, rule, repeats):
    rng = np.random.default_rng(11)
    covered = wrong = 0
    truth = MEANS[name]
    right = rule.requirement is not None and truth < rule.requirement.limit
    for _ in range(repeats):
        values = OUTCOMES[name](rng, rule.max_trials)
        trials = 20
        while not (decision := judge_means(rule, values[:trials])).stop:
            trials = decision.next_look
        covered += holds(decision, truth)
        wrong += decision.met is not None and decision.met != right
    return covered / repeats, wrong / repeats


@pytest.mark.parametrize("name", ["tenth", slow("zeros")])
def test_means_are_covered_when_stopped(name):
    covered, _ = cover_means(name, StoppingRule(relative=0.3, max_trials=640), FEW)
    assert covered >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("relative", [0.3, 0.15])
def test_means_are_covered_when_stopped_often(name, relative):
    covered, _ = cover_means(name, StoppingRule(relative=relative, max_trials=2560), MANY)
    assert covered >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_means_are_covered_when_a_verdict_stops_them(name, factor):
    rule = StoppingRule(requirement=f"< {factor * MEANS[name]}", max_trials=2560)
    covered, wrong = cover_means(name, rule, MANY)
    assert wrong <= 0.05
    # the tail's mean comes from the few largest, which a campaign that is stopped early has not seen
    assert covered >= (0.90 if name == "tail" else 0.94)


def rate_of(centre, seeds_sd, images_sd):
    """The mean of a logistic function of a normal number, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    odds = np.exp(centre + np.hypot(seeds_sd, images_sd) * nodes)
    return float((weights * odds / (1 + odds)).sum() / weights.sum())


def draw_results(rng, centre, seeds_sd, images_sd, seeds, images):
    """Results of fault seeds on images, each of which is more or less harmful."""
    odds = np.exp(centre + seeds_sd * rng.standard_normal((seeds, 1)) + images_sd * rng.standard_normal(images))
    return rng.random((seeds, images)) < odds / (1 + odds)


def cover_population(world, images, relative, repeats):
    """How often a promised interval covers; how often one is promised; how often t over seeds alone would cover."""
    rng = np.random.default_rng(13)
    rule = StoppingRule(relative=relative, max_trials=320)
    truth = rate_of(*world)
    promised = covered = by_seeds = bounded = 0
    for _ in range(repeats):
        results = draw_results(rng, *world, rule.max_trials, images)
        seeds = 20
        while not (decision := judge_population(rule, Sums.of(results[:seeds]))).stop:
            seeds = decision.next_look
        of_seeds = results[:seeds].mean(1)
        half = stats.t.ppf(0.975, seeds - 1) * of_seeds.std(ddof=1) / seeds**0.5
        by_seeds += abs(of_seeds.mean() - truth) <= half
        if decision.estimate.by == "two-way":
            promised += 1
            covered += holds(decision, truth)
        else:
            bounded += holds(decision, truth)
    assert bounded >= 0.95 * (repeats - promised)
    return covered / max(promised, 1), promised / repeats, by_seeds / repeats


WORLDS = {
    "often": (-2, 1, 1),
    "seldom": (-5, 1, 2),
    "few images matter": (-7, 0.5, 2.5),
    "few seeds matter": (-6, 2, 1),
    "rare": (-8, 1, 1),
}


def test_populations_are_covered_when_stopped():
    covered, promised, by_seeds = cover_population(WORLDS["few images matter"], 200, 0.3, FEW)
    assert promised > 0.9
    assert covered >= 0.92
    assert by_seeds < 0.7, "without the images' part it would look far too certain"


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("images", [100, 360])
def test_populations_are_covered_when_stopped_often(name, images):
    covered, promised, _ = cover_population(WORLDS[name], images, 0.3, MANY)
    assert promised > 0.5
    assert covered >= 0.90
