"""The page: complete in itself, whatever the names in a bundle are."""

import json
import re
from html.parser import HTMLParser

import pytest

from hwfault.errors import FileError
from hwfault.plan.listing import Hit
from hwfault.proof.check import check
from hwfault.proof.page import page, write_page
from hwfault.proof.report import Codes, Difference, ReplayReport, RunRecord, SiteRecord
from tests.helpers.proof.bundles import opened

EVIL = "<script>alert(1)</script>&\"'"


class Tags(HTMLParser):
    """The tags of a page with their attributes, its text, and whether every tag is closed."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text.replace("<wbr>", ""))  # where a name may end a line
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def evil_report():
    site = SiteRecord(
        name=EVIL, kind="weight", words=10, codes_differ=2, faults_seen=1, differ_at=(2, 0), faults_at=(0, 1)
    )
    words = (Codes(word=3, recorded_before=1, recorded_after=2, found_before=None, found_after=4),)
    faults = (Hit(process=0, word=3, bit=None, effect=EVIL),)
    first = Difference(kind="site", site=EVIL, sample=0, word=3, recorded=2, found=4, words=words, faults=faults)
    run = RunRecord(
        seed=5,
        sites=(site.model_copy(update={"first": first}),),
        predictions=4,
        predictions_differ=1,
        outputs=0,
        outputs_differ=0,
        outputs_max_difference=0,
        correct_recorded=4,
        correct_found=3,
        first=first,
    )
    return ReplayReport(
        bundle_sha256="0" * 64,
        plan_sha256=None,
        engine=EVIL,
        versions={EVIL: EVIL},
        recorded_with={"torch": EVIL},
        samples=4,
        runs=(run,),
    )


@pytest.fixture(scope="module")
def passed(whole):
    return check(opened(whole))


@pytest.mark.parametrize("kind", ["pass", "evil"])
def test_it_holds_no_script_and_loads_nothing(passed, kind):
    found = Tags(page(passed if kind == "pass" else evil_report()))
    assert found.open == []
    names = {tag for tag, _ in found.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert all(key != "src" and not key.startswith("on") for _, own in found.tags for key in own)
    # the one link leads to the content of the page itself
    assert [own for tag, own in found.tags if "href" in own] == [{"class": "skip", "href": "#main"}]
    policies = [own["content"] for tag, own in found.tags if own.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_a_phone_and_paper_show_it_whole(passed):
    text = page(passed)
    found = Tags(text)
    (view,) = [own["content"] for tag, own in found.tags if own.get("name") == "viewport"]
    assert view == "width=device-width, initial-scale=1"
    assert "@media print" in text
    assert all("style" not in own for _, own in found.tags), "one style sheet"
    # what is wide scrolls on its own, by keyboard too
    regions = [own for _, own in found.tags if own.get("class") == "wide"]
    assert len(regions) == text.count("<table") >= 3
    assert all(own["tabindex"] == "0" and own["role"] == "region" and own["aria-label"] for own in regions)
    assert text.count("<caption>") == text.count("<table")


def test_a_replay_beside_a_network_has_no_bundle(passed):
    text = Tags(page(passed.model_copy(update={"bundle_sha256": None}))).text
    assert "Replay of a graph beside its network" in text
    assert "Replay of a bundle" in Tags(page(passed)).text
    assert passed.bundle_sha256 not in text


def test_texts_that_turn_the_direction_are_tamed():
    report = evil_report().model_copy(update={"engine": "ab\u202ecd\x1b[2J"})
    assert "ab\\u202ecd\\x1b[2J" in Tags(page(report)).text


def test_what_is_special_about_words_is_told():
    report = evil_report()
    site = report.runs[0].sites[0].model_copy(update={"no_numbers": 2, "note": "its words are <wide>"})
    report = report.model_copy(update={"runs": (report.runs[0].model_copy(update={"sites": (site,)}),)})
    text = Tags(page(report)).text
    assert f"{EVIL}: 2 words held no number (NaN or infinite), which no fault strikes" in text
    assert f"{EVIL}: its words are <wide>" in text


def test_names_appear_as_text():
    text = Tags(page(evil_report())).text
    assert EVIL in text
    assert "Accuracy 100.0 % as recorded, 75.0 % as found" in text
    assert "First difference: the site" in text


def test_a_site_is_drawn_as_a_band(passed):
    found = Tags(page(passed))
    bands = [tag for tag, _ in found.tags if tag == "svg"]
    assert len(bands) == sum(len(run.sites) for run in passed.runs)
    struck = sum(bool(count) for run in passed.runs for site in run.sites for count in site.faults_at)
    colours = [own["fill"] for tag, own in found.tags if tag == "rect"]
    assert len(colours) == len(bands) + struck
    assert "#d55e00" not in colours
    assert "#d55e00" in [own["fill"] for tag, own in Tags(page(evil_report())).tags if tag == "rect"]


def test_the_bands_cover_every_word(passed):
    for run in passed.runs:
        for site in run.sites:
            words = site.words // (6 if site.kind == "activation" else 1)
            assert len(site.faults_at) == len(site.differ_at) == min(64, words)
            assert sum(site.faults_at) == site.faults_seen


def test_a_page_that_cannot_be_written(passed, tmp_path):
    write_page(tmp_path / "p.html", passed)
    assert (tmp_path / "p.html").read_text(encoding="utf-8") == page(passed)
    with pytest.raises(FileError, match="cannot be written"):
        write_page(tmp_path / "no" / "p.html", passed)


def test_a_report_goes_to_json_and_back(passed, tmp_path):
    passed.save(tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    assert data.pop("verdict") == "pass"
    assert ReplayReport.parse(data, "r") == passed


def test_the_page_names_faults_rate_network_and_data(passed):
    found = Tags(page(passed)).text
    assert passed.faults
    for fault in passed.faults:
        assert fault in found
    assert f"rate {passed.rate} network" in found
    assert re.search(r"network clean\.onnx of the bundle \(SHA-256 [0-9a-f]{64}\)", found)
    assert re.search(r"data 6 samples in inputs\.safetensors of the bundle \(SHA-256 [0-9a-f]{64}\)", found)


def test_hostile_faults_network_and_data_are_text():
    report = evil_report().model_copy(update={"faults": (EVIL,), "rate": EVIL, "network": EVIL, "data": EVIL})
    assert f"fault 0 {EVIL} rate {EVIL} network {EVIL} data {EVIL}" in Tags(page(report)).text


def test_notes_of_the_plan_are_on_the_page():
    report = ReplayReport(
        bundle_sha256="0", plan_sha256="1", engine="e", versions={}, recorded_with={}, samples=1, runs=(), notes=(EVIL,)
    )
    tags = Tags(page(report))
    assert f"Note on the faults: {EVIL}" in "".join(tags.words)
    assert json.loads(report.model_dump_json())["notes"] == [EVIL]
