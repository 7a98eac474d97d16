"""Gains that paired trials measured, in the cheapest plan: known answers, what is no candidate, and what is told."""

import json

import pytest

from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.gains import considered_of
from hwfault.campaigns.hardening.kept_proof import KEY, keep_proofs, read_proofs
from hwfault.campaigns.hardening.proof import Proof, Tried
from hwfault.campaigns.hardening.written import advise_again, advise_from
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.page.page import page
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.campaigns.study.hardening import Hardening
from hwfault.errors import FileError
from hwfault.laws.models import BitFlips, ClippedRange, load_faults
from tests.campaigns.hardening.test_advice import census, harm_in

RATE = 0.001
"""36 bits flip 0.036 times a trial, and 10 samples were seen of each: a share of 0.0001 is one of 360 pairs."""
NONE = exact_estimate(0.0, 1)
RANGES = (ClippedRange(sites={"name": "act"}, low=0, high=9),)
HARDENING = {"rate": RATE, "require": {"sdc": "< 0.002", "due": "< 1e-6"}}
"""Of 36 pairs 19 may be wrong: the hardened top bit of `first`, 4 bits of memory, leaves 16."""


def between(low, value, high):
    return Estimate(value, (low, high), 0.95, "t", "these", "the difference")


def tried(name="clipped", removed=(0.0025, 0.003, 0.0034), extra_bytes=0.25, **more):
    given = {"sdc": between(0, 0.0006, 0.001), "due": NONE, "laws": RANGES, "energy": 0.0} | more
    return Tried(name, "told", 20, removed=between(*removed), extra_bytes=extra_bytes, **given)


def proof_of_all(*others, rate=RATE, question="critical"):
    base = Tried("baseline", "no measure", 20, between(0, 0.0036, 0.005), NONE, None)
    return Proof(question, rate, (base, *others))


def advice_with(tmp_path, proofs, hardening=None):
    path = census(tmp_path, {"hardening": HARDENING | (hardening or {})})
    with Database(path) as database:
        keep_proofs(database, proofs)
        return advise_from(database, kept_tasks(database), None, None, ())[2]


def test_a_cheaper_plan_that_was_measured(tmp_path):
    advice = advice_with(tmp_path, [proof_of_all(tried())])
    assert (advice.price, advice.read_price, advice.bound) == (2, 4, 4)
    (one,) = advice.best.measured
    # the lower end removes 25 of 36 pairs, what was seen 30, the upper end 34
    assert one.wrong == pytest.approx(11)
    assert advice.best.sdc.value == pytest.approx(6 / 360)
    assert advice.best.sdc.ends == pytest.approx((2 / 360, 11 / 360))
    assert advice.best.expected_sdc == pytest.approx(0.0006)
    assert advice.best.due == 0
    assert "measured in 20 paired trials, not proved" in advice.why
    assert "no plan that meets what is required is below 4" in advice.why
    (taken,) = advice.best.taken
    assert (taken.site, taken.measure, taken.extra_bits) == ("activations", "clipped activation ranges (1)", 2)
    assert [(one.site, one.gain) for one in advice.read_best.taken] == [("first", "read from single flips")]
    assert any("gains on one harm do not add up" in note for note in advice.notes)


def test_gains_are_not_added(tmp_path):
    """With 11 allowed neither alone suffices at the lower end, though both gains together would."""
    proofs = [proof_of_all(tried(removed=(0.002, 0.003, 0.004)))]
    advice = advice_with(tmp_path, proofs, {"require": {"sdc": "< 0.0012", "due": "< 1e-6"}})
    # `third` in whole, `first` by its top bit: census alone
    assert not advice.best.measured
    assert advice.price > 4
    assert "proven" in advice.why


def test_a_combination_that_was_measured(tmp_path):
    both = tried("clipped-measure1", (0.003, 0.0033, 0.0036), 0.75, measures=(("first", "hardened top bit"),))
    proofs = [proof_of_all(tried(removed=(0.002, 0.003, 0.004)), both)]
    advice = advice_with(tmp_path, proofs, {"require": {"sdc": "< 0.0008", "due": "< 1e-6"}})
    told = [(one.site, one.measure, one.extra_bits) for one in advice.best.taken]
    assert told == [("activations", "clipped activation ranges (1)", 2), ("first", "hardened top bit", 4)]
    assert {one.gain for one in advice.best.taken} == {"measured in 20 paired trials, not proved"}
    assert advice.price == 6
    assert advice.read_price > 6


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (tried(removed=(0.0, 0.003, 0.004)), "not told apart from nothing"),
        (tried(removed=(-0.001, 0.003, 0.004)), "not told apart from nothing"),
        (tried(laws=None), "an older version did not keep its ranges"),
        (tried(measures=(("first", "SECDED on 7 data bits"),)), "none at the costs of this study"),
        (tried(measures=(("gone", "TMR"),)), "none at the costs of this study"),
    ],
)
def test_no_candidate(tmp_path, other, why):
    advice = advice_with(tmp_path, [proof_of_all(other)])
    assert not advice.best.measured
    assert (advice.price, advice.bound) == (4, 4)
    (one,) = advice.measured
    assert one.candidate is None
    assert why in one.why
    assert any(why in note for note in advice.notes)


def test_of_other_faults_and_rates(tmp_path):
    elements = proof_of_all(tried("bypassed", laws=None), rate=None, question="array")
    advice = advice_with(tmp_path, [elements, proof_of_all(tried(), rate=0.5)])
    assert not advice.best.measured
    assert "under the faults of array" in advice.measured[0].why
    assert "at 0.5 flips for each bit" in advice.measured[1].why


@pytest.mark.parametrize(
    ("more", "hardening", "price"),
    [
        ({"extra_bytes": 0.5}, {}, 4),  # equally dear: what is proven is taken
        ({"extra_bytes": 2.0}, {}, 4),
        ({"sdc": between(0, 0.0025, 0.01)}, {}, 4),  # what was seen is above what the difference tells
        ({"due": between(0, 1e-3, 0.01)}, {}, 4),
        ({"energy": None}, {"minimize": "energy"}, 0),
        ({"regained": between(-0.001, 0.001, 0.002)}, {"require": {"accuracy_lost": "< 0.002", "due": "< 1e-6"}}, 4),
        ({"regained": between(0.002, 0.0025, 0.003)}, {"require": {"accuracy_lost": "< 0.002", "due": "< 1e-6"}}, 2),
        ({}, {"require": {"accuracy_lost": "< 0.002", "due": "< 1e-6"}}, 4),  # regained is not known
    ],
)
def test_when_it_is_taken(tmp_path, more, hardening, price):
    advice = advice_with(tmp_path, [proof_of_all(tried(**more))], hardening)
    assert advice.price == pytest.approx(price)
    assert bool(advice.best.measured) == (price == 2)


def test_drawn_flips_take_none(tmp_path):
    harm = harm_in(census(tmp_path))._replace(whole=False)
    asked = Hardening.parse(HARDENING, "hardening")
    (one,) = considered_of([proof_of_all(tried())], harm, asked, RATE, None)
    assert "of a census alone" in one.why


@pytest.mark.slow
def test_page_and_files(tmp_path):
    path = census(tmp_path, {"hardening": HARDENING})
    proofs = [proof_of_all(tried(measures=(("first", "none"),)))]
    with Database(path) as database:
        keep_proofs(database, proofs)
        text, _ = page(database, str(tmp_path), advise_again(tmp_path, database))
        for told in (
            "clipped activation ranges (1)",
            "measured in 20 paired trials, not proved",
            "the bound on any such",
        ):
            assert told in text
    kept = json.loads((tmp_path / "hardening.json").read_text())
    assert kept["best"]["laws"] == [{"model": "clipped", "sites": [{"name": "act"}], "low": 0, "high": 9}]
    assert kept["best"]["measures"][0]["gain"] == "measured in 20 paired trials, not proved"
    assert kept["read_best"]["measures"] == [
        {"site": "first", "measure": "hardened top bit", "gain": "read from single flips"}
    ]
    assert kept["measured"][0]["considered"]
    faults = load_faults(tmp_path / "hardening.yaml")
    assert faults[-1] == RANGES[0]
    assert all(isinstance(fault, BitFlips) for fault in faults[:-1])
    assert sorted(site.name for site in faults[0].sites) == ["first", "second", "third"]


def test_ranges_are_kept_in_the_store(tmp_path):
    proofs = [proof_of_all(tried(measures=(("first", "none"),)))]
    with Database(census(tmp_path)) as database:
        keep_proofs(database, proofs)
        assert read_proofs(database) == proofs
        # what an older version kept has no ranges
        data = [one.to_data() for one in proofs]
        bad = json.loads(json.dumps(data))
        for one in data[0]["tried"]:
            del one["laws"], one["measures"]
        database.say(KEY, json.dumps(data))
        assert read_proofs(database)[0].tried[1].laws is None
        bad[0]["tried"][1]["laws"] = [{"model": "clipped"}]
        database.say(KEY, json.dumps(bad))
        with pytest.raises(FileError, match="it is damaged"):
            read_proofs(database)
