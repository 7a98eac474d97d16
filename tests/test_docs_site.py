"""The documentation site has every page, public name and command; `make docs` builds it with warnings as errors."""

import importlib.util
from pathlib import Path

import pytest
import yaml

import hwfault
from tests.cli.test_kindness import LEAVES

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
spec = importlib.util.spec_from_file_location("pages", SITE / "pages.py")
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)


def listed(nav):
    """The files of a navigation."""
    for entry in nav:
        (value,) = entry.values()
        yield from listed(value) if isinstance(value, list) else [value]


NAV = set(listed(yaml.safe_load((SITE / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))


def test_every_page_can_be_found():
    made = {"reference/python.md", "reference/commands.md", "reference/profiles.md"}
    assert NAV - made == {str(path.relative_to(ROOT)) for path in pages._sources() if path.suffix == ".md"}


def test_every_public_name():
    text = pages.python_page()
    for name in hwfault.__all__:
        assert f"::: {hwfault._PUBLIC[name]}.{name}\n" in text


def test_every_command_with_its_example():
    text = pages.commands_page()
    for words, command in LEAVES.items():
        assert f"\n## hwfault {' '.join(words)}\n" in text
        for example in command.examples:
            assert f"  hwfault {example}\n" in text


@pytest.mark.slow
def test_every_profile_with_its_sources(tmp_path):
    text = pages.profiles_page(tmp_path)
    for name in pages.library():
        assert f"\n## {name}\n" in text
        for source in pages.Profile.load(name).sources:
            assert source.citation in text
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures
    assert all(f"]({name})" in text for name in pictures)
