"""Data sets held in memory, checked once, and what they share with others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwfault.errors import FileError
from hwfault.train.data.split import INTEGERS, Finish, MemorySplit, Split, split_in_two

Transform = Callable[[Any], Any]


class Data(Protocol):
    """A data set: `classes` labels from 0 on; splits to train on and to hold out for tests, perhaps for validation."""

    @property
    def classes(self) -> int: ...

    @property
    def train(self) -> Split: ...

    @property
    def test(self) -> Split: ...

    @property
    def validation(self) -> Split | None: ...

    @property
    def example(self) -> Tensor:
        """The first input of the test split, (1, ...)."""

    def split_off(self, validation: float, seed: int) -> Self:
        """The data with a part of the training split for validation: a share below 1, or a number of samples.

        The part is drawn from `seed` alone. Raises HwfaultError if a part would be empty, or was split off before.
        """

    def prepared(self, *, normalise: bool = True, transform: Transform | None = None) -> Self:
        """The data with its inputs made otherwise.

        Without `normalise` images are in [0, 1]. `transform` takes what is stored: a batch of inputs held in memory, a
        PIL image of a folder; what it returns is taken as it is if it is float32, and normalised if it is uint8.
        """


@dataclass(frozen=True)
class Dataset:
    """Inputs (n, ...) and labels (n,) int64 from 0 to classes - 1 in memory, for training and held out for tests.

    Inputs are float32, int64 or int32 (numbers of tokens, say), seen by the network as they are, or uint8 (kept so),
    seen as 0 to 1. `mean` and `std`, one for each channel (axis 1), are in the units of what is seen and normalise it,
    but no integers. Raises FileError if shapes, types or values are otherwise; `classes` 0 (the default) means one more
    than the largest label.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    transform: Transform | None = None
    validation_x: Tensor | None = None
    validation_y: Tensor | None = None

    def __post_init__(self) -> None:
        parts = {"train": (self.train_x, self.train_y), "test": (self.test_x, self.test_y)}
        if self.validation_x is not None and self.validation_y is not None:
            parts["validation"] = (self.validation_x, self.validation_y)
        elif self.validation_x is not self.validation_y:
            raise FileError("only one of validation_x and validation_y was given, expected both or neither")
        for part, (x, y) in parts.items():
            _check_part(part, x, y)
            _check_alike(part, self.train_x, x)
        _check_channels(self.train_x, self.mean, self.std)
        largest = max(int(y.max()) for _, y in parts.values())
        object.__setattr__(self, "classes", self.classes or largest + 1)
        if largest >= self.classes:
            raise FileError(f"there is a label {largest}, expected 0 to {self.classes - 1} for {self.classes} classes")

    @property
    def _finish(self) -> Finish:
        return Finish(self.mean, self.std, self.transform)

    @cached_property
    def train(self) -> MemorySplit:
        return MemorySplit(self.train_x, self.train_y, self._finish)

    @cached_property
    def test(self) -> MemorySplit:
        return MemorySplit(self.test_x, self.test_y, self._finish)

    @cached_property
    def validation(self) -> MemorySplit | None:
        if self.validation_x is None or self.validation_y is None:
            return None
        return MemorySplit(self.validation_x, self.validation_y, self._finish)

    @property
    def example(self) -> Tensor:
        """The first input of the test split, (1, ...)."""
        return self.test.example

    def split_off(self, validation: float, seed: int) -> Self:
        """As for all `Data`."""
        stay, held = split_in_two(self.train, self.validation, validation, seed)
        return replace(
            self, train_x=stay.stored, train_y=stay.labels, validation_x=held.stored, validation_y=held.labels
        )

    def prepared(self, *, normalise: bool = True, transform: Transform | None = None) -> Self:
        """As for all `Data`."""
        finish = self._finish.prepared(normalise, transform)
        return replace(self, mean=finish.mean, std=finish.std, transform=finish.transform)


Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def image_data(
    train: Arrays, test: Arrays, *, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Dataset:
    """A data set of uint8 images and labels in NumPy arrays, which it takes over."""
    train_x, train_y, test_x, test_y = (torch.from_numpy(array) for array in (*train, *test))
    return Dataset(train_x, train_y, test_x, test_y, classes, mean, std)


def _check_part(part: str, x: Tensor, y: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.uint8, *INTEGERS) or y.dtype != torch.int64:
        raise FileError(
            f"{part}_x is {x.dtype} and {part}_y {y.dtype}, expected float32 (uint8, int64 or int32) inputs and int64 "
            "labels"
        )
    if x.dim() < 2 or y.dim() != 1 or len(x) != len(y) or x.numel() == 0:
        raise FileError(
            f"{part}_x has shape {tuple(x.shape)} and {part}_y {tuple(y.shape)}, expected (n, ...) and (n,), not empty"
        )
    if x.dtype == torch.float32 and not torch.isfinite(x).all():
        raise FileError(f"{part}_x holds values that are NaN, infinite or too large for float32; remove them")
    if int(y.min()) < 0:
        index = int(y.argmin())
        raise FileError(f"{part}_y[{index}] is {int(y[index])}, expected labels from 0")


def _check_alike(part: str, train_x: Tensor, x: Tensor) -> None:
    if train_x.shape[1:] != x.shape[1:]:
        train, other = tuple(train_x.shape), tuple(x.shape)
        raise FileError(f"train_x has shape {train} but {part}_x {other}, expected the same after the first axis")
    if train_x.dtype != x.dtype:
        raise FileError(f"train_x is {train_x.dtype} but {part}_x {x.dtype}, expected the same")


def _check_channels(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if not mean and not std:
        return
    if x.dtype in INTEGERS:
        raise FileError(f"inputs are {x.dtype}, which nothing normalises, but mean is {mean} and std {std}")
    good = all(map(math.isfinite, (*mean, *std))) and all(value > 0 for value in std)
    if not len(mean) == len(std) == x.shape[1] or not good:
        raise FileError(
            f"mean is {mean} and std {std}, expected one finite number for each of {x.shape[1]} channels, std above 0"
        )
