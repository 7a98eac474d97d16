"""What hooks cost: faults on all weights and activations against the clean network, with the C++ extension and without.

At batch 64 a few percent drown in noise, so that a clock around the hooks tells their share of a clean forward there.
All of it takes less than ten minutes: each comparison ends after some seconds.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

from hwfault.injection.attach import inject
from hwfault.injection.injection import Injection
from hwfault.injection.strike import _Stream
from hwfault.laws.models import BitFlips
from hwfault.network.sites import quantizers
from hwfault.torch_ops.extension import extension, without_extension
from hwfault.train import networks
from tests.benchmarks.cnv import batch, cnv
from tests.benchmarks.side_by_side import machine, ratios, show

_BER, _BITS = 1e-3, 4
_CTYPES, _EXTENSION = "hooks in Python, ctypes", "hooks in C++, the extension"
_TO_REACH = {"forward, batch 1": 1.04, "step, batch 8": 1.02, "forward, batch 64": 1.015}
_SHARE_TO_REACH = 0.015
_MANY = 10
"""How many more rounds a batch of one sample takes."""
_SECONDS = 12.0
"""After which a comparison begins no other round."""

Run = Callable[[nn.Module, Tensor], object]


class VisionTransformer(nn.Module):
    """64 patches of a 32 x 32 picture, four blocks of attention and two linear layers, all quantized."""

    def __init__(self, features: int = 128, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = qnn.QuantConv2d(3, features, 4, stride=4, weight_bit_width=_BITS)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, features))
        self.blocks = nn.Sequential(*(_Block(features, heads) for _ in range(depth)))
        self.head = qnn.QuantLinear(features, 10, True, weight_bit_width=_BITS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        out: Tensor = self.head(self.blocks(tokens).mean(1))
        return out


class _Block(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        widths = {"in_proj_weight_bit_width": _BITS, "out_proj_weight_bit_width": _BITS}
        self.norms = nn.ModuleList([nn.LayerNorm(features), nn.LayerNorm(features)])
        self.attention = qnn.QuantMultiheadAttention(features, heads, batch_first=True, packed_in_proj=True, **widths)
        self.wide = qnn.QuantLinear(features, 2 * features, True, weight_bit_width=_BITS)
        self.relu = qnn.QuantReLU(bit_width=_BITS)
        self.narrow = qnn.QuantLinear(2 * features, features, True, weight_bit_width=_BITS)

    def forward(self, x: Tensor) -> Tensor:
        given = self.norms[0](x)
        x = x + self.attention(given, given, given)[0]
        out: Tensor = x + self.narrow(self.relu(self.wide(self.norms[1](x))))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "CNV": cnv,
    "ResNet-20": lambda: networks.build("resnet20", weight_bits=_BITS, act_bits=_BITS),
    "MobileNetV1": lambda: networks.build("mobilenet_v1_cifar", weight_bits=_BITS, act_bits=_BITS),
    "small ViT": VisionTransformer,
}


class Clock:
    """The nanoseconds that pass in the hooks between its own two hooks of each quantizer."""

    def __init__(self) -> None:
        self.spent = 0
        self._begun = 0

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for _, proxy in quantizers(model):
                stack.callback(proxy.register_forward_hook(self._begin, prepend=True).remove)
                stack.callback(proxy.register_forward_hook(self._end).remove)
            yield

    def _begin(self, *_: Any) -> None:
        self._begun = time.perf_counter_ns()

    def _end(self, *_: Any) -> None:
        self.spent += time.perf_counter_ns() - self._begun


def main(rounds: int = 25) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            print(machine())
            for name, build in NETWORKS.items():
                compare(name, build, rounds)
    finally:
        torch.set_num_threads(before)


def compare(name: str, build: Callable[[], nn.Module], rounds: int) -> None:
    """Prints a network's ratios and the share of its hooks."""
    ways = {_CTYPES: without_extension, _EXTENSION: nullcontext}
    if extension() is None:
        del ways[_EXTENSION]
    models = {"clean": build(), **{way: build() for way in ways}}
    for model in models.values():
        model(batch(8))  # Brevitas' scales are made in the first forward
    with ExitStack() as attached:
        for way, context in ways.items():
            with context():
                faults = inject(models[way], [BitFlips(probability=_BER)], seed=1, example=batch(8))
            attached.enter_context(faults)
        for title, (n, run, times) in _RUNS.items():
            variants = {key: _repeated(run, model, batch(n), times) for key, model in models.items()}
            for model in models.values():
                model.train(run is _step)
            show(f"{name}: {title}", ratios(variants, rounds, _SECONDS), dict.fromkeys(ways, _TO_REACH[title]))
        if _EXTENSION in ways:
            _show_most_saved(models["clean"], models[_EXTENSION], faults, rounds)
        for way in ways:
            _show_share(way, models["clean"], models[way], batch(64), rounds)


def _show_share(way: str, clean: nn.Module, faulty: nn.Module, x: Tensor, rounds: int) -> None:
    """Prints the time in hooks as a share of a clean forward."""
    share = _share(clean, faulty, x, rounds)
    print(f"    {way:<44} {share:6.2%} of a clean forward in hooks   (to reach: {_SHARE_TO_REACH:.1%})")


def _share(clean: nn.Module, faulty: nn.Module, x: Tensor, rounds: int) -> float:
    """The time in hooks as a share of a clean forward: the median of rounds, one after the other."""
    shares, clock, begun = [], Clock(), time.perf_counter()
    with torch.no_grad(), clock.on(faulty):
        while len(shares) < 3 or (len(shares) < rounds and time.perf_counter() - begun < _SECONDS):
            start = time.perf_counter_ns()
            clean(x)
            passed, clock.spent = time.perf_counter_ns() - start, 0
            faulty(x)
            shares.append(clock.spent / passed)
    return statistics.median(shares)


def _show_most_saved(clean: nn.Module, faulty: nn.Module, faults: Injection, rounds: int) -> None:
    """Prints what drawing the hits of all sites in one call a forward would save at most.

    That is what the hooks take less when they do all that they do but draw: the call itself, and striking by a list of
    its hits, are not even counted.
    """
    for samples, times in ((1, _MANY * rounds), (64, rounds)):
        drawing, idle = _shares_with_and_without_draws(clean, faulty, faults, batch(samples), times)
        print(
            f"    batch {samples}: {drawing:.2%} of a clean forward in hooks, {idle:.2%} if they drew nothing; one "
            f"call of all hits saves at most {drawing - idle:.2%}"
        )


def _shares_with_and_without_draws(
    clean: nn.Module, faulty: nn.Module, faults: Injection, x: Tensor, rounds: int
) -> tuple[float, float]:
    """The time in hooks as a share of a clean forward, in turn as they are and on programs without processes."""
    extended, clock, begun = _Stream.extended, Clock(), time.perf_counter()
    ways = (extended, lambda step, *where: extended(_undrawn(step), *where))
    shares: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad(), clock.on(faulty):
        for i in range(rounds):
            if i >= 3 and time.perf_counter() - begun > _SECONDS:
                break
            start = time.perf_counter_ns()
            clean(x)
            passed = time.perf_counter_ns() - start
            for way, found in zip(ways, shares, strict=True):
                with patch.object(_Stream, "extended", way):
                    faults.enabled = True  # hooks ask anew for what they strike, and keep it
                    faulty(x)
                clock.spent = 0
                faulty(x)
                found.append(clock.spent / passed)
    faults.enabled = True
    return statistics.median(shares[0]), statistics.median(shares[1])


def _undrawn(step: _Stream) -> _Stream:
    """The same words, struck by a program without processes."""
    found = copy.copy(step)
    found._numbers = []
    return found


def _repeated(run: Run, model: nn.Module, x: Tensor, times: int) -> Callable[[], None]:
    """Runs a model so often."""

    def repeat() -> None:
        for _ in range(times):
            run(model, x)

    return repeat


def _forward(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def _step(model: nn.Module, x: Tensor) -> None:
    model.zero_grad()
    nn.functional.cross_entropy(model(x), torch.arange(len(x)) % 10).backward()


_RUNS: dict[str, tuple[int, Run, int]] = {
    "forward, batch 1": (1, _forward, 10),
    "step, batch 8": (8, _step, 3),
    "forward, batch 64": (64, _forward, 1),
}
"""Batch, what is timed, and how often in a row."""

if __name__ == "__main__":
    main()
