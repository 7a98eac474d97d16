"""Where the samples of a batch lie in a tensor: the one rule, for every engine (docs/fault-stream.md, section 1).

A tensor has its samples along one axis, `rows` rows for each, of which `inner` lie together. With B samples

    extent of the axis = B * rows        sample of row r = (r div inner) mod B

and the words of a sample are numbered in C order of the tensor with the sample's index taken out: the rows of a sample
keep their order, and so do all other axes. Axis 0 with one row for each sample is what a batch is everywhere else.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from hwfault.errors import PlanError
from hwfault.records import Record

Words = NDArray[Any]
Extent = TypeVar("Extent", bound=int | None)
Count = Annotated[int, Field(ge=1, le=1 << 31)]


class BatchAxis(Record):
    """The axis that holds the samples, how many rows of it lie together for one, and how many each has in all."""

    axis: Annotated[int, Field(ge=0, le=63)] = 0
    inner: Count = 1
    rows: Count = 1

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.rows % self.inner:
            raise ValueError(f"{self.rows} rows for each sample, {self.inner} of them together; expected a multiple")
        return self

    @property
    def plain(self) -> bool:
        """Whether it is axis 0 with one row for each sample, which sites leave unsaid."""
        return (self.axis, self.rows) == (0, 1)

    def __str__(self) -> str:
        if self.rows == 1:
            return f"samples along axis {self.axis}"
        together = "all together" if self.inner == self.rows else f"{self.inner} together"
        return f"{self.rows} rows of each sample along axis {self.axis}, {together}"

    def samples_in(self, shape: Sequence[int], name: str) -> int:
        """How many samples a tensor of the site `name` holds; raises PlanError for a shape that has none of them."""
        if self.axis >= len(shape) or shape[self.axis] % self.rows:
            raise PlanError(
                f"the values of {name!r} have the shape {tuple(shape)}, which does not hold {self}; resolve the faults "
                "against this network again"
            )
        return int(shape[self.axis]) // self.rows

    def sample_shape(self, shape: Sequence[Extent]) -> tuple[Extent | int, ...]:
        """The shape of one sample of a tensor: without the axis where it has one row, with `rows` of it elsewhere."""
        rows = (self.rows,) if self.rows > 1 else ()
        return (*shape[: self.axis], *rows, *shape[self.axis + 1 :])


PLAIN = BatchAxis()
"""What a site without a word on its batch axis has."""


class Arrangement(NamedTuple):
    """How a tensor is turned into one with its samples in front, (B, *shape of a sample), and back again."""

    split: tuple[int, ...]
    """The shape with the axis taken apart: (before, groups of rows, B, inner, behind)."""
    order: tuple[int, ...]
    """The axes of `split` with B in front."""
    arranged: tuple[int, ...]
    back: tuple[int, ...]
    """The axes of the split shape in `order`, in their own places again."""
    shape: tuple[int, ...]

    @property
    def swapped(self) -> tuple[int, ...]:
        """The shape of `split` after `order`."""
        return tuple(self.split[axis] for axis in self.order)


def arrangement(shape: Sequence[int], batch: BatchAxis, name: str = "a site") -> Arrangement:
    """How a tensor of this shape is arranged; raises PlanError for a shape that `batch` does not fit."""
    samples = batch.samples_in(shape, name)
    axis, groups = batch.axis, batch.rows // batch.inner
    split = (*shape[:axis], groups, samples, batch.inner, *shape[axis + 1 :])
    order = (axis + 1, *(i for i in range(len(split)) if i != axis + 1))
    back = tuple(order.index(i) for i in range(len(split)))
    return Arrangement(split, order, (samples, *batch.sample_shape(shape)), back, tuple(shape))


def grid_shape(
    given: Sequence[int], shape: Sequence[int], batch: BatchAxis, what: str, name: str = "a site"
) -> tuple[int, ...]:
    """The shape in which a scale or zero point (of shape `given`) lies along an arranged tensor.

    It has one value, or values along axes other than the batch's; raises PlanError for values along that one.
    """
    aligned = (*[1] * (len(shape) - len(given)), *given)
    if len(aligned) > len(shape) or aligned[batch.axis] != 1:
        raise PlanError(
            f"the {what} of {name!r} has the shape {tuple(given)} for values of the shape {tuple(shape)} with {batch}; "
            "expected one value, or one for each channel of an axis that holds no samples"
        )
    rows = (1,) if batch.rows > 1 else ()
    return (1, *aligned[: batch.axis], *rows, *aligned[batch.axis + 1 :])


def arrange(values: Words, batch: BatchAxis) -> Words:
    """An array with its samples in front, (B, *shape of a sample), C-contiguous."""
    how = arrangement(values.shape, batch)
    return np.ascontiguousarray(values.reshape(how.split).transpose(how.order)).reshape(how.arranged)


def restore(arranged: Words, shape: Sequence[int], batch: BatchAxis) -> Words:
    """The array of the given shape whose samples `arrange` brought in front."""
    how = arrangement(shape, batch)
    return np.ascontiguousarray(arranged.reshape(how.swapped).transpose(how.back)).reshape(how.shape)


def in_rows(values: Words, batched: bool, batch: BatchAxis | None = None) -> Words:
    """The words of a tensor as (samples, words), those of a parameter, which is not `batched`, as one row."""
    arranged = arrange(values, batch or PLAIN) if batched else values[None]
    return arranged.reshape(len(arranged), math.prod(arranged.shape[1:]))


def from_rows(rows: Words, shape: Sequence[int], batched: bool, batch: BatchAxis | None = None) -> Words:
    """The tensor of the given shape that `in_rows` made rows of."""
    return restore(rows, shape, batch or PLAIN) if batched else rows.reshape(tuple(shape))
