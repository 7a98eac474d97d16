"""Sites that only a forward shows: further runs of quantizers, where faults were given without an example."""

from collections.abc import Mapping, Sequence

import torch

from hwfault.errors import PlanError
from hwfault.laws.models import FaultModel
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.names import first_run
from hwfault.program.processes import Site, SiteList

_COUNTED = "(Runs are counted from call to call of the model that has the faults: call that, not parts of it)"


class Found:
    """Faults that were given without a plan, and the plan that is made of them at the sites known so far."""

    def __init__(self, faults: Sequence[FaultModel], device: int, obstacles: Mapping[str, str]) -> None:
        self._faults, self._device, self._obstacles = tuple(faults), device, obstacles
        self.plan: FaultPlan | None = None

    def resolved(self, sites: Mapping[str, Site]) -> FaultPlan:
        """The plan at these sites; from now on it is the present one."""
        self.plan = resolve(SiteList(sites.values(), self._obstacles), self._faults, device=self._device)
        return self.plan

    def with_run(self, sites: Mapping[str, Site], first: str, name: str) -> FaultPlan:
        """The plan with the site `name` too, a run of `first` that a forward has shown.

        Raises PlanError if it cannot be found while the forward goes on: if what strikes the other sites depends on
        it, as where all lie in one memory, and in compiled graphs, which run without being asked.
        """
        before = self.plan
        after = resolve(SiteList(sites.values(), self._obstacles), self._faults, device=self._device)
        if before is None or torch.compiler.is_compiling() or not _goes_on(before, after, name):
            raise no_example(first)
        self.plan = after
        return after


def with_site(sites: Mapping[str, Site], first: str, name: str) -> dict[str, Site]:
    """Sites by name, and a further run of `first` behind its others."""
    last = [known for known in sites if first_run(known) == first][-1]
    out: dict[str, Site] = {}
    for known, site in sites.items():
        out[known] = site
        if known == last:
            out[name] = sites[first].model_copy(update={"name": name})
    return out


def _goes_on(before: FaultPlan, after: FaultPlan, new: str) -> bool:
    """Whether a plan with one more site has the same faults at all others."""
    if after.tables[: len(before.tables)] != before.tables:
        return False
    others = [entry.model_dump_json() for entry in after.sites if entry.site.name != new]
    return others == [entry.model_dump_json() for entry in before.sites]


def no_example(first: str) -> PlanError:
    """What to say of a second run where nobody knows how many there are."""
    return PlanError(
        f"the site {first!r} runs a second time in one forward, and how often it does was not known when the faults "
        "were resolved, without an example of the inputs; give one, as in resolve(sites(model, example), faults) or "
        f"inject(..., example=example). {_COUNTED}"
    )


def too_often(first: str, run: int, known: int) -> PlanError:
    """What to say of a run that the example did not have."""
    times = {1: "once", 2: "twice"}.get(known, f"{known} times")
    return PlanError(
        f"the site {first!r} runs at least {run + 1} times in one forward, but {times} on the example that the sites "
        "were listed with; resolve the faults again with an example that runs it as often, as in "
        f"resolve(sites(model, example), faults). {_COUNTED}"
    )
