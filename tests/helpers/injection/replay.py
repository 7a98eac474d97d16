"""A CUDA graph without CUDA: the operators of a run, to be run again on the same memory.

As in a CUDA graph everything but tensors is what it was when it was recorded, and each operator writes to the memory
that it wrote to then. The host's code is not run again.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "unique2", "is_nonzero")
"""Operators for whose results a host waits, if they are those of a device's tensors."""


class Recorded(TorchDispatchMode):
    """Records what runs inside of it."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, out))
        return out

    @property
    def names(self) -> list[str]:
        return [func._schema.name.split("::")[1] for func, *_ in self._calls]

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, out in self._calls:
                given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
                for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in given:
                        old.detach().copy_(new)
