"""Data sets in .npz files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwfault.errors import FileError
from hwfault.npz import read_arrays
from hwfault.train.data.dataset import Dataset

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_LARGEST = 4 << 30
_TYPES: dict[str, np.dtype[Any]] = {"x": np.dtype(np.float32), "y": np.dtype(np.int64)}


def load_npz(path: Path | str) -> Dataset:
    """The arrays x_train, y_train, x_test and y_test of an .npz file; inputs become float32 unscaled, labels int64.

    Nothing in the file is run, and memory is taken only after its headers, and then the data set, are known to need at
    most 4 GiB. Raises FileError.
    """
    arrays = read_arrays(path, _ARRAYS, _LARGEST)
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise FileError(f"{path}: holds no array {missing[0]!r}, expected {', '.join(_ARRAYS)}")
    needed = sum(arrays[name].size * _TYPES[name[0]].itemsize for name in _ARRAYS)
    if needed > _LARGEST:
        raise FileError(f"{path}: its arrays need {needed} bytes of memory as a data set, expected at most {_LARGEST}")
    try:
        train_x, train_y, test_x, test_y = (torch.from_numpy(_typed(name, arrays.pop(name))) for name in _ARRAYS)
        return Dataset(train_x, train_y, test_x, test_y)
    except FileError as error:
        raise FileError(f"{path}: {error}") from None


def _typed(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array as a data set has it; FileError if labels are no integers of 64 bits."""
    wanted = _TYPES[name[0]]
    if wanted.kind == "i" and array.dtype.kind == "f":
        raise FileError(f"{name} is {array.dtype}, expected integers")
    if wanted.kind == "i" and array.size and array.max() > np.iinfo(np.int64).max:
        raise FileError(f"{name} holds the label {array.max()}, which does not fit 64 bits")
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, which Dataset refuses
        return np.asarray(array, dtype=wanted, order="C")
