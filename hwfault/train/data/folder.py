"""Image folders as ImageNet has them: train/<class>/*, val/<class>/*, decoded when a batch is taken."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwfault.errors import FileError, HwfaultError
from hwfault.image_files import class_names, decode, image_names
from hwfault.train.data.augment import Augment, named_augmentation
from hwfault.train.data.dataset import Transform
from hwfault.train.data.images import Prepare, ResizedCrop
from hwfault.train.data.reading import image_reader
from hwfault.train.data.sources import Source
from hwfault.train.data.split import Finish, Reader, Split, made_by, split_in_two

# of a random subset of ImageNet's training images, resized to 256 and cropped to 224; the deviations are probably the
# mean of those of the images (pytorch/vision, issue 1439 and pull request 1965)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LARGEST_SIZE = 4096
_SOURCE = Source(
    "image_folder",
    "a folder of images",
    ("train/<class>/<image>", "val/<class>/<image>"),
    ("",),
    "ImageNet from https://image-net.org, or lay out your own images so",
)


@dataclass(frozen=True)
class ImageSplit(Split):
    """A split whose images lie in files: names below `folder` as bytes (n,), labels (n,) int64 on the device."""

    folder: Path
    names: NDArray[np.bytes_]
    labels: Tensor
    prepare: Prepare
    finish: Finish

    def file(self, index: int) -> Path:
        """The file of a sample."""
        return self.folder / os.fsdecode(bytes(self.names[index]))

    def image(self, index: int, change: Callable[[Any], Any] | None = None) -> Tensor:
        """A sample as uint8 or float32 (c, h, w), decoded; prepared for evaluation, or by `change`."""
        file = self.file(index)
        image = decode(file)
        if change is not None:
            return made_by("augmentation", change, image)
        if self.finish.transform is not None:
            return made_by("transform", self.finish.transform, image)
        try:
            return self.prepare(image)
        except FileError as error:
            raise FileError(f"{file}: {error}") from None

    def stack(self, images: Iterable[Tensor]) -> Tensor:
        """Images of one shape as a batch, not yet finished; raises HwfaultError if they differ."""
        images = list(images)
        kinds = {(tuple(image.shape), image.dtype) for image in images}
        if len(kinds) != 1:
            raise HwfaultError(f"images were made {sorted(map(str, kinds))[:2]}, expected one shape and type for all")
        return torch.stack(images)

    def finished(self, batch: Tensor) -> Tensor:
        """A batch as the network sees it: float32 that user code returned is taken as it is."""
        return self.finish(batch) if batch.dtype == torch.uint8 else batch

    def inputs(self, index: Tensor) -> Tensor:
        batch = self.stack(self.image(number) for number in index.tolist())
        return self.finished(batch.to(self.labels.device))

    def to(self, device: torch.device | str) -> "ImageSplit":
        return replace(self, labels=self.labels.to(device))

    def kept_on(self, device: torch.device) -> "ImageSplit":
        return self.to(device)

    def subset(self, index: Tensor) -> Self:
        return replace(self, names=self.names[index.numpy()], labels=self.labels[index])

    def reader(self, augment: Augment, *, seed: int, workers: int, device: torch.device) -> Reader:
        """As for every split. A callable is given a PIL image, with torch's random numbers seeded for the sample."""
        change = named_augmentation(augment, "image folders", {"resized_crop": ResizedCrop(self.prepare.size)})
        return image_reader(self, change, seed=seed, workers=workers, device=device)


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images; `class_names` are those of the folders, sorted, whose numbers are the labels."""

    train: ImageSplit
    test: ImageSplit
    class_names: tuple[str, ...]
    validation: ImageSplit | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def example(self) -> Tensor:
        """The first image of the test split, (1, 3, size, size) float32."""
        return self.test.example

    def split_off(self, validation: float, seed: int) -> Self:
        """As for all `Data`."""
        stay, held = split_in_two(self.train, self.validation, validation, seed)
        return replace(self, train=stay, validation=held)

    def prepared(self, *, normalise: bool = True, transform: Transform | None = None) -> Self:
        """As for all `Data`."""

        def changed(split: ImageSplit) -> ImageSplit:
            return replace(split, finish=split.finish.prepared(normalise, transform))

        held = None if self.validation is None else changed(self.validation)
        return replace(self, train=changed(self.train), test=changed(self.test), validation=held)


def image_folder(folder: Path | str | None = None, size: int = 224) -> ImageFolder:
    """The images in train/<class>/ and val/<class>/ (the test split) below `folder`, seen as (n, 3, size, size).

    For evaluation the shorter side is resized to 8/7 of `size` and the middle taken; ImageNet's mean and deviation
    normalise. Hidden files are passed over. Raises FileError for a class without images, files that are no images by
    their names and classes that differ; for one that cannot be decoded, when it is.
    """
    if not 1 <= size <= _LARGEST_SIZE:
        raise HwfaultError(f"size is {size}, expected 1 to {_LARGEST_SIZE} pixels")
    root = _SOURCE.folder(folder)
    if missing := [part for part in ("train", "val") if not (root / part).is_dir()]:
        raise _SOURCE.missing(root, f": it has no folder {missing[0]!r}")
    classes, held_out = class_names(root / "train"), class_names(root / "val")
    if classes != held_out:
        only = sorted({*classes} ^ {*held_out})
        where, other = ("train", "val") if only[0] in classes else ("val", "train")
        raise FileError(f"{root}: class {only[0]!r} is in {where} but not in {other}, expected the same classes")
    train, test = (_split(root / part, classes, size) for part in ("train", "val"))
    return ImageFolder(train, test, classes)


def _split(folder: Path, classes: tuple[str, ...], size: int) -> ImageSplit:
    names = [image_names(folder / name) for name in classes]
    labels = torch.repeat_interleave(torch.tensor([len(files) for files in names]))
    paths = [os.fsencode(f"{name}/{file}") for name, files in zip(classes, names, strict=True) for file in files]
    return ImageSplit(folder, np.array(paths, np.bytes_), labels, Prepare(size), Finish(_MEAN, _STD))
