"""The inputs of a clean graph, and the samples that were read for them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper

from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.struck import fault_nodes

Array = NDArray[Any]


class GraphInput(NamedTuple):
    """An input of a graph: its name, type, and the shape of a batch, None for an extent that is open.

    `shape` is None where the graph does not say it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @classmethod
    def read(cls, info: ValueInfoProto) -> Self:
        """What a graph says of an input."""
        kind = info.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = tuple(e.dim_value if e.HasField("dim_value") else None for e in kind.shape.dim)
        return cls(info.name, np.dtype(dtype), shape if kind.HasField("shape") else None)

    @property
    def batch(self) -> int | None:
        """How many samples it takes at a time; None: any number."""
        return None if not self.shape else self.shape[0]


class GraphInputs(NamedTuple):
    """The inputs of a clean graph, all of which have the samples along axis 0."""

    each: tuple[GraphInput, ...]

    @classmethod
    def of(cls, graph: ModelProto) -> Self:
        """A graph's inputs; raises GraphError for a graph without any, with one that holds no samples, or with faults.

        A graph that carries faults has no golden run.
        """
        held = {tensor.name for tensor in graph.graph.initializer}
        found = [info for info in graph.graph.input if info.name not in held]
        if fault_nodes(graph) or {SEED, FIRST_SAMPLE} & {info.name for info in found}:
            raise GraphError(
                "the graph carries faults already, so that it has no golden run; take them out (hwfault strip) and "
                "give them as --plan or --faults"
            )
        if not found:
            raise GraphError("the graph has no inputs, expected at least one: the samples")
        inputs = cls(tuple(GraphInput.read(info) for info in found))
        inputs._check_batches()
        return inputs

    def _check_batches(self) -> None:
        first = self.each[0]
        for entry in self.each:
            if entry.shape == () or entry.batch != first.batch:
                told = [f"{own.name!r} {_shape_told(own.shape)}" for own in (first, entry)]
                raise GraphError(
                    f"the graph's inputs {told[0]} and {told[1]} do not take as many samples along axis 0, expected "
                    "inputs that all hold a row for each sample; make the others initializers"
                )

    @property
    def names(self) -> list[str]:
        """What the graph calls them, in its order."""
        return [entry.name for entry in self.each]

    @property
    def batch(self) -> int | None:
        """How many samples the graph takes at a time; None: any number."""
        return self.each[0].batch

    def batch_size(self, asked: int | None, samples: int, otherwise: int) -> int:
        """In batches of how many the samples run: as asked, as the graph has it, or `otherwise`.

        Raises HwfaultError where a graph of a fixed batch is asked for another one, or the samples do not fill the
        last one.
        """
        if self.batch is None:
            return otherwise if asked is None else asked
        if asked not in (None, self.batch):
            raise HwfaultError(f"the graph takes exactly {self.batch} samples at a time, given batches of {asked}")
        if samples % self.batch:
            raise HwfaultError(
                f"the graph takes exactly {self.batch} samples at a time, given {samples} samples; expected a multiple "
                f"({samples - samples % self.batch or self.batch}, say)"
            )
        return self.batch


def _shape_told(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "(of any shape)"
    return f"({', '.join('any' if extent is None else str(extent) for extent in shape)})"


class InputArrays:
    """The samples of a graph's inputs: an array (n, ...) for each, by its name, in the graph's order."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = dict(arrays)

    @classmethod
    def of(cls, given: "Array | Mapping[str, Array] | InputArrays", names: Sequence[str]) -> Self:
        """The samples as they were given, for the inputs of these names: one array is that of the one input.

        Raises HwfaultError for other names, and for arrays of different lengths.
        """
        if isinstance(given, InputArrays):
            given = given.arrays
        if not isinstance(given, Mapping):
            given = {names[0] if len(names) == 1 else "": given}
        if given.keys() != set(names):
            told = [name or "one array without a name" for name in given]
            raise HwfaultError(f"given were {told} for the graph's inputs {list(names)}, expected an array for each")
        found = cls({name: given[name] for name in names})
        found.check_lengths()
        return found

    def check_lengths(self) -> None:
        """Raises HwfaultError unless all arrays hold as many samples."""
        lengths = {name: len(values) if values.ndim else 0 for name, values in self.arrays.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise HwfaultError(f"the inputs do not hold as many samples each: {told}; expected a row for each sample")

    @property
    def only(self) -> Array:
        """The samples of the one input."""
        (values,) = self.arrays.values()
        return values

    def __len__(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.arrays.values())))

    def rows(self, chosen: slice | Array) -> dict[str, Array]:
        """Some samples of each input."""
        return {name: values[chosen] for name, values in self.arrays.items()}

    def split(self, size: int) -> "list[InputArrays]":
        """The samples in batches of a size, the last of which may be smaller."""
        return [InputArrays(self.rows(slice(first, first + size))) for first in range(0, len(self), size)]

    def update_digest(self, digest: Any) -> None:
        """Adds the samples to a hash: those of one input as they lie, of several each behind its name and type."""
        for name, values in self.arrays.items():
            if len(self.arrays) > 1:
                digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values).tobytes())


def fit_names(arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Arrays by the names that a graph has for its inputs, of which a transformation may have renamed some.

    Those that it calls otherwise are in its order; inputs that nothing reads may be gone. Raises GraphError for another
    number of them.
    """
    if set(names) <= arrays.keys():
        return {name: arrays[name] for name in names}
    others = [values for name, values in arrays.items() if name not in names]
    renamed = [name for name in names if name not in arrays]
    if len(others) != len(renamed):
        raise GraphError(
            f"the graph has the inputs {list(names)}, but the samples are of {list(arrays)}; expected the graph of the "
            "network that they belong to"
        )
    return {name: values for name, values in arrays.items() if name in names} | dict(zip(renamed, others, strict=True))


class Samples(NamedTuple):
    """Inputs (n, ...) in the types that the graph takes, and their labels (n,), None where nobody knows them.

    The inputs are one array where the graph has one input, or arrays by its names. `classes` are the names of all
    classes, in the order of their numbers, where these are known.
    """

    inputs: Array | InputArrays
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None = None
