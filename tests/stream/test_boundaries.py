"""Thresholds met exactly: programs made for the very words of one draw, over every engine."""

import numpy as np
import pytest

from tests.helpers.stream import oracle

SEED, SITE, SAMPLE = 2**63 + 11, 0xFFFF0001, 2**32 - 1
DRAW = (SEED, SITE, SAMPLE)
BLOCK = 1  # the second block of a sample
LENGTH = 2048


def bit_program(*planes):
    """Planes as (accept01, accept10, thresholds)."""
    body = [x for accept01, accept10, table in planes for x in (accept01, accept10, len(table), *table)]
    return (0, SITE, len(body), *body)


def struck(engine, program, stored=0, bits=1):
    """The words and flips of a sample whose codes are all `stored`."""
    codes = np.full(LENGTH, stored, np.uint32)
    flips = engine(codes, program, SEED, SAMPLE, bits) ^ codes
    return {int(word): int(flips[word]) for word in np.flatnonzero(flips)}


def first_hit(block, plane=0):
    """(word, aux) of the first stream word of a plane."""
    r = oracle.stream_word(DRAW, block, plane, 0)
    return 1024 * block + r % 1024, r // 1024


def count_word(block, plane):
    return oracle.philox((0, block * 64 + 32 + plane // 4, SAMPLE, SITE), SEED)[plane % 4]


@pytest.mark.parametrize("plane", range(6))
def test_a_count_word_that_equals_a_threshold_counts_it(engine, plane):
    others = [(2**22, 2**22, ())] * plane
    for block in (0, 1):
        word, limit = first_hit(block, plane)[0], count_word(block, plane)
        met = struck(engine, bit_program(*others, (2**22, 2**22, (limit,))), bits=plane + 1)
        missed = struck(engine, bit_program(*others, (2**22, 2**22, (limit + 1,))), bits=plane + 1)
        assert met.get(word) == 1 << plane
        assert word not in missed


def test_the_ends_of_a_threshold(engine):
    always, never = (struck(engine, bit_program((2**22, 2**22, (t,)))) for t in (0, 2**32))
    assert always == {first_hit(0)[0]: 1, first_hit(1)[0]: 1}
    assert never == {}


def test_equal_thresholds_count_each(engine):
    found = struck(engine, bit_program((2**22, 2**22, (0, 0, 0))))
    assert found.keys() == {
        1024 * block + oracle.stream_word(DRAW, block, 0, m) % 1024 for block in (0, 1) for m in range(3)
    }


@pytest.mark.parametrize(("stored", "swap"), [(0, False), (1, True)])
def test_an_aux_that_equals_the_acceptance(engine, stored, swap):
    word, aux = first_hit(BLOCK)
    # a stored 0 is accepted by aux < accept01; a stored 1 by aux >= 2^22 - accept10
    enough, short = (2**22 - aux, 2**22 - aux - 1) if swap else (aux + 1, aux)
    for accept, hit in ((enough, True), (short, False)):
        pair = (0, accept) if swap else (accept, 0)
        assert (word in struck(engine, bit_program((*pair, (0,))), stored)) is hit


def test_the_other_direction_is_not_accepted(engine):
    assert struck(engine, bit_program((2**22, 0, (0,))), stored=1) == {}
    assert struck(engine, bit_program((0, 2**22, (0,))), stored=0) == {}


def test_no_acceptance_at_all(engine):
    for stored in (0, 1):
        assert struck(engine, bit_program((0, 0, (0,) * 50)), stored) == {}


@pytest.mark.parametrize("axis", [0, 1])
def test_an_aux_that_equals_a_size_threshold(engine, axis):
    word, aux = first_hit(BLOCK)
    for threshold, size in ((aux, 2), (aux + 1, 1)):
        body = (axis, 1, threshold, 1, 0, *[0] * 3)
        found = struck(engine, (1, SITE, len(body), *body), bits=4)
        expected = {word: 3} if axis == 0 and size == 2 else {word + step: 1 for step in range(size)}
        assert {w: f for w, f in found.items() if w >= 1024} == expected


def test_a_mask_needs_no_second_word(engine):
    body = (5, 1, 0)
    words = [1024 * block + oracle.stream_word(DRAW, block, 63, 0) % 1024 for block in (0, 1)]
    assert struck(engine, (2, SITE, len(body), *body), bits=3) == dict.fromkeys(words, 5)


def test_of_two_hits_on_a_word_the_last_stands(engine):
    # 200 hits among 1024 positions meet somewhere
    hits = [
        (oracle.stream_word(DRAW, 0, 63, 2 * m) % 1024, oracle.stream_word(DRAW, 0, 63, 2 * m + 1)) for m in range(200)
    ]
    last = dict(hits)
    assert len(last) < len(hits)
    found = struck(engine, (3, SITE, 201, 200, *[0] * 200), bits=12)
    assert {w: f for w, f in found.items() if w < 1024} == {w: (1 + v * 4095 // 2**32) % 4096 for w, v in last.items()}


@pytest.mark.parametrize("bits", [1, 5, 31, 32])
def test_certain_hits_take_the_stream_words_in_order(engine, bits):
    found = struck(engine, (3, SITE, 1, -1), bits=bits)
    for word in (0, 1, 7, 1023):
        v = oracle.stream_word(DRAW, 0, 63, 2 * word + 1)
        assert found[word] == 1 + v * (2**bits - 1) // 2**32
    assert len(found) == LENGTH


def test_certain_hits_of_a_bit_still_ask_for_acceptance(engine):
    accept = 2**20
    found = struck(engine, (0, SITE, 3, accept, 0, -1), bits=1)
    expected = {w for w in range(LENGTH) if oracle.stream_word(DRAW, w // 1024, 0, w % 1024) // 1024 < accept}
    assert found.keys() == expected
    assert 400 < len(expected) < 640


def test_more_hits_than_a_block_has_cells(engine):
    table = (0,) * 5000
    found = struck(engine, bit_program((2**22, 2**22, table)))
    expected = {1024 * b + oracle.stream_word(DRAW, b, 0, m) % 1024 for b in (0, 1) for m in range(5000)}
    assert found.keys() == expected
