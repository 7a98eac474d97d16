"""Advice on a census written by hand, whose answer is known."""

import json

import numpy as np
import pytest

from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.advice import advise
from hwfault.campaigns.hardening.faults import faults_of, write_faults
from hwfault.campaigns.hardening.harm import read_harm
from hwfault.campaigns.hardening.limits import limits_of
from hwfault.campaigns.hardening.measures import measures_of
from hwfault.campaigns.hardening.written import advise_from, write_advice
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.report_table import table, to_data
from hwfault.campaigns.statistics.proportions import estimate_rate, sequence_at_most
from hwfault.campaigns.study.hardening import Hardening
from hwfault.campaigns.study.space import FaultSpace, draw_pair
from hwfault.errors import HwfaultError, ModelError
from hwfault.laws.models import BitFlips, load_faults
from tests.helpers.campaigns.stores import Store, row

SITES = [["first", 4, 3], ["second", 8, 2], ["third", 2, 4]]  # 12, 16 and 8 bits
BITS = 36
SAMPLES = 10
STUDY = {"network": "run", "questions": {"critical": {"flips": "single", "sites": {"kind": "weight"}}}}


def census(tmp_path, study=None, left_out=()):
    """Wrong answers: 5 samples for the top bits of `first`, 2 for all bits of `third`, none in `second`."""
    store = Store(tmp_path / "campaign.sqlite", STUDY | (study or {}))
    rows = []
    for cell in range(BITS):
        wrong = ()
        if cell < 12 and cell % 3 == 2:
            wrong = range(5)
        if cell >= 28:
            wrong = range(2)
        if cell not in left_out:
            rows.append(row(cell, wrong))
    faults = {"flips": "single", "sites": SITES, "trials": "all"}
    store.add("critical", rows, faults=faults, draw="all", total=BITS, looks=[(BITS, True, "exact, all 36")])
    return store.close()


def sequence(events, confidence):
    return estimate_rate(events, 400, confidence, sequential=True).ends


def most_wrong(harm, asked):
    return limits_of(harm, asked, asked.rate).wrong


def harm_in(path):
    with Database(path, readonly=True) as database:
        return read_harm(database, kept_tasks(database)[0])


def test_harm_by_site_and_bit(tmp_path):
    harm = harm_in(census(tmp_path))
    assert [site.wrong for site in harm.sites] == [(0, 0, 20), (0, 0), (4, 4, 4, 4)]
    assert [site.lost for site in harm.sites] == [(0, 0, 20), (0, 0), (4, 4, 4, 4)]
    assert [site.tried for site in harm.sites] == [(40,) * 3, (80,) * 2, (20,) * 4]
    assert (harm.bits, harm.tried, harm.wrong, harm.whole) == (BITS, BITS * SAMPLES, 36, True)


def test_known_advice(tmp_path):
    harm = harm_in(census(tmp_path))
    # one flip: 36 of 360 are wrong; below 0.05 means at most 17
    asked = Hardening.parse({"require": {"sdc": "< 0.05", "due": "< 0.001"}}, "hardening")
    advice = advise(harm, asked)
    assert advice.baseline.sdc.value == 0.1
    assert advice.baseline.sdc.ends is None
    assert most_wrong(harm, asked) == 17
    # the top bit of `first` leaves 16, for 4 bits of memory; SECDED would take 8
    told = [(one.site, one.name) for one in advice.best.measures if one.kind != "none"]
    assert told == [("first", "hardened top bit")]
    assert (advice.price, advice.bound) == (4, 4)
    assert advice.best.sdc.value == pytest.approx(16 / 360)
    assert advice.best.memory == pytest.approx(40 / 36)
    # with parity allowed one bit is enough
    cheap = advise(harm, Hardening.parse({"require": {"sdc": "< 0.05"}}, "hardening"))
    assert [one.name for one in cheap.best.measures if one.kind != "none"] == ["parity on 32 data bits"]
    # 13 bits are struck for each 12 of the site, on all samples
    assert cheap.best.due == pytest.approx(13 * SAMPLES / 360)
    assert {one.extra_bits for one in cheap.front} == {0, 1, 2}


def test_at_a_rate(tmp_path):
    harm = harm_in(census(tmp_path))
    advice = advise(harm, Hardening.parse({"rate": 0.001, "require": {"sdc": "< 0.0036"}}, "hardening"))
    # 0.001 x 36 bits x 0.1; the limit itself is not below the limit
    assert advice.baseline.expected_sdc == pytest.approx(0.0036)
    assert most_wrong(harm, Hardening.parse({"rate": 0.001, "require": {"sdc": "< 0.0036"}}, "h")) == 35
    assert advice.several == pytest.approx(1 - 0.999**36 - 36 * 0.001 * 0.999**35)
    assert not any("above 5 %" in note for note in advice.notes)
    many = advise(harm, Hardening(rate=0.02))
    assert any("above 5 %" in note for note in many.notes)
    assert many.best is None
    assert "nothing is required" in many.why


def test_measures_are_told_by_what_a_bit_of_memory_removes(tmp_path):
    advice = advise(harm_in(census(tmp_path)), Hardening())
    per_bit = [one.removed_per_bit for one in advice.worth]
    assert per_bit == sorted(per_bit, reverse=True)
    secded = next(one for one in advice.worth if (one.site, one.measure) == ("third", "SECDED on 32 data bits"))
    assert secded.removed == pytest.approx(16 / 360)
    assert secded.regained == pytest.approx(16 / 360)
    assert secded.share_removed == pytest.approx(16 / 36)
    parity = next(one for one in advice.worth if (one.site, one.measure) == ("third", "parity on 32 data bits"))
    assert parity.regained == 0
    assert parity.due == pytest.approx(9 * SAMPLES / 360)


def test_what_cannot_be_met(tmp_path):
    harm = harm_in(census(tmp_path))
    bad = Hardening.parse({"require": {"sdc": "< 1e-9", "due": "< 1e-9"}, "costs": {"hardened_bit": 2}}, "hardening")
    assert advise(harm, bad).best.sdc.value == 0
    with pytest.raises(ModelError, match="asks for more"):
        Hardening.parse({"require": {"sdc": "> 0.1"}}, "hardening")


def test_drawn_pairs_are_held_to_their_bound(tmp_path):
    store = Store(tmp_path / "campaign.sqlite", STUDY)
    rows = []
    for key in range(400):
        answers = np.zeros((3, 1), bool)
        answers[1] = key < 3
        rows.append(row(key, (), samples=1)._replace(answers=answers))
    faults = {"flips": "single", "sites": SITES, "trials": "pairs"}
    store.add("critical", rows, faults=faults, draw="pairs", total=BITS, looks=[(400, True, "x")], samples=1)
    right = [key % 2 for key in range(SAMPLES)]
    harm = harm_in(store.close(labels={"classes": 2, "labels": [0] * SAMPLES, "right": right}))
    assert (harm.tried, harm.wrong, harm.whole) == (400, 3, False)
    assert harm.rate([3, 0, 0]).by == "sequence"
    # no answer of these rows is right, so that each on a sample of which the golden run's is right costs one
    drawn = FaultSpace((), (12, 28, 36))
    spoiled = sum(right[draw_pair(drawn, SAMPLES, key)[1]] for key in range(400))
    assert sum(sum(site.lost) for site in harm.sites) == spoiled
    low, high = harm.lost_ends()
    assert low < spoiled / 400 < high == pytest.approx(sequence(spoiled, 0.975)[1] - sequence(0, 0.975)[0])
    for limit, told in ((0.9, "holds without any measure"), (0.05, "proven"), (1e-4, "too few")):
        assert told in advise(harm, Hardening.parse({"require": {"accuracy_lost": f"< {limit}"}}, "hardening")).why
    for limit, most in ((0.05, 3), (0.015, None), (0.001, -1)):
        found = most_wrong(harm, Hardening.parse({"require": {"sdc": f"< {limit}"}}, "hardening"))
        if most is not None:
            assert found == most
        elif found >= 0:
            assert sequence_at_most(found, 400, 0.95) < limit <= sequence_at_most(found + 1, 400, 0.95)
    advice = advise(harm, Hardening.parse({"require": {"sdc": "< 1e-4"}}, "hardening"))
    assert advice.best is None
    assert "too few" in advice.why


def test_faults_of_a_plan(tmp_path):
    harm = harm_in(census(tmp_path))
    every = [{one.name: one for one in measures_of(site, Hardening().costs)} for site in harm.sites]
    plan = [every[0]["hardened top bit"], every[1]["none"], every[2]["SECDED on 32 data bits"]]
    faults = faults_of(plan, {site.name: site.width for site in harm.sites}, 1e-3)
    write_faults(tmp_path / "hardening.yaml", faults, ["two\nlines"])
    read = load_faults(tmp_path / "hardening.yaml")
    assert read == faults
    assert read[0] == BitFlips(probability=1e-3, sites={"name": "second"})
    assert read[1] == BitFlips(probability=(1e-3, 1e-3, 0), sites={"name": "first"})
    assert (read[2].protection.kind, read[2].protection.data_bits) == ("secded", 32)
    assert (tmp_path / "hardening.yaml").read_text().startswith("# two\n# lines\nfaults:")


def test_files_of_the_advice(tmp_path):
    path = census(tmp_path, {"hardening": {"rate": 0.001, "require": {"sdc": "< 0.002"}}})
    with Database(path, readonly=True) as database:
        tasks = kept_tasks(database)
        harm, asked, advice = advise_from(database, tasks, None, None, ())
        names = write_advice(tmp_path, database, (harm, asked, advice))
        assert asked.rate == 0.001
        _, other, _ = advise_from(database, tasks, "critical", 1e-4, ["sdc < 1e-3", "due<0.5"])
        assert (other.rate, other.require) == (1e-4, {"sdc": "< 1e-3", "due": "< 0.5"})
        for arguments, words in ((("critcal", None, ()), "did you mean"), ((None, None, ["sdc > 1"]), "expected 'sdc")):
            with pytest.raises(HwfaultError, match=words):
                advise_from(database, tasks, *arguments)
    assert all((tmp_path / name).stat().st_size for name in names)
    assert {"hardening.json", "hardening.yaml", "hardening.svg", "hardening.png", "report.html"} == set(names)
    kept = json.loads((tmp_path / "hardening.json").read_text())
    assert kept["best"]["measures"] == [
        {"site": one.site, "measure": one.name, "gain": "read from single flips"}
        for one in advice.best.measures
        if one.size
    ]
    page = (tmp_path / "report.html").read_text()
    assert "The cheapest plan" in page
    assert "bypassed elements" in page


def test_a_census_half_done(tmp_path):
    path = census(tmp_path, left_out=(7,))
    with pytest.raises(HwfaultError, match="half done"):
        harm_in(path)


def test_the_worst_trial_is_called_by_what_its_number_is(tmp_path):
    with Database(census(tmp_path), readonly=True) as database:
        (task,) = kept_tasks(database)
        figure = task.figure(database)
    columns, (line,) = table([figure])
    assert line[columns.index("worst")] == "50.00% (flip 2)"
    assert to_data(figure)["worst"] == {"flip": 2, "sdc": 0.5}
