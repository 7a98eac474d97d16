"""Small networks of Brevitas' own layers alone, which any version of hwfault runs, with the same numbers everywhere.

Their float32 arithmetic is exact: scales are powers of two that never change, and parameters follow a formula.
"""

import torch
from brevitas import nn as qnn
from brevitas.inject.enum import ScalingImplType
from brevitas.quant import Int16Bias
from brevitas.quant.fixed_point import Int8WeightPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
from torch import Tensor, nn

CLASSES = 10


class Weight(Int8WeightPerTensorFixedPoint):
    narrow_range = False
    scaling_impl_type = ScalingImplType.CONST
    scaling_const = 1.0


class Activation(Uint8ActPerTensorFixedPoint):
    scaling_impl_type = ScalingImplType.CONST
    min_val = 0.0
    max_val = 1.0


WEIGHTS = {"weight_quant": Weight, "weight_bit_width": 4}
BIAS = {"bias": True, "bias_quant": Int16Bias}


def filled(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, its parameters multiples of 1/8 from -7/8 to 7/8 in no apparent order."""
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            index = torch.arange(parameter.numel()) + 1000 * number
            parameter.copy_(((index * 2654435761 >> 12) % 15 - 7).reshape(parameter.shape) / 8)
    return network.eval()


def images(samples: int, size: int = 8) -> Tensor:
    """Images (samples, 1, size, size) of multiples of 1/256 in [0, 1)."""
    index = torch.arange(samples * size * size)
    return ((index * 2246822519 >> 9) % 256).reshape(samples, 1, size, size) / 256


class Chain(nn.Module):
    """Images (n, 1, 8, 8) -> logits (n, 10), by two convolutions, the second in two groups, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(act_quant=Activation, bit_width=8)
        self.conv = qnn.QuantConv2d(1, 4, 3, padding=1, bias=False, **WEIGHTS)
        self.act = qnn.QuantReLU(act_quant=Activation, bit_width=4, max_val=2.0, return_quant_tensor=True)
        self.grouped = qnn.QuantConv2d(4, 8, 3, stride=2, padding=1, groups=2, **BIAS, **WEIGHTS)
        self.act2 = qnn.QuantReLU(act_quant=Activation, bit_width=4, max_val=4.0, return_quant_tensor=True)
        self.linear = qnn.QuantLinear(8 * 4 * 4, CLASSES, **BIAS, **WEIGHTS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(self.input(x)))
        x = self.act2(self.grouped(x))
        return self.linear(x.flatten(1)) / 8


class Frames(nn.Module):
    """Clips (n, 2, 1, 8, 8) -> logits (n, 10): each frame by the same layers, the frames folded into axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain()

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x.flatten(0, 1)).unflatten(0, (-1, 2)).sum(1)


class Twice(nn.Module):
    """Images (n, 1, 4, 4) -> logits (n, 10), with one activation quantizer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(act_quant=Activation, bit_width=8)
        self.act = qnn.QuantReLU(act_quant=Activation, bit_width=4, max_val=2.0)
        self.first = qnn.QuantLinear(16, 16, bias=False, **WEIGHTS)
        self.second = qnn.QuantLinear(16, 16, bias=False, **WEIGHTS)
        self.last = qnn.QuantLinear(16, CLASSES, bias=False, **WEIGHTS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(self.input(x).flatten(1)))
        return self.last(self.act(self.second(x))) / 8


class SharedQuantizer(nn.Module):
    """Images (n, 1, 4, 4) -> logits (n, 10), with two layers that share a quantizer of weights, not the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(act_quant=Activation, bit_width=8)
        self.first = qnn.QuantLinear(16, 16, bias=False, **WEIGHTS)
        self.act = qnn.QuantReLU(act_quant=Activation, bit_width=4, max_val=2.0)
        self.second = qnn.QuantLinear(16, CLASSES, bias=False, weight_quant=self.first.weight_quant)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(self.input(x).flatten(1)))) / 8


class TiedWeights(nn.Module):
    """Images (n, 1, 4, 4) -> (n, 16), with two layers that read one parameter alike, each by a quantizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(act_quant=Activation, bit_width=8)
        self.first = qnn.QuantLinear(16, 16, bias=False, **WEIGHTS)
        self.act = qnn.QuantReLU(act_quant=Activation, bit_width=4, max_val=2.0)
        self.second = qnn.QuantLinear(16, 16, bias=False, **WEIGHTS)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(self.input(x).flatten(1)))) / 8


NETWORKS = {"chain": Chain, "frames": Frames, "twice": Twice, "shared": SharedQuantizer, "tied": TiedWeights}
SIZES = {"chain": 8, "frames": 8, "twice": 4, "shared": 4, "tied": 4}


def network(name: str) -> nn.Module:
    """A network of this module with its weights, in evaluation mode."""
    return filled(NETWORKS[name]())


def example(name: str, samples: int = 4) -> Tensor:
    """Inputs of a network."""
    if name == "frames":
        return images(2 * samples).unflatten(0, (-1, 2))
    return images(samples, SIZES[name])
