"""A CNV-like Brevitas network (the CIFAR network of the BNN-PYNQ and FINN examples), for benchmarks."""

import brevitas.nn as qnn
import torch
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
from torch import Tensor, nn


def cnv(bits: int = 4) -> nn.Module:
    """Six 3x3 convolutions in pairs of 64, 128 and 256 channels and three linear layers, BatchNorm after each."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=8)]
    channels = 3
    for i, width in enumerate((64, 64, 128, 128, 256, 256)):
        layers += [_conv(channels, width, bits), nn.BatchNorm2d(width), _relu(bits)]
        layers += [nn.MaxPool2d(2)] if i in (1, 3) else []
        channels = width
    layers.append(nn.Flatten())
    for inputs, outputs in ((256, 512), (512, 512)):
        layers += [_linear(inputs, outputs, bits), nn.BatchNorm1d(outputs), _relu(bits)]
    return nn.Sequential(*layers, _linear(512, 10, bits))


def batch(n: int = 64) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _conv(inputs: int, outputs: int, bits: int) -> nn.Module:
    return qnn.QuantConv2d(inputs, outputs, 3, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=bits)


def _linear(inputs: int, outputs: int, bits: int) -> nn.Module:
    return qnn.QuantLinear(inputs, outputs, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=bits)


def _relu(bits: int) -> nn.Module:
    return qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=bits)
