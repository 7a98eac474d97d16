"""Sessions on buffers of their own: rows are put in, computed and read, and no memory is taken anew for a batch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ValueInfoProto, helper

from hwfault.errors import GraphError

Array = NDArray[Any]


class Kind(NamedTuple):
    """The type of a tensor, and the shape of what it holds for one image."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What it takes for one image."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def describe(self, name: str) -> ValueInfoProto:
        """The tensor as an input of a graph, for any number of images."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        return helper.make_tensor_value_info(name, kind, ["batch", *self.shape])

    def empty(self, rows: int) -> Array:
        return np.empty((rows, *self.shape), self.dtype)


NUMBER = Kind(np.dtype(np.int64), ())
"""A seed or a sample number."""


class Runner:
    """A session with a buffer for each of its inputs and outputs: of some, a row for each row of a batch.

    `fixed` are those inputs and outputs that all rows share. What is not an input of the session is left out.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, Kind],
        outputs: Mapping[str, Kind],
        rows: int,
        fixed: Mapping[str, Array],
    ) -> None:
        self._session = session
        taken = {entry.name for entry in session.get_inputs()}
        self.inputs = {name: kind.empty(rows) for name, kind in inputs.items() if name in taken}
        self.outputs = {name: kind.empty(rows) for name, kind in outputs.items()}
        made = {entry.name for entry in session.get_outputs()}
        self._fixed_inputs = {name: values for name, values in fixed.items() if name in taken}
        self._fixed_outputs = {name: values for name, values in fixed.items() if name in made}
        self._bound: dict[int, Any] = {}

    def run(self, rows: int) -> None:
        """Computes the outputs of the first rows; raises GraphError for what onnxruntime says."""
        if rows not in self._bound:
            if len(self._bound) > 1:  # full batches, and one of another size
                self._bound.pop(list(self._bound)[-1])
            self._bound[rows] = self._bind(rows)
        try:
            self._session.run_with_iobinding(self._bound[rows])
        except Exception as error:
            raise GraphError(f"onnxruntime cannot run a part of the graph on this batch: {error}") from None

    def _bind(self, rows: int) -> Any:
        binding = self._session.io_binding()
        for name, values in self.inputs.items():
            _bind(binding.bind_input, name, values[:rows])
        for name, values in self._fixed_inputs.items():
            _bind(binding.bind_input, name, values)
        for name, values in self.outputs.items():
            _bind(binding.bind_output, name, values[:rows])
        for name, values in self._fixed_outputs.items():
            _bind(binding.bind_output, name, values)
        return binding


def _bind(bind: Any, name: str, values: Array) -> None:
    bind(name, "cpu", 0, values.dtype, list(values.shape), values.ctypes.data)
