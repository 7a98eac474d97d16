"""Looking a rate up on a curve: exact at measured points, between them in logarithms, never beyond them."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import product
from typing import Literal

from hwfault.errors import ModelError, nearest
from hwfault.profiles.numbers import list_numbers
from hwfault.profiles.rates import Axis, RateCurve, RatePoint

_EXACT = Context(prec=50, Emin=-999_999, Emax=999_999)  # rounded once, to a float, so that it is the same everywhere

Region = Literal["measured", "interpolated", "clamped", "fail-free"]


@dataclass(frozen=True)
class LookedUp:
    """A rate of a curve, the points and axes that it rests on, and how it was found."""

    value: float
    region: Region
    points: tuple[RatePoint, ...]
    axes: tuple[Axis, ...] = ()

    @property
    def upper_bound(self) -> bool:
        """Whether a point among them is only a bound, because nothing failed there."""
        return self.value > 0 and any(point.upper_bound for point in self.points)

    @property
    def sources(self) -> tuple[str, ...]:
        """The keys of the sources that the rate rests on, each once."""
        named = [part.source for part in (*self.points, *self.axes) if part.source is not None]
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True)
class _Place:
    """Where a value lies on an axis: between two measured values, `weight` of the way from `low` to `high`."""

    low: float
    high: float
    weight: Decimal
    region: Region


def look_up(curve: RateCurve, at: Mapping[str, float], name: str = "the profile") -> LookedUp:
    """The rate at an operating point, one value for each axis; `name` is who the errors speak of.

    Between points log10(rate) is multilinear in the axes (or the rate itself, as the curve says); computed in decimal
    numbers of 50 digits and rounded once. Raises ModelError beyond the measured range, with the range.
    """
    point = _complete(curve, at, name)
    places = []
    outside = []  # axes whose own numbers decide, where the value lies beside the measured ones
    for axis, values in zip(curve.axes, curve.values, strict=True):
        place = _place(curve, axis, values, point[axis.name], name)
        places.append(place)
        if place.region in ("clamped", "fail-free"):
            outside.append(axis)
    axes = tuple(outside)

    table = {tuple(p.at[axis] for axis in curve.names): p for p in curve.points}
    corners = _corners(places)
    used = tuple(table[corner] for corner in corners)
    regions = [place.region for place in places]
    if "fail-free" in regions:
        return LookedUp(0.0, "fail-free", used, axes)
    rates = {corner: Decimal(curve.drawn(table[corner])) for corner in corners}
    value = float(_mix(curve, rates, places))
    if "clamped" in regions:
        return LookedUp(value, "clamped", used, axes)
    return LookedUp(value, "measured" if len(corners) == 1 else "interpolated", used, axes)


def _complete(curve: RateCurve, at: Mapping[str, float], name: str) -> dict[str, float]:
    """The operating point with axes of a single measured value filled in."""
    check_names(at, curve, name)
    point = {}
    for axis, values in zip(curve.axes, curve.values, strict=True):
        if len(values) == 1:
            point[axis.name] = values[0]
    for given, value in at.items():
        point[given] = float(value)
    missing = [axis for axis in curve.names if axis not in point]
    if missing:
        raise ModelError(f"{name}: the operating point lacks {' and '.join(missing)}; {_wanted(curve)}")
    return point


def _wanted(curve: RateCurve) -> str:
    """How an operating point is given, with the measured ranges."""
    ranges = " and ".join(
        f"{axis.name} ({min(values):g} to {max(values):g} {axis.unit} are measured)"
        for axis, values in zip(curve.axes, curve.values, strict=True)
    )
    return f"expected {ranges}, written as NAME@{curve.points[-1].place()}"


def check_names(at: Mapping[str, float], curve: RateCurve, name: str) -> None:
    """Raises ModelError if an operating point names what the curve does not know, or a value that is no number."""
    for given, value in at.items():
        if given not in curve.names:
            raise ModelError(f"{name}: unknown name {given!r} in the operating point: {nearest(given, curve.names)}")
        if not math.isfinite(value):
            raise ModelError(f"{name}: {given} = {value}, expected a finite number")


def _place(curve: RateCurve, axis: Axis, values: Sequence[float], value: float, name: str) -> _Place:
    reason = axis.crash(value)
    if reason:
        raise ModelError(_beyond(axis, values, value, name, reason))
    ordered = sorted(values)
    nothing = Decimal(0)  # the way from one value to itself
    if axis.is_fail_free(value, values):
        mildest = ordered[-1] if axis.direction(values) == "lower" else ordered[0]
        return _Place(mildest, mildest, nothing, "fail-free")
    if value in ordered:
        return _Place(value, value, nothing, "measured")
    if curve.interpolation == "exact":
        raise ModelError(
            f"{name}: {axis.name} = {value:g} is not among the points, and nothing is known between them; "
            f"expected one of {list_numbers(values)}"
        )
    if not ordered[0] < value < ordered[-1]:
        return _beside(axis, values, value, name)
    at = bisect_right(ordered, value)
    low = ordered[at - 1]
    high = ordered[at]
    # as people write them: the half way from 0.53 to 0.54 is 0.535, which as doubles it is not
    a, b, x = (Decimal(repr(v)) for v in (low, high, value))
    weight = _EXACT.divide(_EXACT.subtract(x, a), _EXACT.subtract(b, a))
    return _Place(low, high, weight, "interpolated")


def _beside(axis: Axis, values: Sequence[float], value: float, name: str) -> _Place:
    """The mildest point, where the value lies between it and the fail-free region; ModelError beyond the range."""
    lower_is_worse = axis.direction(values) == "lower"
    mildest = max(values) if lower_is_worse else min(values)
    milder = value > mildest if lower_is_worse else value < mildest
    if axis.fail_free_from is None or not milder:
        raise ModelError(_beyond(axis, values, value, name, ""))
    return _Place(mildest, mildest, Decimal(0), "clamped")


def _beyond(axis: Axis, values: Sequence[float], value: float, name: str, reason: str) -> str:
    free = "" if axis.fail_free_from is None else f", fail-free from {axis.fail_free_from:g} {axis.unit} on"
    because = f"; {reason}" if reason else ""
    return (
        f"{name}: {axis.name} = {value:g} lies beyond the measured range, {min(values):g} to {max(values):g} "
        f"{axis.unit}{free}{because}; rates are not extrapolated"
    )


def _corners(places: Sequence[_Place]) -> list[tuple[float, ...]]:
    """The grid points that surround the operating point, as axis values."""
    # a place on a measured value has one side only
    sides = [dict.fromkeys((place.low, place.high)) for place in places]
    return list(product(*sides))


def _mix(curve: RateCurve, rates: Mapping[tuple[float, ...], Decimal], places: Sequence[_Place]) -> Decimal:
    """The rates of the corners, mixed along one axis after the other, the last first."""
    for place in reversed(places):
        mixed = {}
        for head in dict.fromkeys(corner[:-1] for corner in rates):
            low = rates[*head, place.low]
            high = rates[*head, place.high]
            mixed[head] = _between(curve, low, high, place.weight)
        rates = mixed
    return rates[()]  # no axis is left


def _between(curve: RateCurve, a: Decimal, b: Decimal, weight: Decimal) -> Decimal:
    if a == b:
        return a  # as it is, not the logarithm's power
    c = _EXACT
    if curve.interpolation == "linear":
        return c.add(a, c.multiply(weight, c.subtract(b, a)))
    low = c.ln(a)
    high = c.ln(b)
    return c.exp(c.add(low, c.multiply(weight, c.subtract(high, low))))


def interval(n_faults: float, n_bits: float) -> tuple[float, float]:
    """The exact 95 % interval (Clopper and Pearson) of a rate of which n_faults in n_bits were seen.

    Numbers that are not whole are taken as they are. None seen: (0, 3 / n_bits), the bound that faults are drawn
    with.
    """
    from scipy.special import betaincinv  # slow to import, and only needed here

    if n_faults == 0:
        return 0.0, min(1.0, 3 / n_bits)
    rest = n_bits - n_faults
    low = float(betaincinv(n_faults, rest + 1, 0.025))
    if rest == 0:
        return low, 1.0
    return low, float(betaincinv(n_faults + 1, rest, 0.975))


def point_interval(curve: RateCurve, point: RatePoint) -> tuple[float, float] | None:
    """The 95 % interval of a measured point, each fault counted once; None where no counts are known."""
    if point.n_faults is None or point.n_bits is None:
        return None
    return interval(point.n_faults / curve.times_listed, point.n_bits / curve.times_listed)
