"""A task small enough to train on in a test, and user code that specs can name."""

import torch
from brevitas import nn as qnn
from torch import nn

from hwfault.train import Dataset
from hwfault.train.networks import FixedPointActivation


def data(count=96, shape=(4,), classes=3, seed=0):
    """Points around one corner for each class, easily told apart."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.rand(count, *shape, generator=generator) * 0.25
    x.view(count, -1)[torch.arange(count), y] += 0.5
    return Dataset(x[: count // 2], y[: count // 2], x[count // 2 :], y[count // 2 :])


def network(width=8, classes=3, bits=4, dropout=0.1, **activation):
    return nn.Sequential(
        qnn.QuantLinear(4, width, bias=True, weight_bit_width=bits),
        qnn.QuantReLU(bit_width=bits, **activation),
        nn.Dropout(dropout),
        qnn.QuantLinear(width, classes, bias=True, weight_bit_width=bits),
    )


def gathering():
    """Its activation learns its scale from statistics of the first 30 batches; of 300, if nothing is said."""
    return network(collect_stats_steps=30)


class Fading(nn.Module):
    """Adds less and less in every step of training: what it adds next is a plain attribute."""

    def __init__(self):
        super().__init__()
        self.strength, self.steps, self.odd = 0.5, 0, False

    def forward(self, x):
        if self.training:
            x = x + self.strength / (1 + self.steps) * (1 if self.odd else -1)
            self.strength, self.steps, self.odd = self.strength * 0.75, self.steps + 1, not self.odd
        return x


def fading():
    return nn.Sequential(*network()[:2], Fading(), *network()[2:])


def half_quantized():
    """For the digits; its first layer is given images as they are, its second one integers."""
    return nn.Sequential(
        nn.Flatten(),
        qnn.QuantLinear(64, 8, bias=True),
        qnn.QuantReLU(act_quant=FixedPointActivation, bit_width=4),
        qnn.QuantLinear(8, 10, bias=True),
    )


def not_quantized():
    """For the digits; its only layer is given images as they are."""
    return nn.Sequential(nn.Flatten(), qnn.QuantLinear(64, 10, bias=True))


def jitter(batch, draws):
    """An augmentation: a shift of each sample's own."""
    return batch + (draws[:, :1] - 0.5) / 8


def not_a_network():
    return {"not": "a network"}


class Broken(Exception):  # noqa: N818 (tests count the "Error: " of a command)
    """What only the user's own code raises."""


def broken(*_given):
    """Of the user's code anything may be broken: a network, data, a transform, an augmentation."""
    raise Broken("on purpose")


CONSTANT = 3
