"""Which cases of a parametrized test `make test` runs; `make test-slow` runs the others."""

from collections.abc import Iterable
from typing import Any

import pytest


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
