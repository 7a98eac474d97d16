"""The one input of a clean graph, and the samples that were read for it."""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.struck import fault_nodes

Array = NDArray[Any]


class GraphInput(NamedTuple):
    """The one input of a clean graph: its name, type, and the shape of a batch, None for an extent that is open.

    `shape` is None where the graph does not say it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @classmethod
    def of(cls, graph: ModelProto) -> Self:
        """A graph's one input; raises GraphError for a graph of several or none, and for one that carries faults."""
        held = {tensor.name for tensor in graph.graph.initializer}
        found = [info for info in graph.graph.input if info.name not in held]
        if fault_nodes(graph) or {SEED, FIRST_SAMPLE} & {info.name for info in found}:
            raise GraphError(
                "the graph carries faults already, so that it has no golden run; take them out (hwfault strip) and "
                "give them as --plan or --faults"
            )
        if len(found) != 1:
            raise GraphError(f"the graph has the inputs {[info.name for info in found]}, expected one: the samples")
        kind = found[0].type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = tuple(e.dim_value if e.HasField("dim_value") else None for e in kind.shape.dim)
        return cls(found[0].name, np.dtype(dtype), shape if kind.HasField("shape") else None)

    @property
    def batch(self) -> int | None:
        """How many samples the graph takes at a time; None: any number."""
        return None if not self.shape else self.shape[0]

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


class Samples(NamedTuple):
    """Inputs (n, ...) in the type that the graph takes, and their labels (n,), None where nobody knows them.

    `classes` are the names of all classes, in the order of their numbers, where these are known.
    """

    inputs: Array
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None = None
