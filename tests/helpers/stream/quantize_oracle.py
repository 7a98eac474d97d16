"""A fake quantizer in NumPy, step by step, and its derivative; scales have as many axes as the values."""

from typing import NamedTuple

import numpy as np


class Grid(NamedTuple):
    """Scales and zero points (float32), the integers there are, and whether gradients pass beyond them."""

    scale: np.ndarray
    zero_point: np.ndarray
    least: float
    most: float
    passes: bool = False


def rounded(x, grid):
    with np.errstate(all="ignore"):
        return np.rint(x / grid.scale + grid.zero_point)


def clamped(k, grid):
    most, least = np.float32(grid.most), np.float32(grid.least)
    k = np.where(k > most, most, k)
    return np.where(k < least, least, k)


def quantized(x, grid):
    """Each step rounds to float32."""
    with np.errstate(all="ignore"):
        return (clamped(rounded(x, grid), grid) - grid.zero_point) * grid.scale


def stopped(x, grid):
    """Where no gradient passes."""
    k = rounded(x, grid)
    return np.zeros(k.shape, bool) if grid.passes else (k > grid.most) | (k < grid.least)


def x_gradient(x, gradient, grid):
    with np.errstate(all="ignore"):
        return np.where(stopped(x, grid), np.float32(0), gradient * grid.scale) / grid.scale


def scale_gradient(x, gradient, grid):
    """The sum for each scale in float64, and that of the magnitudes of its terms."""
    with np.errstate(all="ignore"):
        through = np.where(stopped(x, grid), 0.0, gradient).astype(np.float64)
        whole = (clamped(rounded(x, grid), grid) - grid.zero_point).astype(np.float64)
        one, other = gradient * whole, through * (x.astype(np.float64) / grid.scale)
        return over(one - other, grid.scale.shape), over(np.abs(one) + np.abs(other), grid.scale.shape)


def over(terms, shape):
    """Sums over the axes that a scale does not have."""
    along = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return terms.sum(axis=along, keepdims=True)


def same_bits(a, b):
    return a.dtype == b.dtype == np.float32 and np.array_equal(a.view(np.uint32), b.view(np.uint32))
