"""Arrays from .npy and .npz files of anybody's, and into them."""

import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError
from hwfault.files import replace_atomically
from hwfault.inputs import open_regular

_BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(
    path: Path | str, names: Collection[str] | None = None, largest: int = 16 << 30
) -> dict[str, NDArray[Any]]:
    """The arrays of numbers in an .npz file by name, or the one in an .npy file, under the empty name.

    `names` are those to read of an .npz file, as many as there are. Nothing is unpickled, and memory is taken only
    after the headers fit the content and add up to at most `largest` bytes. Raises FileError.
    """
    try:
        with open_regular(path) as file:
            return arrays_in(file, names, largest)
    except FileNotFoundError:
        raise FileError(f"{path}: there is no such file; expected an .npy or .npz file") from None
    except OSError as error:
        raise FileError(f"{path}: not a readable .npy or .npz file ({error.strerror or error})") from None
    except FileError as error:
        raise error if str(error).startswith(f"{path}: ") else FileError(f"{path}: {error}") from None


def array_names(path: Path | str) -> list[str]:
    """The names of what an .npz file holds; raises FileError for what is none."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return [info.filename.removesuffix(".npy") for info in archive.infolist()]
    except _BROKEN as error:
        raise FileError(f"{path}: not a readable .npz file ({error})") from None


def arrays_in(
    file: IO[bytes], names: Collection[str] | None = None, largest: int = 16 << 30
) -> dict[str, NDArray[Any]]:
    """The same for an open file, whose name the caller adds to the FileError."""
    try:
        size = file.seek(0, os.SEEK_END)
        archived = zipfile.is_zipfile(file)
        file.seek(0)
        if not archived:
            _check_header(file, size)
            file.seek(0)
            return {"": _read(file)}
        with zipfile.ZipFile(file) as archive:
            return _read_all(archive, names, largest)
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise FileError(f"not a readable .npy or .npz file ({reason}); write it with numpy.save") from None


def _read_all(archive: zipfile.ZipFile, names: Collection[str] | None, largest: int) -> dict[str, NDArray[Any]]:
    found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    wanted = {name: info for name, info in found.items() if names is None or name in names}
    total = sum(info.file_size for info in wanted.values())
    if total > largest:
        raise FileError(f"its arrays need {total} bytes of memory, expected at most {largest}")
    arrays = {}
    for name, info in wanted.items():
        with archive.open(info) as stream:
            _check_header(stream, info.file_size, name)
        with archive.open(info) as stream:  # anew: after a seek some versions of Python look at no checksum
            arrays[name] = _read(stream)
    return arrays


def _check_header(stream: IO[bytes], size: int, name: str = "an array") -> None:
    """Raises FileError for an array that is not one of numbers, or not of as many bytes as there are."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise FileError(f"{name} has .npy version {version}, expected 1.0 or 2.0")
    shape, _, dtype = _HEADERS[version](stream)
    content = size - stream.tell()
    if dtype.kind not in "biuf":
        raise FileError(f"{name} is {dtype}, expected numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != content:
        raise FileError(f"{name} has shape {shape} of {dtype} by its header, but {content} bytes of content")


def _read(stream: IO[bytes]) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def check_target(path: Path | str, count: int) -> None:
    """Raises FileError unless a file of this name can hold so many arrays."""
    suffix = Path(path).suffix
    if suffix != ".npz" and (suffix != ".npy" or count != 1):
        raise FileError(f"{path}: for {count} arrays, expected a file .npz, or .npy for a single one")


def write_arrays(path: Path | str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes one array to an .npy file, or any number to an .npz file, atomically; raises FileError."""
    check_target(path, len(arrays))
    if Path(path).suffix == ".npz":
        return replace_atomically(path, lambda temporary: _save_all(temporary, arrays))
    (array,) = arrays.values()
    return replace_atomically(path, lambda temporary: np.save(temporary, array, allow_pickle=False))


# numpy.savez would take an array called `file` for its own argument
def _save_all(path: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
