"""What was tried is kept and told; what is tried of faulty elements and clipped activations."""

import json

import pytest

from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.candidates import BYPASSED, MOST_SITES, bypassed, flips_to_try
from hwfault.campaigns.hardening.harm import read_harm
from hwfault.campaigns.hardening.kept_proof import KEY, keep_proofs, read_proofs
from hwfault.campaigns.hardening.measured import CLIPPED
from hwfault.campaigns.hardening.proof import Proof, Tried
from hwfault.campaigns.hardening.ranges import GoldenRange, clip_faults
from hwfault.campaigns.hardening.section import proof_told
from hwfault.campaigns.hardening.several import Several
from hwfault.campaigns.hardening.written import advise_again, advise_from
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.page.page import page
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.errors import FileError
from hwfault.laws.models import BitFlips, BypassedElements, ClippedRange, StuckElement
from hwfault.program.processes import Site
from tests.campaigns.hardening.test_advice import census
from tests.helpers.campaigns.stores import Store, row

RATE = Estimate(0.125, (0.1, 0.15), 0.95, "t", "these", "SDC")
ARRAY = {"kind": "weight_stationary", "rows": 4, "columns": 4}


def proofs(question="critical", rate=0.001, told=CLIPPED):
    tried = [
        Tried("baseline", "no measure", 20, RATE, exact_estimate(0.0, 1), None, RATE, None),
        Tried("clipped", told, 20, RATE, RATE, RATE, RATE, RATE, 12.5, 0.25),
    ]
    several = Several("SECDED on 32 data bits", "first", 3, 1e-9, 20, 0.25, RATE, RATE, RATE, ("first",))
    return Proof(question, rate, tuple(tried), (several,))


def test_kept_in_the_store(tmp_path):
    path = census(tmp_path)
    first, other, again = proofs(), proofs(rate=None), proofs(told="another")
    with Database(path) as database:
        assert read_proofs(database) == []
        keep_proofs(database, [first, other])
        assert read_proofs(database) == [first, other]
        # the same question at the same rate takes the place of what was tried before
        keep_proofs(database, [again])
        assert read_proofs(database) == [other, again]
        # two profiles with one mean rate are two things
        here, there = (proofs()._replace(rates=rates) for rates in ({"first": 0.003}, {"second": 0.002}))
        keep_proofs(database, [here, there])
        assert read_proofs(database) == [other, again, here, there]
        keep_proofs(database, [there, here])
        assert read_proofs(database) == [other, again, there, here]
        assert "0.001 flips for each bit in the mean, 0.002 to 0.002 by site" in proof_told(there)["title"]
        # an older version kept none
        data = again.to_data()
        del data["rates"]
        database.say(KEY, json.dumps([data]))
        (old,) = read_proofs(database)
        assert old.rates == {}
        assert "is not known" in proof_told(old)["title"]
        keep_proofs(database, [again])
        assert read_proofs(database) == [old, again]
        for text in ("[{}]", "5", "[", '[{"question": 1, "rate": 2, "tried": [3], "several": []}]'):
            database.say(KEY, text)
            with pytest.raises(FileError, match="it is damaged"):
                read_proofs(database)


@pytest.mark.parametrize("hardening", [None, {"rate": 0.001, "require": {"sdc": "< 0.002"}}])
def test_the_page_tells_it_whenever_it_is_written(tmp_path, hardening):
    path = census(tmp_path, None if hardening is None else {"hardening": hardening})
    with Database(path) as database:
        assert (advise_again(tmp_path, database) is None) == (hardening is None)
        keep_proofs(database, [proofs()])
    with Database(path, readonly=True) as database:
        text, _ = page(database, str(tmp_path), advise_again(tmp_path, database))
    assert "Tried: critical: 0.001 flips for each bit" in text
    assert "0.125 (0.1 to 0.15)" in text
    assert "Several flips in one memory word, sampled: an estimate with its interval" in text
    assert "SECDED on 32 data bits" in text
    assert "Not told here: clipped" not in text
    assert ("Not told here: bypassed" in text) == (hardening is not None)
    if hardening is not None:
        kept = json.loads((tmp_path / "hardening.json").read_text())
        assert [one["name"] for one in kept["tried"]] == ["baseline", "clipped"]
        assert kept["proofs"][0]["several"][0]["flips"] == 3


def test_a_campaign_without_single_flips_tells_what_was_tried(tmp_path):
    study = {"network": "run", "questions": {"array": {"faults": [{"model": "bit_flips", "probability": 0.1}]}}}
    store = Store(tmp_path / "campaign.sqlite", study)
    store.add("array", [row(0, ())], faults={"models": []}, looks=[(1, True, "all")], total=1)
    path = store.close()
    with Database(path) as database:
        keep_proofs(database, [proofs("array", None, BYPASSED)])
        text, _ = page(database, str(tmp_path), advise_again(tmp_path, database))
    assert "Tried: array: its own faults" in text
    assert BYPASSED in text


def test_faulty_elements_taken_out_of_use():
    stuck = [
        StuckElement(element=(1, 2), bit=5, value=1, mapping=ARRAY, sites={"name": "layer.accumulator"}),
        StuckElement(element=(1, 2), bit=7, value=0, mapping=ARRAY, sites={"name": "layer.accumulator"}),
    ]
    flips = BitFlips(probability=0.1)
    found = bypassed([*stuck, flips])
    assert found == (
        BypassedElements(elements=((1, 2),), mapping=ARRAY, sites={"name": "layer.weight_quant", "kind": "weight"}),
        flips,
    )
    assert bypassed([flips]) is None
    every = StuckElement(element=(0, 0), bit=5, value=1, mapping=ARRAY).taken_out()
    assert [(select.name, select.kind) for select in every.sites] == [("*", "weight")]
    outputs = ARRAY | {"kind": "output_stationary"}
    assert bypassed([StuckElement(element=(0, 0), bit=5, value=1, mapping=outputs)]) is None


def site_of(name, bits, signed=False):
    return Site(name=name, kind="activation", bit_width=bits, signed=signed, shape=(10,))


def test_clipped_activations_among_the_candidates(tmp_path):
    ranges = [GoldenRange(site_of("a[0]", 4), 0, 9), GoldenRange(site_of("b", 3, signed=True), -4, 3)]
    (fault,) = clip_faults(ranges)  # `b` holds all that its words can
    assert fault == ClippedRange(sites={"name": "a[[]0]"}, low=0, high=9)
    study = {"hardening": {"rate": 0.001, "costs": {"compare": 3}}}
    with Database(census(tmp_path, study), readonly=True) as database:
        harm, asked, advice = advise_from(database, kept_tasks(database), None, None, ())
        assert harm == read_harm(database, kept_tasks(database)[0])
    found = flips_to_try(advice, harm, asked.costs, ranges)
    assert (found.question, found.rate) == ("critical", 0.001)
    last, both = found.others[-2:]
    assert (last.name, last.told) == ("clipped", CLIPPED)
    assert last.faults == (*found.baseline.faults, fault)
    # two ends of 4 bits; 10 words of three reads beside the 36 bits that are read
    assert (last.extra_bytes, last.energy) == (1.0, pytest.approx(30 / 36))
    assert found.others[0].measures
    # the first measure and clipped ranges together, as gains do not add up
    first = next(one for one in found.others if one.name == "measure1")
    assert (both.name, both.laws, both.measures) == ("clipped-measure1", (fault,), first.measures)
    assert both.faults == (*first.faults, fault)
    assert (both.extra_bytes, both.energy) == (first.extra_bytes + 1, pytest.approx(first.energy + 30 / 36))
    assert "clipped" not in [one.name for one in flips_to_try(advice, harm, asked.costs).others]
    # of several with room each alone, too, those with most room first
    many = [GoldenRange(site_of(f"s{i}", 4), 0, high) for i, high in enumerate([14, 3, 15, 3, 5, 6, 7, 8, 9, 10, 11])]
    alone = [one for one in flips_to_try(advice, harm, asked.costs, many).others if one.name.startswith("clipped-site")]
    assert [one.told.split()[-1] for one in alone] == ["s1", "s3", "s4", "s5", "s6", "s7", "s8", "s9"]
    assert [one.name for one in alone] == [f"clipped-site{place}" for place in range(1, MOST_SITES + 1)]
    assert alone[0].laws == (many[1].fault,)
    assert alone[0].faults == (*found.baseline.faults, many[1].fault)
    assert (alone[0].extra_bytes, alone[0].energy) == (1.0, pytest.approx(30 / 36))
