"""Parameters that several layers share: which of their quantizers read one memory, and whether they still do."""

import functools
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hwfault.errors import PlanError
from hwfault.network.accumulators import Quantizer, Quantizers
from hwfault.network.grids import ScaleAndZero, grid_of
from hwfault.network.inputs import Inputs
from hwfault.network.mode import evaluation
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.memories import Memories, Reading, memories
from hwfault.torch_ops.inside_torch import assert_there


def tied(model: nn.Module, quantizers: Quantizers, inputs: Inputs | None = None) -> Memories:
    """Which quantizers of weights and biases read one memory.

    Scales are those of evaluation. Those of biases that depend on a layer's inputs are known with `inputs` only. A
    network without shared parameters is not run.
    """
    groups: dict[Hashable, list[str]] = {}
    for name, quantizer in quantizers.items():
        parameter = quantizer.parameter
        if parameter is not None:
            groups.setdefault(_key(parameter), []).append(name)
    shared: dict[str, Hashable] = {}
    for key, names in groups.items():
        if len(names) > 1:
            shared.update(dict.fromkeys(names, key))
    if not shared:
        return memories([])
    grids = _grids(model, {name: quantizers[name] for name in shared}, inputs)
    readings = []
    for name, key in shared.items():
        scale, zero_point = _arrays(grids.get(name))
        readings.append(Reading(name, key, _word(quantizers[name].site), scale, zero_point))
    return memories(readings)


def _key(parameter: Tensor) -> Hashable:
    """What is equal for parameters whose words are the same, in the same order."""
    # two Parameters may lie on one memory; those without any (empty, or on the meta device) are themselves alone
    start = parameter.data_ptr() if parameter.numel() and parameter.device.type != "meta" else 0
    if not start:
        return id(parameter)
    return start, tuple(parameter.shape), parameter.stride(), parameter.dtype


def _word(site: Any) -> Hashable:
    return site.kind, site.bit_width, site.signed


def _arrays(grid: ScaleAndZero | None) -> tuple[Any, Any]:
    if grid is None:
        return None, None
    scale, zero_point = grid
    return scale.detach().numpy(force=True), zero_point.detach().numpy(force=True)


@torch.no_grad()
def _grids(model: nn.Module, shared: Mapping[str, Quantizer], inputs: Inputs | None) -> dict[str, ScaleAndZero]:
    """Scale and zero point of parameters in evaluation mode, as far as they are known."""
    found: dict[str, ScaleAndZero] = {}
    with evaluation(model):
        for name, quantizer in shared.items():
            proxy, parameter = quantizer.proxy, quantizer.parameter
            if not getattr(proxy, "requires_input_scale", False):
                found[name] = grid_of(proxy, proxy.forward(parameter))  # not called: its hooks may strike
        if inputs is not None and len(found) < len(shared):
            # the scale of a bias is that of its layer's inputs, which a forward alone shows
            handles = []
            for name, quantizer in shared.items():
                keep = functools.partial(_keep, found, name, quantizer.parameter)
                handles.append(quantizer.proxy.register_forward_hook(keep))
            try:
                inputs.run(model)
            finally:
                for handle in handles:
                    handle.remove()
    return found


def _keep(
    found: dict[str, ScaleAndZero], name: str, parameter: Tensor | None, proxy: Any, args: Any, output: Any
) -> None:
    # a quantizer that layers share reads other parameters, too
    if parameter is not None and _key(args[0]) == _key(parameter):
        found[name] = grid_of(proxy, output)


def check_tied(plan: FaultPlan, found: Memories) -> None:
    """Raises PlanError for a plan that has the memories of shared parameters otherwise than a network."""
    for entry in plan.sites:
        site = entry.site
        if site.name in found.first:
            raise PlanError(
                f"the plan strikes {site.name!r} as a memory of its own, but the network reads the same words as "
                f"{found.first[site.name]!r}; resolve the faults against this network again"
            )
        said = set(site.aliases or ())
        there = set(found.aliases(site.name) or ())
        if site.name not in found.open and not site.batched and said != there:
            names = ", ".join(map(repr, sorted(said ^ there)))
            who = "only the network" if there - said else "only the plan"
            raise PlanError(
                f"the plan and the network do not agree on who reads the memory of {site.name!r}: {names} "
                f"{who} has with it; resolve the faults against "
                "this network again"
            )


class StillTied:
    """Checks, at each reading in a forward, that what is one memory is read alike, and what is two is not."""

    def __init__(self, plan: FaultPlan, found: Memories) -> None:
        self._memory: dict[str, str] = {}  # by each name that reads it, that of its site
        self._watched: set[str] = set()
        for entry in plan.sites:
            names = (entry.site.name, *(entry.site.aliases or ()))
            self._memory.update(dict.fromkeys(names, entry.site.name))
            if entry.site.aliases:
                self._watched.update(names)
        # those whose scales an example has not shown may turn out to be one memory
        if not found.open.isdisjoint(self._memory):
            self._watched |= found.open
        self._open = found.open
        self._forward = -1
        self._seen: dict[str, tuple[int, ScaleAndZero]] = {}

    def watches(self, name: str) -> bool:
        """Whether a quantizer reads a memory that others read, or may read."""
        return name in self._watched

    def check(self, name: str, parameter: Tensor, grid: ScaleAndZero, forward: int) -> None:
        """Compares a reading with those of other names in the same forward.

        Raises PlanError on the CPU, and in compiled graphs at once; on other devices an assertion there fails.
        """
        if torch.compiler.is_compiling():
            raise PlanError(
                f"{name!r} reads a parameter that other layers read, too, and a compiled graph cannot check that its "
                "scale stays theirs; run the network uncompiled, or leave the site out of the plan"
            )
        if forward != self._forward:
            self._forward, self._seen = forward, {}
        scale, zero_point = (t.detach() for t in grid)
        key = parameter.data_ptr()
        for other, (where, (its_scale, its_zero)) in self._seen.items():
            if other == name or where != key:
                continue
            same = self._memory.get(name, name) == self._memory.get(other, other)
            if same:
                _check_equal(name, other, (scale, zero_point), (its_scale, its_zero))
            elif name in self._open:
                _check_apart(name, other, (scale, zero_point), (its_scale, its_zero))
        self._seen[name] = key, (scale, zero_point)


def _equal(one: ScaleAndZero, other: ScaleAndZero) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _shaped_alike(one: ScaleAndZero, other: ScaleAndZero) -> bool:
    return all(a.shape == b.shape for a, b in zip(one, other, strict=True))


def _equal_there(one: ScaleAndZero, other: ScaleAndZero) -> Tensor:
    """Whether grids of one shape are equal, without a wait for the device."""
    same = [(a == b).all() for a, b in zip(one, other, strict=True)]
    return torch.stack(same).all()


def _check_equal(name: str, other: str, one: ScaleAndZero, its: ScaleAndZero) -> None:
    """Raises PlanError, or fails an assertion on the device, unless two grids are equal."""
    if one[0].device.type != "cpu" and _shaped_alike(one, its):
        assert_there(_equal_there(one, its))
    elif not _equal(one, its):
        raise PlanError(
            f"the scales of {name!r} and {other!r}, which read one parameter as one memory, are no longer equal, so "
            "that it is two memories now; resolve the faults against this network again (and share the quantizer, too, "
            "where both learn their scales)"
        )


def _check_apart(name: str, other: str, one: ScaleAndZero, its: ScaleAndZero) -> None:
    """Raises PlanError, or fails an assertion on the device, if two grids are equal."""
    if not _shaped_alike(one, its):
        return
    if one[0].device.type != "cpu":
        assert_there(~_equal_there(one, its))
    elif _equal(one, its):
        raise PlanError(
            f"{name!r} and {other!r} read one parameter with one scale, so that they are one memory, which was not "
            "known when the faults were resolved; resolve them with an example of the inputs, as in "
            "resolve(sites(model, example), faults)"
        )
