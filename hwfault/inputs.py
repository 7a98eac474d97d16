"""Opening what is read: regular files only, as a pipe or a device may have no end, or no beginning."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from hwfault.errors import FileError, expect_kind

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path | str) -> BufferedReader:
    """The regular file of this name (or behind a link of it), open for reading, as bytes.

    Nothing else is opened, not even for a moment. Raises FileError for a pipe, device or socket and for a name that no
    file can have, OSError for what else cannot be opened, a folder among it.
    """
    check_regular(path)
    # O_NONBLOCK: if a pipe took the file's place just now, its opening must not wait for a writer
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _check(path, os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return open(handle, "rb")


def check_regular(path: Path | str) -> int:
    """The size of a regular file, for those who let a library open it by its name; raises as `open_regular` does."""
    expect_kind(path, (str, os.PathLike), "a file", "a path")
    if "\0" in str(path):
        raise FileError(f"{str(path)!r} cannot be the name of a file")
    status = os.stat(path)
    _check(path, status)
    return status.st_size


def _check(path: Path | str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise FileError(f"{path}: is {kind}, expected a regular file; write what it gives into one, and name that")


def refuse_bundle(path: Path | str, expected: str) -> None:
    """Raises FileError, which says what was `expected`, for a bundle: an archive .zip, or a folder with a manifest."""
    path = Path(path)
    archive = path.suffix == ".zip" and path.is_file()
    if archive or (path / "manifest.json").is_file():
        inside = "unpack it for the graphs in it" if archive else "its graphs lie in it"
        raise FileError(
            f"{path}: is a bundle, expected {expected}; `hwfault replay {path}` takes it as it is, or {inside}"
        )


def read_regular(path: Path | str, largest: int, expected: str) -> bytes:
    """The content of a regular file of at most `largest` bytes; raises FileError, which says what was `expected`."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise FileError(f"{path}: {size} bytes, expected {expected} of at most {largest}")
            return file.read(largest)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); expected {expected}") from None
