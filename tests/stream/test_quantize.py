"""The C functions of the fake quantizer against NumPy: known answers, any layout, strange values, threads, refusals."""

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import HwfaultError
from hwfault.stream import native
from tests.helpers.stream.quantize_oracle import Grid, quantized, same_bits, scale_gradient, stopped, x_gradient

STRANGE = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 0.25, -0.25, 0.75, 1e-40, 3e38, -3e38], np.float32)


def lie(shape, scale_shape):
    """(repeats, outer, shared, inner) of values with a scale along the axes from the first to the last that it has,
    one of which may be missing."""
    axes = [a for a, n in enumerate(scale_shape) if n > 1]
    if not axes:
        return 1, 1, int(np.prod(shape)), 1
    gap = [a for a in range(axes[0], axes[-1]) if a not in axes]
    if not gap:
        repeats, shared = int(np.prod(shape[: axes[0]])), int(np.prod(shape[axes[-1] + 1 :]))
        scales = int(np.prod(scale_shape))
        return (repeats, scales, shared, 1) if shared != 1 else (1, 1, repeats, scales)
    first, last = gap[0], gap[-1]
    parts = shape[: axes[0]], shape[axes[0] : first], shape[first : last + 1], shape[last + 1 :]
    return tuple(int(np.prod(part)) for part in parts)


def struct(grid, shape):
    """The C struct, which lives no longer than the arrays of the grid."""
    where = dict(zip(("repeats", "outer", "shared", "inner"), lie(shape, grid.scale.shape), strict=True))
    scale, zero = grid.scale.ctypes.data, grid.zero_point.ctypes.data
    ends = {"least": grid.least, "most": grid.most, "passes": grid.passes}
    return native.Quantizer(scale=scale, zero_point=zero, zero_points=grid.zero_point.size, **where, **ends)


def quantize(x, grid, threads=1):
    out = np.full_like(x, 77)
    native.quantize(x.ctypes.data, out.ctypes.data, struct(grid, x.shape), threads)
    return out


def differentiate(x, gradient, grid, threads=1, wants=(True, True)):
    dx, ds = np.full_like(x, 77), np.full(grid.scale.shape, 77.0)
    given = [a.ctypes.data if wanted else None for a, wanted in zip((dx, ds), wants, strict=True)]
    native.quantize_gradient(x.ctypes.data, gradient.ctypes.data, *given, struct(grid, x.shape), threads)
    return dx, ds


def one(scale=0.5, zero_point=0.0, least=-8, most=7, passes=False, axes=1):
    shape = (1,) * axes
    return Grid(np.full(shape, scale, np.float32), np.full(shape, zero_point, np.float32), least, most, passes)


def test_known_answers():
    x = np.array([0.24, 0.25, 0.26, 0.75, -0.25, -0.75, 3.6, 3.75, 99, -4.25, -99, -0.1, -0.0], np.float32)
    expected = np.array([0, 0, 0.5, 1, -0.0, -1, 3.5, 3.5, 3.5, -4, -4, -0.0, 0], np.float32)
    assert same_bits(quantize(x, one()), expected)
    dx, ds = differentiate(x, np.ones_like(x), one())
    assert dx.tolist() == [1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1]  # 3.75 is 7.5 steps, and 8 is not there; -8.5 is -8
    assert ds[0] == pytest.approx(scale_gradient(x, np.ones_like(x), one())[0][0])


def test_a_zero_point_is_added_before_the_rounding():
    grid = one(scale=1.0, zero_point=3.0, least=0, most=15)
    x = np.array([-3.5, -2.5, -0.5, 0.5, 11.4, 12.6], np.float32)
    assert quantize(x, grid).tolist() == [-3, -3, -1, 1, 11, 12]  # -0.5 is code 2.5, which is even at 2
    dx, ds = differentiate(x, np.ones_like(x), grid)
    assert dx.tolist() == [1, 1, 1, 1, 1, 0]
    assert ds[0] == pytest.approx((-3 + 3.5) + (-3 + 2.5) + (-1 + 0.5) + (1 - 0.5) + (11 - 11.4) + 12)


def test_a_gradient_that_passes_the_clamp():
    x, gradient = np.array([99.0, -99.0, 0.3], np.float32), np.array([2.0, 3.0, 4.0], np.float32)
    dx, ds = differentiate(x, gradient, one(passes=True))
    assert dx.tolist() == [2, 3, 4]
    assert ds[0] == pytest.approx(2 * (7 - 198) + 3 * (-8 + 198) + 4 * (1 - 0.6))


def test_what_is_infinite_or_no_number():
    x = np.concatenate([STRANGE, STRANGE[::-1]])
    for grid in (one(), one(passes=True), one(least=0, most=15), one(scale=-0.5), one(scale=np.inf), one(scale=0.0)):
        assert same_bits(quantize(x, grid), quantized(x, grid))
        for value in (1.0, np.inf, np.nan, -0.0):
            gradient = np.full_like(x, value)
            dx, _ = differentiate(x, gradient, grid)
            assert same_bits(dx, x_gradient(x, gradient, grid))


@pytest.mark.parametrize(("x", "through"), [(np.inf, -np.inf), (-np.inf, np.inf), (np.nan, np.nan)])
def test_the_scale_has_no_number_for_a_gradient_where_a_value_is_not_finite(x, through):
    values = np.array([x, 0.3], np.float32)
    assert np.isnan(differentiate(values, np.ones_like(values), one())[1][0])  # 0 times an infinite ratio
    assert np.array_equal(differentiate(values, np.ones_like(values), one(passes=True))[1], [through], equal_nan=True)


def test_an_infinite_gradient_that_the_clamp_stops_leaves_the_other_terms():
    values, gradient = np.array([99.0, 0.3], np.float32), np.array([np.inf, 1.0], np.float32)
    assert differentiate(values, gradient, one())[1][0] == np.inf


LAYOUTS = [
    ((37,), (1,)),
    ((3, 5, 7), (1, 1, 1)),
    ((3, 5, 7), (3, 1, 1)),
    ((3, 5, 7), (1, 5, 1)),
    ((3, 5, 7), (1, 1, 7)),
    ((3, 5, 7), (3, 5, 1)),
    ((3, 5, 7), (1, 5, 7)),
    ((3, 5, 7), (3, 5, 7)),
    ((3, 5, 7), (3, 1, 7)),
    ((2, 3, 5, 3, 3), (2, 3, 1, 3, 3)),
    ((2, 3, 5, 2, 1), (1, 3, 1, 2, 1)),
    ((2, 300, 3), (1, 300, 1)),
    ((4, 5000), (4, 1)),
    ((3, 4, 600), (1, 1, 600)),
    ((2, 3, 2, 4500), (1, 3, 1, 4500)),
    ((0, 4), (1, 4)),
    ((0,), (1,)),
    ((4, 0), (4, 1)),
]


def grids(rng, scale_shape, several_zero_points):
    bits = int(rng.integers(1, 9))
    signed = bool(rng.integers(2)) and bits > 1
    least = -(2 ** (bits - 1)) + int(rng.integers(2)) if signed else 0
    most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    scale = np.exp2(rng.uniform(-4, 1, scale_shape)).astype(np.float32)
    zero_shape = scale_shape if several_zero_points else (1,) * len(scale_shape)
    zero = rng.integers(least, most + 1, zero_shape).astype(np.float32) if rng.integers(2) else np.zeros(zero_shape)
    return Grid(scale, zero.astype(np.float32), least, most, bool(rng.integers(2)))


@pytest.mark.parametrize(("shape", "scale_shape"), LAYOUTS)
@given(st.integers(0, 2**32), st.booleans())
def test_any_layout_equals_numpy(shape, scale_shape, seed, several_zero_points):
    rng = np.random.default_rng(seed)
    grid = grids(rng, scale_shape, several_zero_points)
    x = (rng.normal(size=shape) * rng.choice([0.1, 1, 10])).astype(np.float32)
    gradient = rng.normal(size=shape).astype(np.float32)
    assert same_bits(quantize(x, grid), quantized(x, grid))
    dx, ds = differentiate(x, gradient, grid)
    assert same_bits(dx, x_gradient(x, gradient, grid))
    check_sums(ds, x, gradient, grid)
    assert same_bits(differentiate(x, gradient, grid, wants=(True, False))[0], dx)
    assert np.array_equal(differentiate(x, gradient, grid, wants=(False, True))[1], ds)


def test_a_row_of_one_value_is_a_column_of_scales():
    """Two ways to say how the same values lie."""
    rng = np.random.default_rng(2)
    grid = grids(rng, (1, 40), True)
    x, gradient = (rng.normal(size=(30, 40)).astype(np.float32) for _ in range(2))
    out, of_x, of_scale = np.empty_like(x), np.empty_like(x), np.empty(40)
    rows = struct(grid, x.shape)
    rows.repeats, rows.outer, rows.shared, rows.inner = 30, 40, 1, 1
    native.quantize(x.ctypes.data, out.ctypes.data, rows, 1)
    native.quantize_gradient(*(a.ctypes.data for a in (x, gradient, of_x, of_scale)), rows, 1)
    assert same_bits(out, quantize(x, grid))
    dx, ds = differentiate(x, gradient, grid)
    assert same_bits(of_x, dx)
    assert np.allclose(of_scale, ds[0], rtol=1e-12, atol=1e-12)


def check_sums(found, x, gradient, grid):
    expected, magnitude = scale_gradient(x, gradient, grid)
    assert (np.abs(found - expected) <= 1e-7 * magnitude).all()


@given(st.integers(0, 2**32))
def test_in_place(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=1000).astype(np.float32)
    expected = quantized(x, one())
    native.quantize(x.ctypes.data, x.ctypes.data, struct(one(), x.shape), 1)
    assert same_bits(x, expected)


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize(
    ("shape", "scale_shape"), [((700_001,), (1,)), ((64, 40, 333), (1, 40, 1)), ((500, 2000), (1, 2000))]
)
def test_the_number_of_threads_changes_nothing(shape, scale_shape, threads):
    import torch  # noqa: F401  brings its pool along

    rng = np.random.default_rng(5)
    scale = rng.uniform(0.1, 0.3, scale_shape).astype(np.float32)
    grid = Grid(scale, np.full_like(scale, 2), -8, 7)
    x, gradient = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    assert same_bits(quantize(x, grid, threads), quantized(x, grid))
    (dx, ds), (dx_1, ds_1) = (differentiate(x, gradient, grid, n) for n in (threads, 1))
    assert same_bits(dx, dx_1)
    assert np.array_equal(ds, ds_1)
    assert stopped(x, grid).any()
    check_sums(ds, x, gradient, grid)


def test_what_is_refused():
    x, out = np.zeros(6, np.float32), np.zeros(6, np.float32)

    def call(**changed):
        given = struct(one(), x.shape)
        for name, value in changed.items():
            setattr(given, name, value)
        native.quantize(x.ctypes.data, out.ctypes.data, given, 1)

    for wrong in ({"shared": -1}, {"repeats": 1 << 40, "shared": 1 << 40}, {"outer": -2}, {"inner": -1, "outer": -1}):
        with pytest.raises(HwfaultError, match="expected lengths of 0 or more"):
            call(**wrong)
    with pytest.raises(HwfaultError, match="2 zero points for 3 scales, expected 1 or as many"):
        call(outer=3, shared=2, zero_points=2)
    for name in ("scale", "zero_point"):
        with pytest.raises(HwfaultError, match="scales or zero points is null"):
            call(**{name: None})
    with pytest.raises(HwfaultError, match="a pointer to values is null"):
        native.quantize(x.ctypes.data, None, struct(one(), x.shape), 1)
    with pytest.raises(HwfaultError, match="a pointer to values is null"):
        native.quantize_gradient(x.ctypes.data, None, out.ctypes.data, None, struct(one(), x.shape), 1)
    with pytest.raises(HwfaultError, match="needs memory of its own"):
        native.quantize_gradient(x.ctypes.data, x.ctypes.data, x.ctypes.data, None, struct(one(), x.shape), 1)


def test_the_struct_is_as_long_as_in_c():
    assert ctypes.sizeof(native.Quantizer) == 72
