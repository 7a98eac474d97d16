"""Faults on devices that cannot strike them themselves: found and struck on the CPU, to the same bits.

Which words may be struck is drawn on the CPU; only these are fetched from the device, struck by the native library, and
written back. Every call waits for the device, so that none of this can be part of a CUDA graph.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.program.kinds import reads_other_words
from hwfault.stream.check import batch_and_words
from hwfault.stream.mechanism import MapOperands, Mechanism, StreamOperands
from hwfault.stream.touched import Words, touched
from hwfault.torch_ops.on_cpu import WRITERS


class Found(NamedTuple):
    """Words of a tensor, ascending, and whether they must be struck out of place, because they read each other."""

    words: Words
    read_each_other: bool = False


def program_words(source: Tensor, o: StreamOperands[Tensor]) -> Found:
    """What a fault program may strike."""
    samples, program = np.ascontiguousarray(o.samples.numpy()), o.program.tolist()
    _, words = batch_and_words(source.shape, samples.size)
    key = int(o.seed) & 0xFFFFFFFFFFFFFFFF
    found = touched(program, seed=key, samples=samples, words=words, bit_width=o.bit_width)
    return Found(found, reads_other_words(program))


def map_words(source: Tensor, o: MapOperands[Tensor]) -> Found:
    """What a fault map may strike."""
    batch, words = batch_and_words(source.shape, o.period.numel())
    return Found((np.arange(batch)[:, None] * words + o.word.numpy()).reshape(-1))


_FIND: dict[str, Callable[[Tensor, Any], Found]] = {"stream": program_words, "map": map_words}


def strike_by_cpu(mechanism: Mechanism, operands: Any, x: Tensor) -> Tensor:
    """x with faults."""
    _refuse_capture(x)
    here = _fetched(operands)
    found = _FIND[mechanism.name](x, here)
    some = _Some(x, found.words)
    before = some.fetched(x)
    after = torch.empty_like(before) if found.read_each_other else before
    WRITERS[mechanism.name].strike(before, after, here, None, None)
    return some.written(x, after)


def zeroed(mechanism: Mechanism, operands: Any, gradient: Tensor, stored: Tensor | None) -> Tensor:
    """A gradient with zeros at the words that are changed; `stored` are the values before, where these decide."""
    _refuse_capture(gradient)
    here = _fetched(operands)
    some = _Some(gradient, _FIND[mechanism.name](gradient, here).words)
    part = some.fetched(gradient)
    WRITERS[mechanism.name].zero(part, part, None if stored is None else some.fetched(stored), here)
    return some.written(gradient, part)


def _fetched(operands: Any) -> Any:
    """The operands with their tensors on the CPU, contiguous."""
    return type(operands)(*(o.cpu().contiguous() if isinstance(o, Tensor) else o for o in operands))


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


def entirely(op: Callable[..., Any], x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """What an operator makes of tensors of any device: everything is copied to the CPU, and the results back."""
    _refuse_capture(x)
    out = op(x.cpu(), *map(_on_cpu, args))
    return tuple(t.to(x.device) for t in (out if isinstance(out, tuple) else (out,)))


def _on_cpu(argument: Any) -> Any:
    if isinstance(argument, list):
        return [_on_cpu(one) for one in argument]
    return argument.cpu() if isinstance(argument, Tensor) else argument


def _refuse_capture(x: Tensor) -> None:
    """Raises PlanError while a CUDA graph is captured."""
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        raise PlanError(
            "faults that are drawn on the CPU cannot be captured in a CUDA graph: protected memories, arrays of "
            "processing elements, and devices without Triton; leave them out of the plan, or run without graphs"
        )
