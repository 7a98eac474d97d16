"""Sums of integers beyond what float32 holds exactly, in parts or in float64.

The bound is that of every code the quantizers have, also those that only a fault makes. onnxruntime has no convolution
in float64, so that convolutions are added up in parts of their input channels, and the parts in float64.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hwfault.errors import HwfaultError
from hwfault.program.accumulators import EXACT_SUM


class Parts(NamedTuple):
    """How a layer is added up: in float64, or over ranges of each group's input channels in float32."""

    double: bool
    channels: tuple[tuple[int, int], ...]
    groups: int

    def taken(self, index: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and weights of one part."""
        first, last = self.channels[index]
        w = w.narrow(1, first, last - first)
        if self.groups == 1:
            return x.narrow(1, first, last - first), w
        inputs = self.channels[-1][1]
        chosen = [group * inputs + i for group in range(self.groups) for i in range(first, last)]
        return x.index_select(1, torch.tensor(chosen, device=x.device)), w


def parts_of(layer: Any, largest_product: int, weight: Tensor) -> Parts:
    """How the layer is to be added up, its products being of at most `largest_product` in magnitude.

    Raises HwfaultError, with the reason alone, if the products of one input channel are too many or too large.
    """
    inputs, kernel = int(weight.shape[1]), int(weight[0, 0].numel())
    if isinstance(layer, nn.Linear):
        return Parts(inputs * largest_product > EXACT_SUM, (), 1)
    at_once = EXACT_SUM // (kernel * largest_product)
    if at_once < 1:
        raise HwfaultError(
            f"the largest sum over one of its input channels is {kernel * largest_product}, beyond the 2^24 that "
            "float32 holds exactly; quantize its inputs or weights to fewer bits"
        )
    parts = -(-inputs // at_once)
    bounds = [i * inputs // parts for i in range(parts + 1)]
    return Parts(False, tuple(pairwise(bounds)), layer.groups)
