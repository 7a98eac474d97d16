"""Small Brevitas networks whose float32 arithmetic is exact, one for each way in which a graph can hold integers.

All scales are powers of two and all sums are integers below 2^24 times one, so every engine finds the same bits.
"""

from functools import cache

import torch
from brevitas import nn as qnn
from brevitas.inject.enum import ScalingImplType
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int16Bias,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
)
from brevitas.quant.fixed_point import Int8WeightPerChannelFixedPoint
from torch import Tensor, nn

from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from hwfault.train.networks import FixedPointActivation, FixedPointWeight
from hwfault.train.networks import build as build_named

INPUT = (2, 6, 6)


class SignedActivation(Int8ActPerTensorFixedPoint):
    """Codes of two's complement for values in [-1, 1)."""

    scaling_impl_type = ScalingImplType.CONST
    min_val = -1.0
    max_val = 1.0


class BinaryWeight(SignedBinaryWeightPerTensorConst):
    scaling_const = 0.25


class BinaryActivation(SignedBinaryActPerTensorConst):
    scaling_const = 0.5


WEIGHTS = {"weight_quant": FixedPointWeight, "weight_bit_width": 4}
ACTS = {"act_quant": FixedPointActivation, "bit_width": 4, "max_val": 4.0, "return_quant_tensor": True}


class Chain(nn.Sequential):
    """Modules in a row that answer with a plain tensor."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return getattr(out, "value", out)


def signed(bits: int = 8, *, narrow: bool = False, largest: float = 1.0) -> nn.Module:
    """A quantizer to codes of two's complement."""
    ends = {"min_val": -largest, "max_val": largest, "narrow_range": narrow}
    return qnn.QuantIdentity(act_quant=SignedActivation, bit_width=bits, return_quant_tensor=True, **ends)


def biased() -> nn.Module:
    """Biases of 16 bits, on the grid of the sums."""
    bias = {"bias": True, "bias_quant": Int16Bias, **WEIGHTS}
    return Chain(
        signed(),
        qnn.QuantConv2d(2, 4, 3, **bias),
        qnn.QuantReLU(**ACTS),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, **bias),
    )


class Residual(nn.Module):
    """A tensor of codes that is read by two convolutions and by the sum behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = qnn.QuantReLU(**ACTS)
        self.left = qnn.QuantConv2d(2, 2, 3, padding=1, bias=False, **WEIGHTS)
        self.right = qnn.QuantConv2d(2, 2, 1, bias=False, **WEIGHTS)
        self.sum = signed(5, narrow=True, largest=8.0)
        self.head = qnn.QuantLinear(72, 5, bias=False, **WEIGHTS)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        return self.head(self.sum(self.left(stem) + self.right(stem) + stem.value).value.flatten(1))


class Twice(nn.Module):
    """One activation quantizer and one layer that run twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = qnn.QuantLinear(72, 8, bias=False, **WEIGHTS)
        self.relu = qnn.QuantReLU(**ACTS)
        self.again = qnn.QuantLinear(8, 8, bias=False, **WEIGHTS)
        self.start = signed(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(self.start(x).value.flatten(1)))
        return self.again(self.relu(self.again(x)))


def shared() -> nn.Module:
    """Two layers that share one weight quantizer (and its constant scale), each with weights of its own."""
    first = qnn.QuantLinear(8, 8, bias=False, **WEIGHTS)
    return Chain(
        signed(),
        nn.Flatten(),
        qnn.QuantLinear(72, 8, bias=False, **WEIGHTS),
        qnn.QuantReLU(**ACTS),
        first,
        qnn.QuantReLU(**ACTS),
        qnn.QuantLinear(8, 8, bias=False, weight_quant=first.weight_quant),
    )


class Tied(nn.Module):
    """One layer object used twice: one weight, read two times."""

    def __init__(self) -> None:
        super().__init__()
        self.start = signed(4)
        self.conv = qnn.QuantConv2d(2, 2, 3, padding=1, bias=False, **WEIGHTS)
        self.middle = qnn.QuantReLU(**ACTS)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.middle(self.conv(self.start(x)))).flatten(1)


def convolutions() -> nn.Module:
    """Depthwise and transposed convolutions, and nested Sequentials."""
    return Chain(
        signed(),
        nn.Sequential(qnn.QuantConv2d(2, 4, 3, groups=2, bias=False, **WEIGHTS), qnn.QuantReLU(**ACTS)),
        nn.Sequential(nn.Sequential(qnn.QuantConvTranspose2d(4, 3, 2, stride=2, bias=False, **WEIGHTS))),
        qnn.QuantReLU(**ACTS),
        nn.Flatten(),
        qnn.QuantLinear(192, 5, bias=False, **WEIGHTS),
    )


def per_channel() -> nn.Module:
    """A scale for each channel of the weights, and of the bias that they scale."""
    weights = {"weight_quant": Int8WeightPerChannelFixedPoint, "weight_bit_width": 4}
    return Chain(
        signed(),
        qnn.QuantConv2d(2, 4, 3, bias=True, bias_quant=Int16Bias, **weights),
        qnn.QuantReLU(**ACTS),
        qnn.QuantConvTranspose2d(4, 3, 2, bias=False, **weights),
        qnn.QuantReLU(**ACTS),
        nn.Flatten(),
        qnn.QuantLinear(75, 5, bias=False, **weights),
    )


def binary() -> nn.Module:
    """Weights and activations of -1 and +1 times a scale."""
    signs = {"bias": False, "weight_quant": BinaryWeight}
    return Chain(
        signed(),
        qnn.QuantConv2d(2, 4, 3, **signs),
        qnn.QuantIdentity(act_quant=BinaryActivation, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, **signs),
    )


def mlp() -> nn.Module:
    """Linear layers that quantize their inputs themselves."""
    own = {"input_quant": SignedActivation, "input_bit_width": 6, "bias": False}
    return Chain(nn.Flatten(), qnn.QuantLinear(72, 8, **own, **WEIGHTS), qnn.QuantLinear(8, 5, **own, **WEIGHTS))


def formats() -> nn.Module:
    """Signed and unsigned codes, with and without the lowest code, the last one the network's output."""
    weights = {"bias": False, "weight_quant": FixedPointWeight}
    return Chain(
        signed(8, narrow=True),
        qnn.QuantConv2d(2, 3, 3, weight_bit_width=3, weight_narrow_range=True, **weights),
        qnn.QuantReLU(**{**ACTS, "bit_width": 2}),
        nn.Flatten(),
        qnn.QuantLinear(48, 5, weight_bit_width=2, **weights),
        signed(7, largest=32.0),
    )


NETWORKS = {
    "biased": biased,
    "residual": Residual,
    "twice": Twice,
    "shared": shared,
    "tied": Tied,
    "convolutions": convolutions,
    "per_channel": per_channel,
    "binary": binary,
    "mlp": mlp,
    "formats": formats,
}
ALL = ("digits_cnn", *NETWORKS)


def fresh(name: str, seed: int = 0) -> nn.Module:
    """A network in evaluation mode with weights all over the range; torch's random state is left alone."""
    if name == "digits_cnn":
        return build_named(name, seed=seed).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[name]()
        for parameter in network.parameters():
            nn.init.uniform_(parameter, -0.9, 0.9)
    return network.eval()


@cache
def network(name: str) -> nn.Module:
    """The same, made once: for tests that leave it as it is."""
    return fresh(name)


def batch(name: str, n: int = 4, seed: int = 0) -> Tensor:
    """Inputs of a network, in [-1, 1)."""
    shape = (1, 8, 8) if name == "digits_cnn" else INPUT
    values = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    return values if name == "digits_cnn" else values * 2 - 1


FAULTS = (
    BitFlips(probability=0.02),
    BitFlips(p01=0.05, p10=0.01, sites={"kind": "weight"}),
    WordFaults(probability=0.03, sites={"kind": "activation"}),
    Clusters(probability=0.01, sizes=[0.5, 0.3, 0.2], axis="word"),
)


@cache
def plan(name: str):
    """A plan that strikes every site, some with several processes."""
    kinds = {site.kind for site in sites(network(name))}
    faults = [fault for fault in FAULTS if all(s.kind in (None, *kinds) for s in fault.sites)]
    return resolve(listed(name), faults)


@cache
def listed(name: str) -> list[Site]:
    """The sites of a network but its accumulators, as they are without an example unless a quantizer runs twice."""
    shown = [site for site in sites(network(name), batch(name)) if site.kind != "accumulator"]
    return shown if any(site.runs for site in shown) else sites(network(name))
