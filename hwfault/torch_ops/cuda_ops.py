"""The operators on other devices than the CPU.

On CUDA devices faults of the stream and of maps are struck by Triton kernels (hwfault.stream.cuda), which never wait
for the host. Devices without Triton leave it to the CPU (hwfault.torch_ops.by_cpu), and so do all devices for protected
memories and for accumulators of arrays, which have no kernel. Both ways give the same bits as the operators on the CPU.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from hwfault.torch_ops import array_op, map_op, ops, protection_op
from hwfault.torch_ops.by_cpu import entirely, map_words, program_words, struck

_OLDEST_TRITON = (3, 6)
_OLDEST_DEVICE = (8, 0)
"""The least compute capability that Triton supports."""


def inject(x: Tensor, *args: Any) -> Tensor:
    """`hwfault::inject`."""
    *tensors, bit_width, signed, _straight_through, _reads_stored = args[:9]
    return _stream(x, x, False, tensors, (bit_width, signed, *(args[9:] or (0,))))


def zero_faulty(gradient: Tensor, x: Tensor | None, *args: Any) -> Tensor:
    """`hwfault::zero_faulty`."""
    return _stream(gradient, x, True, args[:5], (*args[5:7], *(args[7:] or (0,))))


def fault_map(x: Tensor, *args: Any) -> Tensor:
    """`hwfault::fault_map`."""
    return _map(x, x, False, args[:6], args[6:11])


def zero_map(gradient: Tensor, x: Tensor | None, *args: Any) -> Tensor:
    """`hwfault::zero_map`."""
    return _map(gradient, x, True, args[:6], args[6:])


def _stream(
    source: Tensor, stored: Tensor | None, zero: bool, tensors: Sequence[Tensor], numbers: tuple[Any, ...]
) -> Tensor:
    ops.dtype_number(source)
    if not has_triton(source.device):
        return struck(ops.STREAM, program_words, source, stored, zero, tensors, numbers)
    from hwfault.stream import cuda  # takes Triton

    given = (*tensors, *numbers)
    return cuda.zero_faulty(source, stored, *given) if zero else cuda.inject(source, *given)


def _map(
    source: Tensor, stored: Tensor | None, zero: bool, tensors: Sequence[Tensor], numbers: tuple[Any, ...]
) -> Tensor:
    ops.dtype_number(source)
    if not has_triton(source.device):
        return struck(map_op.MAP, map_words, source, stored, zero, tensors, numbers)
    from hwfault.stream import cuda  # takes Triton

    given = (*tensors, *numbers)
    return cuda.zero_map(source, stored, *given) if zero else cuda.fault_map(source, *given)


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


_IMPLEMENTATIONS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (ops.inject, inject),
    (ops.zero_faulty, zero_faulty),
    (map_op.fault_map, fault_map),
    (map_op.zero_map, zero_map),
    (protection_op.protected, entirely(protection_op.protected)),
    (protection_op.zero_protected, entirely(protection_op.zero_protected)),
    (array_op.accumulate, entirely(array_op.accumulate)),
)
for _op, _implementation in _IMPLEMENTATIONS:
    _op.register_kernel(None, _implementation)  # every device that has none of its own
