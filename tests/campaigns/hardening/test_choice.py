"""The cheapest plan and the front, against all choices there are."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.campaigns.hardening.choice import Limits, cheapest, pareto_front
from hwfault.campaigns.hardening.harm import SiteHarm
from hwfault.campaigns.hardening.measured import Measured
from hwfault.campaigns.hardening.measures import Measure, measures_of, without_worse
from hwfault.campaigns.statistics.estimates import exact_estimate
from hwfault.campaigns.study.hardening import Costs

SITE = SiteHarm("conv", words=10, width=4, tried=(100,) * 4, wrong=(0, 1, 5, 20), due=(0, 0, 0, 2), lost=(0, 1, 4, 19))


def of(measures, name):
    (found,) = [one for one in measures if one.name == name]
    return found


def test_what_measures_cost_and_leave():
    measures = measures_of(SITE, Costs())
    assert of(measures, "none")[3:8] == (0.0, 0.0, 26, 2.0, 24)
    # 40 bits are 2 words of 32 data bits with 6 Hamming bits and a parity each, or one of 64 with 7 and one
    assert of(measures, "SECDED on 32 data bits")[3:8] == (14.0, 14.0, 0, 0.0, 0)
    assert of(measures, "SECDED on 64 data bits")[3:8] == (8.0, 8.0, 0, 0.0, 0)
    # each of 40 own and 2 check bits is detected on all samples: 400 pairs were tried
    assert of(measures, "parity on 32 data bits")[3:8] == (2.0, 2.0, 0, pytest.approx(420), 24)
    assert of(measures, "TMR")[3:8] == (80.0, 80.0, 0, 0.0, 0)
    assert of(measures, "hardened top bit")[3:8] == (10.0, 0.0, 6, 0.0, 5)
    assert of(measures, "hardened top 4 bits")[3:8] == (40.0, 0.0, 0, 0.0, 0)
    dear = measures_of(SITE, Costs(hardened_bit=3.5, hardened_read=1.2, decode=4, data_bits=(32,)))
    assert of(dear, "hardened top 2 bits").extra_bits == 50
    assert of(dear, "hardened top 2 bits").extra_energy == pytest.approx(4)
    assert of(dear, "SECDED on 32 data bits").extra_energy == 14 + 8
    assert not [one for one in dear if one.size == 64 and one.kind != "tmr"]


def test_measures_that_another_beats_are_left_out():
    names = [one.name for one in without_worse(measures_of(SITE, Costs()))]
    assert "TMR" not in names
    assert "SECDED on 32 data bits" not in names
    assert "parity on 32 data bits" not in names  # of 64 data bits it has less memory, and fewer check bits to detect
    assert names[0] == "none"


def measure(site, wrong, extra, due=0.0):
    return Measure(f"s{site}", "hardened", 1, float(extra), 0.0, wrong, due, None)


SITES = st.lists(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(0, 9)), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
).map(lambda sites: [[measure(i, *one) for one in site] for i, site in enumerate(sites)])


def choices(sites):
    for taken in product(*sites):
        yield sum(one.extra_bits for one in taken), sum(one.wrong for one in taken), sum(one.due for one in taken)


@given(sites=SITES, limit=st.integers(0, 80), due=st.none() | st.integers(0, 20))
def test_cheapest_against_all_choices(sites, limit, due):
    allowed = [cost for cost, wrong, lost in choices(sites) if wrong <= limit and (due is None or lost <= due)]
    found = cheapest(sites, lambda one: one.extra_bits, Limits(limit, due))
    if not allowed:
        assert found.plan is None
        return
    assert found.price == min(allowed)
    assert found.bound == pytest.approx(min(allowed))
    assert found.plan.wrong <= limit
    assert [one.site for one in found.plan.measures] == [f"s{i}" for i in range(len(sites))]


def together(names, extra, wrong, due):
    return Measured(
        "m", 9, tuple(measure(i, 0, 0) for i in names), (), extra, 0.0, wrong, due, None, exact_estimate(0, 1)
    )


MEASURED = st.lists(
    st.tuples(st.sets(st.integers(0, 3), min_size=1), st.integers(0, 60), st.floats(0, 90), st.integers(0, 9)),
    max_size=4,
)


def choices_with(sites, measured):
    """Every subset of what was measured in which no two take one site, with every choice for the other sites."""
    for taken in product((False, True), repeat=len(measured)):
        groups = [one for one, is_taken in zip(measured, taken, strict=True) if is_taken]
        names = [part.site for one in groups for part in one.measures]
        if len(set(names)) < len(names):
            continue
        rest = [site for site in sites if site[0].site not in names]
        for alone in product(*rest):
            parts = [*alone, *groups]
            yield [sum(getattr(one, key) for one in parts) for key in ("extra_bits", "wrong", "due")]


@given(sites=SITES, given=MEASURED, limit=st.integers(0, 80), due=st.none() | st.integers(0, 20))
def test_what_was_measured_against_all_subsets(sites, given, limit, due):
    """It takes all of its sites, so that no harm of one is removed twice."""
    measured = [together(*one) for one in given if max(one[0]) < len(sites)]
    every = choices_with(sites, measured)
    # numbers that are not whole are so to the solver's precision, where they lie at the limit
    allowed = [cost for cost, wrong, found in every if wrong <= limit and (due is None or found <= due)]
    found = cheapest(sites, lambda one: one.extra_bits, Limits(limit, due), measured)
    if not allowed:
        assert found.plan is None
        return
    assert found.price == min(allowed)
    assert found.plan.wrong <= limit
    assert sorted(one.site for one in found.plan.measures) == [f"s{i}" for i in range(len(sites))]


@given(sites=SITES, due=st.none() | st.integers(0, 20))
def test_front_against_all_choices(sites, due):
    points = {(cost, wrong) for cost, wrong, lost in choices(sites) if due is None or lost <= due}
    beaten = {
        one for one in points if any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in points)
    }
    found = pareto_front(sites, lambda one: one.extra_bits, due)
    assert [(plan.extra_bits, plan.wrong) for plan in found] == sorted(points - beaten)


def test_without_a_limit_nothing_is_bought():
    sites = [measures_of(SITE, Costs())]
    assert cheapest(sites, lambda one: one.extra_bits, Limits()).plan.measures[0].kind == "none"
