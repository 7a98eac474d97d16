"""Sums on CUDA devices that are exact wherever every partial sum is: integers below 2^24 in float32."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    with ExitStack() as stack:
        for module, name, value in _settings():
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield


def _settings() -> list[tuple[Any, str, Any]]:
    reduced: list[tuple[Any, str, Any]] = [(cuda.matmul, name, False) for name in _REDUCED]
    # torch 2.9 has a new name for the setting, and does not want both to be used
    new = hasattr(torch.backends, "fp32_precision")
    tf32 = (cuda.matmul, "fp32_precision", "ieee") if new else (cuda.matmul, "allow_tf32", False)
    return [(cudnn, "enabled", False), tf32, *reduced]
