"""Another forward for a module, for a while."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn


class Override:
    """A module's forward, replaced by `instead(plain, ...)` until it is removed."""

    def __init__(self, module: nn.Module, instead: Callable[..., Any]) -> None:
        self._module, self._before = module, vars(module).get("forward")
        plain = module.forward

        @functools.wraps(plain)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return instead(plain, *args, **kwargs)

        forward.overridden_by = instead  # type: ignore[attr-defined]
        module.forward = forward

    @staticmethod
    def of(module: nn.Module) -> Callable[..., Any] | None:
        """What stands in for the module's forward, if anything does."""
        return getattr(vars(module).get("forward"), "overridden_by", None)

    def remove(self) -> None:
        del self._module.forward
        if self._before is not None:
            self._module.forward = self._before
