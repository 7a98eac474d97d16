"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017) from their idx files, as they are or gzipped.

An idx file is 00 00 08 (unsigned bytes), the number of dimensions, each dimension as a big-endian 32 bit number, and
the bytes, last dimension fastest (http://yann.lecun.com/exdb/mnist/, "the idx file format").
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError
from hwfault.inputs import check_regular
from hwfault.train.data.dataset import Arrays, Dataset, image_data
from hwfault.train.data.sources import Source, check_labels

_FILES = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_IMAGE, _CLASSES = (28, 28), 10
_LARGEST = 1 << 30
_ZIPPED_AT_MOST = 1032  # deflate's largest ratio (zlib technical details)
_MNIST = Source(
    "mnist",
    "MNIST",
    _FILES,
    ("MNIST/raw", ""),
    "these four files, .gz or not, from http://yann.lecun.com/exdb/mnist/ or a mirror of it",
)
_FASHION = Source(
    "fashion_mnist",
    "Fashion-MNIST",
    _FILES,
    ("FashionMNIST/raw", ""),
    "these four files, .gz or not, from https://github.com/zalandoresearch/fashion-mnist",
)


def mnist(folder: Path | str | None = None) -> Dataset:
    """MNIST, images (n, 1, 28, 28) uint8 with 10 classes, from its four idx files in MNIST/raw below `folder` or in it.

    Raises FileError for files that are missing or damaged.
    """
    return _load(_MNIST, folder, mean=0.1307, std=0.3081)  # over all pixels of the 60 000 training images


def fashion_mnist(folder: Path | str | None = None) -> Dataset:
    """Fashion-MNIST, as `mnist`, from its four idx files in FashionMNIST/raw below `folder` or in it.

    Raises FileError for files that are missing or damaged.
    """
    return _load(_FASHION, folder, mean=0.2860, std=0.3530)  # over all pixels of the 60 000 training images


def _load(source: Source, folder: Path | str | None, *, mean: float, std: float) -> Dataset:
    train_x, train_y, test_x, test_y = _find(source, source.folder(folder))
    train = _part(train_x, train_y)
    test = _part(test_x, test_y)
    return image_data(train, test, classes=_CLASSES, mean=(mean,), std=(std,))


def _find(source: Source, folder: Path) -> list[Path]:
    for below in source.places:
        place = folder / below
        found: list[Path] = []
        missing: list[str] = []
        for name in source.files:
            path = _either(place / name)
            if path is None:
                missing.append(name)
            else:
                found.append(path)
        if found and missing:
            raise source.missing(place, f" as a whole, {', '.join(missing)} is missing")
        if found:
            return found
    raise source.missing(folder)


def _either(path: Path) -> Path | None:
    """The file, or else the same one gzipped; None if there is neither."""
    for file in (path, path.with_name(f"{path.name}.gz")):
        if file.exists():
            return file
    return None


def _part(images: Path, labels: Path) -> Arrays:
    x = read_idx(images, 3)
    y = read_idx(labels, 1)
    if x.shape[1:] != _IMAGE or len(x) != len(y) or not len(x):
        raise FileError(
            f"{images} holds {x.shape} and {labels} {y.shape}, expected (n, 28, 28) images and (n,) labels, not empty"
        )
    check_labels(labels, y, _CLASSES)
    return x[:, None], y.astype(np.int64)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, gzipped if its name ends in .gz.

    Memory is taken only after the header is known to fit the file, at most 1 GiB. Raises FileError.
    """
    try:
        size = check_regular(path)
        zipped = path.suffix == ".gz"
        with gzip.open(path) if zipped else path.open("rb") as stream:
            shape = _shape(path, stream.read(4 + 4 * dimensions), dimensions)
            expected = math.prod(shape)
            holds_at_most = size * _ZIPPED_AT_MOST if zipped else size
            if expected > min(_LARGEST, holds_at_most):
                raise FileError(f"{path}: has shape {shape} by its header, too large for a file of {size} bytes")
            content = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path}: cannot be read ({error}); get it again") from error
    if len(content) != expected:
        what = "more" if len(content) > expected else f"{len(content)}"
        raise FileError(f"{path}: has shape {shape} by its header, which is {expected} bytes, but holds {what}")
    return np.frombuffer(bytearray(content), np.uint8).reshape(shape)


def _shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    magic = bytes((0, 0, 8, dimensions))
    if header[:4] != magic or len(header) != 4 + 4 * dimensions:
        raise FileError(
            f"{path}: begins with {header[:4].hex(' ') or 'nothing'}, expected the header of an idx file of unsigned "
            f"bytes in {dimensions} dimensions, {magic.hex(' ')} and their sizes"
        )
    return tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
