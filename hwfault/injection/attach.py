"""Attaching a fault plan to a Brevitas network, without writing a single parameter."""

from typing import Any

from torch import nn

from hwfault.injection.injection import Injection
from hwfault.injection.observer import Observer
from hwfault.network.inputs import Axes, Example
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.given import GivenPlan, read_plan
from hwfault.program.processes import SiteList
from hwfault.torch_ops.gradient import Gradient

__all__ = ["Injection", "inject", "inject_at"]


def inject(
    model: nn.Module,
    plan: GivenPlan,
    *,
    seed: int = 0,
    device: int | None = None,
    gradient: Gradient = "zero",
    observe: Observer | None = None,
    example: Example | None = None,
    batch_axis: Axes = 0,
) -> Injection:
    """Attaches a plan (or faults, resolved against the model) to the model's quantizers until the block is left.

    `plan` is a FaultPlan, its JSON file, a fault model, or several, also as mappings like those of YAML or a YAML file.
    Use it as `with inject(model, plan, seed=1):`, or call `.remove()` on what it returns. Parameters, scales and
    `state_dict` stay untouched; several injections may be active, the later one acts on what the earlier left.
    Faults that belong to a device are drawn for `device`, or the seed's number; a plan has its own. Copies of the model
    made meanwhile (copy.deepcopy, pickle, averaged weights) are clean.
    `gradient` is what flows back through a faulty word: nothing ("zero") or everything ("straight_through").
    `observe(site name, before, after, scale, zero point)` sees every planned site's values at each forward; one that
    has the parameters `codes_before` and `codes_after` is also given the code words (int64, two's complement), which
    the values of wide words after a fault do not tell. Those of what is not finite are 0, and no fault strikes it.
    With an `example` of the inputs, and their `batch_axis` (see `sites`), the axis along which the samples of each site
    lie is found, and a plan that says otherwise is refused. Without one a plan's own word is taken, which is axis 0
    where it says nothing, and an error if the first forward moves or folds that axis before a struck site (what is
    compiled is judged by the shapes of its sites alone: give an example there).
    Raises PlanError if the plan was made for other sites, ModelError for what is neither a plan nor faults,
    HwfaultError for what is no network, a seed that is not 64 bit, and while another thread has faults attached to the
    model or a part of it: use a copy for each thread.
    """
    given = read_plan(plan)
    known = None if example is None else sites(model, example, batch_axis)
    rules = {"seed": seed, "device": device, "gradient": gradient, "observe": observe, "batch_axis": batch_axis}
    return Injection(model, given, known=known, **rules)  # type: ignore[arg-type]


def inject_at(model: nn.Module, plan: FaultPlan, known: SiteList | None, **rules: Any) -> Injection:
    """`inject` where the sites are known from an example already (None: they are not); `rules` are its others."""
    rules = {"device": None, "gradient": "zero", "observe": None} | rules
    return Injection(model, plan, known=known, **rules)
