"""What processes do to codes, over every engine: the oracle's cases, and properties that need no oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.stream import hits
from tests.helpers.stream import oracle
from tests.helpers.stream.cases import Draw, cases
from tests.helpers.stream.programs import ALL, Bit, Cluster, Mask, Random, program, symmetric

CASES = st.integers(0, 2**32 - 1).map(lambda seed: Draw(seed).case())
SEEDS = st.integers(0, 2**64 - 1)
WIDTHS = st.integers(1, 32)
LENGTHS = st.one_of(st.sampled_from((1, 1023, 1024, 1025, 2500)), st.integers(1, 2500))


def random_codes(bits, words, seed=0):
    return np.random.default_rng(seed).integers(0, 2**bits, words, dtype=np.uint64).astype(np.uint32)


def hit_words(process, h, *, seed, sample, words, plane=63):
    word, _ = hits(
        seed=seed, site=process.site, sample=sample, words=words, plane=plane, probability=h, engine="reference"
    )
    return word


@pytest.mark.every(5)
@pytest.mark.parametrize("part", range(4))
def test_random_cases_by_the_oracle(engine, part):
    for case in cases(seed=2024, count=240)[part::4]:
        draw = (case.seed, case.sample, case.bit_width)
        if case.codes.size * case.bit_width <= 20_000:
            expected = oracle.inject_codes(case.codes.tolist(), case.processes, *draw)
            assert engine(case.codes, case.program, *draw).tolist() == expected, case


@given(CASES)
def test_codes_stay_within_their_bits(engine, case):
    after = engine(case.codes, case.program, case.seed, case.sample, case.bit_width)
    assert after.dtype == np.uint32
    assert after.shape == case.codes.shape
    assert case.bit_width == 32 or (after < 2**case.bit_width).all()


@given(CASES)
def test_the_input_is_left_alone_and_the_draw_repeats(engine, case):
    before = case.codes.copy()
    draw = (case.program, case.seed, case.sample, case.bit_width)
    once = engine(case.codes, *draw)
    np.testing.assert_array_equal(case.codes, before)
    np.testing.assert_array_equal(engine(case.codes, *draw), once)


@given(CASES)
def test_an_empty_program_changes_nothing(engine, case):
    after = engine(case.codes, (), case.seed, case.sample, case.bit_width)
    np.testing.assert_array_equal(after, case.codes)


@given(CASES)
def test_processes_follow_each_other(engine, case):
    one_by_one = case.codes
    for process in case.processes:
        one_by_one = engine(one_by_one, process.program(), case.seed, case.sample, case.bit_width)
    together = engine(case.codes, case.program, case.seed, case.sample, case.bit_width)
    np.testing.assert_array_equal(together, one_by_one)


@given(CASES, st.integers(0, 1500))
def test_the_words_before_do_not_see_the_words_after(engine, case, cut):
    short = engine(case.codes[:cut], case.program, case.seed, case.sample, case.bit_width)
    whole = engine(case.codes, case.program, case.seed, case.sample, case.bit_width)
    np.testing.assert_array_equal(short, whole[:cut])


@given(SEEDS, WIDTHS, LENGTHS, st.sampled_from((1e-4, 0.01, 0.1)), st.sampled_from(("bit", "cluster", "mask")))
def test_faults_that_do_not_read_the_code_undo_themselves(engine, seed, bits, words, h, kind):
    process = {
        "bit": symmetric(9, [h] * bits),
        "cluster": Cluster(9, "word", (ALL // 2, ALL - 1), (h,) * bits),
        "mask": Mask(9, h, 2**bits - 1),
    }[kind]
    codes = random_codes(bits, words)
    draw = (process.program(), seed, 3, bits)
    faulty = engine(codes, *draw)
    np.testing.assert_array_equal(engine(faulty, *draw), codes)
    zeros = np.zeros_like(codes)
    np.testing.assert_array_equal(codes ^ faulty, engine(zeros, *draw), err_msg="the flips depend on the codes")
    assert h * words < 20 or (faulty != codes).any()


@given(SEEDS, WIDTHS, LENGTHS, st.sampled_from((0.01, 0.3, 1.0)))
def test_random_never_gives_the_same_code(engine, seed, bits, words, h):
    process, codes = Random(4, h), random_codes(bits, words)
    after = engine(codes, process.program(), seed, 5, bits)
    struck = hit_words(process, h, seed=seed, sample=5, words=words)
    assert set(np.flatnonzero(after != codes).tolist()) == set(struck.tolist())


def test_random_reaches_every_other_code_and_only_those(engine):
    codes = np.arange(40_960, dtype=np.uint32) % 8
    after = engine(codes, Random(1, 1.0).program(), 2, 3, 3)
    seen = np.zeros((8, 8), int)
    np.add.at(seen, (codes, after), 1)
    assert (np.diag(seen) == 0).all()
    others = seen[~np.eye(8, dtype=bool)]
    expected = 40_960 / 8 / 7
    assert abs(others - expected).max() < 5 * expected**0.5


@given(SEEDS, WIDTHS, LENGTHS, st.data())
def test_a_mask_strikes_whole_words(engine, seed, bits, words, data):
    mask = data.draw(st.integers(1, 2**bits - 1))
    process, codes = Mask(8, 0.05, mask), random_codes(bits, words)
    after = engine(codes, process.program(), seed, 0, bits)
    struck = np.unique(hit_words(process, 0.05, seed=seed, sample=0, words=words))
    expected = codes.copy()
    expected[struck] ^= np.uint32(mask)
    np.testing.assert_array_equal(after, expected)


@given(SEEDS, WIDTHS, LENGTHS)
def test_one_directional_flips_move_one_way(engine, seed, bits, words):
    codes = random_codes(bits, words)
    rises = engine(codes, Bit(7, ((0.1, ALL, 0),) * bits).program(), seed, 1, bits)
    falls = engine(codes, Bit(7, ((0.1, 0, ALL),) * bits).program(), seed, 1, bits)
    both = engine(codes, symmetric(7, [0.1] * bits).program(), seed, 1, bits)
    np.testing.assert_array_equal(rises & codes, codes)
    np.testing.assert_array_equal(falls | codes, codes)
    np.testing.assert_array_equal((rises ^ codes) | (falls ^ codes), both ^ codes)


@given(SEEDS, st.integers(0, ALL), st.integers(0, ALL))
def test_more_acceptance_only_adds_flips(engine, seed, one, other):
    codes, (few, many) = random_codes(4, 3000), sorted((one, other))
    low = engine(codes, Bit(7, ((0.1, few, few),) * 4).program(), seed, 1, 4) ^ codes
    high = engine(codes, Bit(7, ((0.1, many, many),) * 4).program(), seed, 1, 4) ^ codes
    np.testing.assert_array_equal(low & high, low)


@given(SEEDS, WIDTHS, st.sampled_from((1e-3, 0.02)), st.sampled_from((1.0, 3.0, 7.0)))
def test_a_higher_rate_only_adds_flips(engine, seed, bits, h, factor):
    codes = random_codes(bits, 2500)
    few = engine(codes, symmetric(6, [h] * bits).program(), seed, 2, bits) ^ codes
    many = engine(codes, symmetric(6, [h * factor] * bits).program(), seed, 2, bits) ^ codes
    np.testing.assert_array_equal(few & many, few)


def test_a_flip_struck_twice_stays_a_flip(engine):
    # at this rate nearly every cell has several hits; one that counted them modulo 2 would leave half
    codes = random_codes(5, 4096)
    after = engine(codes, symmetric(3, [0.999] * 5).program(), 1, 2, 5)
    assert np.mean((codes ^ after) == 31) > 0.99


def plane_cluster(axis, h, plane, bits, longest):
    """Clusters that start on one plane only, all of the size `longest`."""
    return Cluster(11, axis, (0,) * (longest - 1), tuple(h if p == plane else 0.0 for p in range(bits)))


@given(SEEDS, st.integers(2, 32), st.integers(1, 40), st.data())
def test_clusters_along_bits_stay_in_their_word(engine, seed, bits, longest, data):
    plane = data.draw(st.integers(0, bits - 1))
    process, codes = plane_cluster("bit", 0.02, plane, bits, longest), random_codes(bits, 1500)
    flips = codes ^ engine(codes, process.program(), seed, 4, bits)
    struck = hit_words(process, 0.02, seed=seed, sample=4, words=1500, plane=plane)
    cells = sum(1 << p for p in range(plane, min(plane + longest, bits)))
    assert set(np.flatnonzero(flips).tolist()) == set(struck.tolist())
    assert set(flips.tolist()) <= {0, cells}


@given(SEEDS, LENGTHS, st.integers(1, 1500))
def test_clusters_along_words_stay_in_plane_block_and_sample(engine, seed, words, longest):
    process, codes = plane_cluster("word", 2e-3, 2, 4, longest), random_codes(4, words)
    flips = codes ^ engine(codes, process.program(), seed, 4, 4)
    expected = np.zeros(words, np.uint32)
    for first in hit_words(process, 2e-3, seed=seed, sample=4, words=words, plane=2):
        block_end = (first // 1024 + 1) * 1024
        expected[first : min(first + longest, block_end)] = 4
    np.testing.assert_array_equal(flips, expected)


def test_a_cluster_of_one_cell_is_a_bit_flip(engine):
    codes = random_codes(6, 5000)
    flip = engine(codes, symmetric(13, [0.01] * 6).program(), 8, 9, 6)
    for axis in ("bit", "word"):
        one = engine(codes, Cluster(13, axis, (), (0.01,) * 6).program(), 8, 9, 6)
        np.testing.assert_array_equal(one, flip)


def test_sizes_come_in_their_shares(engine):
    thresholds = (ALL // 2, ALL * 3 // 4)  # sizes 1, 2, 3 with shares 1/2, 1/4, 1/4, along 3 of 32 bits
    process = Cluster(5, "bit", thresholds, (0.002, *(0.0,) * 31))
    flips = engine(np.zeros(200_000, np.uint32), process.program(), 1, 1, 32)
    counts = {size: int((flips == 2**size - 1).sum()) for size in (1, 2, 3)}
    assert sum(counts.values()) == (flips != 0).sum() == pytest.approx(400, abs=100)
    assert counts[1] == pytest.approx(200, abs=70)
    assert counts[2] == pytest.approx(100, abs=50)


@given(SEEDS, st.integers(0, 2**32 - 1))
def test_different_sites_strike_differently(engine, seed, site):
    codes = np.zeros(3000, np.uint32)
    one, other = (engine(codes, symmetric(s, [0.05] * 4).program(), seed, 0, 4) for s in (site, site ^ 1))
    assert (one != other).any()


def test_the_same_process_twice_on_one_site_undoes_itself(engine):
    codes, process = random_codes(4, 2000), symmetric(1, [0.1] * 4)
    np.testing.assert_array_equal(engine(codes, program((process, process)), 1, 2, 4), codes)
