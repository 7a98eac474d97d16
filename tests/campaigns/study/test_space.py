"""The fault space and what is drawn from it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from hwfault.campaigns.study.space import draw_cells, draw_pair, drawn_flips, fault_space
from hwfault.errors import HwfaultError, PlanError
from hwfault.program.processes import Site
from hwfault.program.selectors import Select
from tests.slowly import slow

SITES = (
    Site(name="a.weight_quant", kind="weight", bit_width=3, signed=True, shape=(2, 2)),
    Site(name="b.act_quant", kind="activation", bit_width=2, signed=False, shape=(5,)),
)
SPACE = fault_space(SITES, [Select()])


def test_every_cell_once():
    cells = [SPACE.cell(number) for number in range(SPACE.size)]
    told = [(cell.site, cell.word, cell.bit) for cell in cells]
    weights = [("a.weight_quant", word, bit) for word in range(4) for bit in range(3)]
    activations = [("b.act_quant", word, bit) for word in range(5) for bit in range(2)]
    assert told == weights + activations
    assert {cell.kind for cell in cells} == {"flip"}


def test_known_draws():
    """Worked out from the stream's words by hand: two of them a number, modulo the size, none twice."""
    from hwfault.stream import site_number
    from hwfault.stream.reference import stream_words

    words = [int(word) for word in stream_words(7, site_number("flips#4", 0), 0, 0, 0, 32)]
    expected = []
    for low, high in zip(words[0::2], words[1::2], strict=True):
        cell = (high << 32 | low) % 22
        if cell not in expected:
            expected.append(cell)
    assert draw_cells(SPACE, 4, 7) == expected[:4]
    assert draw_cells(SPACE, 4, 7) != draw_cells(SPACE, 4, 8)


@given(st.integers(1, 22), st.integers(0, 2**64 - 1))
def test_without_replacement(flips, seed):
    found = draw_cells(SPACE, flips, seed)
    assert len(set(found)) == flips
    assert set(found) <= set(range(22))


@pytest.mark.parametrize("many", [1, slow(4)])
def test_uniform(many):
    counts = Counter(cell for seed in range(750 * many) for cell in draw_cells(SPACE, 3, seed))
    assert chisquare([counts[cell] for cell in range(22)]).pvalue > 1e-4
    pairs = Counter(draw_pair(SPACE, 3, number) for number in range(1650 * many))
    assert chisquare([pairs[cell, sample] for cell in range(22) for sample in range(3)]).pvalue > 1e-4


def test_drawn_flips_are_cells_of_every_sample():
    faults = drawn_flips(SPACE, 5, 1)
    assert [cell.sample for cell in faults.cells] == [None] * 5
    assert [cell.site for cell in faults.cells] == [SPACE.cell(n).site for n in draw_cells(SPACE, 5, 1)]


def test_nothing_to_draw():
    with pytest.raises(HwfaultError, match="the fault space is empty: no site matches nothing"):
        fault_space(SITES, [Select(name="nothing")])
    with pytest.raises(HwfaultError, match="23 flips a trial, expected 1 to 22"):
        draw_cells(SPACE, 23, 0)
    with pytest.raises(PlanError, match="is not known"):
        fault_space([SITES[0].model_copy(update={"shape": None})], [Select()])
    with pytest.raises(HwfaultError, match="hold no words"):
        fault_space([SITES[0].model_copy(update={"shape": (0,)})], [Select()])


def test_large_spaces():
    large = Site(name="w", kind="weight", bit_width=32, signed=True, shape=(1 << 30,))
    space = fault_space([large] * 3, [Select()])
    assert space.size == 3 << 35
    cells = draw_cells(space, 1000, 5)
    assert np.mean(cells) / space.size == pytest.approx(0.5, abs=0.05)
