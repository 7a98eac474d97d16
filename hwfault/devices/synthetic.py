"""Synthetic devices: the map that a profile gives a device number, and how such devices compare with a measured one."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from hwfault.devices import crowding
from hwfault.devices.device import places
from hwfault.devices.draw import draw_map
from hwfault.devices.fit import Fit
from hwfault.devices.holding import pattern_note
from hwfault.errors import ModelError
from hwfault.notices import tell_once
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import BlockColumn, ProcessingElements
from hwfault.stream.fault_map import FaultMap


def draw_device(
    profile: Profile,
    operating_point: Mapping[str, float],
    *,
    device: int,
    rows: int | None = None,
    row_bits: int | None = None,
    strict_sources: bool = False,
) -> FaultMap:
    """The map of one device at an operating point, of a memory of `rows` x `row_bits` (the profile's own by default).

    Of processing elements `row_bits` is the width of their register. A pattern drawn where it does not hold is told,
    and noted in the map's provenance. Raises ModelError for a size that is not known, and for transient faults, which
    no device keeps.
    """
    if profile.persistence.kind == "transient":
        raise ModelError(
            f"{profile.name}: its faults are transient, drawn anew at every use; only permanent and intermittent "
            "ones make a device"
        )
    rows, row_bits = _size(profile, rows, row_bits)
    found = profile.resolve_rate(operating_point, strict_sources=strict_sources)
    flip, at_0, at_1 = (float(share) for share in found.effect.shares)
    fault_map = draw_map(
        profile.spatial,
        found.cells,
        rows=rows,
        row_bits=row_bits,
        shares=(flip, at_0, at_1),
        device=device,
        name=profile.name,
        bit_weights=profile.bit_weights,
    )
    at = ",".join(f"{axis}={value:g}" for axis, value in operating_point.items())
    told = {**fault_map.provenance, "profile": profile.name, "digest": profile.digest, "operating_point": at}
    if (note := pattern_note(profile, operating_point)) is not None:
        told["note"] = note
        tell_once([note])
    return replace(fault_map, provenance=told)


def memory_rows(profile: Profile, rows: int | None, blocks: int | None) -> int | None:
    """The rows that either number names; raises ModelError for both, and for blocks that the pattern does not have."""
    if blocks is None:
        return rows
    if rows is not None:
        raise ModelError(f"{rows} rows and {blocks} blocks were both given, expected one of them")
    if not isinstance(profile.spatial, BlockColumn):
        raise ModelError(f"{profile.name}: its pattern, {profile.spatial.kind}, has no blocks; give --rows")
    return blocks * profile.spatial.block_rows


def _size(profile: Profile, rows: int | None, row_bits: int | None) -> tuple[int, int]:
    if isinstance(profile.spatial, ProcessingElements):
        rows = profile.spatial.rows * profile.spatial.columns
    rows = rows or getattr(profile.mapping, "rows", None)
    row_bits = row_bits or getattr(profile.mapping, "row_bits", None)
    if rows is None or row_bits is None:
        lacking = " and ".join(o for o, v in (("--rows (or --blocks)", rows), ("--row-bits", row_bits)) if v is None)
        raise ModelError(f"{profile.name} does not tell the size of its memory; give {lacking}")
    return rows, row_bits


def drawn_statistics(
    found: Fit, devices: int, after_each: Callable[[], object] = lambda: None
) -> list[crowding.Statistics]:
    """The statistics of so many devices drawn from a fitted profile at its harshest point."""
    worst, results = found.harshest, []
    seen = sum(worst.by_kind()) / worst.cells  # as one measurement sees it: some faults may have kept their bit
    for device in range(devices):
        drawn = draw_map(
            found.profile.spatial,
            seen,
            rows=worst.rows,
            row_bits=worst.row_bits,
            shares=(1.0, 0.0, 0.0),
            device=device,
            name=found.profile.name,
            bit_weights=found.profile.bit_weights,
        )
        results.append(_statistics(found, drawn))
        after_each()
    return results


def _statistics(found: Fit, drawn: FaultMap) -> crowding.Statistics:
    worst = found.harshest
    row, column, _ = places(drawn, worst.row_bits)
    size = (worst.rows, worst.row_bits, worst.block_rows)
    columns = crowding.count_columns(row, column, *size, like=found.columns)
    return crowding.statistics(crowding.count_blocks(row, *size), columns)
