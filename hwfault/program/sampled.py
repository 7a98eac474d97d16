"""Faulty cells in single samples, and of parameters in single training steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, PlainSerializer, PlainValidator

from hwfault.codes import Representation
from hwfault.errors import ModelError
from hwfault.program.drawing import cell_draws
from hwfault.program.draws import Draws, PlaneHits, When, in_every_row
from hwfault.program.mapped import Uint32, count_kinds
from hwfault.program.means import Mean
from hwfault.program.periods import Changes, Period, changes_of
from hwfault.program.sites import Site
from hwfault.program.striking import StrikingProcess
from hwfault.program.telling import Cells
from hwfault.stream.fault_map import ALL_ONES, FaultMap
from hwfault.stream.protection import MapRows
from hwfault.stream.sampled_map import SampledMap
from hwfault.stream.tables import SAMPLED, Table

_ROWS = ("sample", "word", "and_mask", "xor_mask")


def _read_map(value: Any) -> SampledMap:
    if isinstance(value, SampledMap):
        return value
    if not isinstance(value, dict) or value.keys() != {"bit_width", "words", *_ROWS}:
        raise ValueError(f"not a map of single samples: expected bit_width, words and the lists {', '.join(_ROWS)}")
    try:
        rows = [np.asarray(value[key]) for key in _ROWS]
        return SampledMap(int(value["bit_width"]), int(value["words"]), *rows)
    except (TypeError, OverflowError, ValueError, ModelError) as error:
        raise ValueError(f"not a map of single samples: {error}") from None


def _write_map(value: SampledMap) -> dict[str, Any]:
    rows = {key: getattr(value, key).tolist() for key in _ROWS}
    return {"bit_width": value.bit_width, "words": value.words, **rows}


class SampledProcess(StrikingProcess):
    """Faulty cells of one site, each in the one sample that its row names; of a parameter in the one training step.

    `refresh` says by what number of a sample its rows are chosen: by its own ("number", of a parameter the step, which
    is 0 in evaluation), or by that of a refresh period. Nothing is drawn.
    """

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["sampled"] = "sampled"
    map: Annotated[SampledMap, PlainValidator(_read_map), PlainSerializer(_write_map)]
    refresh: Period = "number"
    representation: Representation | None = None

    @property
    def permanent(self) -> bool:
        return False

    @property
    def joins(self) -> bool:
        """Its rows are of other samples than a neighbour's."""
        return False

    @property
    def rows(self) -> MapRows:
        """The rows as engines take them."""
        return MapRows(self.map.key, self.map.and_mask, self.map.xor_mask, SAMPLED, self.site_number)

    def active(self, seed: int, period: int) -> FaultMap:
        """The rows of a period, as a map."""
        return self.map.at(period)

    def draws(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws:
        periods = when.periods(self.refresh, site.batched)
        found = in_every_row({n: cell_draws(*self.map.at(n).cells()) for n in set(periods.tolist())}, periods)
        return found.those(found.word < words)

    def never(self, tables: Sequence[Table]) -> bool:
        return len(self.map) == 0

    def varies(self, tables: Sequence[Table]) -> bool:
        return False

    def changes_with(self, batched: bool) -> Changes:
        return changes_of(self.refresh, batched)

    def in_each_sample(self, batched: bool) -> bool:
        """Its cells are counted once: no two samples have the same."""
        return False

    def reads_stored(self, tables: Sequence[Table] = ()) -> bool:
        """Whether a cell is stuck, so that the code stored decides."""
        return bool(np.any(self.map.and_mask | ~np.uint32((1 << self.map.bit_width) - 1) != ALL_ONES))

    def mean(self, site: Site, tables: Sequence[Table]) -> Mean | None:
        """None, where a trial reads none of its samples, to all of its cells."""
        return Mean(0, len(self.map.cells()[0]))

    def describe(self, tables: Sequence[Table]) -> str:
        return self.row.words

    @property
    def cell_kinds(self) -> Cells | None:
        return count_kinds(self.map.cells()[3])

    def check(self, site: Site) -> None:
        if self.map.bit_width != site.bit_width or site.words not in (None, self.map.words):
            raise ValueError(
                f"site {site.name!r}: faulty cells of {self.map.words} words of {self.map.bit_width} bits for "
                f"{site.words} words of {site.bit_width} bits"
            )

    def in_plane(self, bit: int, never: int) -> Self | None:
        rows, plane = self.map, np.uint32(1 << bit) if bit < self.map.bit_width else np.uint32(0)
        and_mask, xor_mask = rows.and_mask | (ALL_ONES ^ plane), rows.xor_mask & plane
        left = (and_mask != ALL_ONES) | (xor_mask != 0)
        columns = {"sample": rows.sample, "word": rows.word, "and_mask": and_mask, "xor_mask": xor_mask}
        kept = replace(rows, **{key: column[left] for key, column in columns.items()})
        return self.model_copy(update={"map": kept}) if len(kept) else None
