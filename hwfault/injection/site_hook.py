"""The forward hook of one quantizer: what it returns is struck by the injection that the hook belongs to."""

import weakref
from typing import Any, Protocol

from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from hwfault.arithmetic.integer_layer import computes_on_integers
from hwfault.injection.inside import StrikingInside, plan_inside
from hwfault.injection.strike import FastStrike
from hwfault.network.exporting import refuse_export
from hwfault.network.grids import ScaleAndZero, grid_of, known_scale
from hwfault.network.hooks import NeverCopied
from hwfault.network.readers import Reads
from hwfault.network.sites import unwrap
from hwfault.network.widths import Width
from hwfault.torch_ops.extension import hook_behind
from hwfault.torch_ops.inside import Asked, Inside, StrikesInside
from hwfault.torch_ops.inside_torch import Moment, forward_hooks, moment
from hwfault.torch_ops.unheld import output_is_unheld


class Striking(StrikingInside, Protocol):
    """What a hook asks of the injection that it belongs to."""

    def fast_runs(self, first: str) -> list[FastStrike] | None: ...
    def check_tied(self, name: str, parameter: Tensor, grid: ScaleAndZero) -> None: ...
    def struck_run(self, first: str, value: Tensor, batched: bool, now: Moment) -> str | None: ...
    def strike(
        self, name: str, value: Tensor, scale: Tensor, zero_point: Tensor, unheld: bool = ..., now: Moment = ...
    ) -> Tensor: ...


class SiteHook(NeverCopied, StrikesInside):
    """The forward hook of one quantizer proxy, for one of its sites.

    `own` is its name there, `name` that of the memory, which `tied` says that others may read, too. `reads` tells which
    of its sites a quantizer reads that layers share.
    """

    def __init__(
        self,
        injection: Striking,
        name: str,
        own: str,
        batched: bool,
        width: Width,
        tied: bool = False,
        reads: Reads | None = None,
    ) -> None:
        self.injection, self.name, self._batched, self._width = injection, name, batched, width
        self._own, self._tied, self._reads = own, tied, reads
        self._struck: weakref.ref[Tensor] | None = None
        self.is_activation = batched
        self.state: Any = None
        """What the extension's hook knows of this one, if it stands in its place."""

    @property
    def is_common(self) -> bool:
        """Whether nothing but the values decides what is struck: the quantizer has one memory, and a constant width."""
        return not (self._tied or self._reads is not None or self._width.can_move)

    def fast_site(self) -> tuple[bool, bool, int, list[Any]] | None:
        """What the extension's hook strikes from now on, by the run in a forward; None where this one has to be called.

        Of a run that is not there this one has to be called, too.
        """
        found = self.injection.fast_runs(self.name)
        if found is None:
            return None
        sites = [strike.in_extension for strike in found]
        if any(site is None and strike.step is not None for site, strike in zip(sites, found, strict=True)):
            return None
        return self._batched, self.is_activation, self._width.bits, sites

    def plan_inside(self, proxy: nn.Module, asked: Asked) -> Inside | None:
        now = moment()
        unusual = now.followed or now.recomputing or asked.x.dim() == 0 or not self.is_common
        if unusual or not proxy.is_quant_enabled or not self._width.is_planned(asked.bit_width):
            return None
        return plan_inside(self.injection, self.name, self._batched, asked)

    def note_struck(self, values: Tensor) -> None:
        self._struck = weakref.ref(values)  # so that no other tensor comes to lie in its place

    def __call__(self, proxy: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self._struck is not None and self._was_struck(output):
            return None
        now = moment()
        unheld = not now.followed and output_is_unheld(output)  # before anything else here holds it
        if now.followed:
            refuse_export()
        if not proxy.is_quant_enabled:  # switched off meanwhile, as by Brevitas' calibration: no integers, no faults
            return None
        is_quant_tensor = isinstance(output, IntQuantTensor)
        value = output.value if is_quant_tensor else output
        if value.dim() == 0:  # Brevitas probes quantizers with a scalar to learn their scale
            return None
        if self._reads is not None and self._reads.name(args[0]) != self._own:  # another layer's parameter
            return None
        if self._tied:
            self.injection.check_tied(self._own, args[0], grid_of(proxy, output))
        name = self.injection.struck_run(self.name, value, self._batched, now)
        if name is None:
            return None
        scale, zero_point = (output.scale, output.zero_point) if is_quant_tensor else known_scale(proxy)
        held = self._width.checked(output.bit_width if is_quant_tensor else None, scale, now)
        faulty = self.injection.strike(name, value, held, zero_point, unheld, now)
        if faulty is value:  # without faults, or struck in place
            return None
        if not is_quant_tensor:
            return faulty
        # not output.set(): a named tuple's _replace does not survive torch.compile
        rest = (output.scale, output.zero_point, output.bit_width, output.signed_t, output.training_t)
        return IntQuantTensor(faulty, *rest)

    def _was_struck(self, output: Any) -> bool:
        """Whether the values were struck when they were made; asked once."""
        found = self._struck is not None and isinstance(output, IntQuantTensor) and self._struck() is output.value
        if found:
            self._struck = None
        return found


def attached(model: nn.Module) -> bool:
    """Whether any injection is attached to the model."""
    modules = list(unwrap(model).modules())
    hooks = (hook for module in modules for hook in forward_hooks(module).values())
    return any(isinstance(hook_behind(hook), SiteHook) for hook in hooks) or any(map(computes_on_integers, modules))
