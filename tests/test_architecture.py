"""The page on the house names every room, and the files that its recipes send one to exist."""

import re
from pathlib import Path

import pytest

from tests.test_rooms import ROOMS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = re.findall(r"`((?:hwfault|tests|export|stream|graph|docs)/[\w/.]+?\.(?:py|cc|md|json))`", PAGE + CONTRIBUTING)


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "__main__"])
def test_every_room_is_named(room):
    table = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert any(re.search(rf"`{re.escape(room)}/?`", line.split("|")[1]) for line in table)


@pytest.mark.parametrize("file", sorted({file for file in FILES if "NAME" not in file}))
def test_the_files_of_the_recipes_exist(file):
    places = [ROOT / file, ROOT / "hwfault" / file]
    assert any(place.is_file() for place in places)


def test_there_are_files_in_the_recipes():
    assert len(set(FILES)) >= 10


def test_the_commands_are_those_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)`", CONTRIBUTING):
        assert f"\n{target}:" in makefile, target
