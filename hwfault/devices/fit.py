"""Fitting a profile to measured maps: rate curve, effect, persistence, bit weights and spatial pattern."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    held_1 = measurement.held_1
    held_0 = measurement.held_0
    faults = flip + at_0 + at_1
    if max(held_1, held_0) == measurement.cells:
        return faults, measurement.cells
    if not faults:
        # 1 / tested is what the sum below would be for one fault on each side
        tested = max(held_1, held_0)
        if held_1 and held_0:
            tested = held_1 * held_0 // (held_1 + held_0)
        return faults, max(tested, 1)
    loses_1 = at_0 / held_1 if held_1 else 0
    loses_0 = at_1 / held_0 if held_0 else 0
    return faults, round(faults / (loses_1 + loses_0))


def fit(measurements: Sequence[Measurement], *, name: str, title: str | None = None) -> Fit:
    """The profile of a memory that was measured at one or more operating points, perhaps several times at one.

    All measurements are of one memory and, if there are several, at named points on the same axes. Raises ModelError
    where they do not go together.
    """
    _check(measurements)
    # points are told apart by their values in order: each measurement names the axes as the first one does
    axes = list(measurements[0].at)
    alike = [replace(m, at={axis: m.at[axis] for axis in axes}) for m in measurements]
    # the harshest dump has the most faults, so that the pattern's statistics rest on it
    ordered = tuple(sorted(alike, key=_faults_a_cell))
    worst = ordered[-1]
    row, column, _ = worst.faults()
    blocks = crowding.count_blocks(row, worst.rows, worst.row_bits, worst.block_rows)
    columns = crowding.count_columns(row, column, worst.rows, worst.row_bits, worst.block_rows)
    bits = crowding.count_bits(column, worst.row_bits, columns)
    persisting = tuple(_persisting(a, b) for a, b in pairwise(ordered))
    # cells are independent until the counts of blocks say otherwise
    test = blocks.independence()
    pattern = None
    if test.p < _REJECTED_BELOW:
        found = crowding.block_column(blocks, columns, worst.row_bits, worst.block_rows)
        pattern = _place_pattern(found, ordered)
    parts = {
        "effect": _effect(ordered),
        "bit_weights": _weights(bits) if bits.differ else None,
        "spatial": _spatial(pattern or Independent()),
        "persistence": _persistence(persisting),
        "mapping": {"kind": "linear", "rows": worst.rows, "row_bits": worst.row_bits},
    }
    record = _record(ordered, name, title or f"Fitted to {len(ordered)} measured maps of one memory", parts)
    return Fit(Profile.parse(record, name), ordered, persisting, blocks, columns, bits, test)


def _faults_a_cell(measurement: Measurement) -> float:
    faults, cells = rate(measurement)
    return faults / cells


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
    before = _fault_numbers(milder)
    after = _fault_numbers(harsher)
    again = int(np.isin(before, after).sum())
    return Persisting(milder.file, harsher.file, len(before), again)


def _fault_numbers(measurement: Measurement) -> crowding.Ints:
    """A number for each fault that says both its cell and its kind, of which there are 3."""
    row, column, kind = measurement.faults()
    return (row * measurement.row_bits + column) * 3 + kind


def _effect(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Shares of the probabilities that a cell flips, loses its 1, loses its 0, each among cells that could show it."""
    counts = np.array([m.by_kind() for m in measurements]).sum(0)
    could_show = [
        sum(m.cells for m in measurements),
        sum(m.held_1 for m in measurements),
        sum(m.held_0 for m in measurements),
    ]
    rates = [n / cells if cells else 0.0 for n, cells in zip(counts, could_show, strict=True)]
    if not sum(rates):
        return {"flip": 1.0, "source": "assumed"}
    # rounded shares may not sum to 1, as a profile's must: the largest takes what is left
    shares = [round(r / sum(rates), 6) for r in rates]
    largest = int(np.argmax(shares))
    shares[largest] = round(1 - sum(shares) + shares[largest], 6)
    effect: dict[str, Any] = {}
    for name, share in zip(("flip", "stuck_at_0", "stuck_at_1"), shares, strict=True):
        if share:
            effect[name] = share
    effect["source"] = "dumps"
    return effect


def _weights(bits: crowding.BitPositions) -> list[float]:
    """Relative to the mean; half a fault more for each bit, so that none is excluded."""
    smoothed = bits.counts + 0.5
    return [float(f"{w:.3g}") for w in smoothed / smoothed.mean()]


def _place_pattern(pattern: BlockColumn | None, measurements: Sequence[Measurement]) -> BlockColumn | None:
    """The pattern of the harshest (last) dump with where it holds, and the shares of blocks at other points."""
    if pattern is None:
        return None
    here = _place(measurements[-1])
    shares: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for m in measurements:
        place = _place(m)
        if place == here or not any(m.by_kind()):
            continue
        row, _, _ = m.faults()
        blocks = crowding.count_blocks(row, m.rows, m.row_bits, m.block_rows)
        shares.setdefault(tuple(place.items()), []).append(blocks.faulty / len(blocks.counts))
    # repeated measurements of one point are told as their mean
    elsewhere = []
    for at, several in shares.items():
        mean = sum(several) / len(several)
        elsewhere.append({"at": dict(at), "block_share": float(f"{mean:.4g}")})
    fields = pattern.model_dump()
    fields["holds_at"] = here
    fields["elsewhere"] = tuple(elsewhere) or None
    return BlockColumn(**fields)


def _place(measurement: Measurement) -> dict[str, float]:
    return dict(measurement.at) or {_LABEL: 0.0}


def _spatial(pattern: BlockColumn | Independent) -> dict[str, Any]:
    return pattern.model_dump(exclude_none=True) | {"source": "dumps"}


def _persistence(persisting: Sequence[Persisting]) -> dict[str, Any]:
    """Permanent unless faults vanish from dump to dump; assumed where no two dumps can tell."""
    faults = sum(p.faults for p in persisting)
    again = sum(p.again for p in persisting)
    if not faults:
        return {"kind": "permanent", "source": "assumed"}
    if again >= _PERMANENT_FROM * faults:
        return {"kind": "permanent", "source": "dumps"}
    # at least one, as an activity of 0 would make faults that never show
    active = max(again, 1) / faults
    return {
        "kind": "intermittent",
        "p_active": float(f"{active:.3g}"),
        "refresh": "power_cycle",
        "source": "dumps",
    }


def _record(measurements: Sequence[Measurement], name: str, title: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The profile as YAML has it."""
    sources = [_source(measurements)]
    # a profile may not list a source that nothing names
    if any(isinstance(part, dict) and part.get("source") == "assumed" for part in parts.values()):
        sources.append(_assumption())
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
    counts: dict[tuple[tuple[str, float], ...], tuple[int, int]] = {}
    for m in measurements:
        place = tuple(_place(m).items())
        faults_before, cells_before = counts.get(place, (0, 0))
        faults, cells = rate(m)
        counts[place] = faults_before + faults, cells_before + cells
    # measurements come mildest first: where that is the highest value (as of a voltage), points fall
    places = list(counts)
    falling = len(places) > 1 and places[0] > places[-1]
    points = []
    for place in sorted(places, reverse=falling):
        faults, cells = counts[place]
        points.append({"at": dict(place), "n_faults": faults, "n_bits": cells, "source": "dumps"})
    axes = [{"name": axis, "unit": _unit(axis)} for axis, _ in places[0]]
    return {"axes": axes, "points": points}


def _unit(axis: str) -> str:
    return _UNITS.get(axis.rpartition("_")[2], "1")


def _notes(measurement: Measurement) -> str:
    notes = ["Rates are those of one device; intervals that take its faults for independent are too narrow."]
    unseen = {(False, True): "a 1 reads 0", (True, False): "a 0 reads 1"}
    held = (measurement.held_1 > 0, measurement.held_0 > 0)
    if held in unseen:
        notes.append(f"Whether {unseen[held]} could not be seen: the pattern held no such bit.")
    return " ".join(notes)
