"""Counters on a device, and the ascending numbers that begin with one.

Counters are written in place, and what is read of them is a tensor of its own. A forward does this where all caches
are cold, so that each of torch's operators is dear: of plain counters on the CPU the C++ extension does it at once.
"""

import torch
from torch import Tensor

from hwfault.torch_ops import held
from hwfault.torch_ops.extension import extension
from hwfault.torch_ops.inside_torch import traced


def advance(counter: Tensor, by: int) -> Tensor:
    """The number of a counter (), before so many are added to it."""
    if not traced() and (module := extension()) is not None:
        before: Tensor | None = module.advance(counter, by)
        if before is not None:
            return before
    before = counter.clone()
    counter.add_(by)
    return before


def count_from(
    first: Tensor, n: int, sentence: str | None, *, world: int = 1, rank: int = 0, kept: bool = False
) -> Tensor:
    """n sample numbers (n,) from `first` () on, those of process `rank` where `world` processes share them out in turn.

    Autograd may keep them where they are `kept`, also if that is said in inference mode. Raises HwfaultError with the
    sentence for numbers that the stream does not have; without one nobody looks.
    """
    if not (traced() or held.asserts(first)) and (module := extension()) is not None:
        numbers: Tensor | None = module.count_from(first, n, world, rank, kept)
        if numbers is not None:
            return numbers
    if kept:
        with torch.inference_mode(False):
            return _counted(first, n, sentence, world, rank)
    return _counted(first, n, sentence, world, rank)


def _counted(first: Tensor, n: int, sentence: str | None, world: int, rank: int) -> Tensor:
    numbers = first + torch.arange(n, device=first.device)
    numbers = numbers if world == 1 else numbers * world + rank
    return numbers if sentence is None else held.ascending(numbers, sentence)
