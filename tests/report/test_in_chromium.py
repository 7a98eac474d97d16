"""Pages in a browser: nothing in the console, nothing cut on a phone or on paper, all of it reached by keyboard."""

import re
import shutil
import subprocess
from statistics import median

import pytest

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.page.page import write_page
from hwfault.proof.page import write_page as write_replay_page
from tests.helpers.campaigns.whole import write_store
from tests.helpers.report.browser import MISSING, REASON, Browser, driver
from tests.helpers.report.reports import long_report

pytestmark = pytest.mark.skipif(bool(MISSING), reason=REASON)
KINDS = ("campaign", "replay")
TAB = "\ue004"

OUTSIDE = """
const cut = [];
for (const e of document.querySelectorAll('body *')) {
  const box = e.getBoundingClientRect();
  if (e.closest('.wide') && !e.matches('.wide') || e.closest('.skip')) continue;
  if (box.right > innerWidth + 1 || box.left < -1) cut.push(e.tagName + ' ' + e.textContent.slice(0, 40));
}
return cut;
"""
UNREACHED = """
return [...document.querySelectorAll('*')].filter(
  e => e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
       && e.tabIndex < 0 && e !== document.documentElement).map(e => e.outerHTML.slice(0, 60));
"""
HIDDEN = """
return [...document.querySelectorAll('*')].filter(
  e => e.scrollWidth > e.clientWidth + 1 && ['hidden', 'clip'].includes(getComputedStyle(e).overflowX)
).map(e => e.outerHTML.slice(0, 60));
"""
CUT = """
return [...document.querySelectorAll('.wide')].filter(
  e => e.querySelector('.stack') && e.scrollWidth > e.clientWidth + 1
).map(e => e.getAttribute('aria-label'));
"""
FOCUS = "return document.activeElement.className || document.activeElement.tagName"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_store(folder)
    with Database(folder / FILE, readonly=True) as database:
        write_page(folder, database)
    write_replay_page(folder / "replay.html", long_report())
    return {"campaign": folder / "report.html", "replay": folder / "replay.html"}


@pytest.fixture(scope="module")
def port():
    with driver() as found:
        yield found


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(400, id="phone"),
        pytest.param(768, id="tablet", marks=pytest.mark.slow),
        pytest.param(1024, id="tablet on its side", marks=pytest.mark.slow),
        pytest.param(1200, id="screen", marks=pytest.mark.slow),
    ],
)
def browser(request, port):
    opened = Browser(port, request.param)
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_and_the_console_is_empty(browser, pages, kind):
    browser.open(pages[kind])
    assert browser.console() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(OUTSIDE) == []
    assert browser.run(HIDDEN) == []
    assert browser.run(UNREACHED) == []
    assert browser.run(CUT) == [], "columns that only scrolling shows"
    assert browser.run("return [...document.images].every(image => image.naturalWidth > 0)")


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_key_leads_past_the_links(browser, pages, kind):
    browser.open(pages[kind])
    browser.run("window.focus()")
    browser.press(TAB)
    if browser.run(FOCUS) == "BODY":  # a window that has just opened takes the first key for itself
        browser.press(TAB)
    assert browser.run(FOCUS) == "skip"
    assert browser.run("return document.activeElement.getBoundingClientRect().left >= 0")


@pytest.mark.parametrize(
    ("width", "height"),
    [pytest.param(21.0, 29.7, id="A4"), pytest.param(21.59, 27.94, id="Letter", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_paper_holds_every_word(browser, pages, kind, width, height, tmp_path):
    """No word runs over the edge of a sheet, and none was shrunk for it."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed (Debian's package poppler-utils)")
    browser.open(pages[kind])
    browser.print(tmp_path / "page.pdf", width, height)
    command = ["pdftotext", "-bbox", str(tmp_path / "page.pdf"), str(tmp_path / "words.html")]
    subprocess.run(command, check=True, timeout=60)
    sheets, over, heights = words_of((tmp_path / "words.html").read_text())
    assert sheets >= 1
    assert over == []
    # a browser shrinks what is too wide: text of 9.5 points, in lines of 11, would come out smaller
    assert median(heights) > 0.95 * 11


def words_of(text):
    """How many sheets there are, the words that reach beyond theirs, and the heights of all words in points."""
    sheets, over, heights, width = 0, [], [], 0.0
    for line in text.splitlines():
        page = re.search(r'<page width="([0-9.]+)"', line)
        word = re.search(r'<word xMin="(.+)" yMin="(.+)" xMax="(.+)" yMax="(.+)">(.*)</word>', line)
        if page:
            sheets += 1
            width = float(page[1])
        elif word:
            left, top, right, bottom = map(float, word.groups()[:4])
            heights.append(bottom - top)
            if left < 0 or right > width:
                over.append(word[5])
    return sheets, over, heights
