"""Sums on CUDA devices that are exact wherever every partial sum is: integers below 2^24 in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.backends import cuda, cudnn

_REDUCED = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")


@contextmanager
def exact_on_cuda() -> Iterator[None]:
    """Until the block is left, CUDA devices multiply matrices and convolve in float32 as such, whatever the order.

    Off are TF32, which keeps 11 significant bits of each factor, sums of 16 bit types in 16 bits, and cuDNN, which may
    choose Winograd's algorithm, whose factors of 1/6 and 1/24 have no exact float; torch's own convolutions are slower.
    Then layers whose integers (values without their scale, a power of two) sum to less than 2^24 in magnitude give the
    bits that they give on the CPU. Nothing changes on the CPU.
    """
    switches: list[tuple[Any, str]] = [(cudnn, "enabled"), *((cuda.matmul, name) for name in _REDUCED)]
    before = [getattr(module, name) for module, name in switches]
    try:
        for module, name in switches:
            setattr(module, name, False)
        with _without_tf32():
            yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Matrix products without TF32, by the old name of the setting and by that of torch 2.9, which must agree."""
    new = getattr(cuda.matmul, "fp32_precision", None)
    try:
        old = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by the new name before: torch wants no other from then on
        old = None
    try:
        if old is not None:
            torch.set_float32_matmul_precision("highest")
        else:
            cuda.matmul.fp32_precision = "ieee"
        yield
    finally:
        if old is not None:
            torch.set_float32_matmul_precision(old)
        if new is not None:
            cuda.matmul.fp32_precision = new
