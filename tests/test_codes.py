"""Code words, integers and values: the specification's formulas, their edges, and the round trip."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.codes import CodeFormat, decode, encode, integers

FORMATS = st.builds(CodeFormat, st.integers(1, 32), st.booleans())
SCALES = st.floats(2.0**-60, 2.0**60, width=32)


def limits(fmt):
    """The lowest and highest integer of a format."""
    if fmt.bipolar:
        return -1, 1
    return (-(2 ** (fmt.bit_width - 1)), 2 ** (fmt.bit_width - 1) - 1) if fmt.signed else (0, 2**fmt.bit_width - 1)


@pytest.mark.parametrize("bit_width", [0, -1, 33, 64])
def test_widths_outside_the_word(bit_width):
    with pytest.raises(ValueError, match=f"bit_width is {bit_width}, expected 1 to 32"):
        CodeFormat(bit_width, True)


def test_masks():
    assert [CodeFormat(b, False).mask for b in (1, 4, 31, 32)] == [1, 15, 2**31 - 1, 2**32 - 1]


def test_only_one_signed_bit_is_bipolar():
    bipolar = [(b, s) for b in range(1, 33) for s in (False, True) if CodeFormat(b, s).bipolar]
    assert bipolar == [(1, True)]


def test_formats_are_values():
    assert CodeFormat(4, True) == CodeFormat(4, True) != CodeFormat(4, False)
    with pytest.raises(AttributeError):
        CodeFormat(4, True).bit_width = 5


@pytest.mark.parametrize(
    ("bits", "signed", "table"),
    [
        (1, False, {0: 0, 1: 1}),
        (1, True, {0: -1, 1: 1}),
        (2, True, {0: 0, 1: 1, 2: -2, 3: -1}),
        (3, False, {0: 0, 3: 3, 7: 7}),
        (4, True, {0: 0, 7: 7, 8: -8, 15: -1}),
        (8, True, {127: 127, 128: -128, 255: -1}),
        (32, True, {2**31 - 1: 2**31 - 1, 2**31: -(2**31), 2**32 - 1: -1}),
        (32, False, {0: 0, 2**32 - 1: 2**32 - 1}),
    ],
)
def test_integers_of_codes(bits, signed, table):
    fmt = CodeFormat(bits, signed)
    q = integers(np.array(list(table), np.uint32), fmt)
    assert q.tolist() == list(table.values())
    assert q.dtype == np.int64
    back = encode(np.array(list(table.values()), np.float64), 1.0, 0.0, fmt)
    assert back.tolist() == list(table)
    assert back.dtype == np.uint32


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, 14), (-2.5, 14), (0.49999997, 0), (0.50000006, 1), (7.4, 7)],
)
def test_halves_round_to_even(value, code):
    assert encode(np.float32(value), 1.0, 0.0, CodeFormat(4, True)) == code


@pytest.mark.parametrize(("value", "code"), [(8.0, 8), (15.0, 15), (16.0, 0), (-9.0, 7), (100.0, 4), (-100.0, 12)])
def test_integers_outside_the_range_wrap(value, code):
    assert encode(value, 1.0, 0.0, CodeFormat(4, True)) == code
    assert encode(value, 1.0, 0.0, CodeFormat(4, False)) == code


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("fmt", [CodeFormat(8, True), CodeFormat(32, False), CodeFormat(1, True)])
def test_what_is_not_finite_has_code_zero(value, fmt):
    for dtype in (np.float16, np.float32, np.float64):
        assert encode(dtype(value), 0.5, 3.0, fmt) == 0
    assert encode(1.0, 0.0, 0.0, fmt) == 0, "a scale of zero"
    assert encode(1.0, math.nan, 0.0, fmt) == 0


def test_far_values_have_a_code_without_a_warning():
    for value in (1e30, -1e30, 2.0**63, -(2.0**63), 1e308):
        assert encode(np.float64(value), 1.0, 0.0, CodeFormat(8, True)) == 0
    assert encode(np.float64(2.0**61 + 2**20), 1.0, 0.0, CodeFormat(22, True)) == 2**20


def test_bipolar_values():
    fmt = CodeFormat(1, True)
    assert encode(np.array([-0.25, 0.25], np.float32), 0.25, 0.0, fmt).tolist() == [0, 1]
    assert decode(np.array([0, 1], np.uint32), 0.25, 0.0, fmt).tolist() == [-0.25, 0.25]


def test_float32_values_are_divided_in_float32():
    value, scale, fmt = np.float32(1.691), np.float32(0.178), CodeFormat(4, False)
    assert value / scale == 9.5
    assert float(value) / float(scale) < 9.5
    assert encode(value, scale, 0.0, fmt) == 10
    assert encode(np.float64(value), np.float64(scale), 0.0, fmt) == 9


def test_halves_of_every_type_compute_in_float32():
    value = np.float16(0.1)
    assert encode(value, 0.001, 0.0, CodeFormat(16, False)) == np.rint(np.float32(value) / np.float32(0.001))


def test_the_zero_point_is_subtracted_before_the_scale():
    fmt = CodeFormat(8, False)
    codes = np.array([0, 3, 255], np.uint32)
    assert decode(codes, 0.5, 3.0, fmt).tolist() == [-1.5, 0.0, 126.0]
    assert encode(np.array([-1.5, 0.0, 126.0], np.float32), 0.5, 3.0, fmt).tolist() == [0, 3, 255]


def test_scales_broadcast():
    fmt = CodeFormat(8, True)
    scale = np.array([[1.0], [0.5]], np.float32)
    zero_point = np.array([0.0, 1.0, 2.0], np.float32)
    codes = np.array([[1, 2, 3], [1, 2, 3]], np.uint32)
    values = decode(codes, scale, zero_point, fmt)
    assert values.tolist() == [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]]
    np.testing.assert_array_equal(encode(values, scale, zero_point, fmt), codes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_decoding_rounds_twice_in_its_type(dtype):
    codes = np.array([2**31 + 1, 12345, 2**32 - 1], np.uint32)
    values = decode(codes, 0.1, 0.3, CodeFormat(32, False), dtype)
    expected = [dtype(dtype(dtype(int(c)) - dtype(0.3)) * dtype(0.1)) for c in codes]
    assert values.dtype == dtype
    assert values.tolist() == [float(v) for v in expected]


@given(FORMATS.filter(lambda fmt: fmt.bit_width <= 22), SCALES, st.data())
def test_round_trip_in_float32(fmt, scale, data):
    low, high = limits(fmt)
    zero_point = 0 if fmt.bipolar else data.draw(st.integers(0, min(high, 2**21)))
    codes = data.draw(st.lists(st.integers(0, fmt.mask), min_size=1, max_size=30))
    codes = np.array([*codes, 0, fmt.mask, low & fmt.mask, high & fmt.mask], np.uint32)
    values = decode(codes, scale, zero_point, fmt)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(encode(values, scale, zero_point, fmt), codes if not fmt.bipolar else codes & 1)


@given(FORMATS, st.floats(1e-100, 1e100), st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_round_trip_in_float64(fmt, scale, codes):
    codes = np.array(codes, np.uint64).astype(np.uint32) & np.uint32(fmt.mask)
    values = decode(codes, scale, 0.0, fmt, np.float64)
    np.testing.assert_array_equal(encode(values, scale, 0.0, fmt), codes)


@given(FORMATS, st.data())
def test_every_code_stands_for_an_integer_in_range(fmt, data):
    codes = data.draw(st.lists(st.integers(0, fmt.mask), min_size=1, max_size=20))
    low, high = limits(fmt)
    for code, q in zip(codes, integers(np.array(codes, np.uint32), fmt).tolist(), strict=True):
        assert low <= q <= high
        assert fmt.bipolar or (q - code) % 2**fmt.bit_width == 0


@given(st.floats(-1e9, 1e9), FORMATS.filter(lambda fmt: not fmt.bipolar))
def test_codes_are_the_formula(value, fmt):
    # Python's round() is half to even too
    assert encode(np.float64(value), 1.0, 5.0, fmt) == round(value + 5.0) % 2**fmt.bit_width
