"""Another forward for a module, for a while."""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from torch import nn

from hwfault.errors import HwfaultError


class Override:
    """A module's forward, replaced by `instead(plain, ...)` until it is removed."""

    def __init__(self, module: nn.Module, instead: Callable[..., Any]) -> None:
        self._module, self._before = module, vars(module).get("forward")
        self._plain, self.instead = module.forward, instead
        functools.update_wrapper(self, self._plain)
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.instead(self._plain, *args, **kwargs)

    @staticmethod
    def of(module: nn.Module) -> Callable[..., Any] | None:
        """What stands in for the module's forward, if anything does."""
        present = vars(module).get("forward")
        return present.instead if isinstance(present, Override) else None

    def remove(self) -> None:
        del self._module.forward
        if self._before is not None:
            self._module.forward = self._before

    def __reduce_ex__(self, protocol: Any) -> Any:
        refuse_copy()


def refuse_copy() -> NoReturn:
    """Raises HwfaultError: a copy would go on computing with the modules of the original, or in another arithmetic."""
    raise HwfaultError(
        "the model cannot be copied or pickled while its arithmetic is replaced; leave the `with "
        "integer_arithmetic(...)` block (or call .remove() on it) first"
    )
