"""A census that was cut short: which flips were tried, and which are not covered."""

import numpy as np

from hwfault.campaigns.figures import Trials
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.study.space import FaultSpace

_FEW = 4


def cut_told(seen: Trials, space: FaultSpace, estimate: Estimate, max_minutes: float | None) -> str:
    """What a census says that has not tried all flips, or not got an answer of each.

    `max_minutes` is the limit that ended it (None: there was none, the trials failed).
    """
    size = space.size
    tried = seen.number + seen.failed
    ended = "" if max_minutes is None else f" within max_minutes ({max_minutes:g})"
    parts = [f"not exact: {tried:,} of {size:,} flips tried{ended}"]
    if seen.failed:
        parts[0] += f", {seen.failed:,} of which failed"
    parts.append(f"not covered: {_uncovered(seen, space)}")
    low, high = estimate.ends or (estimate.value, estimate.value)
    parts.append(
        f"with the {size - seen.number:,} missing ones at their best and worst the share is {low:.3g} to {high:.3g}"
    )
    return "; ".join(parts)


def _uncovered(seen: Trials, space: FaultSpace) -> str:
    """How many bits of which sites have no answer."""
    sizes = np.diff([0, *space.ends])
    cells = seen.keys.astype(np.int64)
    site = np.searchsorted(np.array(space.ends), cells, side="right")
    missing = sizes - np.bincount(site, minlength=len(sizes))
    told = []
    for place in np.flatnonzero(missing).tolist():
        many = "all" if missing[place] == sizes[place] else f"{missing[place]:,} of"
        told.append(f"{many} {sizes[place]:,} bits of {space.sites[place].name}")
    more = "" if len(told) <= _FEW else f" and bits of {len(told) - _FEW} sites more"
    return ", ".join(told[:_FEW]) + more
