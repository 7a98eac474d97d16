"""Which sites of a forward are struck without the hook in Python, or in the pass that makes their values.

The latter is told as hwfault.torch_ops.inside has it, in a forward of the whole model, of sites that run once in it.
The extension asks the same in C++ (export/torch/hook.cc), also of sites with several runs.
"""

from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.injection.clock import Clock
from hwfault.injection.strike import FastStrike, Strike
from hwfault.stream.check import words_sharing
from hwfault.torch_ops.inside import Asked, Inside
from hwfault.torch_ops.inside_torch import saving_is_watched


class FastForward(NamedTuple):
    """What whoever strikes without the hook in Python needs to know of the present forward."""

    version: object
    """Another object whenever other sites are struck, or by other faults."""
    thread: int
    batch: int
    with_gradients: bool
    seed: int
    straight_through: bool
    seed_tensor: Tensor


class StrikingInside(Protocol):
    """What is asked of the injection."""

    clock: Clock

    def fast_forward(self) -> FastForward | None: ...
    def fast_strike(self, first: str) -> FastStrike | None: ...
    def numbers(self, batch: int | None) -> Tensor: ...


def fast_runs(names: Sequence[str], live: Mapping[str, Strike | None]) -> list[FastStrike] | None:
    """What sites are struck with that are `live`; None where only their hooks know."""
    found = []
    for name in names:
        strike = live.get(name)
        fast = FastStrike(None) if strike is None else strike.fast
        if fast is None:
            return None
        found.append(fast)
    return found


def plan_inside(injection: StrikingInside, name: str, batched: bool, asked: Asked) -> Inside | None:
    """What a site's values are struck with when they are made; its run is noted then. None: the hook strikes them."""
    found, forward = injection.fast_strike(name), injection.fast_forward()
    if found is None or found.step is None or forward is None:
        return None
    runs = injection.clock.runs
    if forward.thread != get_ident() or (forward.with_gradients and not torch.is_grad_enabled()):
        return None
    if batched and name in runs.counts:
        return None
    keeps_gradient = asked.followed and not forward.straight_through
    # what autograd keeps is counted by checkpoints, and must be what the hook's way keeps
    if not found.step.may_strike_inside(keeps_gradient) or (asked.followed and saving_is_watched()):
        return None
    batch = forward.batch if batched else None
    if not _lies(asked, found, batch):
        return None
    samples = injection.numbers(batch)
    if samples.numel() != (batch or 1):
        return None
    if batched:
        runs.counts[name] = 1
    return found.step.inside(samples, forward.seed_tensor, forward.straight_through)


def _lies(asked: Asked, found: FastStrike, batch: int | None) -> bool:
    """Whether samples lie one behind the other, each with all of the scales."""
    shape = asked.x.shape
    if batch is not None and (not found.axis.plain or shape[0] != batch):
        return False
    try:
        words_sharing(shape, asked.scale_shape, batch or 1, "scale")
        words_sharing(shape, asked.zero_point.shape, batch or 1, "zero point")
    except PlanError:  # the hook says so
        return False
    return True
