"""Injection sites: the named places in a network where a tensor of quantized integers lives."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from hwfault.program.batch_axes import PLAIN, BatchAxis
from hwfault.program.selectors import SiteKind
from hwfault.records import Record


class Site(Record):
    """A named place where a tensor of quantized integers lives; `shape` is None as long as it is not known.

    `shape` is that of one sample. `batch` says where the samples of a batch lie; None: along axis 0, one row for each.

    An accumulator has more: `worst_case` (the bits that its largest sum needs), `weights` (the shape of its layer's),
    and `source`, the site whose integers feed the layer (None: they come with a scale of their own).

    `runs` says how many times the quantizer or layer of an activation, input or accumulator runs in one forward of the
    example, which are as many sites: `q`, `q#1`, ... (hwfault.program.names). None is once, or, as long as there is no
    shape, not known. `aliases` are the names under which other layers read the same words of a parameter.
    """

    name: str
    kind: SiteKind
    bit_width: Annotated[int, Field(ge=1, le=32)]
    signed: bool
    layer: str = ""
    shape: tuple[int, ...] | None = None
    source: str | None = None
    weights: tuple[int, ...] | None = None
    worst_case: int | None = None
    batch: BatchAxis | None = None
    runs: Annotated[int, Field(ge=2, le=1 << 16)] | None = None
    aliases: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @field_validator("batch")
    @classmethod
    def _unsaid(cls, batch: BatchAxis | None) -> BatchAxis | None:
        return None if batch is None or batch.plain else batch

    @model_validator(mode="after")
    def _has_the_axis(self) -> Self:
        if self.batch is None:
            return self
        if not self.batched:
            raise ValueError(f"site {self.name!r}: a {self.kind} has no batch axis, expected none")
        if self.shape is not None and not _fits(self.batch, self.shape):
            raise ValueError(f"site {self.name!r}: a sample of the shape {list(self.shape)} has not {self.batch}")
        return self

    @property
    def batch_axis(self) -> BatchAxis:
        """Where the samples of a batch lie, said or not."""
        return self.batch or PLAIN

    @property
    def batched(self) -> bool:
        """Whether it holds a batch, each element a sample of its own; parameters are one sample as a whole."""
        return self.kind in ("activation", "input", "accumulator")

    @property
    def words(self) -> int | None:
        """How many words a sample has, None as long as the shape is not known."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def known_runs(self) -> int | None:
        """How many times its quantizer or layer runs in one forward; None as long as no example has shown it."""
        return self.runs or (None if self.shape is None else 1)


def _fits(batch: BatchAxis, shape: tuple[int, ...]) -> bool:
    """Whether a sample's shape has the rows that the batch axis says."""
    if batch.rows == 1:
        return batch.axis <= len(shape)
    return batch.axis < len(shape) and shape[batch.axis] == batch.rows


class SiteList(list[Site]):
    """Sites, and `obstacles`: why other quantizers and accumulators are none, by the name that they would have.

    `notes` say, by the name of a site, what is worth knowing of it, as why one parameter is two memories.
    """

    def __init__(
        self,
        sites: Iterable[Site],
        obstacles: Mapping[str, str] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sites)
        self.obstacles = dict(obstacles or {})
        self.notes = dict(notes or {})
