"""Section 8 of the specification: rates over 10^8 cells a plane, and no correlation of any kind (|z| < 5)."""

from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2, norm

from hwfault.stream import hits, native
from tests.helpers.stream.programs import ALL, Bit, Cluster, Mask, Random, symmetric

BITS, WORDS, SAMPLES = 32, 1 << 20, 96  # 100.7 million cells a plane
CELLS = WORDS * SAMPLES
SEED, SITE = 20_240_611, 0xC0FFEE
RATES = tuple(1e-3 * (1 + plane % 4) for plane in range(BITS))
SIGMAS = 5


def z(count, trials, p):
    return (count - trials * p) / np.sqrt(trials * p * (1 - p))


def faults(process, sample, seed=SEED, words=WORDS, bits=BITS, stored=0):
    """The bits that change in a sample whose codes are all `stored`."""
    codes = np.full((1, words), stored, np.uint32)
    after = native.inject_codes(codes, program=process.program(), seed=seed, samples=[sample], bit_width=bits)
    return after[0] ^ np.uint32(stored)


def planes_of(words):
    """Words as rows of 32 bits, lowest first."""
    return np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little").reshape(-1, 32)


def ones(words):
    """How many words have each bit set."""
    return planes_of(words[words != 0]).sum(axis=0, dtype=np.int64)


@cache
def long_run():
    """Counts over 10^8 cells a plane: single, together in a word, and beside the next word, sample and site."""
    flips, elsewhere = symmetric(SITE, RATES), symmetric(SITE + 1, RATES)
    counts = {
        key: np.zeros(BITS, np.int64) for key in ("single", "next word", "next block", "next sample", "next site")
    }
    together, before = np.zeros((BITS, BITS)), None
    for sample in range(SAMPLES):
        struck = faults(flips, sample)
        rows = planes_of(struck[struck != 0]).astype(np.float32)
        counts["single"] += rows.sum(axis=0, dtype=np.float64).astype(np.int64)
        together += rows.T @ rows
        counts["next word"] += ones(struck[:-1] & struck[1:])
        counts["next block"] += ones(struck[:-1024] & struck[1024:])
        counts["next site"] += ones(struck & faults(elsewhere, sample))
        if before is not None:
            counts["next sample"] += ones(before & struck)
        before = struck
    return counts, together


@pytest.mark.parametrize("plane", range(BITS))
def test_rate_of_a_plane(plane):
    assert abs(z(long_run()[0]["single"][plane], CELLS, RATES[plane])) < SIGMAS


def test_rates_scatter_as_chance_does():
    scores = z(long_run()[0]["single"], CELLS, np.array(RATES))
    assert 0.001 < chi2.sf((scores**2).sum(), BITS) < 0.999


def test_planes_are_independent():
    _, together = long_run()
    for low in range(BITS):
        for high in range(low + 1, BITS):
            assert abs(z(together[low, high], CELLS, RATES[low] * RATES[high])) < SIGMAS, (low, high)


@pytest.mark.parametrize(
    ("neighbour", "pairs"),
    [
        ("next word", (WORDS - 1) * SAMPLES),
        ("next block", (WORDS - 1024) * SAMPLES),
        ("next sample", WORDS * (SAMPLES - 1)),
        ("next site", CELLS),
    ],
)
def test_neighbours_are_independent(neighbour, pairs):
    both = long_run()[0][neighbour]
    scores = z(both, pairs, np.array(RATES) ** 2)
    assert np.abs(scores).max() < SIGMAS
    assert 0.001 < chi2.sf((scores**2).sum(), BITS) < 0.999


@pytest.mark.parametrize("seeds", [(1, 2), (7, 7 + 2**32), (0, 2**63)])
def test_seeds_are_independent(seeds):
    one, other = (faults(symmetric(SITE, [0.05] * BITS), 0, seed=seed) for seed in seeds)
    assert np.abs(z(ones(one & other), WORDS, 0.05**2)).max() < SIGMAS


def test_the_rate_of_words():
    struck = sum(np.count_nonzero(faults(Mask(SITE, 0.002, 1), sample)) for sample in range(SAMPLES))
    assert abs(z(struck, CELLS, 0.002)) < SIGMAS


@pytest.mark.every(2)
@pytest.mark.parametrize("h", [1e-7, 1e-5, 1e-4, 0.03, 0.4, 0.97])
def test_rates_from_rare_to_nearly_certain(h):
    samples = 24 if h < 0.01 else 2
    counts = sum(ones(faults(symmetric(SITE, [h] * BITS), sample)) for sample in range(samples))
    assert abs(z(counts.sum(), WORDS * samples * BITS, h)) < SIGMAS
    assert np.abs(z(counts, WORDS * samples, h)).max() < SIGMAS + 1 * (h < 1e-6)  # few hits have a skew


def test_blocks_count_as_independent_cells_do():
    # the count of struck cells in a block is binomial, not Poisson, though hits are drawn from Poisson's law
    h, blocks = 0.2, WORDS // 1024
    counts = np.concatenate(
        [planes_of(faults(symmetric(SITE, [h] * BITS), s)).reshape(blocks, 1024, BITS).sum(axis=1) for s in range(4)]
    )
    expected = 1024 * h * (1 - h)
    spread = np.sqrt(2 / counts.size) * expected
    assert abs(counts.var() - expected) < SIGMAS * spread


def test_positions_are_uniform_in_the_block():
    word, _ = hits(seed=SEED, site=SITE, sample=9, words=1 << 24, plane=3, probability=0.1)
    histogram = np.bincount(word % 1024, minlength=1024)
    statistic = ((histogram - word.size / 1024) ** 2 / (word.size / 1024)).sum()
    assert 1e-6 < chi2.sf(statistic, 1023) < 1 - 1e-6


@pytest.mark.parametrize(("plane", "bits"), [(3, 22), (63, 32)])
@pytest.mark.parametrize("of_position", [0, 3, 6])
@pytest.mark.parametrize("of_aux", [0, 3, 6, 10, -4])
def test_aux_is_uniform_and_knows_nothing_of_the_position(plane, bits, of_position, of_aux):
    word, aux = hits(seed=SEED, site=SITE, sample=9, words=1 << 22, plane=plane, probability=0.1)
    position, extra = word >> of_position, aux >> np.uint32(of_aux % bits)
    histogram = np.bincount(position % 16 * 16 + extra % 16, minlength=256)
    statistic = ((histogram - word.size / 256) ** 2 / (word.size / 256)).sum()
    assert 1e-6 < chi2.sf(statistic, 255) < 1 - 1e-6


@pytest.mark.parametrize(("p01", "p10"), [(0.01, 0.001), (0.0, 0.02), (0.3, 0.25)])
def test_rates_of_each_direction(p01, p10):
    from hwfault.stream.tables import accepts

    h, accept01, accept10 = accepts(p01, p10)
    process = Bit(SITE, ((h, accept01, accept10),) * BITS)
    rises, falls = (sum(ones(faults(process, s, stored=stored)) for s in range(4)) for stored in (0, 2**32 - 1))
    for count, p in ((rises, p01), (falls, p10)):
        if p:
            assert abs(z(count.sum(), 4 * WORDS * BITS, p)) < SIGMAS
        else:
            assert count.sum() == 0


def test_random_codes_are_uniform_over_the_others():
    after = np.concatenate([faults(Random(SITE, 1.0), s, bits=8, stored=77) ^ np.uint32(77) for s in range(8)])
    histogram = np.bincount(after, minlength=256)
    assert histogram[77] == 0
    others = np.delete(histogram, 77)
    statistic = ((others - after.size / 255) ** 2 / (after.size / 255)).sum()
    assert 1e-6 < chi2.sf(statistic, 254) < 1 - 1e-6


def test_cluster_sizes_have_their_shares():
    shares = np.array([0.7738, 0.119, 0.0714, 0.0358])
    thresholds = tuple(round(ALL * p) for p in np.cumsum(shares)[:-1])
    process = Cluster(SITE, "bit", thresholds, (1e-3, *(0.0,) * (BITS - 1)))
    struck = np.concatenate([(f := faults(process, s))[f != 0] for s in range(16)])
    sizes = np.array([np.count_nonzero(struck == 2**size - 1) for size in (1, 2, 3, 4)])
    assert sizes.sum() == struck.size
    # a cell struck twice shows the larger size: less than one in a thousand hits
    assert np.abs(z(sizes, struck.size, shares)).max() < SIGMAS


def test_the_scores_would_show_a_rate_off_by_one_percent():
    assert z(CELLS * 1e-3 * 1.02, CELLS, 1e-3) > SIGMAS
    assert norm.sf(SIGMAS) * BITS**2 < 1e-3
