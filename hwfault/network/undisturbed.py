"""Looking at a network while faults are attached to it, as if they were not."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import nn

from hwfault.torch_ops.extension import hook_behind
from hwfault.torch_ops.inside_torch import forward_hooks


@runtime_checkable
class Pausable(Protocol):
    """A clock that forwards can be kept from moving."""

    def paused(self) -> AbstractContextManager[None]: ...


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """No attached injection strikes inside, and forwards inside do not count."""
    injections = {id(found): found for module in model.modules() for found in _injections(module)}.values()
    clocks = [clock for module in model.modules() if isinstance(clock := getattr(module, "clock", None), Pausable)]
    before = [injection.enabled for injection in injections]
    try:
        with ExitStack() as stack:
            for clock in [*clocks, *(injection.clock for injection in injections)]:
                stack.enter_context(clock.paused())
            for injection in injections:
                injection.enabled = False
            yield
    finally:
        for injection, enabled in zip(injections, before, strict=True):
            injection.enabled = enabled


def _injections(module: nn.Module) -> Iterator[Any]:
    """The injections that strike a quantizer, or the sums of a layer."""
    for hook in forward_hooks(module).values():
        if (injection := getattr(hook_behind(hook), "injection", None)) is not None:
            yield injection
    for striker, _ in getattr(vars(module).get("inner_forward_impl"), "strikers", ()):
        yield striker
