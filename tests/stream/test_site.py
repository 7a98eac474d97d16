"""Sites that the native library has parsed once, against the functions that parse a program at every call."""

import copy
import ctypes
import gc

import numpy as np
import pytest

from hwfault.errors import HwfaultError
from hwfault.stream import native
from hwfault.stream.native import ParsedSite, Shape
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.programs import Mask, program, symmetric
from tests.helpers.stream.values import BITS, DTYPES, STORED, Batch, batch
from tests.stream.test_native import (
    assert_same_bits,
    big_batch,
    injected_and_left,
    reads_stored,
    zero_faulty,
)

COUNT = 600
LATE = [4, 3, 6, *(7, 2, 2, 4, 4), -1]
"""Kind, site, length; mask, columns, rows, channels and words of a channel; every word is hit."""


def batches(part):
    draw = Draw(7000 + part)
    return (batch(draw) for _ in range(COUNT // 3))


def site_of(b: Batch) -> ParsedSite:
    return ParsedSite(b.case.program, b.case.bit_width, b.grid.fmt.signed)


def shape_of(b: Batch, scale_dtype=1, zero_point_dtype=1) -> Shape:
    batch, words = b.x.shape
    scales = (b.grid.scale.size, b.grid.scale_inner)
    zero_points = (b.grid.zero_point.size, b.grid.zero_point_inner)
    return Shape(batch, words, *scales, *zero_points, DTYPES[b.dtype], scale_dtype, zero_point_dtype)


def at(array):
    return array.ctypes.data


def strike(b: Batch, out=None, threads=1, numbers=(np.float64, np.float64)):
    x, out = np.ascontiguousarray(b.x), np.empty_like(b.x) if out is None else out
    scale, zero_point = (a.astype(kind) for a, kind in zip((b.grid.scale, b.grid.zero_point), numbers, strict=True))
    types = [DTYPES[np.dtype(kind).name] for kind in numbers]
    rest = (b.case.seed, at(b.samples), threads)
    changed = site_of(b).strike(shape_of(b, *types), at(x), at(out), at(scale), at(zero_point), *rest)
    return out, changed


@pytest.mark.parametrize("part", range(3))
def test_strikes_as_the_function_that_parses_a_program(part):
    changes = 0
    for b in batches(part):
        expected, changed, _ = injected_and_left(b)
        out, again = strike(b)
        assert_same_bits(out, expected, b)
        assert again == changed
        changes += changed
    assert changes > 1000


@pytest.mark.parametrize("numbers", [(np.float32, np.float32), (np.float32, np.float64), (np.float64, np.float32)])
def test_scales_are_read_in_their_own_type(numbers):
    for b in batches(0):  # whose scales and zero points are those of float32
        assert_same_bits(strike(b, numbers=numbers)[0], injected_and_left(b)[0], b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scales_of_16_bits(dtype):
    b = big_batch(words=5000)
    scale = np.array([0.5, 0.25], np.float16)
    if dtype == "bfloat16":
        scale = (scale.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    out, x = np.empty_like(b.x), np.ascontiguousarray(b.x)
    shape = shape_of(b, scale_dtype=DTYPES[dtype])
    zero_point = b.grid.zero_point
    site_of(b).strike(shape, at(x), at(out), at(scale), at(zero_point), b.case.seed, at(b.samples))
    assert_same_bits(out, injected_and_left(b)[0], b)


def test_words_that_hold_no_number_are_counted():
    told = 0
    for b in batches(1):
        left = ctypes.c_int64(-1)
        x, out = np.ascontiguousarray(b.x), np.empty_like(b.x)
        site, shape = site_of(b), shape_of(b)
        grid = (at(b.grid.scale), at(b.grid.zero_point))
        assert (
            native.calls().strike(site.address, shape, at(x), at(out), *grid, b.case.seed, at(b.samples), 1, left) >= 0
        )
        assert left.value == injected_and_left(b)[2]
        told += left.value
    assert told > 10


@pytest.mark.parametrize("part", range(3))
def test_zeros_as_the_function_that_parses_a_program(part):
    refused = 0
    for b in batches(part):
        gradient = np.ones(b.x.shape, STORED[b.dtype])
        x, shape, rest = np.ascontiguousarray(b.x), shape_of(b), (b.case.seed, at(b.samples))
        with_x, without = np.empty_like(gradient), np.empty_like(gradient)
        grid = (at(b.grid.scale), at(b.grid.zero_point))
        found = site_of(b).zero(shape, at(gradient), at(with_x), at(x), *grid, *rest)
        expected, changed = zero_faulty(b, gradient, x)
        assert_same_bits(with_x, expected, b)
        assert found == changed
        if reads_stored(b):
            refused += 1
            with pytest.raises(HwfaultError, match="depends on the stored codes"):
                site_of(b).zero(shape, at(gradient), at(without), None, None, None, *rest)
        else:
            site_of(b).zero(shape, at(gradient), at(without), None, None, None, *rest)
            assert_same_bits(without, zero_faulty(b, gradient)[0], b)
    assert refused > 5


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_samples_that_take_turns(in_place, threads):
    """As those of a tensor with another axis in front of that of the samples."""
    b = big_batch(words=500 * 1024)
    (rows, words), run = b.x.shape, 256
    expected, _, left = injected_and_left(b)

    def turned(x):
        return np.ascontiguousarray(x.reshape(rows, words // run, run).swapaxes(0, 1))

    shape, site, x = shape_of(b), site_of(b), turned(b.x)
    shape.run = run
    out, grid = x if in_place else np.empty_like(x), (at(b.grid.scale), at(b.grid.zero_point))
    rest = (b.case.seed, at(b.samples), threads)
    site.strike(shape, at(x), at(out), *grid, *rest)
    assert_same_bits(out, turned(expected), b)
    assert left == 0
    gradient = np.ones_like(x)
    zeroed = gradient if in_place else np.empty_like(x)
    site.zero(shape, at(gradient), at(zeroed), None, None, None, *rest)
    np.testing.assert_array_equal(zeroed == 0, turned(b.faulty()))
    with_x = np.empty_like(x)
    stored, ones = turned(b.x), np.ones_like(x)
    site.zero(shape, at(ones), at(with_x), at(stored), *grid, *rest)
    np.testing.assert_array_equal(with_x == 0, turned(b.faulty()))


def test_threads_do_not_matter():
    b = big_batch()
    alone = strike(b)[0]
    for threads in (0, 2, 1000, -1):
        assert_same_bits(strike(b, threads=threads)[0], alone, b)
    x = b.x.copy()
    grid = (at(b.grid.scale), at(b.grid.zero_point))
    site_of(b).strike(shape_of(b), at(x), at(x), *grid, b.case.seed, at(b.samples), 2)
    assert_same_bits(x, alone, b)


def test_a_site_outlives_the_program_that_it_was_made_of():
    numbers = np.array(program([Mask(9, 0.5, 5)]), np.int64)
    site = ParsedSite(numbers, 4, True)
    numbers[:] = 0
    del numbers
    gc.collect()
    expected, found = (one_word(s) for s in (ParsedSite(program([Mask(9, 0.5, 5)]), 4, True), site))
    np.testing.assert_array_equal(found, expected)
    assert (found != 0).any()


def one_word(site, words=64, bits=BITS["float32"]):
    """Zeros of a scale of 1, struck."""
    x, one, zero, samples = np.zeros(words, np.float32), np.ones(1), np.zeros(1), np.zeros(1, np.int64)
    shape = Shape(1, words, 1, 1, 1, 1, 0, 1, 1)
    site.strike(shape, at(x), at(x), at(one), at(zero), 1, at(samples))
    return x


def test_a_copy_has_memory_of_its_own():
    site = ParsedSite(program([symmetric(7, [0.3] * 4)]), 4, True)
    other = copy.deepcopy(site)
    assert other.address != site.address
    expected = one_word(site)
    del site
    gc.collect()
    np.testing.assert_array_equal(one_word(other), expected)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (([1, 2], 4, True), "the fault program"),
        (([], 0, True), "bit_width is 0, expected 1 to 32"),
        (([], 33, False), "bit_width is 33"),
        (([], 4, True, 3), "representation is 3, expected 0 to 2"),
    ],
)
def test_what_is_no_site_is_refused(given, match):
    with pytest.raises(HwfaultError, match=match):
        ParsedSite(*given)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"dtype": 4}, "dtype is 4, expected 0 to 3"),
        ({"scale_dtype": -1}, "dtype is -1"),
        ({"n_scale": 0}, "the scale has 0 values"),
        ({"scale_inner": 0}, "for 0 words each"),
        ({"n_zero_point": -3}, "the zero point has -3 values"),
        ({"words": -1}, "-1 words"),
        ({"batch": -1}, "-1 samples"),
        ({"run": -1}, "every -1 words"),
        ({"run": 3}, "every 3 words, expected a divisor"),
    ],
)
def test_impossible_shapes_are_refused(changed, match):
    shape = Shape(1, 64, 1, 1, 1, 1, 0, 1, 1)
    for name, number in changed.items():
        setattr(shape, name, number)
    x, one, samples = np.zeros(64, np.float32), np.ones(1), np.zeros(1, np.int64)
    site = ParsedSite(program([Mask(9, 0.5, 5)]), 4, True)
    with pytest.raises(HwfaultError, match=match):
        site.strike(shape, at(x), at(x), at(one), at(one), 1, at(samples))


def test_null_pointers_are_refused():
    shape = Shape(1, 64, 1, 1, 1, 1, 0, 1, 1)
    x, one, samples = np.zeros(64, np.float32), np.ones(1), np.zeros(1, np.int64)
    good = [shape, at(x), at(x), at(one), at(one), 1, at(samples)]
    site = ParsedSite(program([Mask(9, 0.5, 5)]), 4, True)
    for place, match in ((1, "null"), (2, "null"), (3, "the scale has"), (4, "the zero point has"), (6, "null")):
        with pytest.raises(HwfaultError, match=match):
            site.strike(*good[:place], None, *good[place + 1 :])


def test_late_bits_are_not_struck_in_place():
    site = ParsedSite(
        [4, 3, 6, 7, 2, 2, 4, 4, -1], 4, True
    )  # kind, site, length; mask, columns, rows, channels, inner; all
    x, one, zero, samples = np.zeros(64, np.float32), np.ones(1), np.zeros(1), np.zeros(1, np.int64)
    rest = (at(one), at(zero), 1, at(samples))
    with pytest.raises(HwfaultError, match="out must not be x"):
        site.strike(Shape(1, 64, 1, 1, 1, 1, 0, 1, 1), at(x), at(x), *rest)
    out = np.empty_like(x)
    with pytest.raises(HwfaultError, match="do not make up samples"):
        site.strike(Shape(1, 60, 1, 1, 1, 1, 0, 1, 1), at(x), at(out), *rest)
