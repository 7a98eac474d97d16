"""Processes that strike the same cells always, in every sample: nothing of them is drawn."""

from typing import Any

import numpy as np

from hwfault.program.processes import AnyProcess, MapProcess, MapStep, SampledProcess, SitePlan, Step
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.sampled_map import SampledMap


def permanent_cells(step: Step) -> FaultMap | None:
    """The cells that a step strikes, where these are always the same and words lie as they are; None for others."""
    if not isinstance(step, MapStep) or not isinstance(step.process, MapProcess) or not step.process.permanent:
        return None
    return None if step.process.representation is not None else step.process.map


def without_cells(entry: SitePlan, *, by_sample: bool) -> AnyProcess:
    """The process of a site that strikes permanent cells, with none of them left.

    `by_sample`: where the site has samples, as one whose cells are of single samples.
    """
    none = np.zeros(0, np.int64)
    site, first = entry.site, entry.processes[0]
    assert isinstance(first, MapProcess)
    key: dict[str, Any] = {"fault": 0, "site_number": first.site_number}
    if by_sample and site.batched:
        rows = SampledMap.from_cells(site.words or 0, site.bit_width, none, none, none, none)
        return SampledProcess(**key, map=rows)
    return MapProcess(**key, map=FaultMap.from_cells(site.words or 0, site.bit_width, none, none, none))
