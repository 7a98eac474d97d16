"""The page on parity names tests that exist, for each of its rows."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "parity.md"
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]


def test_the_page_has_its_rows():
    assert len(ROWS) == 21


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_the_tests_of_a_row_exist(row):
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row.rpartition(" | ")[2])
    assert named
    for file, test in named:
        assert f"\ndef {test}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{test}"
