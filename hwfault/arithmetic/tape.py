"""The constants of a forward, made once and used again where it is traced."""

from collections.abc import Callable, Iterator
from typing import Any

import torch


class Tape:
    """The constants of a forward, in its order; frozen, they are those of every later one."""

    def __init__(self) -> None:
        self.frozen = False
        self._made: list[Any] = []
        self._next: Iterator[Any] = iter(())

    def begin(self) -> None:
        if self.frozen:
            self._next = iter(self._made)
        else:
            self._made.clear()

    def constants(self, make: Callable[[], Any]) -> Any:
        if self.frozen:
            return next(self._next)
        with torch.no_grad():
            self._made.append(make())
        return self._made[-1]
