"""Heat maps and rankings of single flips, against sums made cell by cell and intervals of scipy."""

import numpy as np
import pytest
from scipy.stats import binom

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.figures import Trials
from hwfault.campaigns.page.cells import (
    KeptSpace,
    flips_of,
    heat_map,
    rank_sites,
    rate_of_several,
    several_faults,
)
from hwfault.campaigns.page.curves import level_of
from hwfault.campaigns.page.page import page
from hwfault.campaigns.statistics.proportions import sequence_ends
from hwfault.campaigns.study.space import FaultSpace, draw_pair
from hwfault.errors import FileError
from tests.helpers.campaigns.stores import Store

SITES = [["a", 3, 4], ["b", 5, 2], ["c", 1, 8]]
IDENTITY = {"faults": {"sites": SITES}}


@pytest.fixture
def space():
    return KeptSpace.of(IDENTITY, "a store")


def seen(keys, wrong):
    keys = np.array(keys, np.uint64)
    return Trials(keys, wrong, np.zeros_like(wrong), None, 0, None)


def test_places_are_those_of_the_cells_by_counting(space):
    counted = [(site, word, bit) for site, (_, n, b) in enumerate(SITES) for word in range(n) for bit in range(b)]
    found = np.stack(space.places(np.arange(space.size)), 1)
    assert [tuple(row) for row in found.tolist()] == counted
    assert space.bits == [12, 10, 8]


def test_a_census_is_counted_cell_by_cell(space):
    wrong = np.random.default_rng(3).random((30, 7)) < 0.2
    found = heat_map(flips_of(space, "all", seen(range(30), wrong), 7), 0.95)
    assert found.bits == tuple(range(7, -1, -1))
    for site, (_, words, width) in enumerate(SITES):
        begin = sum(n * b for _, n, b in SITES[:site])
        for column, bit in enumerate(found.bits):
            cell = found.cells[site][column]
            if bit >= width:
                assert cell is None
                continue
            own = [begin + word * width + bit for word in range(words)]
            assert cell.value == pytest.approx(wrong[own].mean())
            assert cell.ends is None


def test_drawn_pairs_have_simultaneous_bounds(space):
    keys = range(300)
    wrong = np.zeros((300, 1), bool)
    wrong[:40] = True
    flips = flips_of(space, "pairs", seen(keys, wrong), 10)
    found = heat_map(flips, 0.95)
    trials = np.zeros((3, 8), int)
    events = np.zeros((3, 8), int)
    drawing = FaultSpace((), space.ends)
    for key in keys:
        cell, _ = draw_pair(drawing, 10, key)
        site = 0 if cell < 12 else 1 if cell < 22 else 2
        bit = (cell - (0, 12, 22)[site]) % SITES[site][2]
        trials[site, bit] += 1
        events[site, bit] += key < 40
    each = 1 - 0.05 / (4 + 2 + 8)
    for site in range(3):
        for column, bit in enumerate(found.bits):
            if not trials[site, bit]:
                assert found.cells[site][column] is None
                continue
            low, high = sequence_ends(events[site, bit], trials[site, bit], each)
            assert found.cells[site][column].ends == pytest.approx((float(low), float(high)))


def test_sites_with_the_same_rate_are_tied(space):
    wrong = np.zeros((30, 4), bool)
    wrong[22:] = True
    ranked, missed = rank_sites(flips_of(space, "all", seen(range(30), wrong), 4), 0.95)
    assert [(one.name, one.place.first, one.place.last, one.tied) for one in ranked] == [
        ("c", 1, 1, ()),
        ("a", 2, 3, ("b",)),
        ("b", 2, 3, ("a",)),
    ]
    assert missed == []


def test_a_site_without_trials_is_named(space):
    ranked, missed = rank_sites(flips_of(space, "all", seen(range(12), np.zeros((12, 4), bool)), 4), 0.95)
    assert [one.name for one in ranked] == ["a"]
    assert missed == ["b", "c"]


def test_a_cut_census_ranks_with_what_was_not_tried_at_its_best_and_worst(space):
    whole, *_ = np.diff([0, *space.ends]).tolist()
    tried = whole - 2
    wrong = np.zeros((tried, 4), bool)
    wrong[0] = True
    ranked, missed = rank_sites(flips_of(space, "all", seen(range(tried), wrong), 4), 0.95)
    (first,) = ranked
    assert first.rate.value == 1 / tried
    assert first.rate.ends == pytest.approx((1 / whole, 3 / whole))
    assert (first.rate.by, first.rate.covers) == ("bound", f"{tried} of {whole} flips tried")
    # no site but the first was tried: any may be worse
    assert (first.place.first, first.place.last) == (1, len(space.names))
    assert first.tied == tuple(missed) == space.names[1:]


@pytest.mark.parametrize(("bits", "rate"), [(8, 0.1), (100_000, 1e-6), (2, 0.5), (1, 0.9)])
def test_two_faults_or_more(bits, rate):
    none, one = (binom.pmf(count, bits, rate) for count in (0, 1))
    assert several_faults(bits, rate) == pytest.approx(1 - none - one, abs=1e-12)


def test_the_rate_up_to_which_single_flips_speak():
    assert several_faults(100_000, rate_of_several(100_000, 0.05)) == pytest.approx(0.05)
    assert rate_of_several(1, 0.05) == 1.0


def test_classes_are_each_three_times_the_one_below():
    assert [level_of(value, 0.9) for value in (0.9, 0.31, 0.3, 0.1, 0.034, 0.01, 1e-9, 0)] == [
        4,
        4,
        3,
        2,
        2,
        0,
        0,
        None,
    ]


@pytest.mark.parametrize("faults", [{}, {"sites": []}, {"sites": [["a", 1]]}, {"sites": [["a", 1, 99]]}])
def test_a_damaged_space_is_told(faults):
    with pytest.raises(FileError, match="damaged"):
        KeptSpace.of({"faults": faults}, "a store")


def test_a_store_without_trials_has_a_page(tmp_path):
    store = Store(tmp_path / FILE, {"network": "n", "questions": {"q": {"flips": 1}}})
    store.add("q", [], faults={"flips": 1, "sites": SITES, "trials": "seeds"})
    path = store.close()
    with Database(path, readonly=True) as database:
        text, pictures = page(database, "f")
    assert "Nothing is known yet" in text
    assert pictures == []
