"""The CPU standing in for a device: its operators run as they do on one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from hwfault.torch_ops import cuda_ops, eager

IMPLEMENTATIONS = {op._name: implementation for op, implementation in cuda_ops._IMPLEMENTATIONS}
STRUCK = ("inject", "zero_faulty", "fault_map", "zero_map")


@contextmanager
def with_triton(triton: bool) -> Iterator[None]:
    """Whether the implementations for devices find Triton."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_ops, "has_triton", lambda device: triton)
        yield


@contextmanager
def as_on_a_device(triton: bool) -> Iterator[list[str]]:
    """The operators of stream and maps on CPU tensors go the device's way; yields the names of those that ran."""
    ran: list[str] = []

    def noted(name, implementation):
        def run(*args):
            ran.append(name)
            return implementation(*args)

        return torch._dynamo.disable(run)

    with with_triton(triton), pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "is_plain", lambda x: False)
        for op, implementation in cuda_ops._IMPLEMENTATIONS:
            if op._name in STRUCK:  # the others call the operator on the CPU
                patch.setitem(op._backend_fns, "cpu", noted(op._name, implementation))
        yield ran
