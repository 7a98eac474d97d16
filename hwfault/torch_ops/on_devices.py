"""The operators on other devices than the CPU.

On CUDA devices faults of the stream and of maps are struck by Triton kernels (hwfault.stream.cuda), which never wait
for the host. Devices without Triton leave it to the CPU (hwfault.torch_ops.by_cpu), and so do all devices for protected
memories and for accumulators of arrays, which have no kernel. Both ways give the same bits as the operators on the CPU.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from hwfault.stream.mechanism import mechanism_named
from hwfault.torch_ops import by_cpu, strike_op
from hwfault.torch_ops.on_cpu import dtype_number

_OLDEST_TRITON = (3, 6)
_OLDEST_DEVICE = (8, 0)
"""The least compute capability that Triton supports."""


def strike(
    x: Tensor, tensors: Sequence[Tensor], numbers: Sequence[int], mechanism: str, *rules: bool
) -> tuple[Tensor, Tensor]:
    """`hwfault::strike`."""
    known = mechanism_named(mechanism)
    if not known.kernel:
        out, counts = by_cpu.entirely(strike_op.strike, x, list(tensors), numbers, mechanism, *rules)
        return out, counts
    dtype_number(x)
    operands = known.named(tensors, numbers)
    nothing = x.new_empty(known.counts, dtype=torch.int64)
    if not has_triton(x.device):
        return by_cpu.strike_by_cpu(known, operands, x), nothing
    from hwfault.stream import cuda  # takes Triton

    return cuda.strike(x, operands), nothing


def zero(
    gradient: Tensor, kept: Tensor | None, tensors: Sequence[Tensor], numbers: Sequence[int], mechanism: str
) -> Tensor:
    """`hwfault::zero`."""
    known = mechanism_named(mechanism)
    if not known.kernel:
        (zeroed,) = by_cpu.entirely(strike_op.zero, gradient, kept, list(tensors), numbers, mechanism)
        return zeroed
    dtype_number(gradient)
    operands = known.named(tensors, numbers)
    if not has_triton(gradient.device):
        return by_cpu.zero_by_cpu(known, operands, gradient, kept)
    from hwfault.stream import cuda  # takes Triton

    return cuda.zero(gradient, kept, operands)


@cache
def has_triton(device: torch.device) -> bool:
    """Whether Triton compiles the kernels for a device; warns, once, where the CPU must help out."""
    lacking = _lacking(device)
    if lacking:
        warn(
            f"{lacking}, so that the faults of values on {device} are drawn on the CPU: the same faults, but each site "
            "waits for the device",
            stacklevel=2,
        )
    return not lacking


@cache
def lacking_triton(device: torch.device) -> str:
    """The same in words, without a warning: what keeps Triton from being used; empty if nothing does."""
    return _lacking(device)


def _lacking(device: torch.device) -> str:
    """What keeps Triton from being used; empty if nothing does."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "hwfault has kernels for NVIDIA GPUs only"
    try:
        installed = version("triton")
    except PackageNotFoundError:
        return "Triton is not installed"
    if tuple(int(part) for part in installed.split(".")[:2]) < _OLDEST_TRITON:
        return f"Triton {installed} is too old (hwfault takes {'.'.join(map(str, _OLDEST_TRITON))} or newer)"
    if torch.cuda.get_device_capability(device) < _OLDEST_DEVICE:
        return "the GPU is too old for Triton"
    return ""


OPERATORS: dict[Any, Any] = {strike_op.strike: strike, strike_op.zero: zero}
"""Each operator, and its implementation on every device that has none of its own."""

for _op, _implementation in OPERATORS.items():
    _op.register_kernel(None, _implementation)
