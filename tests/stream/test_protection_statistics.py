"""How often decoders are right, over millions of memory words, against the formulas (|z| < 5)."""

from functools import cache

import numpy as np
import pytest

from hwfault.stream.native import protect_codes
from hwfault.stream.protection import MapRows, Memory
from hwfault.stream.protection_scheme import Protection, majority_error
from hwfault.stream.tables import ALWAYS

SIGMAS, SEED, SITE = 5, 20_240_611, 0xBEEF
SAMPLES, WORDS = 8, 1 << 18
PER_WORD = 2
"""Code words of 32 bits in a memory word of 64."""


def z(count, trials, p):
    return (count - trials * p) / np.sqrt(trials * p * (1 - p))


@cache
def codes(seed=1):
    return (
        np.random.default_rng(seed).integers(0, 2**32, (SAMPLES, WORDS * PER_WORD), dtype=np.uint64).astype(np.uint32)
    )


@cache
def run(kind, p, due=True):
    """Counts and wrong data bits of two million memory words of random data."""
    memory = Memory(kind, 64, 32, due)
    program = memory.program(SITE, p, p)
    after, counts = protect_codes(codes(), memory, bit_width=32, program=program, seed=SEED, samples=range(SAMPLES))
    return counts, after ^ codes()


@pytest.mark.every(2)
@pytest.mark.parametrize("p", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("kind", ["parity", "secded", "tmr"])
def test_rates_of_outcomes(kind, p):
    counts, _ = run(kind, p)
    for name, count, share in zip(
        ("corrected", "detected", "miscorrected"),
        counts.tolist(),
        Protection(kind=kind).outcomes(p),
        strict=True,
    ):
        if share == 0 or SAMPLES * WORDS * share < 1:
            assert count <= 10, name
        else:
            assert abs(z(count, SAMPLES * WORDS, share)) < SIGMAS, (name, count, share)


@pytest.mark.parametrize("p", [1e-3, 1e-2])
def test_rate_of_voted_bits(p):
    """TMR: 3 p^2 - 2 p^3 of the data bits, 2.998e-6 at 1e-3."""
    counts, wrong = run("tmr", p)
    bits = int(np.bitwise_count(wrong).sum()) if hasattr(np, "bitwise_count") else sum(map(int.bit_count, wrong.flat))
    assert abs(z(bits, SAMPLES * WORDS * 64, majority_error(p))) < SIGMAS
    assert counts[2] == (wrong.reshape(SAMPLES, WORDS, PER_WORD) != 0).any(axis=2).sum()


def test_every_data_bit_is_wrong_equally_often():
    _, wrong = run("parity", 1e-2)
    planes = np.unpackbits(wrong.reshape(-1, PER_WORD).view(np.uint8), bitorder="little", axis=1).sum(axis=0, dtype=int)
    assert (np.abs(z(planes, SAMPLES * WORDS, 1e-2)) < SIGMAS).all()


def test_double_errors_read_as_zero():
    counts, wrong = run("secded", 1e-2, due=False)
    lost = wrong.reshape(-1, PER_WORD) == codes().reshape(-1, PER_WORD)
    assert counts[1] <= lost.all(axis=1).sum() <= counts[1] + 1
    assert (counts == run("secded", 1e-2)[0]).all()


def test_faults_towards_0_leave_a_memory_of_zeros_alone():
    memory = Memory("secded", 64, 32)
    nothing = np.zeros_like(codes())
    given = {"bit_width": 32, "seed": SEED, "samples": range(SAMPLES)}
    after, counts = protect_codes(nothing, memory, program=memory.program(SITE, 0.0, 0.05), **given)
    assert not after.any()
    assert not counts.any()
    _, counts = protect_codes(nothing, memory, program=memory.program(SITE, 1e-3, 0.0), **given)
    assert abs(z(counts[0], SAMPLES * WORDS, Protection(kind="secded").outcomes(1e-3).corrected)) < SIGMAS


def test_intermittent_cells_come_and_go():
    """A flipped cell in each memory word that shows itself in a third of the periods, independently."""
    memory, words, periods = Memory("secded", 64, 32), 1 << 13, 40
    threshold = int(ALWAYS / 3)
    rows = MapRows(
        np.arange(words) * memory.sub_words, np.full(words, 2**32 - 1), np.full(words, 1 << 5), threshold, SITE
    )
    data = np.zeros((periods, words * PER_WORD), np.uint32)
    given = {"bit_width": 32, "seed": SEED, "samples": range(periods), "rows": rows}
    _, counts = protect_codes(data, memory, periods=range(periods), **given)
    assert counts[1:].tolist() == [0, 0]
    assert abs(z(counts[0], periods * words, threshold / ALWAYS)) < SIGMAS
    _, held = protect_codes(data, memory, periods=np.full(periods, 3), **given)
    assert held[0] % periods == 0
