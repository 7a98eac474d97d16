"""Faults resolved against sites, or at once against a network, which tells its sites itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwfault.errors import PlanError, describe_kind
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.fault_plan import resolve as resolve_at
from hwfault.plan.given import GivenFaults, read_faults
from hwfault.program.processes import Site

if TYPE_CHECKING:
    from torch import nn

    from hwfault.network.inputs import Axes, Example


def resolve(
    sites: "Sequence[Site] | nn.Module",
    faults: GivenFaults,
    *,
    example: "Example | None" = None,
    batch_axis: "Axes" = 0,
    factors: Sequence[float] | None = None,
    device: int = 0,
) -> FaultPlan:
    """The plan of `faults` at sites, or at those of a network.

    A network in place of the sites is asked for them, with the `example` of its inputs and their `batch_axis`, as in
    `resolve(sites(model, example, batch_axis), faults)`: see `hwfault.network.sites` for these two, and
    `hwfault.plan.resolve` for all else and for what is raised. Also raises PlanError for an example beside sites.
    """
    listed: Any = sites
    given = read_faults(faults)
    if hasattr(sites, "named_modules"):
        from hwfault.network.sites import sites as sites_of  # imports torch, which plans do without

        listed = sites_of(listed, example, batch_axis)
    elif not (isinstance(sites, Sequence) and all(isinstance(site, Site) for site in sites)):
        expected = "a network, or the list of its sites (hwfault.sites(network, example))"
        raise PlanError(f"resolve was given {describe_kind(sites)} in the place of sites, expected {expected}")
    elif example is not None or batch_axis != 0:
        raise PlanError(
            "resolve was given sites, and an example or batch_axis beside them, which belong to a network; expected "
            "resolve(model, faults, example=..., batch_axis=...), or resolve(sites(model, example, batch_axis), faults)"
        )
    return resolve_at(listed, given, factors=factors, device=device)
