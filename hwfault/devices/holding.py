"""Where a spatial pattern holds, and what is known where it is drawn all the same."""

import math
from collections.abc import Mapping
from typing import Any

from hwfault.devices.clustering import block_share
from hwfault.profiles.profile import Profile, check_pattern
from hwfault.profiles.spatial import BlockColumn, MeasuredShare, Pattern, Spatial

_SAME_RATE = 1e-3
"""Rates that differ by less, in parts of them, count as one."""


def pattern_note(
    profile: Profile, at: Mapping[str, float], *, spatial: Spatial | None = None, share: float = 1.0
) -> str | None:
    """What must be said of a pattern drawn at an operating point, in one sentence; None where it holds there.

    `spatial` takes the place of the profile's, `share` (0 to 1) is that of its rate. Where a pattern is drawn at
    another rate than it was measured at, its faults are a random thinning of those (or more of the same); the note
    names what the profile knows of the difference. A pattern without a word on where it holds does so at the rate that
    it was counted at. Nothing is said where there are no faults. Raises ModelError as `Profile.resolve_rate` does, and
    for a pattern that holds at a point that the profile does not know.
    """
    pattern = profile.spatial if spatial is None else spatial
    check_pattern(profile, pattern)
    if not isinstance(pattern, Pattern) or pattern.holds_at == "everywhere":
        return None
    rate = profile.resolve_rate(at)
    drawn = rate.cells * share
    if drawn == 0 or _holds(profile, pattern, at, share, drawn):
        return None
    where = point_text(at) or point_text(pattern.holds_at or {})
    lesser = known = ""
    if share == 1:
        known = _differences(profile, pattern, at)
    else:
        lesser = ", at a share of its rate"  # where nothing was measured, so that no difference is known
    reason = _reason(pattern)
    return (
        f"{profile.name} at {where}{lesser}: the pattern of its faults ({pattern.kind}) {reason}. The rate stands, but "
        f"where the faults lie is not what was measured{known}; spatial: {{kind: independent}} asks for cells that "
        "fail by themselves"
    )


def _holds(profile: Profile, pattern: Pattern, at: Mapping[str, float], share: float, drawn: float) -> bool:
    if isinstance(pattern.holds_at, dict):
        # an axis with a single measured value may be left out of the operating point
        here = all(at.get(axis, value) == value for axis, value in pattern.holds_at.items())
        return here and share == 1
    if isinstance(pattern, BlockColumn):
        return math.isclose(drawn, pattern.at_rate, rel_tol=_SAME_RATE)
    return True


def _reason(pattern: Pattern) -> str:
    if isinstance(pattern.holds_at, dict):
        return f"holds at {point_text(pattern.holds_at)} only"
    assert isinstance(pattern, BlockColumn)
    return f"was counted at a rate of {pattern.at_rate:.3g}, and nothing says that it holds at another (holds_at)"


def _differences(profile: Profile, pattern: Pattern, at: Mapping[str, float]) -> str:
    """What is known of the difference: at this operating point, or else at all where something was measured."""
    if not isinstance(pattern, BlockColumn) or not pattern.elsewhere:
        return ""
    listed = pattern.elsewhere
    here = [one for one in listed if all(at.get(axis) == value for axis, value in one.at.items())]
    known = [_difference(profile, pattern, one) for one in here or listed]
    return f" (blocks with a fault, drawn and measured: {', '.join(known)})"


def _difference(profile: Profile, pattern: Any, measured: MeasuredShare) -> str:
    row_bits = getattr(profile.mapping, "row_bits", None) or pattern.row_bits or 1
    drawn = block_share(pattern, row_bits, profile.resolve_rate(measured.at).cells)
    return f"{_percent(drawn)} and {_percent(measured.block_share)} at {point_text(measured.at)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def point_text(at: Mapping[str, float]) -> str:
    """An operating point as `axis=value,axis=value`."""
    return ",".join(f"{axis}={value:g}" for axis, value in at.items())
