"""The library strikes many blocks side by side, as many as a program leaves room for: with the codes of one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.codes import CodeFormat
from hwfault.stream import native, reference
from hwfault.stream.tables import encode_table
from tests.helpers.stream.capi import Arguments, call
from tests.helpers.stream.programs import ALL, Bit, Cluster, Mask, Random
from tests.helpers.stream.values import Grid

RATES = [0.0, 1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 0.02, 0.03, 0.05, 0.3, 1.0]


SITES = st.integers(0, 2**32 - 1)


def late(site, rate, words):
    """A process of late bits in an array of 3 columns and 2 rows, as numbers."""
    channels = next(n for n in (5, 3, 2, 1) if words % n == 0)
    body = (1, 3, 2, channels, 1, *encode_table(rate))
    return (4, site, len(body), *body)


@st.composite
def processes(draw, bits, words):
    """The numbers of a process of any kind; its planes have one rate or each its own."""
    rate = st.just(draw(st.sampled_from(RATES))) if draw(st.booleans()) else st.sampled_from(RATES)
    kind, site = draw(st.sampled_from(["bit", "cluster", "mask", "random", "late"])), draw(SITES)
    if kind == "bit":
        accepts = st.sampled_from([0, 1, ALL // 3, ALL - 1, ALL])
        return Bit(site, tuple((draw(rate), draw(accepts), draw(accepts)) for _ in range(bits))).program()
    if kind == "cluster":
        sizes = tuple(sorted(draw(st.lists(st.integers(0, ALL), max_size=4))))
        axis = draw(st.sampled_from(["bit", "word"]))
        return Cluster(site, axis, sizes, tuple(draw(rate) for _ in range(bits))).program()
    if kind == "mask":
        return Mask(site, draw(rate), draw(st.integers(1, 2**bits - 1))).program()
    return Random(site, draw(rate)).program() if kind == "random" else late(site, draw(rate), words)


def arguments(program, seed, samples, words, bits):
    fmt = CodeFormat(bits, signed=False)
    return Arguments(program, seed, samples, words, Grid(fmt, np.ones(1), 1, np.zeros(1), 1))


def struck(codes, program, seed, samples, bits, *, in_place=False, threads=1):
    """`codes` (batch, words) after inject, which sees them as float32."""
    to = arguments(program, seed, samples, codes.shape[1], bits)
    x = codes.astype(np.float32)
    out = x if in_place else np.full_like(x, np.nan)
    call("inject", 0, x, out, to.draw, to.format, threads)
    return out.astype(np.uint32)


def left(codes, program, seed, samples, bits, *, in_place=False, stored=True):
    """What zero_faulty leaves of ones; the codes are not given to it unless `stored`."""
    to = arguments(program, seed, samples, codes.shape[1], bits)
    x, gradient = codes.astype(np.float32), np.ones(codes.shape, np.float32)
    out = gradient if in_place else np.full_like(x, np.nan)
    call("zero_faulty", 0, gradient, out, x if stored else None, to.draw, to.format, 1)
    return out


@settings(max_examples=300, deadline=None)
@given(
    bits=st.integers(1, 9),
    rates=st.lists(st.sampled_from(RATES), min_size=9, max_size=9),
    accepts=st.lists(st.sampled_from([0, 1, ALL // 3, ALL - 1, ALL]), min_size=18, max_size=18),
    shape=st.tuples(st.integers(1, 40), st.sampled_from([1, 5, 1000, 1023, 1024, 1025, 2049, 5000])),
    seed=st.integers(0, 2**64 - 1),
    in_place=st.booleans(),
)
def test_values_equal_codes(bits, rates, accepts, shape, seed, in_place):
    planes = tuple((rates[i], accepts[2 * i], accepts[2 * i + 1]) for i in range(bits))
    program = Bit(seed & 0xFFFFFFFF, planes).program()
    random = np.random.default_rng(seed & 0xFFFF)
    codes = random.integers(0, 1 << bits, shape).astype(np.uint32)
    samples = random.integers(-5, 2**40, shape[0])
    expected = native.inject_codes(codes, program=program, seed=seed, samples=samples, bit_width=bits)
    assert np.array_equal(struck(codes, program, seed, samples, bits, in_place=in_place), expected)
    unstruck = left(codes, program, seed, samples, bits, in_place=in_place)
    assert np.array_equal(unstruck, np.where(codes == expected, np.float32(1), np.float32(0)))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("bits", [1, 4, 8, 9])
def test_the_reference_agrees(rate, bits):
    program = Bit(3, ((rate, ALL, ALL),) * bits).program()
    codes = np.random.default_rng(1).integers(0, 1 << bits, (20, 1500)).astype(np.uint32)
    rows = [
        reference.inject_codes(row, program=program, seed=5, sample=i, bit_width=bits) for i, row in enumerate(codes)
    ]
    found = struck(codes, program, 5, range(20), bits)
    assert np.array_equal(found, np.stack(rows))
    assert np.array_equal(left(codes, program, 5, range(20), bits, stored=False) == 0, found != codes)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bits=st.integers(1, 32), seed=st.integers(0, 2**64 - 1))
def test_every_program_is_the_reference_s(data, bits, seed):
    """Dense and sparse planes, wide words, several processes, clusters and words, partial blocks and long batches."""
    shape = data.draw(st.tuples(st.integers(1, 20), st.sampled_from([1, 5, 1000, 1024, 1025, 2049])))
    program = sum(data.draw(st.lists(processes(bits, shape[1]), min_size=1, max_size=3)), ())
    random = np.random.default_rng(seed & 0xFFFF)
    codes = random.integers(0, 1 << bits, shape).astype(np.uint32)
    samples = random.integers(-5, 2**40, shape[0])
    same = {"program": program, "seed": seed, "bit_width": bits}
    rows = [reference.inject_codes(row, sample=int(n), **same) for row, n in zip(codes, samples, strict=True)]
    expected = np.stack(rows)
    assert np.array_equal(native.inject_codes(codes, samples=samples, **same), expected)

    to = arguments(program, seed, samples, shape[1], bits)
    x = codes.astype(np.float64)
    out, gradient = np.full_like(x, np.nan), np.ones_like(x)
    changed = call("inject", 1, x, out, to.draw, to.format, 1)
    assert np.array_equal(out.astype(np.uint32), expected)
    assert changed == (codes != expected).sum()
    assert call("zero_faulty", 1, gradient, gradient, x, to.draw, to.format, 1) == changed
    assert np.array_equal(gradient == 0, codes != expected)
    positions, before, after = np.empty(changed, np.int64), *np.empty((2, changed), np.uint32)
    assert call("faulty_words", 1, x, to.draw, to.format, changed, positions, before, after) == changed
    assert np.array_equal(positions, np.flatnonzero(codes != expected)), "ascending"
    assert np.array_equal(before, codes.flat[positions])
    assert np.array_equal(after, expected.flat[positions])


def test_more_hits_than_are_drawn_at_a_time():
    """Tables of no law: thousands of hits on a plane, more than there are words in a block."""
    table = (3000, *([0] * 3000))
    flips, clusters = (ALL, ALL, *table, ALL // 2, ALL, *table), (1, 1, ALL // 2, *table, *table)
    for kind, body in enumerate((flips, clusters)):
        program = (kind, 9, len(body), *body)
        codes = np.random.default_rng(1).integers(0, 4, (3, 2000)).astype(np.uint32)
        rows = [
            reference.inject_codes(row, program=program, seed=5, sample=i, bit_width=2) for i, row in enumerate(codes)
        ]
        assert np.array_equal(struck(codes, program, 5, range(3), 2), np.stack(rows))


def test_threads_share_units_out_at_any_place():
    """Enough blocks for three threads, whose parts end within a group of blocks."""
    program = Bit(3, ((1e-3, ALL, ALL),) * 4).program()
    codes = np.random.default_rng(1).integers(0, 16, (2111, 3 * 1024 + 7)).astype(np.uint32)
    one, three = (struck(codes, program, 5, range(len(codes)), 4, threads=n) for n in (1, 3))
    assert np.array_equal(one, three)
    assert np.array_equal(
        one, native.inject_codes(codes, program=program, seed=5, samples=np.arange(len(codes)), bit_width=4)
    )
