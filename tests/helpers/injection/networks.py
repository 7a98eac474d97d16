"""Small Brevitas networks, one for each way in which they hold integers, and an input batch for each."""

import torch
from brevitas import nn as qnn
from brevitas.quant import (
    Int4WeightPerTensorFloatDecoupled,
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8BiasPerTensorFloatInternalScaling,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    Int16Bias,
    ShiftedUint8ActPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import Tensor, nn


class Chain(nn.Sequential):
    """Modules in a row that answer with a plain tensor."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return getattr(out, "value", out)


def cnn() -> nn.Module:
    """Convolution and linear layer without biases, one float scale a tensor."""
    return Chain(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=4),
        nn.BatchNorm2d(4),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=4, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=3),
    )


def biased() -> nn.Module:
    """Biases of 16 bits with the input's and the weight's scale, and of 8 bits with their own."""
    own = {"bias": True, "bias_quant": Int8BiasPerTensorFloatInternalScaling}
    return Chain(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, bias=True, bias_quant=Int16Bias, weight_bit_width=4, return_quant_tensor=True),
        qnn.QuantReLU(bit_width=3, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, weight_bit_width=4, **own),
    )


def per_channel() -> nn.Module:
    """A scale for each channel of the weights, and of the bias that they scale."""
    weights = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4}
    return Chain(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, bias=True, bias_quant=Int16Bias, return_quant_tensor=True, **weights),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.QuantConvTranspose2d(4, 3, 2, bias=False, **weights),
        nn.Flatten(),
        qnn.QuantLinear(75, 5, bias=False, **weights),
    )


def power_of_two() -> nn.Module:
    """Scales that are powers of two."""
    weights = {"bias": False, "weight_quant": Int8WeightPerTensorFixedPoint, "weight_bit_width": 5}
    return Chain(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint),
        qnn.QuantConv2d(2, 4, 3, **weights),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=2),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, **weights),
    )


def compiled_soon() -> nn.Module:
    """One activation and one weight with scales that are powers of two, for compilers, which take long."""
    weights = {"bias": False, "weight_quant": Int8WeightPerTensorFixedPoint, "weight_bit_width": 5}
    return Chain(
        nn.Flatten(),
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint),
        qnn.QuantLinear(72, 5, **weights),
    )


class Residual(nn.Module):
    """One QuantTensor that is read by a convolution and by the sum behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.left = qnn.QuantConv2d(2, 2, 3, padding=1, bias=False, weight_bit_width=4)
        self.right = qnn.QuantConv2d(2, 2, 1, bias=False, weight_bit_width=4)
        self.sum = qnn.QuantIdentity(bit_width=5, return_quant_tensor=True)
        self.head = qnn.QuantLinear(72, 5, bias=False, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        return self.head(self.sum(self.left(stem) + self.right(stem) + stem.value).value.flatten(1))


def mlp() -> nn.Module:
    """Nothing but linear layers, which quantize their inputs themselves."""
    return Chain(
        nn.Flatten(),
        qnn.QuantLinear(72, 8, bias=True, weight_bit_width=4, input_quant=Int8ActPerTensorFloat, input_bit_width=6),
        qnn.QuantLinear(8, 8, bias=True, weight_bit_width=4, input_quant=Int8ActPerTensorFloat, input_bit_width=6),
        qnn.QuantLinear(8, 5, bias=False, weight_quant=Int4WeightPerTensorFloatDecoupled),
    )


def binary() -> nn.Module:
    """Weights and activations of -1 and +1, and ternary weights."""
    signs = {"bias": False, "weight_quant": SignedBinaryWeightPerTensorConst}
    return Chain(
        qnn.QuantIdentity(),
        qnn.QuantConv2d(2, 4, 3, **signs),
        qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst),
        nn.Flatten(),
        qnn.QuantLinear(64, 8, **signs),
        qnn.QuantReLU(bit_width=4),
        qnn.QuantLinear(8, 5, bias=False, weight_quant=SignedTernaryWeightPerTensorConst),
    )


def asymmetric() -> nn.Module:
    """An activation with a zero point that is not 0."""
    return Chain(
        qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat, bit_width=6),
        nn.Flatten(),
        qnn.QuantLinear(72, 5, bias=False, weight_bit_width=4),
    )


def shared() -> nn.Module:
    """Two layers that share one weight quantizer, and so one scale."""
    first = qnn.QuantLinear(8, 8, bias=False, weight_bit_width=4)
    return Chain(
        nn.Flatten(),
        qnn.QuantLinear(72, 8, bias=False, weight_bit_width=4),
        first,
        qnn.QuantReLU(bit_width=4),
        qnn.QuantLinear(8, 8, bias=False, weight_quant=first.weight_quant),
    )


class Twice(nn.Module):
    """One activation module and one layer that run twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = qnn.QuantLinear(72, 8, bias=False, weight_bit_width=4)
        self.relu = qnn.QuantReLU(bit_width=4)
        self.again = qnn.QuantLinear(8, 8, bias=False, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x.flatten(1)))
        return self.again(self.relu(self.again(x)))


NETWORKS = {
    "cnn": cnn,
    "biased": biased,
    "per_channel": per_channel,
    "power_of_two": power_of_two,
    "residual": Residual,
    "mlp": mlp,
    "binary": binary,
    "asymmetric": asymmetric,
    "shared": shared,
    "twice": Twice,
}


COMPILED = {"compiled_soon": compiled_soon}
"""Networks that are made for few tests."""


def build(name: str, seed: int = 0) -> nn.Module:
    """A network in evaluation mode, its scales learnt from two batches; torch's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = (NETWORKS | COMPILED)[name]().train()
    with torch.no_grad():
        for i in range(2):
            network(batch(seed=100 + i))
    return network.eval()


def batch(n: int = 4, seed: int = 0) -> Tensor:
    """Inputs (n, 2, 6, 6) of every network."""
    return torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 0.7
