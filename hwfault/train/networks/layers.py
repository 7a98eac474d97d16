"""What the zoo's networks are put together from: one set of options, quantized layers and their float twins."""

from typing import Any, Literal

import torch
from brevitas import nn as qnn
from brevitas.quant import Int16Bias
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from hwfault.records import Record
from hwfault.torch_ops.inside_torch import BatchNorm
from hwfault.train.networks.quantizers import SameGrid, activation, weights


def bits(default: Any, *, least: int = 1) -> Any:
    """A field of a bit width from `least` to 8."""
    return Field(default=default, ge=least, le=8, strict=True)


class Options(Record):
    """What every network of the zoo can be asked for; raises ModelError for anything else.

    Bit widths are 1 to 8: `input_bits` at the input, `weight_bits` in every layer, the first and the last too,
    `act_bits` between the layers, `output_bits` (2 to 8; None leaves them alone) for the logits. One bit means -1 and
    +1. `scaling` says whether a layer's weights share a scale; `scale` whether scales are powers of two, in which case
    sums are exact in float32, and equal in every engine, as long as a layer adds fewer than
    2^(24 - weight_bits - act_bits) products (with 4 bits, 65,536). With `quantized` false it is the float twin:
    the same layers under the same names, where bit widths mean nothing.
    """

    classes: int = Field(default=10, ge=1, le=1 << 16, strict=True)
    channels: int = Field(default=3, ge=1, le=1 << 16, strict=True)
    input_bits: int = bits(8)
    weight_bits: int = bits(4)
    act_bits: int = bits(4)
    output_bits: int | None = bits(None, least=2)
    scaling: Literal["per_tensor", "per_channel"] = "per_tensor"
    scale: Literal["float", "power_of_two"] = "float"
    quantized: bool = Field(default=True, strict=True)

    @property
    def largest(self) -> float:
        """The range at which normalised activations start: few levels are spent on the values that are frequent."""
        return 4.0 if self.act_bits > 2 else 2.0

    def _activation(self, signed: bool, width: int, largest: float, **options: Any) -> nn.Module:
        return activation(signed, self.scale, width, largest, **options)

    def input(self) -> nn.Module:
        """The quantizer of the network's inputs, signed: they may be normalised."""
        return self._activation(True, self.input_bits, 4.0) if self.quantized else nn.Identity()

    def act(self) -> nn.Module:
        """A rectifier and its quantizer; a sign where activations have one bit."""
        return self._activation(False, self.act_bits, self.largest) if self.quantized else nn.ReLU()

    def signed(self) -> nn.Module:
        """A quantizer without a rectifier, with the step at which `act` starts."""
        return self._activation(True, self.act_bits, self.largest / 2) if self.quantized else nn.Identity()

    def same_grid(self, leader: nn.Module) -> nn.Module:
        """A signed quantizer with the scale of another."""
        return SameGrid(leader, self.act_bits) if self.quantized else nn.Identity()

    def output(self) -> nn.Module:
        """The quantizer of the logits, where they are to have one."""
        if self.output_bits is None or not self.quantized:
            return nn.Identity()
        return self._activation(True, self.output_bits, 8.0)

    def conv(self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
        """A convolution without bias."""
        shape: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups, "bias": False}
        if not self.quantized:
            return nn.Conv2d(inputs, outputs, size, **shape)
        return qnn.QuantConv2d(inputs, outputs, size, **shape, **self._weights)

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """A linear layer without bias."""
        if not self.quantized:
            return nn.Linear(inputs, outputs, bias=False)
        layer: nn.Module = qnn.QuantLinear(inputs, outputs, bias=False, **self._weights)
        return layer

    def classifier(self, inputs: int) -> nn.Module:
        """A linear layer with a bias of 16 bits on the grid of its sums, for inputs that are a QuantTensor."""
        if not self.quantized:
            return nn.Linear(inputs, self.classes)
        layer: nn.Module = qnn.QuantLinear(inputs, self.classes, bias=True, bias_quant=Int16Bias, **self._weights)
        return layer

    def pooled(self) -> nn.Module:
        """The means of the channels, quantized; they lie in a smaller range than what they are taken of."""
        if not self.quantized:
            return Means(nn.Identity())
        return Means(self._activation(False, self.act_bits, self.largest / 4, return_quant_tensor=True))

    @property
    def _weights(self) -> dict[str, Any]:
        return weights(self.scaling, self.scale, self.weight_bits)


class Means(nn.Module):
    """Images (n, c, h, w) -> the mean of each channel (n, c), quantized."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Any:
        return self.quantizer(adaptive_avg_pool2d(x, 1).flatten(1))


class _Affine(BatchNorm):
    """A batch normalisation that is one multiplication and one addition in evaluation, rounded one by one.

    So it is in the exported graph, and so both give the same bits: fused, engines round it as they like.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        scale = self.weight / torch.sqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        shape = (-1,) + (1,) * (x.dim() - 2)
        return x * scale.view(shape) + shift.view(shape)


class BatchNorm1d(_Affine, nn.BatchNorm1d):
    """torch's BatchNorm1d, see _Affine."""


class BatchNorm2d(_Affine, nn.BatchNorm2d):
    """torch's BatchNorm2d, see _Affine."""
