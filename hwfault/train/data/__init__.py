"""Data sets: inputs and labels to train on, to validate on and to hold out, checked once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwfault.errors import HwfaultError
from hwfault.own_code import call_named, named
from hwfault.train.data.bundled import digits
from hwfault.train.data.cifar import cifar10, cifar100
from hwfault.train.data.dataset import Data, Dataset
from hwfault.train.data.folder import ImageFolder, ImageSplit, image_folder
from hwfault.train.data.idx import fashion_mnist, mnist
from hwfault.train.data.npz import load_npz
from hwfault.train.data.split import MemorySplit, Split

__all__ = [
    "DATA",
    "Data",
    "Dataset",
    "ImageFolder",
    "ImageSplit",
    "MemorySplit",
    "Split",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "image_folder",
    "load",
    "load_npz",
    "mnist",
]

DATA: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
}
"""The data sets that have a name of their own."""


def load(
    spec: str,
    *,
    folder: Path | str | None = None,
    size: int | None = None,
    normalise: bool = True,
    transform: str | Callable[[Any], Any] | None = None,
) -> Data:
    """The data that `spec` names: one of DATA, a path that ends in .npz, or "module:function" that returns a Dataset.

    `folder` is where the files of a published data set or the images of an image folder lie; `size` is the side of
    the latter's inputs in pixels. A function of one's own is given those of the two that are set. `normalise` and
    `transform` (a callable, or module:function that names one) are those of `Data.prepared`.

    Raises FileError for a file or data that cannot be used, HwfaultError for a name that is unknown.
    """
    given = {"folder": folder, "size": size}
    arguments = {name: value for name, value in given.items() if value is not None}
    is_file = spec.endswith(".npz")
    if is_file and arguments:
        raise HwfaultError(f"data {spec!r} is a file, given {' and '.join(arguments)} too; leave that out")
    data: Any = load_npz(spec) if is_file else call_named("data", spec, DATA, arguments)
    if not isinstance(data, Dataset | ImageFolder):
        raise HwfaultError(
            f"data {spec!r}: the function returned {type(data).__name__}, expected hwfault.train.Dataset"
        )
    if normalise and transform is None:
        return data
    return data.prepared(
        normalise=normalise, transform=named("transform", transform) if isinstance(transform, str) else transform
    )
