"""The samples that a graph is measured on: inputs and labels from a file or a folder, as its one input takes them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError
from hwfault.graph.run.feeds import fitted
from hwfault.graph.run.graph_input import GraphInput, Samples
from hwfault.graph.run.image_samples import read_images
from hwfault.npz import read_arrays

_LARGEST = 4 << 30

Array = NDArray[Any]


def read_samples(path: Path | str, wanted: GraphInput, first: int | None = None) -> Samples:
    """The samples in a file or folder, or the `first` so many of them, for the input of a graph.

    A folder holds images (`hwfault.graph.run.image_samples`). An .npz file holds x (inputs, samples along axis 0) and,
    where they are known, y (labels: the class's number); integers and shorter floats become the input's type where that
    changes no value. Raises FileError for a file that holds something else, GraphError for inputs that the graph does
    not take.
    """
    if Path(path).is_dir():
        return read_images(Path(path), wanted, first)
    arrays = read_arrays(path, ("x", "y"), _LARGEST)
    if "x" not in arrays:
        raise FileError(f"{path}: holds no array 'x', expected x (inputs) and, to tell right answers, y (labels)")
    x = arrays["x"]
    if x.ndim < 1 or not len(x):
        raise FileError(f"{path}: x holds no samples, expected at least one")
    count = len(x) if first is None else min(first, len(x))
    labels = _labels(path, arrays.get("y"), len(x))
    shape = None if wanted.shape is None else (None, *wanted.shape[1:])
    inputs = fitted(f"{path}: x", x[:count], wanted.name, wanted.dtype, shape)
    return Samples(inputs, None if labels is None else labels[:count])


def _labels(path: Path | str, found: Array | None, count: int) -> NDArray[np.int64] | None:
    """The labels of so many samples; raises FileError for what are none."""
    if found is None:
        return None
    if found.dtype.kind not in "iuf" or found.shape != (count,):
        raise FileError(f"{path}: y is {found.dtype} of shape {found.shape}, expected integers ({count},)")
    # NaN is no whole number; infinities round to themselves
    wrong = np.flatnonzero((found != np.round(found)) | (found < 0) | np.isinf(found))
    if len(wrong):
        raise FileError(f"{path}: the label of sample {wrong[0]} is {found[wrong[0]]}, expected a class's number")
    return found.astype(np.int64)
