"""A network whose integer fake quantizers run as one operator each, for as long as a block lasts."""

from types import TracebackType
from typing import Any, Self

from torch import nn

from hwfault.errors import HwfaultError
from hwfault.fusion.parts import int_quant, quantizers, why_left
from hwfault.fusion.quantizer import OneOperator
from hwfault.fusion.whole import WholeQuantizer
from hwfault.fusion.whole_parts import why_not_whole
from hwfault.network.hooks import NeverCopied, OwnHook
from hwfault.network.sites import unwrap


def fused(model: nn.Module) -> "Fused":
    """Lets Brevitas' integer quantizers run as one operator each, forward and backward, until the block is left.

    Use it as `with fused(model) as block:`, or call `.remove()` on what it returns. Each quantizer of activations or
    weights whose parts are all known rectifies, divides, rounds, clamps and multiplies in one pass. Scales that follow
    from a parameter, a constant or the largest magnitudes of the weights are computed with it; others, statistics and
    zero points among them, by Brevitas' own modules, and the pass begins behind these. Values, scales and the gradients
    of values are those of Brevitas, to the bit; gradients of scales, and of the values that are a largest magnitude,
    are sums, which are added up in float64 and in another order. Everything else runs as before: `block.left` says
    which quantizers and why, `block.fused` names those that are fused. Parameters and `state_dict` stay untouched,
    copies of the model are clean. For the backward pass each quantizer keeps the values that it was given, so that
    these may not be overwritten before. Faults may be attached inside of the block and around it; those that the stream
    draws strike in the same pass wherever no hook is to see the values before.
    Raises HwfaultError for what is no network, and for one of which a part is fused already.
    """
    return Fused(model)


class Fused(NeverCopied):
    """What `fused` answers with."""

    def __init__(self, model: nn.Module) -> None:
        self._proxies: dict[str, Any] = dict(quantizers(unwrap(model)))
        if name := next((n for n, proxy in self._proxies.items() if OneOperator.of(int_quant(proxy))), None):
            raise HwfaultError(
                f"the quantizer {name!r} is fused already; leave the `with fused(...)` block (or call .remove() on it) "
                "before another one begins"
            )
        self._active = True
        self._operators: dict[int, OneOperator] = {}
        """By the quantizer; those that share an IntQuant share the operator."""
        self._whole: dict[int, WholeQuantizer] = {}
        """By the quantizer: those that run as a whole, their scale included; `_operators` serve where they do not."""
        self._hooks: list[OwnHook] = []
        try:
            for proxy in self._proxies.values():
                self._attach(proxy)
                # Brevitas builds a quantizer's parts anew when a state is loaded
                handle = proxy.register_load_state_dict_post_hook(lambda module, _keys: self._attach(module))
                self._hooks.append(OwnHook(handle))
        except BaseException:
            self.remove()
            raise

    def _attach(self, proxy: Any) -> None:
        """Lets a quantizer run as one operator, if it may; what stood in for parts that it no longer has goes."""
        self._attach_inner(proxy)
        if id(proxy) not in self._whole and why_not_whole(proxy) is None:
            self._whole[id(proxy)] = WholeQuantizer(proxy)

    def _attach_inner(self, proxy: Any) -> None:
        module, before = int_quant(proxy), self._operators.get(id(proxy))
        if before is not None and before.module is module:
            return
        self._operators.pop(id(proxy), None)
        if before is not None and before not in self._operators.values():
            before.remove()
        present = OneOperator.of(module)
        if present is None and why_left(proxy) is None:
            present = OneOperator(module)
        if present is not None:
            self._operators[id(proxy)] = present

    @property
    def fused(self) -> tuple[str, ...]:
        """The paths of the quantizers that run as one operator, and did so when they ran last."""
        left = self.left
        return tuple(name for name in self._proxies if name not in left)

    @property
    def left(self) -> dict[str, str]:
        """Why the other quantizers run as Brevitas' own, by their paths."""
        reasons = {name: self._why_left(proxy) for name, proxy in self._proxies.items()}
        return {name: why for name, why in reasons.items() if why is not None}

    def _why_left(self, proxy: Any) -> str | None:
        if not self._active:
            return "the block was left"
        whole, present = self._whole.get(id(proxy)), OneOperator.of(int_quant(proxy))
        if whole is not None and whole.why is None:
            return None
        if present is not None:
            return present.why
        return why_left(proxy) or "its parts were built anew inside of the block; leave it, and begin another"

    def remove(self) -> None:
        """Lets every quantizer run as Brevitas' own again; harmless when called twice."""
        self._active = False
        for hook in self._hooks:
            hook.remove()
        for whole in self._whole.values():
            whole.remove()
        for operator in {id(o): o for o in self._operators.values()}.values():
            operator.remove()
        self._hooks, self._operators, self._whole = [], {}, {}

    def __enter__(self) -> Self:
        if not self._active:
            raise HwfaultError("this block was left already; begin another one with fused(model)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
