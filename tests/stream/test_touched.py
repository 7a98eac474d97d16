"""Which words a program may change: all that it does change, no word without a hit, and what late bits come from."""

import numpy as np
import pytest

from hwfault.stream.reference import plane_hits, previous_words
from hwfault.stream.tables import encode_table
from hwfault.stream.touched import touched
from tests.helpers.stream.cases import cases
from tests.helpers.stream.engines import by_native
from tests.helpers.stream.programs import ALL, Bit, Cluster, Mask, Random, program
from tests.process import peak_memory
from tests.stream.test_late import draws as late_draws
from tests.stream.test_late import late


def found(faults, seed, sample, words, bits, batch=1):
    samples = np.arange(batch) + sample
    return touched(faults, seed=seed, samples=samples, words=words, bit_width=bits)


@pytest.mark.parametrize("part", range(4))
def test_all_that_changes_is_found(part):
    some = 0
    for case in cases(300 + part, 100):
        after = by_native(case.codes, case.program, case.seed, case.sample, case.bit_width)
        samples = np.array([case.sample], dtype=np.int64)
        words = touched(case.program, seed=case.seed, samples=samples, words=case.codes.size, bit_width=case.bit_width)
        assert np.isin(np.flatnonzero(after != case.codes), words).all(), case
        assert (np.diff(words) > 0).all()
        assert words.size == 0 or (words[0] >= 0 and words[-1] < case.codes.size)
        some += words.size > 0
    assert some > 30


def hit(seed, site, sample, words, plane, rate):
    return plane_hits(seed, site, sample, words, plane, encode_table(rate))


def test_no_word_without_a_hit():
    """Bits that are hit but never taken, or taken in one direction; hits of words."""
    planes = ((0.01, 0, 0), (0.01, ALL, 0), (0.01, 0, ALL), (0.01, 1 << 21, 1 << 20))
    faults, words = program([Bit(5, planes), Mask(6, 0.003, 2), Random(7, 0.003)]), 3000
    expected = set()
    for sample in (9, 10):
        base = (sample - 9) * words
        expected |= {base + w for plane in (1, 2) for w in hit(3, 5, sample, words, plane, 0.01)[0].tolist()}
        word, aux = hit(3, 5, sample, words, 3, 0.01)
        expected |= {base + w for w in word[(aux < 1 << 21) | (aux >= ALL - (1 << 20))].tolist()}
        expected |= {base + w for site in (6, 7) for w in hit(3, site, sample, words, 63, 0.003)[0].tolist()}
    assert found(faults, 3, 9, words, 4, batch=2).tolist() == sorted(expected)
    assert len(expected) > 100


def test_processes_that_undo_each_other_are_both_found():
    mask = Mask(5, 0.01, 3)
    assert found(program([mask, mask]), 1, 0, 2000, 4).tolist() == found(program([mask]), 1, 0, 2000, 4).tolist()
    assert found(program([mask]), 1, 0, 2000, 4).size > 5


def test_clusters_along_words():
    faults = program([Cluster(5, "word", (0, 0), (0.002,) * 2)])
    hits = {w for plane in range(2) for w in hit(1, 5, 0, 2000, plane, 0.002)[0].tolist()}
    # a cluster of three words ends with its block of 1024, or with the sample
    expected = {w + i for w in hits for i in range(3) if (w + i) // 1024 == w // 1024 and w + i < 2000}
    assert found(faults, 1, 0, 2000, 2).tolist() == sorted(expected)
    assert len(expected) > 10


def test_late_bits_need_the_words_before():
    shape = (4, 1, 12, 6)
    struck = hit(1, 5, 3, 720, 63, 0.02)[0]
    before = previous_words(struck, *shape)
    expected = np.unique(np.concatenate([struck, before[before >= 0]]))
    assert found(late(5, 0.02, 3, *shape), 1, 3, 720, 4).tolist() == expected.tolist()
    assert 0 < struck.size < expected.size


def test_late_bits_among_others():
    changed = 0
    for codes, faults, seed, sample, bits in late_draws(6, 60):
        after = by_native(codes, faults, seed, sample, bits)
        samples = np.array([sample], dtype=np.int64)
        words = touched(faults, seed=seed, samples=samples, words=codes.size, bit_width=bits)
        assert np.isin(np.flatnonzero(after != codes), words).all()
        changed += (after != codes).any()
    assert changed > 20


def test_nothing():
    assert found((), 1, 0, 100, 4).tolist() == []
    assert found(program([Mask(1, 1.0, 1)]), 1, 0, 0, 4).tolist() == []
    assert found(program([Mask(1, 1.0, 1)]), 1, 0, 5, 4, batch=0).tolist() == []
    assert found(program([Mask(1, 1.0, 1)]), 1, 0, 5, 4, batch=2).tolist() == list(range(10))


def test_a_large_tensor_takes_memory_only_where_it_is_hit():
    before = peak_memory()
    words = found(program([Mask(1, 1e-8, 1)]), 1, 0, 1 << 31, 4)
    assert 5 < words.size < 60
    assert peak_memory() - before < 1 << 29  # bytes; the values' are 4 GiB
