"""Failures in time: how many silent wrong answers there are in 1e9 hours of exposure (FIT), with their interval.

Two ways lead there. Where single flips were tried: FIT per Mbit of the memory x its bits x P(wrong | one flip), with a
Mbit of 2^20 bits. Where a profile with an axis `exposure_h` strikes: the rate of wrong answers after so many hours,
divided by them. Both take one answer to be given at the end of each exposure, of whatever length, and flips to be rare.
"""

from collections.abc import Mapping
from typing import Any

from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.errors import HwfaultError

MBIT = 1 << 20
HOURS = 1e9
AXIS = "exposure_h"
_OF = "FIT of silent wrong answers"


def fit_of_flips(sdc: Estimate, bits: int, fit_per_mbit: float) -> Estimate:
    """The FIT of a memory of so many bits in which one flip is silently wrong at the rate `sdc`.

    Raises HwfaultError for no bits, and for a FIT per Mbit that is not above 0.
    """
    if bits < 1 or not fit_per_mbit > 0:
        raise HwfaultError(f"given {bits} bits at {fit_per_mbit} FIT per Mbit, expected both above 0")
    return _scaled(sdc, fit_per_mbit * bits / MBIT)


def fit_of_exposure(sdc: Estimate, hours: float) -> Estimate:
    """The FIT where a rate `sdc` of answers is silently wrong after so many hours; raises HwfaultError for none."""
    if not hours > 0:
        raise HwfaultError(f"an exposure of {hours} h, expected more than 0")
    return _scaled(sdc, HOURS / hours)


def fit_of(
    sdc: Estimate | None, labels: Mapping[str, Any], bits: int | None, fit_per_mbit: float | None
) -> Estimate | None:
    """The FIT of a task, by its exposure or by its single flips of so many `bits`; None where it has neither."""
    if sdc is None:
        return None
    hours = labels.get(AXIS)
    if isinstance(hours, int | float) and hours > 0:
        return fit_of_exposure(sdc, float(hours))
    if bits is not None and fit_per_mbit is not None:
        return fit_of_flips(sdc, bits, fit_per_mbit)
    return None


def _scaled(sdc: Estimate, factor: float) -> Estimate:
    ends = None
    if sdc.ends is not None:
        low, high = sdc.ends
        ends = low * factor, high * factor
    return sdc._replace(value=sdc.value * factor, ends=ends, of=_OF)
