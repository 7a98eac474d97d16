"""Scales that Brevitas makes of a parameter, a constant or the largest magnitudes, by the same steps in one go.

The steps are those of Brevitas' ParameterScaling, ConstScaling and StatsFromParameterScaling (brevitas.core.scaling):
the source is restricted, kept from falling below a least value, and divided by the range of the integers. Each is one
of torch's own functions on a few numbers, so that scales are equal to the bit on every device; the gradients multiply
the same factors in the same order.
"""

import math
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from hwfault.stream import native

_LOG_2 = math.log(2)


class Restriction(Enum):
    """What becomes of the source before it is divided."""

    MAGNITUDE = "its magnitude"
    POWER = "2 to its power"
    NEAREST_POWER = "2 to the power of the nearest integer"
    NEXT_POWER = "2 to the power of the next integer that is not smaller"


class Largest(NamedTuple):
    """The source is the largest magnitude of each of `rows` rows of the values themselves.

    `first_only` says that the first value that has it gets its gradient, not all in equal shares.
    """

    rows: int
    first_only: bool


class ScaleRule(NamedTuple):
    """How a scale follows from its source: a parameter or constant of the scale's shape, or the values' magnitudes."""

    restriction: Restriction
    threshold: Tensor
    """() What the restricted source is divided by; it needs no gradient."""
    shape: tuple[int, ...]
    least: float | None = None
    """What is divided does not fall below it; None for no such limit."""
    least_scale: float | None = None
    """The same of the quotient."""
    largest: Largest | None = None
    least_magnitude: float | None = None
    """The same of the largest magnitude, before its logarithm."""


class Scale(NamedTuple):
    """A scale, and what its gradient is computed from."""

    scale: Tensor
    restricted: Tensor
    source: Tensor
    """The parameter, or the largest magnitudes before and without any limit."""


def scale_of(rule: ScaleRule, x: Tensor, parameter: Tensor | None) -> Scale:
    """The scale by a rule; not followed by autograd."""
    source = largest_of(x, rule) if parameter is None else parameter.detach()
    restricted = _restricted(rule, source)
    limited = restricted if rule.least is None else restricted.clamp_min(rule.least)
    scale = limited / rule.threshold
    return Scale(scale if rule.least_scale is None else scale.clamp_min_(rule.least_scale), restricted, source)


def largest_of(x: Tensor, rule: ScaleRule) -> Tensor:
    """The largest magnitudes of contiguous float32 values, in the shape of the scale."""
    assert rule.largest is not None
    rows = rule.largest.rows
    if x.device.type != "cpu":
        return x.detach().abs().reshape(rows, -1).amax(1).reshape(rule.shape)
    out = torch.empty(rule.shape, dtype=x.dtype)
    native.largest(x.data_ptr(), rows, x.numel() // rows, out.data_ptr())
    return out


def _limited(rule: ScaleRule, source: Tensor) -> Tensor:
    return source if rule.least_magnitude is None else source.clamp_min(rule.least_magnitude)


def _restricted(rule: ScaleRule, source: Tensor) -> Tensor:
    if rule.largest is not None:
        source = _limited(rule, source)
    if rule.restriction is Restriction.MAGNITUDE:
        return source.abs()
    if rule.largest is not None:
        source = source.log2()
    if rule.restriction is Restriction.NEAREST_POWER:
        source = source.round()
    elif rule.restriction is Restriction.NEXT_POWER:
        source = source.ceil()
    return torch.pow(2.0, source)


def source_gradient(rule: ScaleRule, made: Scale, gradient: Tensor) -> Tensor:
    """The gradient of the source from that of the scale; limits and rounding let it pass."""
    gradient = gradient / rule.threshold
    source = made.source if rule.largest is None else _limited(rule, made.source)
    if rule.restriction is Restriction.MAGNITUDE:
        return gradient * source.sgn()
    gradient = gradient * (made.restricted * _LOG_2)
    return gradient if rule.largest is None else gradient / (source * _LOG_2)


def add_to_largest(rule: ScaleRule, x: Tensor, made: Scale, gradient: Tensor, x_gradient: Tensor) -> None:
    """Adds the gradient of the largest magnitudes to that of the values, which both are contiguous, in place."""
    assert rule.largest is not None
    rows, first_only = rule.largest
    if x.device.type == "cpu":
        native.largest_gradient(
            x.data_ptr(),
            rows,
            x.numel() // rows,
            made.source.data_ptr(),
            gradient.data_ptr(),
            first_only,
            x_gradient.data_ptr(),
        )
        return
    values = x.detach().reshape(rows, -1)
    has_it = values.abs() == made.source.reshape(rows, 1)
    if first_only:
        has_it &= has_it.cumsum(1) == 1
    share = gradient.reshape(rows, 1) / has_it.sum(1, keepdim=True)
    x_gradient.reshape(rows, -1).add_(torch.where(has_it, share * values.sgn(), 0.0))
