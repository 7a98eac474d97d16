"""The hits of a plane: their order, their ranges, and what they share at different rates and lengths."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.stream import hits, reference
from tests.helpers.stream import oracle
from tests.helpers.stream.cases import SAMPLES, SEEDS, SITES

ENGINES = ("reference", "native")
PLANES = st.sampled_from((*range(32), 63))
RATES = st.sampled_from((0.0, 1e-6, 1e-3, 3e-3, 0.01, 0.05, 0.2, 0.7))
NUMBERS = st.fixed_dictionaries(
    {
        "seed": st.one_of(st.sampled_from(SEEDS), st.integers(0, 2**64 - 1)),
        "site": st.one_of(st.sampled_from(SITES), st.integers(0, 2**32 - 1)),
        "sample": st.one_of(st.sampled_from(SAMPLES), st.integers(-(2**63), 2**63 - 1)),
        "plane": PLANES,
    }
)


@pytest.fixture(params=ENGINES)
def draw(request):
    return partial(hits, engine=request.param)


def pairs(drawn):
    return list(zip(*(part.tolist() for part in drawn), strict=True))


@given(NUMBERS, st.sampled_from((0, 1, 1023, 1024, 1025, 1500)), st.sampled_from((0.0, 1e-3, 0.02, 1.0)))
def test_hits_are_the_specifications(draw, numbers, words, h):
    expected = oracle.hits((numbers["seed"], numbers["site"], numbers["sample"]), words, numbers["plane"], h)
    assert pairs(draw(**numbers, words=words, probability=h)) == list(expected)


@given(NUMBERS, st.integers(0, 20_000), RATES)
def test_the_engines_agree(numbers, words, h):
    one, other = (hits(**numbers, words=words, probability=h, engine=engine) for engine in ENGINES)
    assert pairs(one) == pairs(other)
    assert [part.dtype for part in one] == [part.dtype for part in other] == [np.int64, np.uint32]


@given(NUMBERS, st.integers(1, 6000), RATES)
def test_blocks_come_in_order_and_words_in_range(draw, numbers, words, h):
    word, aux = draw(**numbers, words=words, probability=h)
    assert ((word >= 0) & (word < words)).all()
    assert (np.diff(word >> 10) >= 0).all()
    assert numbers["plane"] == 63 or (aux < 2**22).all()


def test_aux_reaches_its_range(draw):
    numbers = {"seed": 5, "site": 6, "sample": 7, "words": 30_000, "probability": 0.1}
    for plane, top in ((3, 2**22), (63, 2**32)):
        aux = draw(**numbers, plane=plane)[1].astype(np.float64)
        assert aux.max() > 0.99 * top
        assert aux.min() < 0.01 * top
        assert aux.mean() == pytest.approx(top / 2, rel=0.05)


def test_hits_are_in_stream_order_not_sorted(draw):
    word, _ = draw(seed=1, site=2, sample=3, words=1024, plane=0, probability=0.2)
    assert (np.diff(word) < 0).any()
    assert len(set(word.tolist())) < len(word), "positions are drawn with replacement"


@given(NUMBERS, st.integers(1, 5000), st.lists(RATES, min_size=2, max_size=2))
def test_hits_at_a_lower_rate_are_a_prefix_in_each_block(draw, numbers, words, rates):
    few, many = (pairs(draw(**numbers, words=words, probability=h)) for h in sorted(rates))
    for block in range(-(-words // 1024)):
        low = [hit for hit in few if hit[0] >> 10 == block]
        high = [hit for hit in many if hit[0] >> 10 == block]
        assert high[: len(low)] == low


@given(NUMBERS, st.integers(1, 3000), st.integers(0, 3000), RATES)
def test_a_shorter_sample_has_the_hits_of_its_words(draw, numbers, words, more, h):
    short = pairs(draw(**numbers, words=words, probability=h))
    long = pairs(draw(**numbers, words=words + more, probability=h))
    assert short == [hit for hit in long if hit[0] < words]


@given(NUMBERS, st.integers(0, 3000))
def test_a_certain_hit_strikes_every_word_once_and_in_order(draw, numbers, words):
    word, _ = draw(**numbers, words=words, probability=1.0)
    assert word.tolist() == list(range(words))


@given(NUMBERS, st.integers(0, 3000))
def test_an_impossible_hit_strikes_none(draw, numbers, words):
    assert pairs(draw(**numbers, words=words, probability=0.0)) == []


@given(NUMBERS, RATES)
def test_samples_count_modulo_2_to_the_32(draw, numbers, h):
    numbers = {**numbers, "sample": numbers["sample"] % 2**31}
    here = pairs(draw(**numbers, words=2000, probability=h))
    for turns in (2**32, -(2**32), 5 * 2**32):
        again = {**numbers, "sample": numbers["sample"] + turns}
        assert pairs(draw(**again, words=2000, probability=h)) == here


@pytest.mark.parametrize("change", [{"seed": 2**40}, {"seed": 1 + 2**63}, {"site": 3}, {"sample": 4}, {"plane": 5}])
def test_every_number_matters(draw, change):
    numbers = {"seed": 1, "site": 2, "sample": 3, "plane": 4, "words": 4000, "probability": 0.05}
    assert pairs(draw(**{**numbers, **change})) != pairs(draw(**numbers))


def test_the_furthest_block_of_the_reference():
    numbers, last = (2**64 - 1, 2**32 - 1, 2**32 - 1), 2**26 - 1
    for plane in (0, 31, 63):
        words = reference.stream_words(*numbers, last, plane, 9)
        assert words.tolist() == [oracle.stream_word(numbers, last, plane, m) for m in range(9)]


def test_the_furthest_words_of_the_native_library():
    numbers, h = (2**64 - 1, 2**32 - 1, 2**32 - 1), 1e-9
    seed, site, sample = numbers
    found = pairs(hits(seed=seed, site=site, sample=sample, words=2**36, plane=31, probability=h))
    assert 25 < len(found) < 125, "68.7 expected among 2^36 words"
    assert found[-1][0] > 2**35
    for word, aux in found:
        assert oracle.hit_count(numbers, word // 1024, 31, h) == 1
        assert oracle.stream_word(numbers, word // 1024, 31, 0) == aux * 1024 + word % 1024
