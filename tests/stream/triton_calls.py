"""The Triton kernels behind the tests' signatures: on a GPU, or under Triton's interpreter on CPU tensors.

The interpreter combines elements one by one where it does not know a reduction's function; ours is an OR, which NumPy
has.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from triton import knobs
from triton.runtime import interpreter

from hwfault.codes import Codes
from hwfault.stream import cuda
from hwfault.stream.check import signed64
from hwfault.stream.cuda.strike import either

INTERPRETED = bool(knobs.runtime.interpret)
DEVICE = "cpu" if INTERPRETED else "cuda"


@contextmanager
def fast_or() -> Iterator[None]:
    """Reductions by OR as one call of NumPy."""
    plain = interpreter.ReduceOps.apply_impl

    def apply(self: Any, input: Any) -> Any:
        if self.combine_fn is not either:
            return plain(self, input)
        return self.to_tensor(np.bitwise_or.reduce(input[0].handle.data, axis=self.axis), input[0].dtype)

    interpreter.ReduceOps.apply_impl = apply
    try:
        with np.errstate(all="ignore"):  # it works on what is infinite or not a number with NumPy
            yield
    finally:
        interpreter.ReduceOps.apply_impl = plain


def by_triton(codes: Codes, program: Sequence[int], seed: int, sample: int, bit_width: int) -> Codes:
    """The codes of one sample after a program, as float64, which holds every code of 32 bits."""
    x = on_device(torch.from_numpy(codes.astype(np.float64))[None])
    numbers = (torch.tensor([sample]), torch.tensor(signed64(seed)), torch.tensor(program, dtype=torch.int64))
    grid = torch.tensor(1.0), torch.tensor(0.0)
    return cuda.inject(x, *on_device(*numbers, *grid), bit_width, False)[0].cpu().numpy().astype(np.uint32)


def on_device(*given: Any) -> Any:
    """Arguments with their tensors on the kernels' device; one argument comes back by itself."""
    moved = tuple(a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in given)
    return moved[0] if len(moved) == 1 else moved
