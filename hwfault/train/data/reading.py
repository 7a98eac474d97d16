"""Batches of images from files, decoded here or by worker processes, the same either way."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from hwfault.errors import HwfaultError
from hwfault.own_code import OwnModules
from hwfault.train.data.draws import AUGMENT, words
from hwfault.train.data.split import Reader
from hwfault.train.randomness import seeded


class Images(Protocol):
    """A split whose images are read one by one."""

    def image(self, index: int, change: Callable[[Any], Any] | None = ...) -> Tensor: ...
    def stack(self, images: Iterable[Tensor]) -> Tensor: ...
    def finished(self, batch: Tensor) -> Tensor: ...


_Place = tuple[int, list[int]]


class _Decoded(TorchDataset[Any]):
    """Batches by (epoch, sample numbers), before they are finished; what goes wrong is an item too.

    An exception would lose its text on the way out of a worker, where torch puts a traceback in its place.
    """

    def __init__(self, split: Images, change: Callable[[Any], Any] | None, seed: int) -> None:
        self._split, self._change, self._seed = split, change, seed

    def __getstate__(self) -> tuple[Any, ...]:
        # the user's modules first: a worker that is started anew unpickles them in this order
        return OwnModules(), self._split, self._change, self._seed

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self._split, self._change, self._seed = state

    def __getitem__(self, place: _Place) -> Tensor | HwfaultError:
        epoch, numbers = place
        try:
            return self._split.stack(self._image(epoch, number) for number in numbers)
        except HwfaultError as error:
            return error

    def _image(self, epoch: int, number: int) -> Tensor:
        if self._change is None:
            return self._split.image(number)
        with seeded(int(words(1, self._seed, epoch, AUGMENT, number)[0])):
            return self._split.image(number, self._change)


class _Places:
    """The places of the epoch to be read: what torch's loader takes as a sampler."""

    def __init__(self) -> None:
        self.now: Sequence[_Place] = ()

    def __iter__(self) -> Iterator[_Place]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


def image_reader(
    split: Images, change: Callable[[Any], Any] | None, *, seed: int, workers: int, device: torch.device
) -> Reader:
    """A reader of batches of the split's images, changed for training, with that many worker processes."""
    decoded, places = _Decoded(split, change, seed), _Places()
    loader: DataLoader[Any] | None = None

    def read(epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        nonlocal loader
        places.now = [(epoch, index.tolist()) for index in batches]
        if workers and loader is None:
            loader = _loader(decoded, places, workers, device)
        for batch in map(decoded.__getitem__, places.now) if loader is None else loader:
            if isinstance(batch, HwfaultError):
                break
            yield split.finished(batch.to(device, non_blocking=True))
        else:
            return
        loader = None  # ends the workers now: the garbage collector, which finds them by the error, takes 5 seconds
        raise batch

    return read


def _loader(decoded: _Decoded, places: _Places, workers: int, device: torch.device) -> DataLoader[Any]:
    return DataLoader(
        decoded,
        batch_size=None,
        sampler=places,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # the loader draws a seed at each epoch: not from the global numbers
    )
