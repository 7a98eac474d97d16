"""The samples that trials classify."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hwfault.errors import HwfaultError


class Samples(Protocol):
    """Inputs that are taken by their numbers, and a label for each, as the splits of a data set offer them."""

    @property
    def labels(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def inputs(self, index: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class TensorSamples:
    """Inputs (n, ...) and labels (n,) in memory."""

    x: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, index: Tensor) -> Tensor:
        return self.x[index]


def order_of(samples: Samples, indices: Sequence[int] | Tensor | None) -> Tensor:
    """The numbers (k,) of the samples to classify, in their order; raises HwfaultError for one that is not there."""
    if indices is None:
        return torch.arange(len(samples))
    order = torch.as_tensor(indices).cpu()
    if order.dim() != 1 or order.is_floating_point() or order.dtype == torch.bool:
        raise HwfaultError(f"the indices are {order.dtype} of shape {tuple(order.shape)}, expected integers (k,)")
    order = order.to(torch.int64)
    if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(samples):
        raise HwfaultError(
            f"the indices go from {int(order.min())} to {int(order.max())}, expected 0 to {len(samples) - 1}"
        )
    return order


def batches(samples: Samples, order: Sequence[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(numbers, inputs, labels) of each batch of numbers, the latter two on the device."""
    for index in order:
        on = index.to(samples.labels.device)
        yield index, samples.inputs(on).to(device), samples.labels[on].to(device)
