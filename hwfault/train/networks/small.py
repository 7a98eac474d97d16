"""Networks without shortcuts: CNV, a tiny one for images, and linear layers only."""

from collections import OrderedDict
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from hwfault.train.networks.layers import BatchNorm1d, BatchNorm2d, Options, bits

_MOST_WEIGHTS = 1 << 28
"""The most that the built-in mlp may have: 1 GiB of float32."""


class Chain(nn.Sequential):
    """Named layers in a row; a plain tensor comes out."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        logits: Tensor = getattr(x, "value", x)
        return logits


def cnv(**options: Any) -> nn.Module:
    """CNV for images (n, channels, 32, 32): 3x3 convolutions 64, 64, pool, 128, 128, pool, 256, 256, linear 512, 512.

    The network of FINN (Umuroglu et al., 2017) and BNN-PYNQ, without padding, batch normalisation behind every layer,
    the last too. `options` are Options.
    """
    o = Options.parse(options, "network 'cnv'")
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise((o.channels, 64, 64, 128, 128, 256, 256))):
        layers += [o.conv(inputs, outputs, 3), BatchNorm2d(outputs), o.act()]
        if i in (1, 3):
            layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers, nn.Flatten())
    return Chain(input=o.input(), features=features, classifier=_linear(o, 256, 512, 512), output=o.output())


def _linear(o: Options, *widths: int) -> nn.Sequential:
    """Linear layers with normalisation and activation, the last one to the logits."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [o.linear(inputs, outputs), BatchNorm1d(outputs), o.act()]
    layers += [o.linear(widths[-1], o.classes), BatchNorm1d(o.classes)]
    return nn.Sequential(*layers)


class TinyOptions(Options):
    """Options of tiny_cnn, whose means need more than a sign: activations have 2 bits or more."""

    act_bits: int = bits(4, least=2)


def tiny_cnn(**options: Any) -> nn.Module:
    """3x3 convolutions of 16, 32 (stride 2) and 64 (stride 2) channels, a mean and a linear layer; images of any size.

    `options` are TinyOptions.
    """
    o = TinyOptions.parse(options, "network 'tiny_cnn'")
    layers: list[nn.Module] = []
    for (inputs, outputs), stride in zip(pairwise((o.channels, 16, 32, 64)), (1, 2, 2), strict=True):
        layers += [o.conv(inputs, outputs, 3, stride=stride, padding=1), BatchNorm2d(outputs), o.act()]
    features = nn.Sequential(*layers)
    return Chain(input=o.input(), features=features, pool=o.pooled(), fc=o.classifier(64), output=o.output())


class MLPOptions(Options):
    """Options of mlp: inputs are `channels` x `size` x `size`; `hidden` are the widths between them and the logits."""

    channels: int = Field(default=1, ge=1, le=1 << 16, strict=True)
    size: int = Field(default=28, ge=1, le=1 << 16, strict=True)
    hidden: tuple[Annotated[int, Field(ge=1, strict=True)], ...] = (64, 64, 64)

    @model_validator(mode="after")
    def _not_too_large(self) -> Self:
        widths = (self.channels * self.size * self.size, *self.hidden, self.classes)
        weights = sum(inputs * outputs for inputs, outputs in pairwise(widths))
        if weights > _MOST_WEIGHTS:
            raise ValueError(f"its layers would have {weights} weights, expected at most {_MOST_WEIGHTS}")
        return self


def mlp(**options: Any) -> nn.Module:
    """Linear layers with batch normalisation; by default the TFC of FINN for 28 x 28 grey images.

    `options` are MLPOptions.
    """
    o = MLPOptions.parse(options, "network 'mlp'")
    classifier = _linear(o, o.channels * o.size * o.size, *o.hidden)
    return Chain(input=o.input(), flatten=nn.Flatten(), classifier=classifier, output=o.output())
