"""Residual networks (He et al., 2015) for CIFAR and for ImageNet, with the parameter names of torchvision's."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from hwfault.train.networks.layers import BatchNorm2d, Options, bits

CIFAR_DEPTHS = (20, 32, 44, 56, 110)
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each of the four stages, by depth; from 50 on they are bottlenecks."""


class ResNetOptions(Options):
    """Options of a residual network, whose sums and means need more than a sign: activations have 2 bits or more."""

    act_bits: int = bits(4, least=2)


class ImageNetOptions(ResNetOptions):
    classes: int = Field(default=1000, ge=1, le=1 << 16, strict=True)


class Block(nn.Module):
    """Convolutions of the given kernel sizes beside a shortcut.

    What the two add are codes on one grid: that of the input's quantizer where it is the shortcut itself, else that
    of the projection's (a 1x1 convolution with batch normalisation, option B of He et al.).
    """

    expansion = 1
    kernels: tuple[int, ...] = (3, 3)
    strided = 0

    def __init__(self, o: Options, inputs: int, width: int, stride: int, before: nn.Module) -> None:
        super().__init__()
        outputs, channels = width * self.expansion, inputs
        for i, size in enumerate(self.kernels):
            last = i == len(self.kernels) - 1
            to, step = (outputs if last else width), (stride if i == self.strided else 1)
            setattr(self, f"conv{i + 1}", o.conv(channels, to, size, stride=step, padding=size // 2))
            setattr(self, f"bn{i + 1}", BatchNorm2d(to))
            if not last:
                setattr(self, f"act{i + 1}", o.act())
            channels = to
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            projection = o.conv(inputs, outputs, 1, stride=stride)
            before = o.signed()
            self.downsample = nn.Sequential(projection, BatchNorm2d(outputs), before)
        self.branch = o.same_grid(before)
        self.out = o.act()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, len(self.kernels) + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = (self.branch if i == len(self.kernels) else getattr(self, f"act{i}"))(y)
        shortcut = x if self.downsample is None else self.downsample(x)
        total: Tensor = self.out(y + shortcut)
        return total


class Bottleneck(Block):
    """A 1x1, a 3x3 (with the stride, as in torchvision) and a 1x1 convolution to four times the width."""

    expansion = 4
    kernels = (1, 3, 1)
    strided = 1


class ResNet(nn.Module):
    """A stem, stages `layer1`, `layer2`, ... of blocks, all but the first halving the image, a mean, a linear layer."""

    def __init__(
        self, o: Options, block: type[Block], blocks: Sequence[int], widths: Sequence[int], *, imagenet: bool
    ) -> None:
        super().__init__()
        self.input = o.input()
        size, stride, padding = (7, 2, 3) if imagenet else (3, 1, 1)
        self.conv1 = o.conv(o.channels, widths[0], size, stride=stride, padding=padding)
        self.bn1, self.act1 = BatchNorm2d(widths[0]), o.act()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        self._stages, channels = len(blocks), widths[0]
        before: nn.Module = self.act1
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = nn.Sequential()
            for k in range(count):
                made = block(o, channels, width, 2 if i > 0 and k == 0 else 1, before)
                channels, before = width * block.expansion, made.out
                stage.append(made)
            setattr(self, f"layer{i + 1}", stage)
        self.pool, self.fc, self.output = o.pooled(), o.classifier(channels), o.output()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.act1(self.bn1(self.conv1(self.input(x)))))
        for i in range(1, self._stages + 1):
            x = getattr(self, f"layer{i}")(x)
        logits = self.output(self.fc(self.pool(x)))
        plain: Tensor = getattr(logits, "value", logits)
        return plain


def resnet_cifar(network: str, depth: int, **options: Any) -> nn.Module:
    """ResNet-20, -32, -44, -56 or -110 for small images: three stages of 16, 32 and 64 channels.

    `options` are ResNetOptions.
    """
    o = ResNetOptions.parse(options, f"network {network!r}")
    return ResNet(o, Block, [(depth - 2) // 6] * 3, (16, 32, 64), imagenet=False)


def resnet_imagenet(network: str, depth: int, **options: Any) -> nn.Module:
    """ResNet-18, -34, -50, -101 or -152: a 7x7 stem, four stages of 64 to 512 channels (times 4 from 50 on).

    `options` are ImageNetOptions.
    """
    o = ImageNetOptions.parse(options, f"network {network!r}")
    block = Block if depth < 50 else Bottleneck
    return ResNet(o, block, IMAGENET_BLOCKS[depth], (64, 128, 256, 512), imagenet=True)
