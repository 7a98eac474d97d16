"""Fault injection as a layer, for callers who place it themselves."""

from collections.abc import Sequence
from typing import cast

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from hwfault.errors import PlanError
from hwfault.injection.clock import Clock
from hwfault.injection.strike import Strike
from hwfault.laws.models import FaultModel
from hwfault.network.exporting import refuse_export
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site
from hwfault.stream.check import check_seed, signed64
from hwfault.torch_ops.gradient import Gradient, passes_straight_through
from hwfault.torch_ops.held import check, held
from hwfault.torch_ops.inside_torch import traced

_CHANGED = (
    "the {0} of the inputs of the layer {1!r} is {{now}}, but was {2} at its first one, which devices keep; use a "
    "layer for each of them, or keep it"
)


class QuantFaultInjectionLayer(nn.Module):
    """Injects faults into the integers of the Brevitas QuantTensor that passes through it; shapes stay.

    `name` is the site's name in the fault stream: two layers of one network need two names. Samples are numbered as by
    `inject`, a counter for training and one for evaluation; see its `clock`. Nothing is kept for the backward pass.
    Bit width and sign may change from one input to the next on the CPU; on a GPU an assertion of the device stops it.
    `batch` says where the samples lie in its inputs; None: along axis 0, one row each, for a layer sees nothing of the
    network around it. Each call is a forward of its own: one layer that is called twice numbers its samples on.
    Raises PlanError for an input that is not an integer QuantTensor, or whose shape `batch` does not fit.
    """

    def __init__(
        self,
        faults: Sequence[FaultModel],
        *,
        name: str,
        seed: int,
        gradient: Gradient = "zero",
        batch: BatchAxis | None = None,
    ) -> None:
        super().__init__()
        self.faults = tuple(faults)
        self.name = name
        self.seed = check_seed(seed)
        self.gradient = gradient
        self.batch = batch
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
        rules = (self.clock, seed, self._held(x, bit_width, signed), x.zero_point, self._straight_through)
        return IntQuantTensor(strike(x.value, *rules), x.scale, x.zero_point, x.bit_width, x.signed_t, x.training_t)

    def _word(self, x: IntQuantTensor) -> tuple[int, bool]:
        """Bit width and sign; of inputs on another device than the CPU those of the first one, which is waited for."""
        if self._known is None or on_the_host(x.value):
            self._known = int(x.bit_width), bool(x.signed)
        return self._known

    def _held(self, x: IntQuantTensor, bit_width: int, signed: bool) -> Tensor:
        """The scale, once it is sure that a device's input has the first one's bit width and sign."""
        if on_the_host(x.value):  # they were looked at
            return cast(Tensor, x.scale)
        scale = cast(Tensor, x.scale)
        given = (("bit width", x.bit_width, bit_width), ("sign (0 or 1)", x.signed_t, int(signed)))
        for what, number, known in given:
            number, sentence = number.detach().to(torch.float32), _CHANGED.format(what, self.name, known)
            if traced():
                scale = held(scale.detach(), number, known, known, sentence)
            else:
                check(number, known, known, sentence)
        return scale

    def _strike(self, bit_width: int, signed: bool, device: torch.device) -> Strike:
        key = (bit_width, signed, device)
        if key not in self._strikes:
            site = Site(name=self.name, kind="activation", bit_width=bit_width, signed=signed, batch=self.batch)
            plan = resolve([site], self.faults)
            self._strikes[key] = Strike(plan, plan.at(self.name), device)
        return self._strikes[key]

    def extra_repr(self) -> str:
        where = "" if self.batch is None else f", {self.batch}"
        return f"name={self.name!r}, seed={self.seed}, gradient={self.gradient!r}{where}, faults={list(self.faults)}"


def on_the_host(x: Tensor) -> bool:
    """Whether the host reads a tensor's numbers without waiting for a device."""
    return x.device.type == "cpu"
