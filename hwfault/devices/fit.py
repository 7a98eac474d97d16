"""Fitting a profile to measured maps: rate curve, effect, persistence, bit weights and spatial pattern."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hwfault.devices import crowding
from hwfault.devices.dumps import Measurement
from hwfault.errors import ModelError
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import BlockColumn, Independent
from hwfault.stream.fault_map import FaultMap

_PERMANENT_FROM = 0.95
"""Faults that persist from dump to dump more often than this count as permanent."""
_REJECTED_BELOW = 1e-3
_UNITS = {"v": "V", "mv": "mV", "c": "C", "k": "K", "s": "s", "ms": "ms", "h": "h", "mhz": "MHz", "gy": "Gy"}
_LABEL = "operating_point"


@dataclass(frozen=True)
class Persisting:
    """How many faults of a dump (`faults`) are in the next, harsher or repeated one as well (`again`)."""

    milder: str
    harsher: str
    faults: int
    again: int


@dataclass(frozen=True)
class Fit:
    """What measured maps say: the profile, and the statistics of the harshest of them that it rests on."""

    profile: Profile
    measurements: tuple[Measurement, ...]
    persisting: tuple[Persisting, ...]
    blocks: crowding.Blocks
    columns: crowding.Columns
    bits: crowding.BitPositions
    independence: crowding.Test

    @property
    def harshest(self) -> Measurement:
        return self.measurements[-1]

    @property
    def independent(self) -> bool:
        """Whether independent cells would explain the counts of blocks (p at least 0.001)."""
        return self.independence.p >= _REJECTED_BELOW


def rate(measurement: Measurement) -> tuple[int, int]:
    """(faults, cells): cells so many that faults / cells is the probability that a cell is faulty.

    Where only a part of the cells held a 1 (or a 0), the loss of it is counted among these.
    """
    flip, at_0, at_1 = measurement.by_kind()
    held_1, held_0, faults = measurement.held_1, measurement.held_0, flip + at_0 + at_1
    tested = max(held_1, held_0) if not (held_1 and held_0) else held_1 * held_0 // (held_1 + held_0)
    if max(held_1, held_0) == measurement.cells:
        return faults, measurement.cells
    value = (at_0 / held_1 if held_1 else 0) + (at_1 / held_0 if held_0 else 0)
    return faults, round(faults / value) if faults else max(tested, 1)


def fit(measurements: Sequence[Measurement], *, name: str, title: str | None = None) -> Fit:
    """The profile of a memory that was measured at one or more operating points, perhaps several times at one.

    All measurements are of one memory and, if there are several, at named points on the same axes. Raises ModelError
    where they do not go together.
    """
    _check(measurements)
    ordered = tuple(sorted(measurements, key=lambda m: rate(m)[0] / rate(m)[1]))
    worst = ordered[-1]
    row, column, _ = worst.faults()
    blocks = crowding.count_blocks(row, worst.rows, worst.row_bits, worst.block_rows)
    columns = crowding.count_columns(row, column, worst.rows, worst.row_bits, worst.block_rows)
    bits = crowding.count_bits(column, worst.row_bits, columns)
    persisting = tuple(_persisting(a, b) for a, b in pairwise(ordered))
    test = blocks.independence()
    pattern = None
    if test.p < _REJECTED_BELOW:
        pattern = _placed(crowding.block_column(blocks, columns, worst.row_bits, worst.block_rows), ordered)
    parts = {
        "effect": _effect(ordered),
        "bit_weights": _weights(bits) if bits.differ else None,
        "spatial": _spatial(pattern or Independent()),
        "persistence": _persistence(persisting),
        "mapping": {"kind": "linear", "rows": worst.rows, "row_bits": worst.row_bits},
    }
    record = _record(ordered, name, title or f"Fitted to {len(ordered)} measured maps of one memory", parts)
    return Fit(Profile.parse(record, name), ordered, persisting, blocks, columns, bits, test)


def _check(measurements: Sequence[Measurement]) -> None:
    if not measurements:
        raise ModelError("no dump was given, expected at least one")
    first = measurements[0]
    for other in measurements[1:]:
        if (other.rows, other.row_bits) != (first.rows, first.row_bits):
            raise ModelError(
                f"{first.source} has {first.rows} rows of {first.row_bits} bits and {other.source} {other.rows} of "
                f"{other.row_bits}; expected dumps of one memory"
            )
        if set(other.at) != set(first.at) or not other.at:
            raise ModelError(
                f"{first.source} is at {_at(first) or 'no operating point'} and {other.source} at "
                f"{_at(other) or 'none'}; expected a value on the same axes for each (DUMP@voltage_v=0.53)"
            )


def _at(measurement: Measurement) -> str:
    return ",".join(f"{axis}={value:g}" for axis, value in measurement.at.items())


def _persisting(milder: Measurement, harsher: Measurement) -> Persisting:
    """Faults count as the same where cell and kind agree."""
    a, b = (_numbers(m) for m in (milder, harsher))
    return Persisting(milder.file, harsher.file, len(a), int(np.isin(a, b).sum()))


def _numbers(measurement: Measurement) -> crowding.Ints:
    row, column, kind = measurement.faults()
    return (row * measurement.row_bits + column) * 3 + kind


def _effect(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Shares of the probabilities that a cell flips, loses its 1, loses its 0, each among cells that could show it."""
    counts = np.array([m.by_kind() for m in measurements]).sum(0)
    held = [sum(m.cells for m in measurements)]
    held += [sum(getattr(m, key) for m in measurements) for key in ("held_1", "held_0")]
    rates = [n / cells if cells else 0.0 for n, cells in zip(counts, held, strict=True)]
    if not sum(rates):
        return {"flip": 1.0, "source": "assumed"}
    shares = [round(r / sum(rates), 6) for r in rates]
    shares[int(np.argmax(shares))] = round(1 - sum(shares) + max(shares), 6)
    names = ("flip", "stuck_at_0", "stuck_at_1")
    return {n: s for n, s in zip(names, shares, strict=True) if s} | {"source": "dumps"}


def _weights(bits: crowding.BitPositions) -> list[float]:
    """Relative to the mean; half a fault more for each bit, so that none is excluded."""
    smoothed = bits.counts + 0.5
    return [float(f"{w:.3g}") for w in smoothed / smoothed.mean()]


def _placed(pattern: BlockColumn | None, measurements: Sequence[Measurement]) -> BlockColumn | None:
    """The pattern of the harshest (last) dump with where it holds, and the shares of blocks at other points."""
    if pattern is None:
        return None
    here = _place(measurements[-1])
    shares: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for m in measurements:
        if (place := _place(m)) != here and any(m.by_kind()):
            blocks = crowding.count_blocks(m.faults()[0], m.rows, m.row_bits, m.block_rows)
            shares.setdefault(tuple(place.items()), []).append(blocks.faulty / len(blocks.counts))
    elsewhere = [{"at": dict(at), "block_share": float(f"{sum(s) / len(s):.4g}")} for at, s in shares.items()]
    return BlockColumn(**pattern.model_dump() | {"holds_at": here, "elsewhere": tuple(elsewhere) or None})


def _place(measurement: Measurement) -> dict[str, float]:
    return dict(measurement.at) or {_LABEL: 0.0}


def _spatial(pattern: BlockColumn | Independent) -> dict[str, Any]:
    return pattern.model_dump(exclude_none=True) | {"source": "dumps"}


def _persistence(persisting: Sequence[Persisting]) -> dict[str, Any]:
    """Permanent unless faults vanish from dump to dump; assumed where no two dumps can tell."""
    faults, again = sum(p.faults for p in persisting), sum(p.again for p in persisting)
    if not faults:
        return {"kind": "permanent", "source": "assumed"}
    if again >= _PERMANENT_FROM * faults:
        return {"kind": "permanent", "source": "dumps"}
    active = {"p_active": float(f"{max(again, 1) / faults:.3g}"), "refresh": "power_cycle"}
    return {"kind": "intermittent", **active, "source": "dumps"}


def _record(measurements: Sequence[Measurement], name: str, title: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The profile as YAML has it."""
    used = {part["source"] for part in parts.values() if isinstance(part, dict) and "source" in part}
    sources = [_source(measurements)] + ([_assumption()] if "assumed" in used else [])
    return {
        "schema_version": 1,
        "name": name,
        "title": title,
        "component": "weight_memory",
        "sources": sources,
        "rate": {"quantity": "faulty_cells", **_curve(measurements)},
        **{key: value for key, value in parts.items() if value is not None},
        "notes": _notes(measurements[-1]),
    }


def _source(measurements: Sequence[Measurement]) -> dict[str, Any]:
    return {
        "key": "dumps",
        "citation": "Fitted by `hwfault profiles fit` to measured maps: " + ", ".join(m.file for m in measurements),
        "locator": "SHA-256 of the faulty cells: " + ", ".join(_digest(m.map) for m in measurements),
        "status": "derived",
        "measured": True,
    }


def _digest(fault_map: FaultMap) -> str:
    rows = (fault_map.word, fault_map.and_mask, fault_map.xor_mask)
    return hashlib.sha256(b"".join(r.tobytes() for r in rows)).hexdigest()[:16]


def _assumption() -> dict[str, Any]:
    citation = "One dump, or dumps without faults, cannot show what a fault does or whether it stays."
    return {"key": "assumed", "citation": citation, "status": "assumed", "measured": False}


def _curve(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Axes, and the points in the order in which rates rise on the whole; dumps at one point are added up."""
    counts: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for m in measurements:
        total = counts.setdefault(tuple((m.at or {_LABEL: 0.0}).items()), [0, 0])
        total[:] = [a + b for a, b in zip(total, rate(m), strict=True)]
    places = list(counts)
    falling = len(places) > 1 and places[0] > places[-1]
    points = [
        {"at": dict(place), "n_faults": n, "n_bits": bits, "source": "dumps"}
        for place, (n, bits) in sorted(counts.items(), reverse=falling)
    ]
    return {"axes": [{"name": axis, "unit": _unit(axis)} for axis, _ in places[0]], "points": points}


def _unit(axis: str) -> str:
    return _UNITS.get(axis.rpartition("_")[2], "1")


def _notes(measurement: Measurement) -> str:
    notes = ["Rates are those of one device; intervals that take its faults for independent are too narrow."]
    unseen = {(False, True): "a 1 reads 0", (True, False): "a 0 reads 1"}
    held = (measurement.held_1 > 0, measurement.held_0 > 0)
    if held in unseen:
        notes.append(f"Whether {unseen[held]} could not be seen: the pattern held no such bit.")
    return " ".join(notes)
