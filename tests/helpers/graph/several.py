"""A network of three inputs, words by number among them, whose float32 arithmetic is exact; and batches for it."""

from functools import cache

import torch
from brevitas import nn as qnn
from onnx import ModelProto
from torch import Tensor, nn

from hwfault.graph.export.of_network import export
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from tests.helpers.graph.networks import WEIGHTS, signed

WORDS, LENGTH = 20, 6
EMBEDDED = "embed.weight_quant"
FAULTS = [BitFlips(probability=0.05)]


class Reader(nn.Module):
    """Sums the vectors of those words that a mask leaves, and moves the answer by a number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = qnn.QuantEmbedding(WORDS, 8, **WEIGHTS)
        self.each = signed(5)
        self.total = signed(6, largest=4.0)
        self.head = qnn.QuantLinear(8, 5, bias=False, **WEIGHTS)

    def forward(self, ids: Tensor, mask: Tensor, steps: Tensor) -> Tensor:
        words = self.each(self.embed(ids)).value * mask.unsqueeze(-1)
        return self.head(self.total(words.sum(1)).value) + 0.25 * steps.unsqueeze(-1)


@cache
def reader() -> Reader:
    """The network; leave it as it is."""
    torch.manual_seed(5)
    return Reader().eval()


def batch(n: int, seed: int = 3) -> dict[str, Tensor]:
    """Inputs by the arguments of its forward: int64 (n, 6), float32 (n, 6), int32 (n,)."""
    drawn = torch.Generator().manual_seed(seed)
    return {
        "ids": torch.randint(0, WORDS, (n, LENGTH), generator=drawn),
        "mask": torch.randint(0, 2, (n, LENGTH), generator=drawn).float(),
        "steps": torch.randint(-4, 5, (n,), generator=drawn, dtype=torch.int32),
    }


def arrays(n: int, seed: int = 3) -> dict:
    """The same as arrays."""
    return {name: tensor.numpy() for name, tensor in batch(n, seed).items()}


@cache
def graph() -> ModelProto:
    """Its graph; copy it before changing it."""
    return export(reader(), batch(2))


@cache
def plan() -> FaultPlan:
    """Faults at all of its sites but sums."""
    return resolve([site for site in sites(reader(), batch(2)) if site.kind != "accumulator"], FAULTS)
