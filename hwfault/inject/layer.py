"""Fault injection as a layer, for callers who place it themselves."""

from collections.abc import Sequence

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import nn

from hwfault.errors import PlanError
from hwfault.inject.attach import Gradient, passes_straight_through
from hwfault.inject.clock import Clock
from hwfault.inject.exporting import refuse_export
from hwfault.inject.halves import Range
from hwfault.inject.strike import Strike
from hwfault.plan import Site, resolve
from hwfault.profiles.models import FaultModel
from hwfault.stream.check import check_seed, signed64


class QuantFaultInjectionLayer(nn.Module):
    """Injects faults into the integers of the Brevitas QuantTensor that passes through it; shapes stay.

    `name` is the site's name in the fault stream: two layers of one network need two names. Samples are numbered as by
    `inject`, a counter for training and one for evaluation; see its `clock`. Nothing is kept for the backward pass.
    Bit width and sign must stay the same from one input to the next, but on the CPU.
    Raises PlanError for an input that is not an integer QuantTensor.
    """

    def __init__(
        self,
        faults: Sequence[FaultModel],
        *,
        name: str,
        seed: int,
        gradient: Gradient = "zero",
    ) -> None:
        super().__init__()
        self.faults = tuple(faults)
        self.name = name
        self.seed = check_seed(seed)
        self.gradient = gradient
        self._straight_through = passes_straight_through(gradient)
        self.clock: Clock | None = None
        self._known: tuple[int, bool] | None = None
        self._strikes: dict[tuple[int, bool, torch.device], Strike] = {}

    def forward(self, x: IntQuantTensor) -> IntQuantTensor:
        refuse_export()
        if not isinstance(x, IntQuantTensor):
            raise PlanError(
                f"the layer {self.name!r} was given a {type(x).__name__}, expected an integer QuantTensor; "
                "set return_quant_tensor=True on the quantizer before it"
            )
        if self.clock is None:
            self.clock = Clock(x.value.device)
        self.clock.tick(self)
        seed = torch.full((), signed64(self.seed), device=x.value.device)
        bit_width, signed = self._word(x)
        strike = self._strike(bit_width, signed, x.value.device)
        rules = (self.clock, seed, x.scale, x.zero_point, self._straight_through)
        integers = Range.of(bit_width, signed)
        if integers.may_be_left(x.value.dtype):
            faulty = integers.strike(x.value, x.scale, x.zero_point, lambda within: strike(within, *rules))
        else:
            faulty = strike(x.value, *rules)
        return IntQuantTensor(faulty, x.scale, x.zero_point, x.bit_width, x.signed_t, x.training_t)

    def _word(self, x: IntQuantTensor) -> tuple[int, bool]:
        """Bit width and sign; of inputs on another device than the CPU those of the first one, which is waited for."""
        if self._known is None or x.value.device.type == "cpu":
            self._known = int(x.bit_width), bool(x.signed)
        return self._known

    def _strike(self, bit_width: int, signed: bool, device: torch.device) -> Strike:
        key = (bit_width, signed, device)
        if key not in self._strikes:
            site = Site(name=self.name, kind="activation", bit_width=bit_width, signed=signed)
            plan = resolve([site], self.faults)
            self._strikes[key] = Strike(plan, plan.at(self.name), device)
        return self._strikes[key]

    def extra_repr(self) -> str:
        return f"name={self.name!r}, seed={self.seed}, gradient={self.gradient!r}, faults={list(self.faults)}"
