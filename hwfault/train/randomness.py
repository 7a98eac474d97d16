"""Torch's global random numbers, borrowed: seeded inside a block, as they were after it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded(seed: int, network: nn.Module | None = None) -> Iterator[None]:
    """Inside, torch draws from `seed` (on the CPU and the network's CUDA devices); after it, as if nothing happened.

    Needed because initialisers and dropout draw from torch's global generators.
    """
    tensors = [] if network is None else [*network.parameters(), *network.buffers()]
    cuda = sorted({t.device.index for t in tensors if t.device.type == "cuda"})
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield
