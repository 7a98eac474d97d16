"""Published data sets in local folders: what is expected where, and reading no more than was expected."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError, HwfaultError


@dataclass(frozen=True)
class Source:
    """A published data set: its name in specs and in print, the files it takes, places to look in, where to get it."""

    name: str
    title: str
    files: tuple[str, ...]
    places: tuple[str, ...]
    """Folders below the given one, "" for itself, in the order they are looked in."""
    origin: str

    def folder(self, folder: Path | str | None) -> Path:
        """The given folder; raises HwfaultError if there was none, FileError if there is none."""
        if folder is None:
            raise HwfaultError(f"data {self.name!r}: no data folder was given; {self._expected()}")
        if not Path(folder).is_dir():
            raise FileError(f"{folder}: there is no such folder; data {self.name!r}: {self._expected()}")
        return Path(folder)

    def missing(self, folder: Path, found: str = "") -> FileError:
        """The error that the folder does not hold the files, with what was found instead."""
        return FileError(f"{folder}: {self.title} is not here{found}; {self._expected()}")

    def _expected(self) -> str:
        below = [f"in {place} below it" for place in self.places if place]
        return (
            f"expected {', '.join(self.files)} {' or '.join(['in the folder itself', *below])}. "
            f"Nothing is downloaded: get {self.origin}"
        )


def read_at_most(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes, whose size is looked at first; raises FileError."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size > limit:
            what = f"has {size} bytes" if path.is_file() else "is not a file"
            raise FileError(f"{path}: {what}, expected a file of at most {limit} bytes")
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_labels(where: Path | str, labels: NDArray[np.uint8], count: int) -> None:
    """Raises FileError, with the sample's number, if one of the labels (not empty) is not below `count`."""
    at = int(labels.argmax())
    if labels[at] >= count:
        raise FileError(f"{where}: sample {at} has the label {labels[at]}, expected 0 to {count - 1}")
