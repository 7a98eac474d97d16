"""Late bits: which word an element produced before, and the arrays for which that is not known."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hwfault.devices.systolic import array_of
from hwfault.errors import ModelError, PlanError
from hwfault.laws.datapath import LateBits
from hwfault.laws.models import FaultModel
from hwfault.program.processes import Process, Site, SitePlan
from hwfault.stream.mapping import WeightStationary


def late_elements(fault: LateBits, site: Site) -> tuple[int, int, int, int]:
    """Columns and rows of the array, channels of the layer, and the words from one channel to the next.

    Raises PlanError where the layer's shapes are not known, ModelError for an array that adds it up in several passes.
    """
    if site.shape is None or site.weights is None:
        raise PlanError(
            f"the shape of the accumulator {site.name!r} is not known, so what came before a word is neither; list the "
            "sites with an example batch"
        )
    channels = site.weights[0]
    positions = len(site.weights) - 2  # the axes behind the channels, whatever rows of a sample lie before them
    inner = int(np.prod(site.shape[len(site.shape) - positions :], dtype=np.int64))
    if fault.mapping is None:
        return channels, 1, channels, inner
    if reason := pass_obstacle(fault.mapping, site):
        raise ModelError(reason)
    rows, columns = array_of(fault.mapping)
    return columns, rows if fault.mapping.kind == "output_stationary" else 1, channels, inner


def pass_obstacle(mapping: Any, site: Site) -> str | None:
    """Why late bits of a layer on an array cannot be told; None where they can.

    A weight-stationary array streams all positions of one tile before it takes the next: the word before (n, m) is
    (n, m - 1) of the same pass, and the register holds that pass's sum. Only where a single tile holds all weights is
    this the layer's output of the position before.
    """
    if not isinstance(mapping, WeightStationary):
        return None
    shape = site.weights or ()
    channels, products = (shape[0], int(np.prod(shape[1:], dtype=np.int64))) if shape else (0, 0)
    if 0 < channels <= mapping.columns and products <= mapping.rows:
        return None
    size = f"{channels} output channels of {products} products" if shape else "weights of a shape that is not known"
    return (
        f"late bits of {site.name!r}: a weight-stationary array of {mapping.rows} x {mapping.columns} adds up {size} "
        "in several passes; a late bit there keeps that of the position before in the same pass, of a partial sum that "
        "is not modelled. Expected at most as many channels as columns and as many products as rows, or another mapping"
    )


def check_one_array(site: Site, late: Sequence[LateBits], mappings: Iterable[Any]) -> None:
    """Raises ModelError where late bits and what else strikes a layer's elements (`mappings`) do not go together."""
    for fault in late:
        for mapping in mappings:
            if fault.mapping is not None and mapping != fault.mapping:
                raise ModelError(
                    f"the layer of {site.name!r} is said to run on two arrays, {mapping} and, for its late bits, "
                    f"{fault.mapping}; expected one"
                )
            if reason := pass_obstacle(mapping, site):
                raise ModelError(reason)


def check_late(entry: SitePlan, faults: Sequence[FaultModel]) -> None:
    """Raises ValueError for late bits of a plan that hwfault 0.4.0 resolved where it took a wrong word before."""
    for process in entry.processes:
        if not isinstance(process, Process) or process.kind != "late" or process.fault >= len(faults):
            continue
        reason = pass_obstacle(getattr(faults[process.fault], "mapping", None), entry.site)
        if reason is None and entry.array is not None and entry.array.pass_steps:
            # only a weight-stationary array has passes; its columns are known where an element is stuck
            channels = (entry.site.weights or (1,))[0]
            columns = entry.array.events[0][0] if entry.array.events else channels
            reason = pass_obstacle(WeightStationary(rows=entry.array.pass_steps, columns=columns), entry.site)
        if reason is not None:
            raise ValueError(f"{reason}; the plan was made by a version that took another word, resolve it again")
