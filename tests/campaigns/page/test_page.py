"""The page of a campaign: made from the store alone, whole in itself, and with nothing that a browser would obey."""

import re

import pytest

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.page.page import page, write_page
from tests.helpers.campaigns.stores import VERSIONS, Store, row
from tests.proof.test_page import Tags

EVIL = "<script>alert(1)</script>&\"'"
SITES = [["first", 2, 2], [EVIL, 4, 1]]  # 4 bits and 4
STOPPED = "20 trials, as many as were allowed"


def curve(store, ber, wrong):
    rows = [row(seed, wrong if seed % 2 else (), faults=seed) for seed in range(20)]
    looks = [(20, True, STOPPED)]
    faults = {"models": [{"probability": ber}]}
    store.add("curve", rows, faults=faults, labels={"ber": ber}, looks=looks, label=f"curve ber={ber}")


def write_store(folder):
    """A sweep, a census, drawn pairs with failed trials, a task that was never looked at."""
    questions = {
        "curve": {"sweep": {"ber": [0.001, 0.1]}},
        "census": {"flips": "single"},
        "pairs": {"flips": "single", "exhaustive": "never"},
        "late": {"flips": 2},
    }
    store = Store(folder / FILE, {"network": EVIL, "questions": questions})
    curve(store, 0.001, ())
    curve(store, 0.1, (1, 2, 7))
    flips = {"flips": "single", "sites": SITES}
    census = [row(cell, range(cell), faults=1) for cell in range(8)]
    looks = [(8, True, "exact, all 8")]
    store.add("census", census, faults=flips | {"trials": "all"}, draw="all", total=8, looks=looks)
    pairs = [row(key, (0,) if key < 5 else (), 1, faults=1) for key in range(40)]
    pairs[39] = pairs[39]._replace(answers=None, failed=EVIL)
    looks = [(20, False, "not yet"), (40, True, STOPPED)]
    store.add("pairs", pairs, faults=flips | {"trials": "pairs"}, draw="pairs", total=8, looks=looks, samples=1)
    store.add("late", [], faults={"flips": 2, "sites": SITES, "trials": "seeds"})
    source = {"key": "k", "citation": EVIL, "status": "verified", "measured": True}
    profile = {"name": "bram", "title": EVIL, "digest": "c" * 64, "sources": [source]}
    about = {"engine": "torch", "version": "2.0", "exact": False, "note": EVIL, "profiles": [profile]}
    run = {"started": "2026-01-02T03:04:05+00:00", "command": f"hwfault campaign run '{EVIL}'", "versions": VERSIONS}
    store.close(about=about, runs=[run])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def text(folder):
    with Database(folder / FILE, readonly=True) as database:
        return page(database, "my folder")[0]


@pytest.fixture(scope="module")
def tags(text):
    Tags.VOID = ("meta", "img")
    return Tags(text)


def test_every_question_has_its_sentence(tags):
    said = re.split(r"Numbers Every|Curves Whiskers", tags.text)[0]
    assert "curve Silent wrong answers go from 0 % (0 % to" in said
    assert ") at ber 0.001 to 15 % (" in said
    assert "the accuracy from 100 % to 85 % (golden run 100 %)" in said
    assert "census 35 % of answers are silently wrong, exactly, under each of 8 single flips on 10 images" in said
    assert "(exact, all 8)" in said
    assert "pairs 12.8 % (" in said, "5 of 39"
    assert "95 % interval; these images, new fault seeds" in said
    assert "Not looked at yet: late." in said


def test_no_interval_looks_like_certainty(tags):
    assert "±" not in tags.text
    for low, high in re.findall(r"\(([0-9.e-]+ %?) to ([0-9.e-]+ %?)\)", tags.text):
        assert low != high


def test_the_heat_map_of_a_census_is_exact(tags):
    # the cells 0 to 3 are first[word 0: bit 0, bit 1], first[word 1: bit 0, bit 1]; each is wrong on its number of ten
    assert "site bit 1 bit 0 first 20 % 10 %" in tags.text
    assert f"{EVIL} - 55 %" in tags.text
    assert f"1 {EVIL} 4 55 % (exact, all 40) - 2 first 4 15 % (exact, all 40) -" in tags.text


def test_where_nothing_was_seen_there_is_a_bound(tags):
    found = [own for tag, own in tags.tags if tag == "td" and own.get("class") == "unseen"]
    assert all("at most" in own["title"] for own in found)


def test_failed_and_empty_trials_are_told(tags):
    assert f"pairs: 1 trial (keys 39): {EVIL}" in tags.text
    assert "curve ber=0.001: 1 of 20" in tags.text, "seed 0 has no fault"
    assert "looks made after 20, 40 trials" in tags.text


def test_commands_are_quoted_for_a_shell(tags):
    assert "hwfault campaign explain 'my folder' 'curve ber=0.1' 1 1" in tags.text
    assert "hwfault campaign explain 'my folder' census 7 0" in tags.text
    assert f"hwfault campaign run '{EVIL}'" in tags.text


def test_engine_digests_sources_and_date_are_there(tags):
    for part in ("torch 2.0", "a" * 64, "b" * 64, "c" * 64, "2026-01-02T03:04:05+00:00", "hwfault 0.5.0", EVIL):
        assert part in tags.text


def test_several_faults_are_told(tags):
    # 8 bits at 0.1: 1 - 0.9^8 - 8 * 0.1 * 0.9^7 = 0.18690
    assert "At the rate 0.1, two or more faults have probability 18.7 %: above 5 %" in tags.text
    assert "At the rate 0.001, two or more faults have probability 0.00279 %." in tags.text


def test_it_holds_no_script_and_loads_nothing(tags):
    assert tags.open == []
    assert {tag for tag, _ in tags.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for _, own in tags.tags:
        assert not any(key.startswith("on") for key in own)
        assert own.get("href", "#").startswith("#")
        assert own.get("src", "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
    (policy,) = [own["content"] for _, own in tags.tags if own.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_it_is_reached_by_keyboard_and_read_aloud(tags):
    ids = {own["id"] for _, own in tags.tags if "id" in own}
    links = [own["href"][1:] for tag, own in tags.tags if tag == "a"]
    assert links[0] == "main"
    assert set(links) <= ids
    assert all(own["alt"] for tag, own in tags.tags if tag == "img")
    wide = [own for _, own in tags.tags if own.get("class") in ("wide", "command")]
    assert wide
    assert all(own["tabindex"] == "0" and own["role"] == "region" and own["aria-label"] for own in wide)
    assert [tag for tag, _ in tags.tags].count("table") == [tag for tag, _ in tags.tags].count("caption")


def test_hardening_has_its_place_only_when_given(folder, text):
    assert "Hardening" not in text
    with Database(folder / FILE, readonly=True) as database:
        assert '<section id="hardening">' in page(database, "f", hardening={})[0]


def test_files_of_the_page(folder, tmp_path, text):
    with Database(folder / FILE, readonly=True) as database:
        names = write_page(tmp_path, database)
        again, _ = page(database, "my folder")
    assert again == text, "the page depends on the store alone"
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    pictures = {"accuracy-ber", "sdc-ber", "heatmap-census", "heatmap-pairs"}
    assert set(names) == {"report.html", *(f"{name}{kind}" for name in pictures for kind in (".svg", ".png"))}
