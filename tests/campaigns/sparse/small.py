"""Small Brevitas networks, with random parameters, normalisations and ranges."""

import brevitas.nn as qnn
import torch
from brevitas.core.restrict_val import RestrictValueType
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8BiasPerTensorFloatInternalScaling,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Int16Bias,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
    SignedBinaryWeightPerTensorConst,
    Uint8ActPerTensorFloat,
)
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d


class Wide(Int8WeightPerTensorFloat):
    """Weights that use the least code as well."""

    narrow_range = False


class PowerOfTwo(Int8WeightPerTensorFloat):
    restrict_scaling_type = RestrictValueType.POWER_OF_TWO


def act(bits=4, kind=Uint8ActPerTensorFloat, **rest):
    layer = qnn.QuantReLU if kind is Uint8ActPerTensorFloat else qnn.QuantIdentity
    return layer(act_quant=kind, bit_width=bits, **rest)


def conv(inputs, outputs, size, bits, kind=Int8WeightPerTensorFloat, **rest):
    return qnn.QuantConv2d(inputs, outputs, size, weight_quant=kind, weight_bit_width=bits, **{"bias": False} | rest)


def linear(inputs, outputs, bits=4, kind=Int8WeightPerTensorFloat, **rest):
    return qnn.QuantLinear(inputs, outputs, weight_quant=kind, weight_bit_width=bits, **{"bias": False} | rest)


class Chain(nn.Sequential):
    def forward(self, x):
        x = super().forward(x)
        return getattr(x, "value", x)


class Residual(nn.Module):
    """A shortcut with a strided projection beside two convolutions, a mean, and a bias of 16 bits."""

    def __init__(self):
        super().__init__()
        self.entry = act(5, Int8ActPerTensorFloat)
        self.first, self.norm, self.relu = conv(2, 3, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), act(3)
        self.second, self.branch = conv(3, 3, 3, 3, padding=1), act(4, Int8ActPerTensorFloat)
        self.project = conv(2, 3, 1, 4, stride=2)
        self.out, self.mean = act(4), act(6, return_quant_tensor=True)
        self.fc = linear(3, 4, 4, bias=True, bias_quant=Int16Bias)

    def forward(self, x):
        x = self.entry(x)
        y = self.branch(self.second(self.relu(self.norm(self.first(x)))))
        y = self.out(y + self.branch(self.project(x)))
        return self.fc(self.mean(adaptive_avg_pool2d(y, 1).flatten(1)))


class Beside(nn.Module):
    """Two convolutions of one input, side by side, a shuffle of channels, and a view by the batch's own size."""

    def __init__(self):
        super().__init__()
        self.entry, self.relu = act(4, Int8ActPerTensorFloat), act(4)
        self.one = conv(2, 2, 3, 4, Int8WeightPerChannelFloat, padding=2, dilation=2)
        self.other = conv(2, 2, 1, 8)
        self.fc = linear(64, 3, 2)

    def forward(self, x):
        x = self.entry(x)
        y = torch.cat([self.relu(self.one(x)), self.relu(self.other(x))], 1)
        y = y.reshape(y.size(0), 2, 2, 4, 4).transpose(1, 2)
        return self.fc(y.reshape(y.size(0), -1))


def shifted():
    """Zero points of weights and activations, padding beside them."""
    return Chain(
        act(6, ShiftedUint8ActPerTensorFloat),
        conv(2, 4, 3, 5, ShiftedUint8WeightPerTensorFloat, padding=1, bias=True),
        act(4, ShiftedUint8ActPerTensorFloat),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Flatten(),
        linear(16, 3, 3, ShiftedUint8WeightPerTensorFloat),
        nn.BatchNorm1d(3),
    )


def depthwise():
    """Groups, scales of channels, the least code, a pool with a ceiling, and averages."""
    return Chain(
        act(8, Int8ActPerTensorFloat),
        conv(2, 4, 3, 4, Int8WeightPerChannelFloat, groups=2, padding="same"),
        nn.BatchNorm2d(4),
        act(2),
        conv(4, 4, 2, 6, Wide, groups=4, bias=True),
        act(4),
        nn.AvgPool2d(2, stride=1),
        act(5),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        linear(4, 3, 8, Wide),
        nn.BatchNorm1d(3),
    )


def binary():
    """Weights of one bit, which mean -1 and 1, and others whose scale is a power of two; the logits are quantized."""
    return Chain(
        act(4, Int8ActPerTensorFloat),
        conv(2, 4, 2, 1, SignedBinaryWeightPerTensorConst, stride=2),
        act(3),
        nn.Flatten(),
        linear(16, 3, 4, PowerOfTwo),
        act(4, Int8ActPerTensorFloat),
    )


class Mixer(nn.Module):
    """Linear layers over tokens and over the features of each, residual adds, a mean over tokens, and biases."""

    def __init__(self):
        super().__init__()
        eight = {"bias": True, "bias_quant": Int8BiasPerTensorFloatInternalScaling}
        self.entry, self.stream = act(4, Int8ActPerTensorFloat), act(5, Int8ActPerTensorFloat)
        self.tokens, self.norm, self.hidden = linear(4, 4), nn.BatchNorm1d(8), act(3)
        self.widen, self.narrow = linear(8, 5, **eight), linear(5, 8, 3, Int8WeightPerChannelFloat)
        self.relu, self.mean = act(4), act(5, return_quant_tensor=True)
        self.fc = linear(8, 3, 4, bias=True, bias_quant=Int16Bias)

    def forward(self, x):
        x = self.entry(x.reshape(-1, 4, 8))
        mixed = self.norm(self.tokens(x.transpose(1, 2))).transpose(1, 2)
        x = self.stream(self.stream(self.hidden(mixed)) + x)
        x = self.stream(self.stream(self.narrow(self.relu(self.widen(x)))) + x)
        return self.fc(self.mean(x.mean(1)))


def biased():
    """Biases behind zero points and normalisations, and one that is wider than floats hold."""
    return Chain(
        act(5, ShiftedUint8ActPerTensorFloat),
        conv(2, 3, 3, 4, bias=True, bias_quant=Int8BiasPerTensorFloatInternalScaling),
        nn.BatchNorm2d(3),
        act(4, return_quant_tensor=True),
        nn.Flatten(),
        linear(12, 3, 4, bias=True, bias_quant=Int32Bias),
    )


NETWORKS = {make.__name__: make for make in (Residual, Beside, shifted, depthwise, binary, Mixer)}


def small(name, images=9):
    """A network in evaluation whose normalisations and ranges have seen some images, and others for it."""
    torch.manual_seed(0)
    network = (NETWORKS | {"biased": biased})[name]()
    for _ in range(3):
        network(torch.randn(8, 2, 4, 4))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.5)
            nn.init.normal_(module.bias, 0, 0.5)
    return network.eval(), torch.randn(images, 2, 4, 4)
