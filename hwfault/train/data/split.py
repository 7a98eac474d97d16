"""What data sets are made of: splits, how their inputs are made float32, and how they are read for training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from hwfault.errors import HwfaultError
from hwfault.own_code import errors_of
from hwfault.train.data.augment import Augment, crop_flip, named_augmentation
from hwfault.train.data.draws import SPLIT, permutation, uniform

Reader = Callable[[int, Sequence[Tensor]], Iterator[Tensor]]
_FILLS_AT_MOST = 0.5
INTEGERS = (torch.int64, torch.int32)
"""Types of inputs that are numbers of something, and stay what they are."""


@dataclass(frozen=True)
class Finish:
    """Makes stored inputs the float32 that a network sees: uint8 to [0, 1], then by channel less `mean`, over `std`.

    Empty `mean` and `std` leave the values; float32 that `transform` returned is taken as it is.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    transform: Callable[[Any], Any] | None = None

    def __call__(self, stored: Tensor) -> Tensor:
        """A batch (k, ...) of uint8, float32 or integers, on its device."""
        if stored.dtype == torch.uint8:
            # by a tensor, not a number: CUDA multiplies by the reciprocal of a number, and the last bit differs
            stored = stored.to(torch.float32) / torch.full((), 255.0, device=stored.device)
        if not self.mean:
            return stored
        mean = _channels(self.mean, stored)
        std = _channels(self.std, stored)
        return stored.sub(mean).div_(std)  # in place of the difference, which is ours

    def prepared(self, normalise: bool, transform: Callable[[Any], Any] | None) -> "Finish":
        """The same with another transform, if one is given, and perhaps without mean and std."""
        made = transform or self.transform
        if not normalise:
            return Finish(transform=made)
        return Finish(self.mean, self.std, made)

    def transformed(self, stored: Tensor) -> Tensor:
        """What the transform makes of a batch, finished; without a transform, the batch finished."""
        if self.transform is None:
            return self(stored)
        result = made_by("transform", self.transform, stored, count=len(stored))
        return self(result) if result.dtype == torch.uint8 else result


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One value a channel, to be broadcast over a batch."""
    positions = [1] * (like.dim() - 2)
    return torch.tensor(values, device=like.device).view(-1, *positions)


def made_by(what: str, code: Callable[..., Any], *given: Any, count: int | None = None) -> Tensor:
    """What the user's `code` makes of what it is given: a uint8 or float32 tensor, of `count` samples or one image.

    Raises HwfaultError for anything else, and for what the code raises.
    """
    with errors_of(f"the {what}"):
        result = code(*given)
    told = f"a {type(result).__name__}"
    if isinstance(result, Tensor):
        told = f"{result.dtype} of shape {tuple(result.shape)}"
        if result.dtype in (torch.uint8, torch.float32) and (count is None or result.shape[:1] == (count,)):
            return result
    samples = "one image" if count is None else f"{count} samples"
    raise HwfaultError(f"the {what} returned {told}, expected a uint8 or float32 tensor of {samples}")


class Split(ABC):
    """Samples with their labels: `labels` is (n,) int64 on the split's device."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def example(self) -> Tensor:
        """The first input, (1, ...)."""
        return self.inputs(torch.zeros(1, dtype=torch.int64))

    @abstractmethod
    def inputs(self, index: Tensor) -> Tensor:
        """The inputs (k, ...) of the samples index (k,), as a network sees them, on the split's device."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Split":
        """The same split with labels and inputs on a device."""

    @abstractmethod
    def kept_on(self, device: torch.device) -> "Split":
        """The same split on the device, if there is room for it; else as it is."""

    @abstractmethod
    def subset(self, index: Tensor) -> Self:
        """The samples index (k,), in that order."""

    @abstractmethod
    def reader(self, augment: Augment, *, seed: int, workers: int, device: torch.device) -> Reader:
        """A function of an epoch and index batches that yields their inputs on the device, augmented for the epoch.

        Raises HwfaultError for an augmentation that does not suit this split.
        """


AnySplit = TypeVar("AnySplit", bound=Split)


@dataclass(frozen=True)
class MemorySplit(Split):
    """A split held in memory: `stored` (n, ...), of which uint8 is made float32 as batches are taken."""

    stored: Tensor
    labels: Tensor
    finish: Finish = Finish()

    def inputs(self, index: Tensor) -> Tensor:
        return self.finish.transformed(self.stored[index.to(self.stored.device)])

    def to(self, device: torch.device | str) -> "MemorySplit":
        return replace(self, stored=self.stored.to(device), labels=self.labels.to(device))

    def kept_on(self, device: torch.device) -> "MemorySplit":
        if device.type == "cuda" and self.stored.device != device:
            free, _ = torch.cuda.mem_get_info(device)
            if self.stored.nbytes > _FILLS_AT_MOST * free:
                return self
        return self.to(device)

    def subset(self, index: Tensor) -> Self:
        return replace(self, stored=self.stored[index], labels=self.labels[index])

    def reader(self, augment: Augment, *, seed: int, workers: int, device: torch.device) -> Reader:
        """As for every split; `workers` are not needed here. A callable is given a batch and its draws (k, 8)."""
        change = named_augmentation(augment, "data in memory", {"crop_flip": crop_flip})
        if change is crop_flip and self.stored.dim() != 4:
            given = tuple(self.stored.shape)
            raise HwfaultError(f"augment 'crop_flip' is for images (n, c, h, w), given inputs of shape {given}")

        def read(epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
            # drawn for every sample of the split, so that a sample's do not depend on which batch it is in
            draws = None
            if change is not None:
                draws = torch.from_numpy(uniform(len(self), seed, epoch)).to(device)
            for index in batches:
                stored = self.stored[index.to(self.stored.device)].to(device)
                if change is not None and draws is not None:
                    stored = made_by("augmentation", change, stored, draws[index.to(device)], count=len(index))
                yield self.finish.transformed(stored)

        return read


def split_in_two(train: AnySplit, held_before: Split | None, validation: float, seed: int) -> tuple[AnySplit, AnySplit]:
    """What stays for training and what is held out for validation, a share or number of samples drawn from `seed`.

    Raises HwfaultError if either would be empty, or if there is a split for validation before.
    """
    if held_before is not None:
        raise HwfaultError("the data has a validation split already, expected to split one off once")
    stay, held = split_indices(len(train), validation, seed)
    return train.subset(stay), train.subset(held)


def split_indices(count: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (ascending) of the samples that stay for training and of those held out: a share below 1, or a count.

    Raises HwfaultError unless each has one sample or more.
    """
    held = 0
    if 0 < validation < 1:
        held = round(validation * count)
    elif np.isfinite(validation) and validation == int(validation):
        held = int(validation)
    if not 0 < held < count:
        raise HwfaultError(
            f"validation is {validation:g}, expected a share between 0 and 1 or a whole number of samples "
            f"that takes from 1 to {count - 1} of the {count} for training"
        )
    order = permutation(count, seed, 0, SPLIT)
    stay = np.sort(order[held:])
    taken = np.sort(order[:held])
    return torch.from_numpy(stay), torch.from_numpy(taken)
