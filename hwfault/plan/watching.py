"""A plan by which every site is looked at: also those where nothing happens."""

from collections.abc import Iterable

from hwfault.plan.fault_plan import FaultPlan, needs_stream
from hwfault.program.processes import Site, SitePlan


def watch_every(plan: FaultPlan | None, sites: Iterable[Site]) -> FaultPlan:
    """The plan (None: no faults at all), in which all other sites are, too, with nothing that happens there."""
    struck = () if plan is None else plan.names
    others = tuple(SitePlan(site=site, processes=()) for site in sites if site.name not in struck)
    every = others if plan is None else plan.sites + others
    stream = needs_stream(entry.site for entry in every)
    if plan is None:
        return FaultPlan(faults=(), sites=every, tables=(), stream=stream)
    # a plan of its own: a copy would keep what the first has cached of its sites
    given = {key: getattr(plan, key) for key in FaultPlan.model_fields}
    return FaultPlan(**given | {"sites": every, "stream": stream})
