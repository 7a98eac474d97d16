"""What stands in for the forward of a module of Brevitas', and runs that wherever it may not run itself."""

from typing import Any, Self

import torch

from hwfault.network.hooks import NeverCopied, StandIn
from hwfault.torch_ops.inside_torch import functions_watched, traced

FOLLOWED = "its operators were followed (by a compiler, an export, a transform or a mode), which sees Brevitas' own"


class OwnForward(NeverCopied):
    """Runs as its module does, by one operator wherever that is the same, else by the module's own forward."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._why: str | None = None
        """Why the latest run was the module's own; None if it was not."""
        self._plain = module.forward
        self._look()
        self._stand_in = StandIn(module, "forward", self, lambda: None)

    @classmethod
    def of(cls, module: Any) -> Self | None:
        """The one of this kind that stands in for a module's forward, if any does."""
        present = vars(module).get("forward") if module is not None else None
        return present if isinstance(present, cls) else None

    def remove(self) -> None:
        self._stand_in.remove()

    def _look(self) -> None:
        """Notes what the module is made of."""
        raise NotImplementedError

    def _is_followed(self) -> bool:
        """Whether somebody follows the operators that run, which is noted as the reason why they are the module's."""
        if not (traced() or functions_watched()):
            return False
        if not torch.compiler.is_compiling():
            self._why = FOLLOWED
        return True
