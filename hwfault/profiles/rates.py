"""The rate curve of a profile: measured points over the axes of an operating point, and the rules that they obey."""

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Literal, Self

from pydantic import model_validator

from hwfault.errors import nearest
from hwfault.profiles.numbers import Count, Name, Number, Positive, Probability
from hwfault.records import Sourced

Quantity = Literal["faulty_cells", "flips", "faulty_elements", "events"]
Direction = Literal["lower", "higher"]

_LARGEST_CONTRADICTION = 1e-3
_WORSE: dict[str, Direction] = {"crash_below": "lower", "crash_above": "higher"}


class Axis(Sourced):
    """One quantity of an operating point, in its `unit`, and which values of it are harmless or unusable.

    From `fail_free_from` on, to the milder side, no fault occurs. Below `crash_below` or above `crash_above` the device
    stops. `worse` says which way is harsher where neither these nor the points tell.
    """

    name: Name
    unit: str
    nominal: Number | None = None
    worse: Direction | None = None
    fail_free_from: Number | None = None
    crash_below: Number | None = None
    crash_above: Number | None = None

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        said = {key: way for key, way in _WORSE.items() if getattr(self, key) is not None}
        if self.worse:
            said["worse"] = self.worse
        if len(set(said.values())) > 1:
            raise ValueError(f"{' and '.join(said)} contradict each other: is lower or higher {self.name} harsher?")
        for key, value in (("crash_below", self.crash_below), ("crash_above", self.crash_above)):
            if value is not None and self._is_fail_free(value, _WORSE[key]):
                raise ValueError(f"{key} {value:g} lies in the fail-free region, from {self.fail_free_from:g} on")
        return self

    def _is_fail_free(self, value: float, worse: Direction) -> bool:
        free = self.fail_free_from
        if free is None:
            return False
        return value >= free if worse == "lower" else value <= free

    def direction(self, values: Sequence[float]) -> Direction | None:
        """Which way is harsher, as far as the axis and the side on which the measured `values` lie tell."""
        for key, way in _WORSE.items():
            if getattr(self, key) is not None:
                return way
        if self.worse is None and self.fail_free_from is not None:
            return "lower" if min(values) < self.fail_free_from else "higher"
        return self.worse

    def is_fail_free(self, value: float, values: Sequence[float]) -> bool:
        """Whether no fault occurs at `value`, given the measured `values`."""
        worse = self.direction(values)
        return worse is not None and self._is_fail_free(value, worse)

    def crash(self, value: float) -> str:
        """What makes the device unusable at `value`, in words; empty if nothing does."""
        if self.crash_below is not None and value < self.crash_below:
            return f"the device crashes below {self.crash_below:g} {self.unit}"
        if self.crash_above is not None and value > self.crash_above:
            return f"the device crashes above {self.crash_above:g} {self.unit}"
        return ""


class RatePoint(Sourced):
    """What was measured at one operating point: a rate, or `n_faults` among `n_bits`, or both where they agree."""

    at: dict[str, Number]
    rate: Probability | None = None
    n_faults: Count | None = None
    n_bits: Positive | None = None
    source: str

    @model_validator(mode="after")
    def _a_number_that_holds(self) -> Self:
        if (self.n_faults is None) != (self.n_bits is None):
            raise ValueError("n_faults and n_bits go together, one of them is missing")
        if self.n_faults is None or self.n_bits is None:
            if self.rate is None:
                raise ValueError("expected a rate, or n_faults and n_bits")
            return self
        if self.n_faults > self.n_bits:
            raise ValueError(f"n_faults {self.n_faults} exceeds n_bits {self.n_bits}")
        counted = self.n_faults / self.n_bits
        if self.rate is not None and abs(self.rate - counted) > _LARGEST_CONTRADICTION * counted:
            raise ValueError(
                f"the rate {self.rate:g} contradicts n_faults / n_bits = {self.n_faults} / {self.n_bits} = "
                f"{counted:g}; leave the rate out, or correct the counts"
            )
        return self

    @property
    def measured(self) -> float:
        """The number as measured: the rate where one is written, the ratio of the counts otherwise."""
        if self.rate is not None:
            return self.rate
        return (self.n_faults or 0) / (self.n_bits or 1)

    @property
    def upper_bound(self) -> bool:
        """Whether nothing was seen, so that only a bound is known."""
        return self.n_faults == 0

    def place(self) -> str:
        """The operating point as `axis=value,axis=value`."""
        return ",".join(f"{name}={value:g}" for name, value in self.at.items())


class RateCurve(Sourced):
    """How often: measured `points` over `axes`, or the names of `free` parameters that the user sets.

    `quantity` says what the rate counts. The points form a full grid, the last axis varying fastest, each axis rising
    or falling. `times_listed` says how often the counts list each fault. Raises ModelError where a rule is broken.
    """

    quantity: Quantity
    axes: tuple[Axis, ...] = ()
    points: tuple[RatePoint, ...] = ()
    interpolation: Literal["log10_linear", "linear", "exact"] = "log10_linear"
    times_listed: Positive = 1
    free: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if bool(self.free) == bool(self.points):
            raise ValueError("expected either measured `points` over `axes`, or `free` parameters")
        _check_names(self.free or [axis.name for axis in self.axes], "free" if self.free else "axes")
        if self.free:
            _check_free(self)
        else:
            _check_points(self)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What an operating point gives: the names of the axes, or of the free parameters."""
        return self.free or tuple(axis.name for axis in self.axes)

    @property
    def values(self) -> tuple[tuple[float, ...], ...]:
        """The measured values of each axis, in the order of the points."""
        each = []
        for axis in self.axes:
            once = dict.fromkeys(point.at[axis.name] for point in self.points)
            each.append(tuple(once))
        return tuple(each)

    def drawn(self, point: RatePoint) -> float:
        """The rate that faults are drawn with: as measured, or the 95 % bound 3/N where none of N cells failed."""
        if not point.upper_bound or point.n_bits is None:
            return point.measured
        return min(1.0, 3 * self.times_listed / point.n_bits)


def _check_names(names: Sequence[str], what: str) -> None:
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(f"{what}: {twice[0]!r} is named twice")


def _check_free(curve: RateCurve) -> None:
    if curve.axes:
        raise ValueError("free parameters have no axes: their names are given as they are")
    if curve.interpolation != "log10_linear" or curve.times_listed != 1:
        raise ValueError("interpolation and times_listed go with measured points, not with free parameters")


def _check_points(curve: RateCurve) -> None:
    if not curve.axes:
        raise ValueError("axes: the points lie over at least one axis, none is given")
    for i, point in enumerate(curve.points):
        _check_place(curve, i, point)
    _check_grid(curve)
    for i, (axis, values) in enumerate(zip(curve.axes, curve.values, strict=True)):
        _check_axis(curve, i, axis, values)
    zero = next((p for p in curve.points if curve.drawn(p) == 0), None)
    if zero is not None and curve.interpolation == "log10_linear":
        raise ValueError(
            f"the rate at {zero.place()} is 0, which has no logarithm; give n_faults and n_bits (a bound of 3 / n_bits "
            "follows), say from where on the axis is fail-free (fail_free_from), or interpolate linearly"
        )


def _check_place(curve: RateCurve, i: int, point: RatePoint) -> None:
    names = curve.names
    for name in point.at:
        if name not in names:
            raise ValueError(f"points.{i}.at: unknown axis {name!r}: {nearest(name, names)}")
    for name in names:
        if name not in point.at:
            raise ValueError(f"points.{i}.at: the axis {name!r} is missing")


def _check_grid(curve: RateCurve) -> None:
    places = [tuple(point.at[name] for name in curve.names) for point in curve.points]
    first: dict[tuple[float, ...], int] = {}
    for i, place in enumerate(places):
        if place in first:
            raise ValueError(f"points {first[place]} and {i} are both at {curve.points[i].place()}")
        first[place] = i
    sides = [len(values) for values in curve.values]
    if math.prod(sides) != len(places):
        size = " x ".join(map(str, sides))
        raise ValueError(f"{len(places)} points do not fill the grid of {size} values of their axes")
    for i, (place, expected) in enumerate(zip(places, product(*curve.values), strict=True)):
        if place != expected:
            raise ValueError(f"points.{i}: out of order; the last axis must vary fastest")


def _check_axis(curve: RateCurve, i: int, axis: Axis, values: tuple[float, ...]) -> None:
    rising = {a < b for a, b in pairwise(values)}
    if len(rising) > 1:
        raise ValueError(f"the points are out of order: {axis.name} must rise or fall all along, not {list(values)}")
    for value in values:
        if axis.is_fail_free(value, values):
            raise ValueError(
                f"a point at {axis.name} = {value:g} lies in the fail-free region (fail_free_from "
                f"{axis.fail_free_from:g}): no measured point may"
            )
        reason = axis.crash(value)
        if reason:
            raise ValueError(f"a point at {axis.name} = {value:g}, but {reason}")
    if axis.fail_free_from is not None and _falls_towards_harsh(curve, i, axis.direction(values)):
        raise ValueError(
            f"fail_free_from {axis.fail_free_from:g} lies at the end of {axis.name} where the rates are highest"
        )


def _falls_towards_harsh(curve: RateCurve, i: int, worse: Direction | None) -> bool:
    """Whether some line of points along axis `i` starts, on the mild side, above its harsh end."""
    name = curve.axes[i].name
    ordered = sorted(curve.points, key=lambda point: point.at[name], reverse=worse == "lower")
    lines: dict[tuple[float, ...], list[float]] = {}
    for point in ordered:
        rest = tuple(point.at[other] for other in curve.names if other != name)
        lines.setdefault(rest, []).append(point.measured)
    return any(line[0] > line[-1] for line in lines.values())
