"""Pages: templates are filled in, and nothing of the data is more than text."""

from pathlib import Path

import jinja2
import pytest

import hwfault
from hwfault.report import colours, pages


@pytest.fixture
def template(tmp_path, monkeypatch):
    """Writes a template, and answers with what becomes of it."""
    monkeypatch.setattr(pages, "TEMPLATES", tmp_path)

    def rendered(source, /, **data):
        (tmp_path / "t.txt").write_text(source)
        return pages.render("t.txt", **data)

    return rendered


@pytest.mark.parametrize("evil", ["<script>", "a & b", '"quoted"', "it's"])
def test_texts_are_escaped_whatever_the_template_is_called(template, evil):
    found = template("<p title='{{ text }}'>{{ text }}</p>", text=evil)
    assert found.count("<") == found.count(">") == 2
    assert found.count("'") == 2
    assert '"' not in found


def test_the_direction_of_writing_stays(template):
    assert template("{{ text }}", text="a\u202eb\u2066c\x00") == "a\\u202eb\\u2066c\\x00"


def test_markup_of_templates_stays(template):
    assert template("{% macro bold(x) %}<b>{{ x }}</b>{% endmacro %}{{ bold(text) }}", text="<i>") == "<b>&lt;i&gt;</b>"


def test_numbers_and_colours(template):
    assert template("{{ 1234567 | number }} {{ colours.BLUE }}") == f"1,234,567 {colours.BLUE}"


def test_what_the_data_do_not_have_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError, match="'absent' is undefined"):
        template("{{ absent }}")


def test_pages_and_pictures_have_their_colours_from_one_place():
    package = Path(hwfault.__file__).parent
    holding = [
        p.name for p in package.rglob("*") if p.suffix in (".py", ".html", ".css") and colours.BLUE in p.read_text()
    ]
    assert holding == ["colours.py"]


def test_the_templates_lie_in_the_package():
    """What a wheel takes along: every file of the package that git does not ignore."""
    names = {
        "base.html",
        "campaign.html",
        "comparison.html",
        "hardening.html",
        "macros.html",
        "replay.html",
        "style.css",
    }
    assert {path.name for path in pages.TEMPLATES.iterdir()} == names
    assert Path(hwfault.__file__).parent in pages.TEMPLATES.parents
