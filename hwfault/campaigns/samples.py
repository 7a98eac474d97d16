"""The samples that trials classify, batch by batch."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import torch
from torch import Tensor

from hwfault.errors import HwfaultError
from hwfault.train.data import Split

_LOOKED_AT = 64


def order_of(split: Split, indices: Sequence[int] | Tensor | None) -> Tensor:
    """The numbers (k,) of the samples to classify, in their order; raises HwfaultError for one that is not there."""
    if indices is None:
        return torch.arange(len(split))
    if not len(indices):
        indices = torch.zeros(0, dtype=torch.int64)  # an empty list alone would be floats
    order = torch.as_tensor(indices).cpu()
    if order.dim() != 1 or order.is_floating_point() or order.dtype == torch.bool:
        raise HwfaultError(f"the indices are {order.dtype} of shape {tuple(order.shape)}, expected integers (k,)")
    order = order.to(torch.int64)
    if len(order):
        first = int(order.min())
        last = int(order.max())
        if first < 0 or last >= len(split):
            raise HwfaultError(f"the indices go from {first} to {last}, expected 0 to {len(split) - 1}")
    return order


def batches(
    split: Split, order: Sequence[Tensor], device: torch.device, workers: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(numbers, inputs, labels) of each batch of numbers, the latter two on the device."""
    read = split.reader(None, seed=0, workers=workers, device=device)
    for index, x in zip(order, read(0, order), strict=True):
        labels = split.labels[index.to(split.labels.device)]
        yield index, x.to(device), labels.to(device)


def digest(split: Split, order: Tensor) -> str:
    """SHA-256 of the samples' numbers, of all their labels, and of inputs here and there."""
    # reading all inputs of a large data set would take longer than a trial: some, spread evenly, tell two sets apart
    places = torch.linspace(0, len(order) - 1, min(_LOOKED_AT, len(order)))
    some = order[places.round().to(torch.int64)]
    on = split.labels.device
    seen = sha256()
    for tensor in (order, split.labels[order.to(on)], split.inputs(some.to(on))):
        seen.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()
