"""A fault plan made ready to be applied to a network, and what its protected memories told."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch

from hwfault.arithmetic.adds import Adds
from hwfault.injection.site_statistics import ProtectionCounts as ProtectionCounts
from hwfault.injection.strike import Strike
from hwfault.plan.fault_plan import FaultPlan


class Ready(NamedTuple):
    """A plan made ready to be applied: by site what strikes it, and how its layer is added up if it is one's.

    `idle` are the sites at which nothing can ever change.
    """

    plan: FaultPlan
    strikes: dict[str, Strike]
    adds: dict[str, Adds]
    idle: frozenset[str]

    @classmethod
    def of(cls, plan: FaultPlan, device: torch.device) -> Self:
        """The plan's tables on a device."""
        strikes = {name: Strike(plan, plan.at(name), device) for name in plan.names}
        adds = {e.site.name: Adds(e.site, e.array) for e in plan.sites if e.site.kind == "accumulator"}
        idle = frozenset(name for name in plan.names if plan.idle(name))
        return cls(plan, strikes, adds, idle)


def protection_counts(strikes: Mapping[str, Strike]) -> dict[str, ProtectionCounts]:
    """What the decoders of protected memories counted, by site; waits for the device."""
    found = {name: strike.counts for name, strike in strikes.items()}
    return {name: ProtectionCounts(*torch.stack(counts).sum(0).tolist()) for name, counts in found.items() if counts}
