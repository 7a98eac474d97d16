"""Whether what was found out about some objects still holds: their dicts have the entries that they had.

Every quantizer of a forward asks, and meets these dicts cold in the caches: the C++ extension asks with less of Python.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from hwfault.torch_ops.extension import extension

Entry = tuple[Mapping[str, Any], str]
"""A dict, and a key in it; a key that is missing counts as None."""


def holding(
    whole: Sequence[Mapping[str, Any]], counted: Sequence[Mapping[str, Any]], entries: Sequence[Entry]
) -> Callable[[], bool]:
    """What says whether, from now on, dicts stay the same.

    `whole` are those whose values all have to be the same objects, `counted` those that must not get another entry,
    `entries` single ones, whose values are to be the same or equal.
    """
    module = extension()
    guards = _Guards if module is None else module.Guards
    made: Callable[[], bool] = guards(list(whole), list(counted), list(entries))
    return made


class _Guards:
    """The same as the extension has it."""

    def __init__(self, whole: list[Mapping[str, Any]], counted: list[Mapping[str, Any]], entries: list[Entry]) -> None:
        self._whole, self._counted, self._entries = whole, counted, entries
        self._size = self._present_size()
        self._values, self._single = self._present_values(), self._present_entries()

    def __call__(self) -> bool:
        return (
            self._present_size() == self._size
            and _same(self._present_values(), self._values)
            and _same(self._present_entries(), self._single)
        )

    def _present_size(self) -> int:
        return sum(map(len, self._counted))

    def _present_values(self) -> list[Any]:
        return list(chain.from_iterable([held.values() for held in self._whole]))

    def _present_entries(self) -> list[Any]:
        return [held.get(key) for held, key in self._entries]


def _same(now: list[Any], then: list[Any]) -> bool:
    """Whether objects are the same ones; numbers may be equal, of tensors only the same one will do."""
    if len(now) != len(then):
        return False
    return all(a is b or (isinstance(a, int | float) and a == b) for a, b in zip(now, then, strict=True))
