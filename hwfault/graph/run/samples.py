"""The samples that a graph is measured on: inputs and labels from a file or a folder, as its inputs take them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError, GraphError, nearest
from hwfault.graph.run.feeds import fitted
from hwfault.graph.run.graph_input import GraphInput, GraphInputs, InputArrays, Samples
from hwfault.graph.run.image_samples import read_images
from hwfault.npz import array_names, read_arrays

_LARGEST = 4 << 30
_INPUTS, _LABELS = "x", "y"

Array = NDArray[Any]


def read_samples(path: Path | str, wanted: GraphInputs, first: int | None = None) -> Samples:
    """The samples in a file or folder, or the `first` so many of them, for the inputs of a graph.

    A folder holds images (`hwfault.graph.run.image_samples`). An .npz file holds the inputs, samples along axis 0, and,
    where they are known, y (labels: the class's number). The inputs of a graph are called as it calls them; that of a
    graph of one input may be x. Integers and shorter floats become an input's type where that changes no value. Raises
    FileError for a file that holds something else, GraphError for inputs that the graph does not take.
    """
    if Path(path).is_dir():
        return read_images(Path(path), _one(path, wanted), first)
    names = {entry.name: entry for entry in wanted.each}
    single = {_INPUTS: wanted.each[0]} if len(names) == 1 else {}
    arrays = read_arrays(path, (*names, *single, _LABELS), _LARGEST)
    if single.keys() & arrays.keys():
        names = single
    _check_names(names)
    _check_there(path, names, arrays)
    total = _count(path, {name: arrays[name] for name in names})
    count = total if first is None else min(first, total)
    inputs = {entry.name: _fitted(path, name, arrays[name][:count], entry) for name, entry in names.items()}
    labels = _labels(path, arrays.get(_LABELS), total)
    return Samples(InputArrays(inputs), None if labels is None else labels[:count])


def _one(path: Path | str, wanted: GraphInputs) -> GraphInput:
    """The one input of a graph that takes images; raises GraphError for several."""
    if len(wanted.each) != 1:
        raise GraphError(
            f"{path}: a folder of images is for a graph of one input, but this one has the inputs {wanted.names}; "
            "write the samples into an .npz file, an array for each input by its name"
        )
    return wanted.each[0]


def _check_names(names: Collection[str]) -> None:
    """Raises GraphError where an input is called as the labels are."""
    if _LABELS in names:
        raise GraphError(
            f"the graph has an input {_LABELS!r}, which is what labels are called; expected another name: rename the "
            f"input, or give that of a graph with one input as {_INPUTS}"
        )


def _check_there(path: Path | str, names: Mapping[str, GraphInput], arrays: Mapping[str, Array]) -> None:
    """Raises FileError for an input without an array."""
    missing = [name for name in names if name not in arrays]
    if not missing:
        return
    if len(names) == 1:
        own = "" if missing[0] == _INPUTS else f", or {missing[0]!r} as the graph calls them"
        raise FileError(
            f"{path}: holds no array {_INPUTS!r}, expected {_INPUTS} (inputs{own}) and, to tell right answers, "
            f"{_LABELS} (labels)"
        )
    others = [name for name in array_names(path) if name not in (*names, _LABELS)]
    hint = f"; for which input is {others[0]!r}? {nearest(others[0], missing)}" if others else ""
    raise FileError(
        f"{path}: holds no array {missing[0]!r}, expected one for each input of the graph, by its name "
        f"({', '.join(names)}){hint}"
    )


def _count(path: Path | str, inputs: Mapping[str, Array]) -> int:
    """How many samples the inputs hold; raises FileError for none, and where one has more than another."""
    lengths = {name: len(values) if values.ndim else 0 for name, values in inputs.items()}
    for name, length in lengths.items():
        if not length:
            raise FileError(f"{path}: {name} holds no samples, expected at least one")
    (first, count), *rest = lengths.items()
    for name, length in rest:
        if length != count:
            raise FileError(
                f"{path}: {first} holds {count} samples, but {name} {length}; expected a row of each for every sample"
            )
    return count


def _fitted(path: Path | str, name: str, values: Array, wanted: GraphInput) -> Array:
    """An array in the type of its input; raises GraphError where its type or the shape of a sample is another."""
    shape = None if wanted.shape is None else (None, *wanted.shape[1:])
    return fitted(f"{path}: {name}", values, wanted.name, wanted.dtype, shape)


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
