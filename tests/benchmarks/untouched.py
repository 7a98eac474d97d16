"""Two networks that nothing in hwfault was tuned on, as a user of Brevitas writes them; images (n, 3, 32, 32).

A residual network of 18 layers and more with odd numbers of channels and depthwise layers, and an MLP of 3 bits.
"""

from itertools import pairwise

import brevitas.nn as qnn
import torch
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Int32Bias,
    Uint8ActPerTensorFloat,
)
from torch import Tensor, nn

_CHANNELS = (7, 13, 29, 61)
_WEIGHT_BITS, _ACT_BITS = 5, 6
_HIDDEN = (253, 127, 61)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """A convolution; depthwise ones have a scale for each channel."""
    quantizer = Int8WeightPerTensorFloat if groups == 1 else Int8WeightPerChannelFloat
    shape = {"stride": stride, "padding": size // 2, "groups": groups, "bias": False}
    return qnn.QuantConv2d(inputs, outputs, size, **shape, weight_quant=quantizer, weight_bit_width=_WEIGHT_BITS)


def _relu() -> nn.Module:
    return qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=_ACT_BITS, return_quant_tensor=True)


def _identity(bits: int = _ACT_BITS) -> nn.Module:
    return qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=bits, return_quant_tensor=True)


class _Block(nn.Module):
    """A 3x3 convolution, a depthwise and a 1x1 one beside a shortcut; one quantizer for both terms of the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), _relu())
        self.depthwise = nn.Sequential(_conv(outputs, outputs, 3, groups=outputs), nn.BatchNorm2d(outputs), _relu())
        self.second = nn.Sequential(_conv(outputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.shared, self.out = _identity(), _relu()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.shared(self.second(self.depthwise(self.first(x))))
        out: Tensor = self.out(branch + self.shared(self.shortcut(x)))
        return out


class OddResNet(nn.Module):
    """A stem, four stages of two blocks each as in ResNet-18, a mean and a linear layer with a quantized bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input = _identity(8)
        self.stem = nn.Sequential(_conv(3, _CHANNELS[0], 3), nn.BatchNorm2d(_CHANNELS[0]), _relu())
        self.stages, inputs = nn.Sequential(), _CHANNELS[0]
        for i, width in enumerate(_CHANNELS):
            self.stages.append(_Block(inputs, width, 2 if i else 1))
            self.stages.append(_Block(width, width, 1))
            inputs = width
        self.pool, self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), _identity()
        self.head = qnn.QuantLinear(inputs, 10, bias=True, bias_quant=Int32Bias, weight_bit_width=_WEIGHT_BITS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(self.input(x)))
        out: Tensor = self.head(self.pooled(self.pool(getattr(x, "value", x))))
        return out


class ThreeBitMLP(nn.Module):
    """Linear layers with weights and activations of 3 bits and quantized biases; the last has a scale a class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths, layers = (3 * 32 * 32, *_HIDDEN), [nn.Flatten(), _identity(8)]
        for inputs, outputs in pairwise(widths):
            quantized = {"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 3, "bias_quant": Int32Bias}
            relu = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=3, return_quant_tensor=True)
            layers += [qnn.QuantLinear(inputs, outputs, bias=True, **quantized), relu]
        last = qnn.QuantLinear(widths[-1], 10, bias=True, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=3)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out
