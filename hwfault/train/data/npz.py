"""Data sets in .npz files."""

import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwfault.errors import FileError
from hwfault.train.data.dataset import Dataset

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_LARGEST = 4 << 30
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_TYPES: dict[str, np.dtype[Any]] = {"x": np.dtype(np.float32), "y": np.dtype(np.int64)}


def load_npz(path: Path | str) -> Dataset:
    """The arrays x_train, y_train, x_test and y_test of an .npz file; inputs become float32 unscaled, labels int64.

    Nothing in the file is run, and memory is taken only after its headers add up to at most 4 GiB. Raises FileError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            train_x, train_y, test_x, test_y = (torch.from_numpy(array) for array in _read_arrays(archive))
        return Dataset(train_x, train_y, test_x, test_y)
    except FileError as error:
        raise FileError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise FileError(f"{path}: there is no such file; expected an .npz file with {', '.join(_ARRAYS)}") from None
    except _BROKEN as error:
        raise FileError(
            f"{path}: not a readable .npz file ({str(error) or type(error).__name__}); write it with numpy.savez"
        ) from None


def _read_arrays(archive: zipfile.ZipFile) -> list[NDArray[Any]]:
    present = archive.namelist()
    if missing := [name for name in _ARRAYS if f"{name}.npy" not in present]:
        raise FileError(f"holds no array {missing[0]!r}, expected {', '.join(_ARRAYS)}; found {present[:8]}")
    memory = sum(_memory_needed(archive, name) for name in _ARRAYS)
    if memory > _LARGEST:
        raise FileError(f"its arrays need {memory} bytes of memory, expected at most {_LARGEST}")
    return [_read_array(archive, name) for name in _ARRAYS]


def _memory_needed(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes of the array and of its copy in the type used, from its header alone; FileError if it is no such array."""
    with archive.open(f"{name}.npy") as stream:
        shape, dtype = _header(stream)
        size = archive.getinfo(f"{name}.npy").file_size - stream.tell()
    wanted = "biu" if name[0] == "y" else "biuf"
    if dtype.kind not in wanted:
        raise FileError(f"{name} is {dtype}, expected {'integers' if wanted == 'biu' else 'numbers'}")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize != size:
        raise FileError(f"{name} has shape {shape} of {dtype} by its header, but {size} bytes of content")
    return size + count * _TYPES[name[0]].itemsize


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise FileError(f"an array has .npy version {version}, expected 1.0 or 2.0")
    shape, _, dtype = readers[version](stream)
    return shape, dtype


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    wanted = _TYPES[name[0]]
    if wanted.kind == "i" and array.size and array.max() > np.iinfo(np.int64).max:
        raise FileError(f"{name} holds the label {array.max()}, which does not fit 64 bits")
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, which Dataset refuses
        return np.asarray(array, dtype=wanted, order="C")
