"""Torch's global random numbers, borrowed: seeded inside a block, as they were after it."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

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


def reseed(seed: int, device: torch.device) -> None:
    """Lets torch draw from `seed` from here on, on the CPU and the device, and nothing else."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def mix_seed(what: str, *numbers: int) -> int:
    """A seed (64 bits) that depends on all of the numbers (0 to 2^64 - 1) and on what it is for."""
    key = struct.pack(f"<{len(numbers)}Q", *numbers)
    return int.from_bytes(blake2b(key, digest_size=8, person=what.encode()).digest(), "little")
