"""A quantized network of one's own and its data, as any project has them: commands name them `my_network:network`."""

import brevitas.nn as qnn
import torch
from sklearn.datasets import load_digits
from torch import nn

from hwfault.train import Dataset


def network() -> nn.Module:
    """Three layers with weights and activations of 4 bits."""
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=8),
        nn.Flatten(),
        qnn.QuantLinear(64, 48, bias=True, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4),
        qnn.QuantLinear(48, 48, bias=True, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4),
        qnn.QuantLinear(48, 10, bias=True, weight_bit_width=4),
    )


def digits() -> Dataset:
    """scikit-learn's handwritten digits, 8 x 8 pixels: 1437 to train on, 360 held out."""
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(found.target)
    return Dataset(x[:1437], y[:1437], x[1437:], y[1437:])
