"""Networks whose quantizers run as one operator each, clean and faulty, against clean Brevitas: forward and step."""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import nn

import hwfault as hf
from tests.benchmarks.cnv import batch
from tests.benchmarks.network import NETWORKS, forward, step
from tests.benchmarks.side_by_side import ratios, show

_BER, _BATCHES = 1e-3, (8, 64)
_CLEAN, _FUSED, _FAULTY = "Brevitas", "fused", f"fused, BER {_BER:g} on all weights and activations"
_TO_REACH = {
    ("ResNet-20", 64): (0.50, 0.65),
    ("CNV", 64): (0.68, 0.74),
    ("ResNet-20", 8): (0.40, 0.52),
    ("CNV", 8): (0.52, 0.62),
}
"""What the faulty network is to reach, forward and training step, with all that is to be fused some day."""


def main(rounds: int = 21) -> None:
    for name, build in NETWORKS.items():
        for samples in _BATCHES:
            compare(name, build, samples, rounds)


def compare(name: str, build: Callable[[], nn.Module], samples: int, rounds: int) -> None:
    """Prints a network's ratios at a batch size, and which of its quantizers are not fused."""
    x = batch(samples)
    target = torch.arange(samples) % 10
    models = {key: build() for key in (_CLEAN, _FUSED, _FAULTY)}
    for model in models.values():
        model(x)  # Brevitas' scales are made in the first forward
    forward_to_reach, step_to_reach = _TO_REACH[name, samples]
    with ExitStack() as attached:
        blocks = [attached.enter_context(hf.fused(models[key])) for key in (_FUSED, _FAULTY)]
        attached.enter_context(hf.inject(models[_FAULTY], hf.BitFlips(probability=_BER), seed=1))
        forwards = {key: lambda model=model: forward(model, x) for key, model in models.items()}
        show(f"{name}, batch {samples}: forward", ratios(forwards, rounds), {_FAULTY: forward_to_reach})
        steps = {key: lambda model=model: step(model, x, target) for key, model in models.items()}
        show(f"{name}, batch {samples}: training step", ratios(steps, rounds), {_FAULTY: step_to_reach})
        print(f"    {len(blocks[0].fused)} quantizers fused, left to Brevitas: {blocks[0].left or 'none'}")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
