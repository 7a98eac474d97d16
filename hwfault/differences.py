"""Where two nests of plain data differ."""

from typing import Any, Final

MISSING: Final = object()
"""Stands for the value of a key that only the other nest has."""


def differences(first: Any, second: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """The dotted keys at which nests of mappings and lists differ, with both values, MISSING where there is none.

    Lists are compared item by item if they are as long as each other, and else as a whole.
    """
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        first, second = (dict(enumerate(values)) for values in (first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in dict.fromkeys((*first, *second)):  # in the order of the first
            inner = f"{place}.{key}" if place else str(key)
            found |= differences(first.get(key, MISSING), second.get(key, MISSING), inner)
        return found
    return {} if first == second else {place: (first, second)}
