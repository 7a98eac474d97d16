"""Digits in one fixed-point format for all activations, whose highest bits no activation of the golden run needs."""

from typing import ClassVar

from torch import nn

from hwfault.train.networks.digits import DigitsCNN


class HeadroomCNN(DigitsCNN):
    """The network of the demo with activations in [0, 64) throughout: 8 bits, of which two stand behind the point."""

    RANGES: ClassVar = (64.0, 64.0, 64.0)


def headroom() -> nn.Module:
    """One of 8 bits."""
    return HeadroomCNN(8)
