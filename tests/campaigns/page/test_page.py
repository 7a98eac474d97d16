"""The page of a campaign: made from the store alone, whole in itself, and with nothing that a browser would obey."""

import re

import pytest

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.page.page import page, write_page
from tests.helpers.campaigns.whole import EVIL, STOPPED, write_store
from tests.proof.test_page import Tags

PICTURE = re.compile(r"base64,([A-Za-z0-9+/=]+)")


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
    # seven looks (20, 40, ..., 640, 1000) share 5 %; of 20 trials none had any: Clopper and Pearson's bound
    bound = 1 - (0.05 / 7) ** (1 / 20)
    ends = f"go from none seen (at most {100 * bound:.3g} %) at ber 0.001 to 15 % ("
    assert f"curve: Silent wrong answers {ends}" in said
    assert "the accuracy goes from 100 % to 85 %, against 100 % in the golden run" in said
    assert "census: 35 % of answers are silently wrong, exactly, under each of 8 single flips on 10 images" in said
    assert "(exact, all 8)" in said
    assert "pairs: 12.8 % (" in said, "5 of 39"
    assert "95 % interval; these images, new fault seeds" in said
    assert "Not looked at yet: late." in said


def test_first_turns_are_told_apart_from_sdc(tags):
    said = re.split(r"Numbers Every", tags.text)[0]
    assert "turning: Answers have turned: 5 % (" in said
    assert "by ber=0.1, in 20 trials on 10 images" in said
    assert "These are first turns, no rates of SDC. Of 20 answers that ran at all points" in said
    assert "10 turned, and 2 turned back later: 10 % (" in said
    assert "the points were run one by one, and their rates are what counts" in said
    assert "ber=0.1 15 % (" in tags.text
    assert "image 1: turned under 100 % of seeds by the last point" in tags.text
    assert "turning first turn: 0 of 20" in tags.text, "trials in which no fault fell"


def test_no_interval_looks_like_certainty(tags):
    assert "±" not in tags.text
    for low, high in re.findall(r"\(([0-9.e-]+ %) to ([0-9.e-]+ %)\)", tags.text):
        assert low != high
    assert re.findall(r"\([0-9.e-]+ to", tags.text) == [], "a number without its unit"


def test_the_heat_map_of_a_census_is_exact(tags):
    # the cells 0 to 3 are first[word 0: bit 0, bit 1], first[word 1: bit 0, bit 1]; each is wrong on its number of ten
    assert "site bit 1 bit 0 first 20 % 10 %" in tags.text
    assert f"{EVIL} - 55 %" in tags.text
    assert f"1 {EVIL} 4 55 % (exact) - 2 first 4 15 % (exact) -" in tags.text


def test_where_nothing_was_seen_there_is_a_bound(tags):
    found = [own for tag, own in tags.tags if tag == "td" and own.get("class") == "unseen"]
    assert all("at most" in own["title"] for own in found)


def test_failed_and_empty_trials_are_told(tags):
    assert f"pairs: 1 trial (keys 39): {EVIL}" in tags.text
    assert "curve ber=0.001: 1 of 20" in tags.text, "seed 0 has no fault"
    assert f"pairs 20, 40 trials {STOPPED} stops when" in tags.text


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


def test_files_of_the_page(folder, tmp_path, text):
    with Database(folder / FILE, readonly=True) as database:
        names = write_page(tmp_path, database, hardening={})
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    pictures = {"accuracy-ber", "sdc-ber", "turned-ber", "heatmap-census", "heatmap-pairs"}
    assert set(names) == {"report.html", *(f"{name}{kind}" for name in pictures for kind in (".svg", ".png"))}
    written = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert PICTURE.findall(written) == PICTURE.findall(text), "the same store gives the same bytes"
    # hardening has its place only when given
    assert '<section id="hardening">' in written
    assert "hardening" not in text
