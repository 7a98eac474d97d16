"""Sites that a plan names beside a network's quantizers, as the network has them, and how often each site runs."""

from collections.abc import Container, Mapping

from torch import nn

from hwfault.network.accumulators import accumulator_layers, accumulator_site
from hwfault.network.sites import known_quantizers
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.names import first_run, run_name, split_run
from hwfault.program.processes import Site


def known_runs(plan: FaultPlan) -> dict[str, int | None]:
    """How often each site of a plan runs, as its example has shown, by the name of its first run; None: not known."""
    runs: dict[str, int | None] = {}
    for entry in plan.sites:
        first, run = split_run(entry.site.name)
        known = entry.site.known_runs or (run + 1 if run else None)
        runs[first] = max(known or 0, runs.get(first) or 0) or None
    return runs


def accumulators(plan: FaultPlan, model: nn.Module) -> list[Site]:
    """The planned accumulators as a network has them."""
    planned = [entry.site for entry in plan.sites if entry.site.kind == "accumulator"]
    layers, known = accumulator_layers(model), known_quantizers(model) if planned else {}
    there = [site for site in planned if first_run(site.name) in layers]
    return [accumulator_site(site.name, layers[first_run(site.name)], site, known) for site in there]


def further_runs(plan: FaultPlan, sites: Mapping[str, Site]) -> list[Site]:
    """The planned runs of quantizers but their first, as a network with these sites has them."""
    names = [name for name in plan.names if name not in sites and first_run(name) in sites]
    return [sites[first_run(name)].model_copy(update={"name": name}) for name in names]


def names_of_runs(first: str, known: int | None, sites: Container[str]) -> list[str]:
    """The names of the runs in a forward that are `known`, of a site; None: those that are among the sites so far."""
    names = [first]
    while len(names) < known if known is not None else run_name(first, len(names)) in sites:
        names.append(run_name(first, len(names)))
    return names
