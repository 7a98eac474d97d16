"""The counts of docs/exactness.md, in small; whole in the slow set."""

import csv
from pathlib import Path

import pytest

from tests.experiments.integer import differing, main, network

TABLE = Path(__file__).parents[1] / "docs" / "exactness.csv"


@pytest.mark.parametrize(("bits", "trained"), [(4, True), (8, False)])
def test_no_integer_differs(bits, trained):
    counted, differ, logits = differing(network("tiny_cnn", bits, trained, steps=4), "integer", 10**6)
    assert counted >= 10**6
    assert (differ, logits) == (0, 0)


@pytest.mark.slow
def test_none_of_a_hundred_million(tmp_path):
    main(10**8, tmp_path / "counts.csv")
    with (tmp_path / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    exact = [row for row in rows if row["arithmetic"] == "integer"]
    assert sum(int(row["integers"]) for row in exact) >= 10**8
    assert {(row["differ"], row["logits differ"]) for row in exact} == {("0", "0")}
    assert len(exact) == len(rows) / 2 == 16


def test_the_page_tells_what_the_table_says():
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    page = (TABLE.parent / "exactness.md").read_text(encoding="utf-8")
    for arithmetic in ("float", "integer"):
        of_it = [row for row in rows if row["arithmetic"] == arithmetic]
        total, differ = (sum(int(row[key]) for row in of_it) for key in ("integers", "differ"))
        assert f"| all | {arithmetic} | {total:,} | {differ:,} |" in page
