"""Faults on devices that cannot strike them themselves: found and struck on the CPU, to the same bits.

Which words may be struck is drawn on the CPU; only these are fetched from the device, struck by the native library, and
written back. Every call waits for the device, so that none of this can be part of a CUDA graph.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.program.kinds import reads_other_words
from hwfault.stream.check import batch_and_words
from hwfault.stream.touched import Words, touched
from hwfault.torch_ops.eager import Kernel

Found = tuple[Words, bool]
"""Words of a tensor, ascending, and whether they must be struck out of place, because they read each other."""


def program_words(source: Tensor, tensors: Sequence[Tensor], numbers: Sequence[Any]) -> Found:
    """What a fault program may strike; arguments as of `hwfault.torch_ops.ops.STREAM`."""
    samples, seed, program = (t.numpy() for t in tensors[:3])
    _, words = batch_and_words(source.shape, samples.size)
    key, numbered = int(seed) & 0xFFFFFFFFFFFFFFFF, np.ascontiguousarray(samples)
    flat = program.tolist()
    found = touched(flat, seed=key, samples=numbered, words=words, bit_width=numbers[0])
    return found, reads_other_words(flat)


def map_words(source: Tensor, tensors: Sequence[Tensor], _numbers: Sequence[Any]) -> Found:
    """What a fault map may strike; arguments as of `hwfault.torch_ops.map_op.MAP`."""
    period, word = tensors[0], tensors[2].numpy()
    batch, words = batch_and_words(source.shape, period.numel())
    return (np.arange(batch)[:, None] * words + word).reshape(-1), False


def struck(
    kernel: Kernel,
    find: Callable[[Tensor, Sequence[Tensor], Sequence[Any]], Found],
    source: Tensor,
    stored: Tensor | None,
    zero: bool,
    tensors: Sequence[Tensor],
    numbers: tuple[Any, ...],
) -> Tensor:
    """What the kernel makes of `source`: faulty values, or a gradient with zeros, for the values `stored` before."""
    _refuse_capture(source)
    here = tuple(t.cpu() for t in tensors)
    found, out_of_place = find(source, here, numbers)
    some = _Some(source, found)
    part = some.fetched(source)
    if zero:
        kernel.write_zeros(part, part, None if stored is None else some.fetched(stored), here, numbers)
    else:
        before, part = part, torch.empty_like(part) if out_of_place else part
        kernel.write_struck(before, part, here, numbers)
    return some.written(source, part)


class _Some:
    """Some words of tensors of one shape, here and on their device."""

    def __init__(self, like: Tensor, found: Words) -> None:
        self._here = torch.from_numpy(found)
        self._there = self._here.to(like.device)

    def fetched(self, x: Tensor) -> Tensor:
        """A tensor on the CPU that has these words of x, and zeros that take no memory elsewhere."""
        part = torch.from_numpy(np.zeros(x.shape, dtype=f"i{x.element_size()}")).view(x.dtype)
        part.view(-1)[self._here] = x.reshape(-1)[self._there].cpu()
        return part

    def written(self, x: Tensor, part: Tensor) -> Tensor:
        """A copy of x, contiguous, with these words from a tensor on the CPU."""
        out = x.clone(memory_format=torch.contiguous_format)
        out.view(-1)[self._there] = part.view(-1)[self._here].to(x.device)
        return out


def entirely(op: Callable[..., Any]) -> Callable[..., Any]:
    """An operator on tensors of any device by that on the CPU: everything is copied there, and the results back."""

    def by_cpu(*args: Any) -> Any:
        _refuse_capture(args[0])
        out = op(*(a.cpu() if isinstance(a, Tensor) else a for a in args))
        return out.to(args[0].device) if isinstance(out, Tensor) else tuple(t.to(args[0].device) for t in out)

    return by_cpu


def _refuse_capture(x: Tensor) -> None:
    """Raises PlanError while a CUDA graph is captured."""
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        raise PlanError(
            "faults that are drawn on the CPU cannot be captured in a CUDA graph: protected memories, arrays of "
            "processing elements, and devices without Triton; leave them out of the plan, or run without graphs"
        )
