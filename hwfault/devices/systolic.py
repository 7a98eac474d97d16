"""What runs where in an array of processing elements: the order of accumulation, and what a faulty element touches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwfault.errors import ModelError
from hwfault.stream.layout_arrays import check_folding, check_weight, unfold_input
from hwfault.stream.layouts import Ints, Stored
from hwfault.stream.mapping import FinnMvau, Linear, OutputStationary, WeightStationary

Array = FinnMvau | WeightStationary | OutputStationary
Word = Literal["none", "product", "output"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """How an array sums the K products of one output value of a layer.

    `order` (K,) int64 lists the products, k in C order of (Ci / groups, kernel), in the order of accumulation. `step`
    products are added at once, in one element. A partial sum starts at 0, takes `pass_steps` steps down its chain of
    elements and is added outside to those of the other passes; 0 stands for one pass of all steps in one element.
    The last pass of a chain is filled up with steps that add 0: the sum passes through their elements too.

    The element has row `pe_row` of the product's k, of the number m of the output value among the layer's outputs of
    one channel (C order), or always 0, as `rows_count` says: "product", "output", "none"; and column `pe_column` of n.
    """

    order: Ints
    step: int
    pass_steps: int
    rows: int
    columns: int
    rows_count: Word

    @property
    def steps(self) -> int:
        """Steps of all passes, those that add 0 at the end of the last one included."""
        steps = -(-len(self.order) // self.step)
        if self.pass_steps == 0:
            return steps
        passes = -(-steps // self.pass_steps)
        return passes * self.pass_steps

    @property
    def passes(self) -> int:
        return 1 if self.pass_steps == 0 else self.steps // self.pass_steps

    def pe_row(self, index: Ints | int) -> Ints:
        """Rows of elements, int64 of the shape of `index`: k's or m's, as `rows_count` says."""
        return np.asarray(index, dtype=np.int64) % self.rows

    def pe_column(self, n: Ints | int) -> Ints:
        """Columns of elements, int64 of the shape of the output channels `n`."""
        return np.asarray(n, dtype=np.int64) % self.columns


def schedule(
    mapping: Array | Linear, shape: Sequence[int], groups: int = 1, name: str = "the layer's weight"
) -> Schedule:
    """The schedule of a layer with a weight of `shape` (output channels, inputs / groups, kernel...) on an array.

    Raises ModelError for a linear memory, a shape of less than two axes, groups that do not divide the output
    channels, and a FINN unit whose pe or simd does not divide the weight.
    """
    rows, columns = array_of(mapping)
    weight = Stored(name, tuple(shape), 1)
    check_weight(weight, "an array of processing elements")
    if groups < 1 or weight.channels % groups:
        raise ModelError(f"{groups} groups do not divide the {weight.channels} output channels of {name!r}")
    order = np.arange(math.prod(weight.others), dtype=np.int64)
    if isinstance(mapping, FinnMvau):
        check_folding(weight, mapping.pe, mapping.simd)
        return Schedule(unfold_input(order, weight.others), mapping.simd, 0, rows, columns, "none")
    if isinstance(mapping, WeightStationary):
        return Schedule(order, 1, rows, rows, columns, "product")
    return Schedule(order, 1, 0, rows, columns, "output")


def array_of(mapping: Array | Linear) -> tuple[int, int]:
    """(rows, columns) of a mapping's elements; raises ModelError for a linear memory, which has none."""
    if mapping.elements is None:
        raise ModelError(
            "a linear memory has no processing elements; expected the mapping finn_mvau, weight_stationary or "
            "output_stationary"
        )
    return mapping.elements


def affected_weights(mapping: Array | Linear, shape: Sequence[int], element: int) -> Ints:
    """The words of a weight of `shape` that pass through an element (row * columns + column), ascending int64.

    On an output-stationary array that is every weight of the element's output channels. Raises ModelError as
    `schedule` does, and for an element that the array does not have.
    """
    plan = schedule(mapping, shape)
    row, _ = _position(mapping, element)
    products = np.arange(len(plan.order), dtype=np.int64)
    # only elements that hold weights take some of the products: in others a whole sum stays in one element
    mine = products
    if plan.rows_count == "product":
        mine = products[products % plan.rows == row]
    n = affected_channels(mapping, shape[0], element)
    return (n[:, None] * len(products) + mine).ravel()


def affected_channels(mapping: Array | Linear, channels: int, element: int) -> Ints:
    """The output channels, of `channels`, with sums that pass through an element, ascending int64.

    Raises ModelError for a linear memory or an element that the array does not have.
    """
    _, columns = array_of(mapping)
    _, column = _position(mapping, element)
    return np.arange(column, channels, columns, dtype=np.int64)


def affected_outputs(mapping: Array | Linear, shape: Sequence[int], element: int, channel_axis: int = 0) -> Ints:
    """The words of one output sample of `shape` that are computed through an element, ascending int64.

    `channel_axis` counts the output channels. Raises ModelError for a linear memory or an unknown element.
    """
    row, column = _position(mapping, element)
    rows, columns = array_of(mapping)
    outputs = Stored("the output", tuple(shape), 1, channel_axis)
    n, m = outputs.split(np.arange(outputs.words, dtype=np.int64))
    mine = n % columns == column
    if isinstance(mapping, OutputStationary):
        mine &= m % rows == row  # elsewhere a sum passes through every row of its column
    return np.flatnonzero(mine)


def _position(mapping: Array | Linear, element: int) -> tuple[int, int]:
    rows, columns = array_of(mapping)
    if not 0 <= element < rows * columns:
        raise ModelError(
            f"the array of {rows} x {columns} has no element {element}, expected 0 to {rows * columns - 1}"
        )
    return divmod(element, columns)
