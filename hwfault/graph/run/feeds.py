"""The arrays that a graph is to run on: which input each is for, and whether it fits."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwfault.errors import GraphError, nearest
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.npz import read_arrays

_TYPES = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool"}
_TYPES |= {name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")}

Named = tuple[str, str, NDArray[Any]]  # where it is from, its name or "", the array


def read_feeds(session: onnxruntime.InferenceSession, sources: Sequence[str]) -> dict[str, NDArray[Any]]:
    """An array for each input of a session (but seed and sample number), from `FILE` or `NAME=FILE` each.

    FILE is an .npy or .npz file. An array without a name, or one that no input has, goes to the single input that is
    left. Integers and shorter floats become the input's type where that changes no value. Raises GraphError for inputs
    without an array and arrays that fit none, FileError for files that hold no arrays.
    """
    wanted = {entry.name: entry for entry in session.get_inputs() if entry.name not in (SEED, FIRST_SAMPLE)}
    feeds: dict[str, NDArray[Any]] = {}
    spare: list[Named] = []
    for where, name, array in (named for source in sources for named in _arrays(source, wanted)):
        if name not in wanted:
            spare.append((where, name, array))
        elif name in feeds:
            raise GraphError(f"{where}: a second array for the input {name!r}, expected one for each")
        else:
            feeds[name] = _fitted(where, array, wanted[name])
    left = [name for name in wanted if name not in feeds]
    if len(spare) == len(left) == 1:
        ((where, _, array),) = spare
        feeds[left[0]] = _fitted(where, array, wanted[left[0]])
    elif spare and not left:
        raise GraphError(f"{spare[0][0]}: one array too many, the graph's inputs are {', '.join(wanted)}")
    elif spare:
        where, name, _ = spare[0]
        hint = nearest(name, wanted) if name else f"the inputs are {', '.join(wanted)}: write --input NAME={where}"
        raise GraphError(f"{where}: for which input is its array{name and ' ' + repr(name)}? {hint}")
    elif left:
        raise GraphError(f"no array for the graph's input {left[0]!r}; give --input {left[0]}=FILE")
    return feeds


def _arrays(source: str, wanted: dict[str, Any]) -> list[Named]:
    name, given, path = source.rpartition("=") if not os.path.exists(source) else ("", "", source)
    if given and name not in wanted:
        raise GraphError(f"--input {source}: the graph has no input {name!r}: {nearest(name, wanted)}")
    arrays = read_arrays(path)
    if given and len(arrays) != 1:
        raise GraphError(f"--input {source}: the file holds {len(arrays)} arrays ({', '.join(arrays)}), expected one")
    return [(path, name or own, array) for own, array in arrays.items()]


def _fitted(where: str, array: NDArray[Any], entry: Any) -> NDArray[Any]:
    """The array in the type of a session's input; raises GraphError if its type or shape is not the input's."""
    kind = entry.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _TYPES:
        raise GraphError(f"the input {entry.name!r} is a {entry.type}, expected a tensor of numbers")
    return fitted(f"{where}:", array, entry.name, np.dtype(_TYPES[kind]), entry.shape or None)


def fitted(
    where: str, array: NDArray[Any], name: str, expected: np.dtype[Any], shape: Sequence[object] | None
) -> NDArray[Any]:
    """The array in the type that the input `name` expects; raises GraphError, which begins with `where`.

    Its shape has to have the extents of `shape` that are integers (None: any shape will do).
    """
    if not np.can_cast(array.dtype, expected, "safe"):
        raise GraphError(
            f"{where} holds {array.dtype}, but the input {name!r} takes {expected}; convert it before "
            f"(array.astype(numpy.{expected}))"
        )
    if shape is not None and not _has_extents(array.shape, shape):
        wanted = ", ".join(str(extent) if isinstance(extent, int) else "any" for extent in shape)
        raise GraphError(f"{where} has shape {array.shape}, but the input {name!r} takes ({wanted})")
    return array.astype(expected, copy=False)


def _has_extents(shape: Sequence[int], wanted: Sequence[object]) -> bool:
    """Whether a shape has the extents that are integers among those wanted."""
    if len(shape) != len(wanted):
        return False
    return all(have == want for have, want in zip(shape, wanted, strict=True) if isinstance(want, int))
