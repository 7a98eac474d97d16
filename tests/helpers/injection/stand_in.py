"""The CPU standing in for a device: its operators run as they do on one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from hwfault.stream.mechanism import MECHANISMS
from hwfault.torch_ops import eager, inside_torch, on_devices, strike_op


@contextmanager
def with_triton(triton: bool) -> Iterator[None]:
    """Whether the implementations for devices find Triton."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_devices, "has_triton", lambda device: triton)
        yield


@contextmanager
def as_on_a_device(triton: bool) -> Iterator[list[str]]:
    """The operators on CPU tensors go the device's way where that is another; yields which ran, by what mechanism."""
    ran: list[str] = []

    def noted(name, implementation, own):
        def run(*args):
            mechanism = next(arg for arg in args if isinstance(arg, str))
            if not MECHANISMS[mechanism].kernel:  # by the operator on the CPU
                return own(*args)
            ran.append(f"{name} {mechanism}")
            return implementation(*args)

        return torch._dynamo.disable(run)

    with with_triton(triton), pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "is_plain", lambda x: False)
        patch.setattr(inside_torch, "uses", lambda x: ())
        for name in ("strike", "zero"):
            op, implementation = getattr(strike_op, name), getattr(on_devices, name)
            patch.setitem(op._backend_fns, "cpu", noted(name, implementation, op._backend_fns["cpu"]))
        yield ran
