"""Late bits (processes of kind 4): a word keeps bits of what its processing element produced before."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwfault.errors import HwfaultError
from hwfault.stream import native, reference
from hwfault.stream.tables import WORD_PLANE, encode_table
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.engines import many_by_onnxruntime
from tests.helpers.stream.programs import program
from tests.helpers.stream.values import grid

KNOWN = json.loads((Path(__file__).parent / "accumulators.json").read_text())["late"]


def late(site, h, mask, columns, rows, channels, inner):
    body = (mask, columns, rows, channels, inner, *encode_table(h))
    return (4, site, len(body), *body)


def element_order(columns, rows, channels, inner, words):
    """For each processing element the words that it produces, in order, found by going through all of them."""
    elements = {}
    for position in range(words // channels):
        for channel in range(channels):
            word = position // inner * inner * channels + channel * inner + position % inner
            elements.setdefault((position % rows, channel % columns), []).append(word)
    return list(elements.values())


def previous(columns, rows, channels, inner, words):
    before = {}
    for produced in element_order(columns, rows, channels, inner, words):
        before |= dict(zip(produced, [-1, *produced], strict=False))
    return before


def draws(seed, count):
    """Codes, late processes (and others around them), seeds."""
    draw = Draw(seed)
    for _ in range(count):
        channels, inner = draw.integer(1, 40), draw.one_of((1, 1, 5, 64, 100))
        words = channels * inner * draw.integer(1, 4)
        bits = draw.integer(2, 32)
        shape = (draw.integer(1, channels + 3), draw.one_of((1, 1, 2, 7)), channels, inner)
        ours = late(draw.site(), draw.one_of((0.01, 0.1, 0.5, 1.0)), draw.integer(1, 2**bits - 1), *shape)
        others = [program(draw.processes(bits, words)) for _ in range(2)]
        yield draw.codes(bits, words), (*others[0], *ours, *others[1]), draw.seed(), draw.sample(), bits


@pytest.mark.parametrize("shape", [(4, 1, 12, 6, 72), (4, 1, 10, 6, 120), (16, 1, 10, 1, 10), (3, 2, 7, 5, 105)])
def test_the_word_before(shape):
    columns, rows, channels, inner, words = shape
    found = reference.previous_words(np.arange(words), columns, rows, channels, inner)
    assert dict(enumerate(found.tolist())) == previous(*shape)
    assert (found == -1).sum() == min(columns, channels) * min(rows, words // channels)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known["name"])
def test_known_answers(known):
    codes = np.array(known["codes"], np.uint32)
    number = {"seed": int(known["seed"]), "bit_width": known["bit_width"]}
    changed = dict(known["changed"])
    expected = np.array([changed.get(word, code) for word, code in enumerate(known["codes"])])
    got = reference.inject_codes(codes, program=known["program"], sample=known["sample"], **number)
    np.testing.assert_array_equal(got, expected)
    (got,) = native.inject_codes(codes[None], program=known["program"], samples=[known["sample"]], **number)
    np.testing.assert_array_equal(got, expected)


def test_a_hit_word_takes_the_bits_of_the_word_before():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << 16, 3000).astype(np.uint32)
    mask, shape = 0xF000, (4, 1, 10, 3)
    before = previous(*shape, 3000)
    hit, _ = reference.plane_hits(5, 77, 9, 3000, WORD_PLANE, encode_table(0.1))
    expected = codes.copy()
    for word in hit.tolist():
        kept = codes[before[word]] if before[word] >= 0 else 0
        expected[word] = (int(kept) & mask) | (int(codes[word]) & ~mask & 0xFFFF)
    got = native.inject_codes(codes[None], program=late(77, 0.1, mask, *shape), seed=5, samples=[9], bit_width=16)
    np.testing.assert_array_equal(got[0], expected)
    assert 200 < (got[0] != codes).sum() < 320


def test_reference_library_and_onnxruntime_agree():
    some = list(draws(1, 150))
    ours = [reference.inject_codes(c, program=p, seed=s, sample=n, bit_width=b) for c, p, s, n, b in some]
    for (c, p, s, n, b), expected in zip(some, ours, strict=True):
        (got,) = native.inject_codes(c[None], program=p, seed=s, samples=[n], bit_width=b)
        np.testing.assert_array_equal(got, expected)
    for expected, got in zip(ours[:40], many_by_onnxruntime(some[:40]), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert sum((o != c).any() for o, (c, *_) in zip(ours, some, strict=True)) > 100


def test_samples_do_not_reach_into_each_other():
    codes = np.full((3, 20), 0xFF, np.uint32)
    got = native.inject_codes(codes, program=late(1, 1.0, 0xF0, 1, 1, 1, 1), seed=1, samples=[1, 2, 3], bit_width=8)
    assert (got[:, 0] == 0x0F).all(), "nothing came before the first word"
    assert (got[:, 1:] == 0xFF).all()


def test_another_process_before_does_not_change_what_was_produced_before():
    flip = (2, 5, 2, 0xFF, *encode_table(1.0))
    codes = np.arange(16, dtype=np.uint32)
    ours = late(1, 1.0, 0xF, 1, 1, 16, 1)
    got = reference.inject_codes(codes, program=(*flip, *ours), seed=1, sample=0, bit_width=8)
    assert got.tolist() == [(255 - w) & 0xF0 | max(w - 1, 0) for w in range(16)]


BAD = [
    (4, 7, 6, 1, 1, 1, 1, 1, 0, 0),
    (4, 7, 6, 0, 1, 1, 1, 1, 0),
    (4, 7, 6, 1 << 8, 1, 1, 1, 1, 0),
    *((4, 7, 6, 1, *(0 if i == k else 1 for i in range(4)), 0) for k in range(4)),
    (4, 7, 6, 1, 1, 1, 2**31 + 1, 1, 0),
    (4, 7, 5, 1, 1, 1, 1, 1),
]


@pytest.mark.parametrize("numbers", BAD)
def test_programs_that_are_none(numbers):
    with pytest.raises(HwfaultError, match="the fault program"):
        native.inject_codes(np.zeros((1, 8), np.uint32), program=numbers, seed=1, samples=[0], bit_width=8)


def test_channels_that_do_not_divide_a_sample():
    numbers = late(1, 1.0, 1, 1, 1, 3, 2)
    with pytest.raises(HwfaultError, match=r"counts 3 channels of 2 words, which do not make up samples of 8 words"):
        native.inject_codes(np.zeros((1, 8), np.uint32), program=numbers, seed=1, samples=[0], bit_width=8)


def test_in_place_is_refused():
    from tests.helpers.stream.capi import Arguments, RefusedError, call

    x = np.zeros((1, 8), np.float32)
    given = Arguments(late(1, 1.0, 1, 1, 1, 8, 1), 1, [0], 8, grid(Draw(1), 8, signed=False))
    with pytest.raises(RefusedError, match="out must not be x"):
        call("inject", 0, x, x, given.draw, given.format, 1)
    with pytest.raises(RefusedError, match="values before injection are needed"):
        call("zero_faulty", 0, x, x.copy(), None, given.draw, given.format, 1)
