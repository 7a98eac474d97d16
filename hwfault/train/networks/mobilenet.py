"""MobileNetV1 (Howard et al., 2017) for ImageNet and for CIFAR."""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from hwfault.train.networks.layers import BatchNorm2d, Options, bits
from hwfault.train.networks.small import Chain

_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Channels and stride of each depthwise separable convolution."""


class MobileNetOptions(Options):
    """Options of MobileNetV1: `width` multiplies every number of channels, of which 8 at least stay.

    Its means need more than a sign: activations have 2 bits or more.
    """

    act_bits: int = bits(4, least=2)
    width: float = Field(default=1.0, gt=0, le=8)


class ImageNetOptions(MobileNetOptions):
    classes: int = Field(default=1000, ge=1, le=1 << 16, strict=True)


class Separable(nn.Module):
    """A 3x3 convolution in each channel, then a 1x1 convolution across them."""

    def __init__(self, o: Options, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = o.conv(inputs, inputs, 3, stride=stride, padding=1, groups=inputs)
        self.bn1, self.act1 = BatchNorm2d(inputs), o.act()
        self.pointwise = o.conv(inputs, outputs, 1)
        self.bn2, self.act2 = BatchNorm2d(outputs), o.act()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.depthwise(x)))
        out: Tensor = self.act2(self.bn2(self.pointwise(x)))
        return out


def mobilenet_v1(**options: Any) -> nn.Module:
    """MobileNetV1 for images of 224 x 224 or so; `options` are those of MobileNetOptions, with 1000 classes."""
    return _mobilenet(ImageNetOptions.parse(options, "network 'mobilenet_v1'"), stride=2)


def mobilenet_v1_cifar(**options: Any) -> nn.Module:
    """MobileNetV1 for small images, whose first convolution has stride 1; `options` are MobileNetOptions."""
    return _mobilenet(MobileNetOptions.parse(options, "network 'mobilenet_v1_cifar'"), stride=1)


def _mobilenet(o: MobileNetOptions, stride: int) -> nn.Module:
    def scale(channels: int) -> int:
        return max(8, int(channels * o.width))

    # made in the order in which they run, as each draws its first weights
    width = scale(32)
    layers = [o.conv(o.channels, width, 3, stride=stride, padding=1), BatchNorm2d(width), o.act()]
    for channels, step in _BLOCKS:
        inputs, width = width, scale(channels)
        layers.append(Separable(o, inputs, width, step))
    features = nn.Sequential(*layers)
    fc = o.classifier(width)
    return Chain(input=o.input(), features=features, pool=o.pooled(), fc=fc, output=o.output())
