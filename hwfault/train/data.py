"""Data sets: inputs and labels to train on and to hold out, checked once."""

import lzma
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwfault.errors import FileError, HwfaultError
from hwfault.train.spec import call_named

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_LARGEST = 4 << 30
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_HELD_OUT_DIGITS = 360
_TYPES: dict[str, np.dtype[Any]] = {"x": np.dtype(np.float32), "y": np.dtype(np.int64)}


@dataclass(frozen=True)
class Dataset:
    """Inputs (n, ...) float32 and labels (n,) int64 from 0 to classes - 1, for training and held out for tests.

    Raises FileError if shapes, types or values are otherwise; `classes` 0 (the default) means one more than the
    largest label.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int = 0

    def __post_init__(self) -> None:
        _check_part("train", self.train_x, self.train_y)
        _check_part("test", self.test_x, self.test_y)
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            train, test = tuple(self.train_x.shape), tuple(self.test_x.shape)
            raise FileError(f"train_x has shape {train} but test_x {test}, expected the same after the first axis")
        largest = int(max(self.train_y.max(), self.test_y.max()))
        object.__setattr__(self, "classes", self.classes or largest + 1)
        if largest >= self.classes:
            raise FileError(f"there is a label {largest}, expected 0 to {self.classes - 1} for {self.classes} classes")


def _check_part(part: str, x: Tensor, y: Tensor) -> None:
    if x.dtype != torch.float32 or y.dtype != torch.int64:
        raise FileError(f"{part}_x is {x.dtype} and {part}_y {y.dtype}, expected float32 inputs and int64 labels")
    if x.dim() < 2 or y.dim() != 1 or len(x) != len(y) or x.numel() == 0:
        raise FileError(
            f"{part}_x has shape {tuple(x.shape)} and {part}_y {tuple(y.shape)}, expected (n, ...) and (n,), not empty"
        )
    if not torch.isfinite(x).all():
        raise FileError(f"{part}_x holds values that are NaN, infinite or too large for float32; remove them")
    if int(y.min()) < 0:
        index = int(y.argmin())
        raise FileError(f"{part}_y[{index}] is {int(y[index])}, expected labels from 0")


def load(spec: str) -> Dataset:
    """The data that `spec` names: "digits", a path that ends in .npz, or "module:function" that returns a Dataset.

    Raises FileError for a file or data that cannot be used, HwfaultError for a name that is unknown.
    """
    if spec.endswith(".npz"):
        return load_npz(spec)
    data = call_named("data", spec, {"digits": digits}, {})
    if not isinstance(data, Dataset):
        raise HwfaultError(
            f"data {spec!r}: the function returned {type(data).__name__}, expected hwfault.train.Dataset"
        )
    return data


def digits() -> Dataset:
    """scikit-learn's bundled 8 x 8 digits, (n, 1, 8, 8) in sixteenths from 0 to 1; always the same 360 held out."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.float32) / 16).unsqueeze(1)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(y)))
    test, train = order[:_HELD_OUT_DIGITS], order[_HELD_OUT_DIGITS:]
    return Dataset(x[train], y[train], x[test], y[test], classes=10)


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
