"""The network of the demo, whose float32 arithmetic is exact."""

from itertools import pairwise
from typing import ClassVar

from brevitas import nn as qnn
from brevitas.core.function_wrapper import TensorClampSte
from brevitas.inject.enum import ScalingImplType
from brevitas.quant.fixed_point import Int8WeightPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
from torch import Tensor, nn

from hwfault.errors import HwfaultError


class FixedPointWeight(Int8WeightPerTensorFixedPoint):  # type: ignore[misc]
    """Weights in [-1, 1) on the fixed grid 2^(1 - bits), all codes of two's complement in use.

    The gradient passes where a weight is clipped, so that it can come back into the range.
    """

    narrow_range = False
    scaling_impl_type = ScalingImplType.CONST
    scaling_const = 1.0
    tensor_clamp_impl = TensorClampSte


class FixedPointActivation(Uint8ActPerTensorFixedPoint):  # type: ignore[misc]
    """Unsigned activations in [0, max_val) on the fixed grid max_val / 2^bits; max_val is a power of two."""

    scaling_impl_type = ScalingImplType.CONST
    min_val = 0.0
    max_val = 1.0


class DigitsCNN(nn.Module):
    """Images (n, 1, 8, 8) in [0, 1] -> logits (n, 10), by exact arithmetic.

    Every value is an integer of `bits` bits (8 at the input) times a power of two that never changes, and there is no
    bias and no normalisation; so each sum is an integer below 2^24 times a power of two, and float32 holds it exactly
    whichever way an engine adds it up, with any faults in the codes. For `bits` = 8 the largest sum has 288 terms
    of at most 255 * 128, in the last convolution: 0.56 * 2^24.
    """

    CHANNELS: ClassVar = (1, 16, 32, 64)
    STRIDES: ClassVar = (1, 2, 2)
    RANGES: ClassVar = (2.0, 4.0, 4.0)
    LOGIT_SCALE: ClassVar = 2.0**-3

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(act_quant=FixedPointActivation, bit_width=8)
        layers: list[nn.Module] = []
        weights = {"bias": False, "weight_quant": FixedPointWeight, "weight_bit_width": bits}
        for (c_in, c_out), stride, largest in zip(pairwise(self.CHANNELS), self.STRIDES, self.RANGES, strict=True):
            layers.append(qnn.QuantConv2d(c_in, c_out, 3, stride=stride, padding=1, **weights))
            layers.append(qnn.QuantReLU(act_quant=FixedPointActivation, bit_width=bits, max_val=largest))
        self.features = nn.Sequential(*layers)
        self.classifier = qnn.QuantLinear(self.CHANNELS[-1] * 2 * 2, 10, **weights)
        for parameter in self.parameters():  # the usual initial weights would all round to 0 on the fixed grid
            nn.init.uniform_(parameter, -0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(self.input(x)).flatten(1))
        return logits * self.LOGIT_SCALE


def digits_cnn(bits: int = 4) -> nn.Module:
    """The network of the demo for 8 x 8 grey images, with weights and activations of `bits` (2 to 8) bits.

    Its float32 arithmetic is exact (see DigitsCNN). Raises HwfaultError for other bit widths.
    """
    if not isinstance(bits, int) or not 2 <= bits <= 8:
        raise HwfaultError(f"digits_cnn: bits is {bits!r}, expected 2 to 8")
    return DigitsCNN(bits)
