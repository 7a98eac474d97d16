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
from hwfault.stream.tables import SAMPLED, SAMPLED_WORDS
from hwfault.stream.touched import Words, touched
from hwfault.torch_ops.on_cpu import WRITERS


class Found(NamedTuple):
    """Words of a tensor, ascending, and whether they must be struck out of place, because they read each other."""

    words: Words
    read_each_other: bool = False


def program_words(source: Tensor, o: StreamOperands[Tensor]) -> Found:
    """What a fault program may strike."""
    samples = np.ascontiguousarray(o.samples.numpy())
    program = o.program.tolist()
    _, words = batch_and_words(source.shape, samples.size)
    seed = int(o.seed) & 0xFFFFFFFFFFFFFFFF
    found = touched(program, seed=seed, samples=samples, words=words, bit_width=o.bit_width)
    return Found(found, reads_other_words(program))


def map_words(source: Tensor, o: MapOperands[Tensor]) -> Found:
    """What a fault map may strike."""
    batch, words = batch_and_words(source.shape, o.period.numel())
    rows = o.word.numpy()
    if o.threshold == SAMPLED:
        return Found(_sampled_words(rows, o.period.numpy(), words))
    every = np.arange(batch)[:, None] * words + rows
    return Found(every.reshape(-1))


def _sampled_words(rows: Words, numbers: Words, words: int) -> Words:
    """The words of a map whose rows name their samples, in elements with these numbers, of so many words each."""
    sample, word = np.divmod(rows, SAMPLED_WORDS)
    found = []
    for element, number in enumerate((numbers & 0xFFFFFFFF).tolist()):
        first, end = np.searchsorted(sample, (number, number + 1))
        found.append(element * words + word[first:end])
    return np.concatenate(found)


_FIND: dict[str, Callable[[Tensor, Any], Found]] = {"stream": program_words, "map": map_words}


def strike_by_cpu(mechanism: Mechanism, operands: Any, x: Tensor) -> Tensor:
    """x with faults."""
    _refuse_capture(x)
    here = _fetch_operands(operands)
    found = _FIND[mechanism.name](x, here)
    some = _Some(x, found.words)
    before = some.fetch(x)
    after = torch.empty_like(before) if found.read_each_other else before
    WRITERS[mechanism.name].strike(before, after, here, None, None)
    return some.write(x, after)


def zero_by_cpu(mechanism: Mechanism, operands: Any, gradient: Tensor, stored: Tensor | None) -> Tensor:
    """A gradient with zeros at the words that are changed; `stored` are the values before, where these decide."""
    _refuse_capture(gradient)
    here = _fetch_operands(operands)
    found = _FIND[mechanism.name](gradient, here)
    some = _Some(gradient, found.words)
    part = some.fetch(gradient)
    before = None if stored is None else some.fetch(stored)
    WRITERS[mechanism.name].zero(part, part, before, here)
    return some.write(gradient, part)


def _fetch_operands(operands: Any) -> Any:
    """The operands with their tensors on the CPU, contiguous."""
    here = [o.cpu().contiguous() if isinstance(o, Tensor) else o for o in operands]
    return type(operands)(*here)


class _Some:
    """Some words of tensors of one shape, here and on their device."""

    def __init__(self, like: Tensor, found: Words) -> None:
        self._here = torch.from_numpy(found)
        self._there = self._here.to(like.device)

    def fetch(self, x: Tensor) -> Tensor:
        """A tensor on the CPU that has these words of x, and zeros that take no memory elsewhere."""
        part = torch.from_numpy(np.zeros(x.shape, dtype=f"i{x.element_size()}")).view(x.dtype)
        part.view(-1)[self._here] = x.reshape(-1)[self._there].cpu()
        return part

    def write(self, x: Tensor, part: Tensor) -> Tensor:
        """A copy of x, contiguous, with these words from a tensor on the CPU."""
        out = x.clone(memory_format=torch.contiguous_format)
        out.view(-1)[self._there] = part.view(-1)[self._here].to(x.device)
        return out


def entirely(op: Callable[..., Any], x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """What an operator makes of tensors of any device: everything is copied to the CPU, and the results back."""
    _refuse_capture(x)
    out = op(x.cpu(), *map(_on_cpu, args))
    several = out if isinstance(out, tuple) else (out,)
    return tuple(t.to(x.device) for t in several)


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
