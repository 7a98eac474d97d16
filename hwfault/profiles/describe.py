"""Profiles in words and rows, for people and for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hwfault.profiles.curve import point_interval
from hwfault.profiles.profile import Profile, Rate
from hwfault.profiles.rates import RateCurve
from hwfault.records import Record

QUANTITIES = {
    "faulty_cells": "probability that a cell is faulty",
    "flips": "probability that a stored bit reads wrong",
    "faulty_elements": "probability that an element is faulty",
    "events": "probability that an event starts at a cell",
}
_INTERPOLATION = {
    "log10_linear": "log10(rate) is linear between the points",
    "linear": "linear between the points",
    "exact": "nothing is known between the points",
}


def status_of(profile: Profile) -> str:
    """The worst status of its sources, or `free` where the user sets the rate."""
    return "free" if profile.rate.free else profile.status


def summary(profile: Profile) -> dict[str, Any]:
    """What a list of profiles says of each."""
    return {
        "name": profile.name,
        "title": profile.title,
        "component": profile.component,
        "quantity": profile.rate.quantity,
        "operating_point": list(profile.rate.names),
        "persistence": profile.persistence.kind,
        "status": status_of(profile),
        "measured": profile.measured,
    }


def points(curve: RateCurve) -> list[dict[str, Any]]:
    """The measured points: where, the rate as drawn, its 95 % interval, and whether it is only an upper bound."""
    return [
        {
            "at": point.at,
            "rate": curve.drawn(point),
            "interval": point_interval(curve, point),
            "upper_bound": point.upper_bound,
            "n_faults": point.n_faults,
            "n_bits": point.n_bits,
            "source": point.source,
        }
        for point in curve.points
    ]


def lines(profile: Profile) -> Iterator[tuple[str, str]]:
    """(what, how it is) of a profile, in words; the rate's points are left to `points`."""
    technology = [value for value in profile.technology.model_dump().values() if value]
    yield "technology", "; ".join(technology) or "-"
    yield "component", profile.component
    yield "rate", "; ".join(_rate(profile.rate))
    yield "effect", _effect(profile)
    if profile.bit_weights:
        yield "bit weights", ", ".join(f"{weight:g}" for weight in profile.bit_weights)
    for part in ("spatial", "persistence", "mapping", "protection"):
        yield part, _record(getattr(profile, part))
    yield "digest", profile.digest


def _rate(curve: RateCurve) -> Iterator[str]:
    yield QUANTITIES[curve.quantity]
    if curve.free:
        yield f"you set it: {', '.join(curve.free)}"
        return
    for axis, values in zip(curve.axes, curve.values, strict=True):
        yield f"{axis.name} from {min(values):g} to {max(values):g} {axis.unit}"
        if axis.fail_free_from is not None:
            yield f"fail-free from {axis.fail_free_from:g} {axis.unit} on"
        if axis.crash_below is not None:
            yield f"crashes below {axis.crash_below:g} {axis.unit}"
        if axis.crash_above is not None:
            yield f"crashes above {axis.crash_above:g} {axis.unit}"
    yield _INTERPOLATION[curve.interpolation]


def _effect(profile: Profile) -> str:
    told = []
    for name, share in zip(("flip", "stuck at 0", "stuck at 1"), profile.effect.shares, strict=True):
        if isinstance(share, str):
            told.append(f"{name}: {share}")  # the free parameter that is its probability
        elif share != 0.0:
            told.append(f"{name}: {share:.4g} of them")
    return ", ".join(told) + _source(profile.effect)


def _record(part: Record | None) -> str:
    if part is None:
        return "-"
    given = part.model_dump(exclude_none=True)
    kind = given.pop("kind")
    given.pop("source", None)
    holds = _holds(given.pop("holds_at", None), given.pop("elsewhere", ()))
    told = ", ".join(f"{key} {_value(value)}" for key, value in given.items() if key in part.model_fields_set)
    numbers = f": {told}" if told else ""
    return f"{kind}{numbers}{holds}{_source(part)}"


def _holds(where: Any, elsewhere: Sequence[Mapping[str, Any]]) -> str:
    """Where a pattern holds, and the shares of blocks at other points; empty where nothing is said of either."""
    text = ""
    if where == "everywhere":
        text = "; holds everywhere"
    elif where is not None:
        text = f"; holds at {_value(where)} alone"
    shares = [f"{one['block_share']:.4g} at {_value(one['at'])}" for one in elsewhere]
    if shares:
        text += f", elsewhere block_share was {'; '.join(shares)}"
    return text


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, tuple | list):
        return " ".join(map(_value, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _source(part: Record) -> str:
    key = getattr(part, "source", None)
    return "" if key is None else f"  [{key}]"


def sources(profile: Profile) -> Iterator[tuple[str, str]]:
    """(key and status, where it is found) of each source."""
    for source in profile.sources:
        seen = "measured" if source.measured else "not measured"
        where = [source.citation]
        if source.locator:
            where.append(source.locator)
        if source.licence_of_data:
            where.append(f"licence: {source.licence_of_data}")
        yield f"[{source.key}] {source.status}, {seen}", "; ".join(part for part in where if part)


def describe_rate(rate: Rate) -> dict[str, Any]:
    """A rate at an operating point, as JSON tells it."""
    keys = ("value", "cells", "flip", "stuck_at_0", "stuck_at_1", "region", "upper_bound", "status", "sources")
    return {key: getattr(rate, key) for key in keys}


def rate_sentence(profile: Profile, rate: Rate) -> str:
    """A rate at an operating point in one sentence."""
    text = f"{QUANTITIES[profile.rate.quantity]}: {rate.value:.6g}"
    if rate.upper_bound:
        text += ", an upper bound (95 %): nothing failed at a point that it rests on"
    if rate.cells != rate.value:
        text += f"; {rate.cells:.6g} of the cells faulty"
    if rate.sources:
        return f"{text} ({rate.region}, from {', '.join(rate.sources)} ({rate.status}))"
    return f"{text} ({rate.region}, as you set it)"
