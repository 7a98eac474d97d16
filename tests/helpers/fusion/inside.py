"""The ways by which faults strike quantized values, and which of them did."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hwfault.fusion import whole
from hwfault.stream import native
from hwfault.torch_ops.extension import without_extension

WAYS = ("extension", "ctypes", "two passes")
"""In the pass that makes the values, by the C++ extension or by ctypes; by hooks, in a pass of their own."""


@contextmanager
def struck_by(way: str) -> Iterator[list[str]]:
    """Faults of injections and quantizers that begin inside strike by a way; what was called for it by ctypes."""
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("quantize_struck", "quantize_struck_gradient"):
            patch.setattr(native, name, _noted(name, getattr(native, name), calls))
        if way == "extension":
            yield calls
            return
        if way == "two passes":
            patch.setattr(whole, "first_inside", lambda _hooks: None)
        with without_extension():
            yield calls


def _noted(name, plain, calls):
    def call(*args):
        calls.append(name)
        return plain(*args)

    return call
