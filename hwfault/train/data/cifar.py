"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from the binary version of their files.

A file is a sequence of records: the label (CIFAR-100: coarse, then fine label), a byte each, and 3072 bytes of an
image, red, green, blue, each row by row (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path
from typing import Any

import numpy as np

from hwfault.errors import FileError
from hwfault.inputs import check_regular
from hwfault.train.data.dataset import Arrays, Dataset, image_data
from hwfault.train.data.sources import Source, check_labels, read_at_most

_PAGE = "from https://www.cs.toronto.edu/~kriz/cifar.html"
_SHAPE = (3, 32, 32)
_RECORDS = 50_000
_ARCHIVE_HOLDS = 400 << 20
_BROKEN = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class _Version:
    """One of the two data sets: where it is found, and the number of values of each label byte, the last one used."""

    source: Source
    archive: str
    python: tuple[str, ...]
    labels: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def record(self) -> int:
        return len(self.labels) + 3072


# mean and standard deviation over all pixels of the 50 000 training images, not the mean of the images' deviations
_CIFAR10 = _Version(
    Source(
        "cifar10",
        "CIFAR-10 (binary version)",
        (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        ("", "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
        f"cifar-10-binary.tar.gz {_PAGE}",
    ),
    "cifar-10-binary.tar.gz",
    ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1"),
    (10,),
    (0.4914, 0.4822, 0.4465),
    (0.2470, 0.2435, 0.2616),
)
_CIFAR100 = _Version(
    Source(
        "cifar100",
        "CIFAR-100 (binary version)",
        ("train.bin", "test.bin"),
        ("", "cifar-100-binary", "cifar-100-binary.tar.gz"),
        f"cifar-100-binary.tar.gz {_PAGE}",
    ),
    "cifar-100-binary.tar.gz",
    ("cifar-100-python", "cifar-100-python.tar.gz", "meta"),
    (20, 100),
    (0.5071, 0.4865, 0.4409),
    (0.2673, 0.2564, 0.2762),
)


def cifar10(folder: Path | str | None = None) -> Dataset:
    """CIFAR-10, images (n, 3, 32, 32) uint8 with 10 classes, from its binary files below `folder`.

    Any number of records up to 50 000 a file is taken. Raises FileError for files that are missing or damaged.
    """
    return _load(_CIFAR10, folder)


def cifar100(folder: Path | str | None = None) -> Dataset:
    """CIFAR-100, images (n, 3, 32, 32) uint8 with its 100 fine classes, from its binary files below `folder`.

    Any number of records up to 50 000 a file is taken. Raises FileError for files that are missing or damaged.
    """
    return _load(_CIFAR100, folder)


def _load(version: _Version, folder: Path | str | None) -> Dataset:
    contents = _contents(version, version.source.folder(folder))
    *train, test = (_records(version, *contents[name]) for name in version.source.files)
    x = np.concatenate([images for images, _ in train])
    y = np.concatenate([labels for _, labels in train])
    return image_data((x, y), test, classes=version.labels[-1], mean=version.mean, std=version.std)


_Contents = Mapping[str, tuple[str, bytes]]


def _contents(version: _Version, folder: Path) -> _Contents:
    """Where each file was found, to be named in errors, and what it holds."""
    names = version.source.files
    for below in version.source.places[:2]:
        place = folder / below
        missing = [name for name in names if not (place / name).exists()]
        if len(missing) == len(names):
            continue
        if missing:
            raise version.source.missing(place, f" as a whole, {', '.join(sorted(missing))} is missing")
        limit = version.record * _RECORDS
        return {name: (str(place / name), read_at_most(place / name, limit)) for name in names}
    if (folder / version.archive).exists():
        return _unpacked(version, folder / version.archive)
    python = [name for name in version.python if (folder / name).exists()]
    found = f", only {python[0]} of its Python version, which is pickled code and is not read" if python else ""
    raise version.source.missing(folder, found)


class _Bounded:
    """A stream to read that ends in FileError after a number of bytes, however large its content is unpacked."""

    def __init__(self, stream: GzipFile, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise FileError(f"unpacks to more than the {_ARCHIVE_HOLDS} bytes expected at most")
        return content


def _unpacked(version: _Version, path: Path) -> _Contents:
    contents: dict[str, tuple[str, bytes]] = {}
    limit = version.record * _RECORDS
    try:
        check_regular(path)
        with GzipFile(path) as zipped:
            stream: Any = _Bounded(zipped, _ARCHIVE_HOLDS)  # tarfile's stream mode needs `read` alone
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    name = member.name.rpartition("/")[2]
                    if name in version.source.files and member.isfile() and member.size <= limit:
                        contents[name] = (f"{path}: {member.name}", _member(archive, member))
            while stream.read(1 << 20):  # up to the checksum, which gzip looks at when it gets there
                pass
    except FileError as error:
        raise FileError(f"{path}: {error}") from None
    except _BROKEN as error:
        raise FileError(
            f"{path}: not a readable .tar.gz archive ({str(error) or type(error).__name__}); get it again {_PAGE}"
        ) from error
    for name in version.source.files:
        if name not in contents:
            raise FileError(f"{path}: holds no {name} of at most {limit} bytes; get it again {_PAGE}")
    return contents


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    content = b"" if stream is None else stream.read()
    if len(content) != member.size:
        raise FileError(f"{member.name} ends after {len(content)} of {member.size} bytes")
    return content


def _records(version: _Version, where: str, content: bytes) -> Arrays:
    if not content or len(content) % version.record:
        raise FileError(
            f"{where}: has {len(content)} bytes, expected records of {version.record} bytes; it is cut short or "
            f"another file: get it again {_PAGE}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, version.record)
    for column, count in enumerate(version.labels):
        check_labels(where, records[:, column], count)
    images = records[:, len(version.labels) :].reshape(-1, *_SHAPE).copy()
    return images, records[:, len(version.labels) - 1].astype(np.int64)
