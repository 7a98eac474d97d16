"""Which cases of a parametrized test `make test` runs, `make test-slow` runs the others; and which files come first."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

LONG = ("tests/cli/test_process.py",)
"""Files that take long, of which none may be left for the end, where other cores have nothing to do any more."""


def slow(*values: Any) -> Any:
    """A case for the slow set."""
    return pytest.param(*values, marks=pytest.mark.slow)


def thinned(cases: Iterable[Any], every: int) -> list[Any]:
    """Every so many-th case as it is, the others for the slow set; a tuple is the values of several parameters."""
    found = []
    for i, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        found.append(case if i % every == 0 else slow(*values))
    return found


def thin(items: Sequence[pytest.Item]) -> None:
    """Of a test marked `every(n)` each n-th case stays as it is, counted as they are collected; the others are slow.

    For several parameters one beside the other, an n that no number of their values has a divisor in common with meets
    all of these. Cases that are slow already do not count.
    """
    met: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("every")
        if mark is None or item.get_closest_marker("slow") is not None:
            continue
        (every,) = mark.args
        test = item.nodeid.partition("[")[0]
        if met[test] % every:
            item.add_marker(pytest.mark.slow)
        met[test] += 1


def put_long_files_first(items: list[pytest.Item]) -> None:
    """Those of LONG in their order, then the others as they were collected."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONG)))
