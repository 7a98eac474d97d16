"""Rates of each site's own, and requirements on accuracy, against all choices that there are."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.campaigns.about import About, _rates_of
from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.advice import advise
from hwfault.campaigns.hardening.choice import Limits, cheapest, pareto_front
from hwfault.campaigns.hardening.faults import faults_of
from hwfault.campaigns.hardening.harm import Harm, SiteHarm
from hwfault.campaigns.hardening.measures import Measure, measures_of
from hwfault.campaigns.hardening.rates import kept_rates
from hwfault.campaigns.hardening.written import advise_from
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.study.hardening import Costs, Hardening
from hwfault.errors import HwfaultError, ModelError
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from tests.campaigns.hardening.test_advice import SITES, census
from tests.helpers.campaigns.stores import Store, row

NEVER = SiteHarm("third", 2, 4, (20,) * 4, (4,) * 4, (0,) * 4, (4,) * 4)
HARM = Harm(
    "critical",
    (
        SiteHarm("first", 4, 3, (40,) * 3, (0, 0, 20), (0,) * 3, (0, -2, 16)),
        SiteHarm("second", 8, 2, (80,) * 2, (0, 8), (0,) * 2, (0, 8)),
        NEVER,
    ),
    True,
    0.95,
)
RATES = {"first": 1e-4, "second": 1e-3}


def test_each_site_counts_by_its_own_rate():
    advice = advise(HARM, Hardening(rates_of="x", require={"sdc": "< 0.0005"}), RATES)
    # of 10 samples: wrong answers of a flip of each bit times its rate
    expected = 1e-4 * 20 / 10 + 1e-3 * 8 / 10
    assert advice.baseline.expected_sdc == pytest.approx(expected)
    assert advice.baseline.expected_lost == pytest.approx(1e-4 * 14 / 10 + 1e-3 * 8 / 10)
    assert advice.rate == pytest.approx((12e-4 + 16e-3) / 36)
    # by one rate for all `first` would be the first to be protected; here `second` has most of the harm
    assert [(one.site, one.name) for one in advice.best.measures if one.kind != "none"] == [
        ("second", "parity on 32 data bits")
    ]
    assert advice.best.expected_sdc == pytest.approx(2e-4)
    assert any("as often as the faults of x" in note for note in advice.notes)
    one = advise(HARM, Hardening(rate=advice.rate))
    assert one.baseline.expected_sdc != pytest.approx(expected)
    assert one.several == pytest.approx(advice.several, rel=0.03)


def test_sites_that_never_flip_do_no_harm_and_have_no_faults():
    harm, mean = HARM.with_rates(RATES)
    assert [site.weight * mean for site in harm.sites] == pytest.approx([1e-4, 1e-3, 0])
    nothing = [measures_of(site, Costs())[0] for site in harm.sites]
    assert nothing[2].wrong == 0
    faults = faults_of(nothing, {"first": 3, "second": 2, "third": 4}, RATES)
    assert faults == (
        BitFlips(probability=1e-4, sites={"name": "first"}),
        BitFlips(probability=1e-3, sites={"name": "second"}),
    )
    with pytest.raises(HwfaultError, match="no bit of its sites ever flips"):
        HARM.with_rates({"other": 0.1})


def test_drawn_flips_under_rates_have_an_interval_and_no_requirement():
    harm = HARM._replace(whole=False)
    found = advise(harm, Hardening(rates_of="x"), RATES).baseline.sdc
    low, high = found.ends
    weights = [12 * 1e-4, 16 * 1e-3]
    value = (weights[0] * 20 / 120 + weights[1] * 8 / 160) / sum(weights)
    assert found.value == pytest.approx(value)
    assert 0 <= low < value < high < 1
    with pytest.raises(HwfaultError, match="expected a census"):
        advise(harm, Hardening(rates_of="x", require={"sdc": "< 0.1"}), RATES)


def measure(site, extra, wrong, due, lost):
    return Measure(f"s{site}", "hardened", 1, float(extra), 0.0, wrong, due, lost)


NUMBER = st.floats(0, 40, allow_nan=False) | st.integers(0, 40)
CHOICES = st.lists(
    st.lists(st.tuples(st.integers(0, 60), NUMBER, st.integers(0, 9), st.integers(-5, 30)), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
).map(lambda sites: [[measure(i, *one) for one in site] for i, site in enumerate(sites)])


@given(sites=CHOICES, wrong=st.none() | st.floats(0, 80), lost=st.none() | st.integers(-5, 60))
def test_cheapest_under_any_requirement(sites, wrong, lost):
    allowed = []
    for taken in product(*sites):
        good = wrong is None or sum(one.wrong for one in taken) <= wrong
        if good and (lost is None or sum(one.lost for one in taken) <= lost):
            allowed.append(sum(one.extra_bits for one in taken))
    found = cheapest(sites, lambda one: one.extra_bits, Limits(wrong, None, lost))
    if not allowed:
        assert found.plan is None
        return
    # a sum that is the limit to the last bit may be taken for more, never for less
    assert found.plan is None or found.price >= min(allowed)
    if found.plan is not None:
        assert wrong is None or found.plan.wrong <= wrong
        assert lost is None or found.plan.lost <= lost
    whole = all(isinstance(one.wrong, int) for site in sites for one in site)
    if wrong is None or (whole and float(wrong).is_integer()):
        assert found.price == min(allowed)


@given(sites=CHOICES)
def test_front_of_accuracy(sites):
    points = {(sum(one.extra_bits for one in t), sum(one.lost for one in t)) for t in product(*sites)}
    beaten = {a for a in points if any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points)}
    found = pareto_front(sites, lambda one: one.extra_bits, None, lambda one: one.lost)
    assert [(plan.extra_bits, plan.lost) for plan in found] == sorted(points - beaten)


def test_accuracy_is_required_of_samples_with_labels_alone(tmp_path):
    # one flip costs 14 + 8 + 16 right answers of 360; below 0.05 means at most 17
    advice = advise(HARM, Hardening(require={"accuracy_lost": "< 0.05", "due": "< 0.001"}))
    assert advice.baseline.accuracy_lost == pytest.approx(38 / 360)
    assert advice.best.accuracy_lost < 0.05
    assert advice.best.due == 0
    assert len(advice.front_of_accuracy) > 1
    unknown = HARM._replace(sites=tuple(site._replace(lost=None) for site in HARM.sites))
    assert advise(unknown, Hardening()).front_of_accuracy == ()
    with pytest.raises(HwfaultError, match="is known of samples with labels alone; require sdc"):
        advise(unknown, Hardening(require={"accuracy_lost": "< 0.05"}))


def test_rates_of_a_question(tmp_path):
    hardening = {"rates_of": "volts v=0.5", "require": {"sdc": "< 0.1"}}
    study = {"network": "run", "hardening": hardening}
    study["questions"] = {"critical": {"flips": "single"}, "volts": {"faults": "bram", "sweep": {"v": [0.5]}}}
    store = Store(tmp_path / "campaign.sqlite", study)
    rows = [row(cell, range(cell % 3)) for cell in range(36)]
    faults = {"flips": "single", "sites": SITES, "trials": "all"}
    store.add("critical", rows, faults=faults, draw="all", total=36, looks=[(36, True, "exact")])
    task = store.add("volts", [row(0, ())], faults={"models": []}, labels={"v": 0.5}, label="volts v=0.5")
    about = About(engine="torch", version="2", exact=True, note="", rates={task.digest: RATES})
    path = store.close(about=about.model_dump(mode="json"))
    with Database(path, readonly=True) as database:
        tasks = kept_tasks(database)
        _, asked, advice = advise_from(database, tasks, None, None, ())
        assert (asked.rates_of, advice.rates) == ("volts v=0.5", RATES)
        assert advise_from(database, tasks, None, 1e-5, ())[2].rate == 1e-5


def test_rates_are_what_a_plan_expects():
    sites = [Site(name=name, kind="weight", bit_width=4, signed=True, shape=(50,)) for name in "abc"]
    faults = [BitFlips(probability=(0.0, 0.0, 0.02, 0.02), sites="a"), BitFlips(p01=0.02, sites="b")]
    found = _rates_of(resolve(sites, faults))
    # of one direction between none of its hits and all, as the codes that are stored decide
    assert found == {"a": pytest.approx(0.01, rel=1e-3), "b": pytest.approx(0.01, rel=1e-3)}


def test_rates_that_there_are_not(tmp_path):
    path = census(tmp_path, {"hardening": {"rates_of": "curve"}})
    words = "rates_of: no question with faults of its own is called 'curve'"
    with Database(path, readonly=True) as database, pytest.raises(HwfaultError, match=words):
        advise_from(database, kept_tasks(database), None, None, ())


def test_rates_of_an_older_store(tmp_path):
    study = {"network": "run", "hardening": {"rates_of": "curve"}, "questions": {"curve": {"faults": "bram"}}}
    store = Store(tmp_path / "campaign.sqlite", study)
    store.add("curve", [row(0, ())], faults={"models": []})
    with Database(store.close(), readonly=True) as database, pytest.raises(HwfaultError, match="resume` adds it"):
        kept_rates(database, kept_tasks(database), "curve")


def test_two_kinds_of_rates():
    with pytest.raises(ModelError, match="expected one of the two"):
        Hardening.parse({"rate": 0.1, "rates_of": "x"}, "hardening")
