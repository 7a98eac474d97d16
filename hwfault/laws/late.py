"""The law `late_bits`: results that come too late, so that a part of the one before is taken."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, StrictInt

from hwfault.devices.systolic import array_of
from hwfault.errors import ModelError, PlanError
from hwfault.laws.accumulation import check_positions, pass_obstacle
from hwfault.laws.bound import AccumulationPart, Bound, Lowered, Target
from hwfault.laws.datapath import OnLayers, PEArray
from hwfault.laws.on_sites import OnSites
from hwfault.program.processes import Process, Site, SitePlan
from hwfault.stream.mapping import WeightStationary

EXAMPLE = "{model: late_bits, probability: 0.001, bits: 4}"


class LateBits(OnLayers):
    """Timing errors: with `probability` a result keeps its highest `bits` from what its element produced before.

    What is late is the register that takes finished sums. The `mapping` says which element produces what; without one
    each output channel has its own. A weight-stationary array must hold all weights of a layer in one tile: one of
    several passes keeps bits of a pass's sum, which is refused when the faults are resolved.
    """

    model: Literal["late_bits"] = "late_bits"
    probability: float
    bits: Annotated[StrictInt, Field(ge=1, le=32)]
    mapping: PEArray | None = None


def lower(bound: Bound[LateBits], target: Target) -> Lowered:
    """A process at each accumulator; the layer is not added up otherwise, but its array must be this one.

    Raises ModelError for more bits than a word has, PlanError where a layer's shapes are not known.
    """
    part = AccumulationPart(bound.fault.mapping, adds_up=False)
    processes = [_process(bound.fault, site, target) for site in target.sites]
    return Lowered(processes, parts=[part] * len(processes))


def _process(fault: LateBits, site: Site, target: Target) -> Process:
    if fault.bits > site.bit_width:
        raise ModelError(
            f"fault {target.number} at site {site.name!r}: {fault.bits} late bits in a word of {site.bit_width}, "
            "expected at most all of them"
        )
    tables = (target.tables.number(fault.probability),)
    # carries arrive last at the highest bits
    mask = ((1 << fault.bits) - 1) << (site.bit_width - fault.bits)
    return Process(**target.key(site), kind="late", tables=tables, mask=mask, elements=late_elements(fault, site))


def late_elements(fault: LateBits, site: Site) -> tuple[int, int, int, int]:
    """Columns and rows of the array, channels of the layer, and the words from one channel to the next.

    Raises PlanError where the layer's shapes are not known, ModelError for an array that adds it up in several passes.
    """
    if site.shape is None or site.weights is None:
        raise PlanError(
            f"the shape of the accumulator {site.name!r} is not known, so what came before a word is neither; list the "
            "sites with an example batch"
        )
    check_positions(site)
    channels = site.weights[0]
    positions = len(site.weights) - 2  # the axes behind the channels, whatever rows of a sample lie before them
    inner = int(np.prod(site.shape[len(site.shape) - positions :], dtype=np.int64))
    if fault.mapping is None:
        return channels, 1, channels, inner
    reason = pass_obstacle(fault.mapping, site)
    if reason is not None:
        raise ModelError(reason)
    rows, columns = array_of(fault.mapping)
    if fault.mapping.kind != "output_stationary":
        rows = 1  # elsewhere one register serves all positions of a channel
    return columns, rows, channels, inner


def check_late(entry: SitePlan, faults: Sequence[OnSites]) -> None:
    """Raises ValueError for late bits of a plan that hwfault 0.4.0 resolved where it took a wrong word before."""
    for process in entry.processes:
        if process.kind != "late" or process.fault >= len(faults):
            continue
        reason = pass_obstacle(getattr(faults[process.fault], "mapping", None), entry.site)
        if reason is None and entry.array is not None and entry.array.pass_steps:
            # only a weight-stationary array has passes; its columns are known where an element is stuck
            channels = (entry.site.weights or (1,))[0]
            columns = entry.array.events[0][0] if entry.array.events else channels
            reason = pass_obstacle(WeightStationary(rows=entry.array.pass_steps, columns=columns), entry.site)
        if reason is not None:
            raise ValueError(f"{reason}; the plan was made by a version that took another word, resolve it again")
