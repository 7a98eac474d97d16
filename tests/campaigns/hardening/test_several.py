"""Several flips in one memory word: what is read wrong by the reference, how likely it is by all patterns there are."""

import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.campaigns.hardening.harm import SiteHarm
from hwfault.campaigns.hardening.several import (
    decoded,
    draw_word,
    memories_of,
    probabilities,
    total_rate,
)
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.stream.protection import MapRows, linear_layout, protect_codes
from hwfault.stream.protection_scheme import KINDS, Protection

WIDTH, WORDS = 3, 5
SITE = SiteHarm("conv", WORDS, WIDTH, (10,) * WIDTH, (0,) * WIDTH, (0,) * WIDTH)
CODES = np.array([5, 0, 7, 2, 4], np.uint32)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flips", [1, 2, 3])
def test_every_pattern_by_the_reference(kind, flips):
    """All patterns of a memory of 8 data bits, or of 4, whose last word is filled in part, with any data stored."""
    protection = Protection(kind=kind, data_bits=4 if flips == 3 else 8, on_detected="due")
    memory = protection.memory(WIDTH)
    for word in range(memory.words(WORDS)):
        for struck in combinations(range(memory.cells), flips):
            sub_word, bit = memory.sub_word_of(np.full(flips, word), np.array(struck))
            masks: Counter = Counter()
            for one, place in zip(sub_word.tolist(), bit.tolist(), strict=True):
                masks[one] |= 1 << place
            rows = MapRows(
                np.array(sorted(masks)),
                np.full(len(masks), 0xFFFFFFFF, np.uint32),
                np.array([masks[one] for one in sorted(masks)], np.uint32),
            )
            after, counts = protect_codes(
                CODES, memory, bit_width=WIDTH, rows=rows, layout=linear_layout(memory, WORDS, WIDTH)
            )
            cells, detected = decoded(memory, SITE, word, struck)
            found = CODES.copy()
            for cell in cells:
                found[cell.word] ^= np.uint32(1 << cell.bit)
            assert np.array_equal(found, after)
            assert detected == bool(counts[1])
            if flips == 1:
                assert not cells or kind == "parity"
            if kind == "secded" and flips == 2:
                assert detected
            if kind == "parity":
                assert detected == bool(flips % 2)


@pytest.mark.parametrize("flips", [1, 2])
def test_how_likely_by_all_patterns(flips):
    """Two memories of two words of 3 cells: every pattern of 12 cells."""
    protection = Protection(kind="parity", data_bits=2, on_detected="due")
    sites = [SiteHarm(name, 2, 2, (1, 1), (0, 0), (0, 0)) for name in "ab"]
    rates = {"a": 0.2, "b": 0.05}
    memories = memories_of(protection, sites, rates, flips)
    exactly = alone = at_all = 0.0
    for pattern in product((0, 1), repeat=12):
        p = math.prod((rates["ab"[i // 6]] if hit else 1 - rates["ab"[i // 6]]) for i, hit in enumerate(pattern))
        counts = [sum(pattern[i : i + 3]) for i in range(0, 12, 3)]
        some = [count for count in counts if count >= flips]
        exactly += p * (flips in counts)
        alone += p * (some == [flips])
        at_all += p * bool(some)
    found = probabilities(memories)
    assert found == pytest.approx((exactly, alone, at_all))


@given(
    p=st.floats(1e-9, 0.3),
    words=st.integers(1, 50),
    events=st.integers(0, 20),
    flips=st.sampled_from([2, 3]),
)
def test_the_rate_of_all_lies_within_what_can_be(p, words, events, flips):
    protection = Protection(kind="secded", data_bits=8, on_detected="due")
    memories = memories_of(protection, [SiteHarm("a", words, 8, (1,) * 8, (0,) * 8, (0,) * 8)], p, flips)
    likely = probabilities(memories)
    assert 0 <= likely.one_alone <= likely.any_exactly + 1e-12
    assert likely.any_exactly <= likely.any_at_all + 1e-12
    share = estimate_rate(events, 20, 0.95, sequential=False)
    found = total_rate(likely, share)
    low, high = found.ends
    assert 0 <= low <= found.value + 1e-12
    assert found.value <= high + 1e-12
    assert high <= 1
    # the truth, with several words at their worst and at their best, for any share within its interval
    for truth in share.ends:
        at_best, at_worst = likely.one_alone * truth, likely.one_alone * truth + likely.any_at_all - likely.one_alone
        assert low - 1e-12 <= at_best
        assert at_worst <= high + 1e-12


def test_words_and_samples_are_drawn_evenly():
    protection = Protection(kind="parity", data_bits=4, on_detected="due")
    sites = [SiteHarm("a", 4, 2, (1, 1), (0, 0), (0, 0)), SiteHarm("b", 2, 4, (1,) * 4, (0,) * 4, (0,) * 4)]
    memories = memories_of(protection, sites, {"a": 1e-3, "b": 1e-3}, 2)
    seen: Counter = Counter()
    for seed in range(800):
        drawn = draw_word(memories, 2, 5, seed)
        seen["sample", drawn.sample] += 1
        for cell in drawn.cells:
            seen[cell.site] += 1
            seen[cell.site, cell.word, cell.bit] += 1
        assert len(drawn.cells) in (1, 2)  # two of four data bits and one of parity
        assert not drawn.detected
    for sample in range(5):
        assert abs(seen["sample", sample] - 160) < 5 * math.sqrt(160 * 0.8)
    # each of 8 data bits has 2 of 5 cells' share of the trials that strike its word
    every = [seen[key] for key in seen if len(key) == 3]
    assert len(every) == 16
    assert all(abs(count - 80) < 5 * math.sqrt(80 * 0.9) for count in every)
    assert drawn == draw_word(memories, 2, 5, 799)


def test_sites_that_flip_more_often_are_drawn_more_often():
    protection = Protection(kind="parity", data_bits=4, on_detected="due")
    sites = [SiteHarm(name, 2, 4, (1,) * 4, (0,) * 4, (0,) * 4) for name in "ab"]
    memories = memories_of(protection, sites, {"a": 1e-3, "b": 2e-3}, 2)
    drawn = [draw_word(memories, 2, 1, seed).cells[0].site for seed in range(400)]
    assert abs(drawn.count("b") / 400 - 0.8) < 0.1  # four times as likely


def test_the_last_word_holds_nothing_behind_the_site():
    memory = Protection(kind="parity", data_bits=8, on_detected="due").memory(3)
    site = SiteHarm("a", 3, 3, (1,) * 3, (0,) * 3, (0,) * 3)
    assert memory.words(3) == 2
    assert decoded(memory, site, 1, [1, 2]) == ((), False)
    (cell,) = decoded(memory, site, 1, [0, 5])[0]
    assert (cell.word, cell.bit) == (2, 2)
