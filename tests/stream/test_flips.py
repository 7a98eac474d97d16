"""Bit processes at low rates take a way of their own through the library; it must lead to the same codes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.codes import CodeFormat
from hwfault.stream import native, reference
from tests.helpers.stream.capi import Arguments, call
from tests.helpers.stream.programs import ALL, Bit
from tests.helpers.stream.values import Grid

RATES = [0.0, 1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 0.02, 0.03, 0.05, 0.3, 1.0]


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


def test_threads_share_units_out_at_any_place():
    """Enough blocks for three threads, whose parts end within a group of blocks."""
    program = Bit(3, ((1e-3, ALL, ALL),) * 4).program()
    codes = np.random.default_rng(1).integers(0, 16, (2111, 3 * 1024 + 7)).astype(np.uint32)
    one, three = (struck(codes, program, 5, range(len(codes)), 4, threads=n) for n in (1, 3))
    assert np.array_equal(one, three)
    assert np.array_equal(
        one, native.inject_codes(codes, program=program, seed=5, samples=np.arange(len(codes)), bit_width=4)
    )
