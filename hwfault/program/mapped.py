"""Fault maps in a plan: permanent and intermittent cells, and memories whose words are protected."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from hwfault.codes import Codes, Representation
from hwfault.program.decoding import read_through
from hwfault.program.drawing import Activity, Drawing, active_cells, draw_cells, draw_stream
from hwfault.program.draws import Draws, Ints, PlaneHits, When
from hwfault.program.kinds import BY_NAME
from hwfault.program.means import Mean, exactly, mean_accepted
from hwfault.program.periods import Changes, Refresh, Samples, changes_of
from hwfault.program.sites import Site
from hwfault.program.striking import StrikingProcess, Struck
from hwfault.program.telling import Cells, tell_accepts, tell_probability
from hwfault.stream.fault_map import ALL_ONES, FaultMap, Kinds
from hwfault.stream.fault_map import Kind as CellKind
from hwfault.stream.protection import NO_MAP, Layout, MapRows, Memory
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import ACCEPT_ALL, ALWAYS, Table

__all__ = ["Accept", "MapProcess", "ProtectedProcess", "Refresh", "Samples", "Uint32"]

Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]
Accept = Annotated[int, Field(ge=0, le=ACCEPT_ALL)]
Threshold = Annotated[int, Field(ge=0, le=ALWAYS)]


def _read_map(value: Any) -> FaultMap:
    if isinstance(value, FaultMap):
        return value
    known = {"bit_width", "words", "word", "and_mask", "xor_mask", "provenance"}
    if not isinstance(value, dict) or not known - {"provenance"} <= value.keys() <= known:
        raise ValueError("not a fault map: expected bit_width, words and the lists word, and_mask and xor_mask")
    try:
        word, and_mask, xor_mask = (_integers(value[key]) for key in ("word", "and_mask", "xor_mask"))
        size = int(value["bit_width"]), int(value["words"])
        return FaultMap(*size, word, and_mask, xor_mask, dict(value.get("provenance", {})))
    except (TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"not a fault map: {error}") from None


def _integers(values: Any) -> Any:
    numbers = np.asarray(values, dtype=np.int64)
    if not np.array_equal(numbers, np.asarray(values)):
        raise TypeError("rows that are no integers")
    return numbers


def _write_map(value: FaultMap) -> dict[str, Any]:
    rows = {key: getattr(value, key).tolist() for key in ("word", "and_mask", "xor_mask")}
    return {"bit_width": value.bit_width, "words": value.words, **rows, "provenance": dict(value.provenance)}


Rows = Annotated[FaultMap, PlainValidator(_read_map), PlainSerializer(_write_map)]
"""A fault map that is written as JSON lists."""


class MapProcess(StrikingProcess):
    """Faulty cells of one site: permanent, or intermittent where `threshold` (of 2^32) is their activity.

    A cell's activity is drawn anew in each period: for each sample ("inference"), by the first sample of a batch
    ("batch"), by the epoch's number ("epoch"), or once for a seed ("power_cycle").
    """

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["map"] = "map"
    map: Rows
    threshold: Threshold = ALWAYS
    refresh: Refresh = "inference"
    representation: Representation | None = None

    @property
    def permanent(self) -> bool:
        return self.threshold == ALWAYS

    @property
    def joins(self) -> bool:
        """Only permanent maps compose: of others each has an activity of its own."""
        return self.permanent

    @property
    def named_cells(self) -> tuple[Ints, Ints] | None:
        word, bit, _ = self.map.cells()
        return word, bit

    @property
    def rows(self) -> MapRows:
        """The rows as engines take them."""
        return MapRows(self.map.word, self.map.and_mask, self.map.xor_mask, self.threshold, self.site_number)

    @property
    def shown(self) -> Activity:
        """When its cells show their fault."""
        return Activity(self.threshold, self.refresh, self.site_number)

    def active(self, seed: int, period: int) -> FaultMap:
        """The cells that show their fault in a period, as a map."""
        if self.permanent:
            return self.map
        cells = active_cells(self.map, self.shown, seed, period)
        return FaultMap.from_cells(self.map.words, self.map.bit_width, *cells, self.map.provenance)

    def draws(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws:
        found = draw_cells(self.map, self.shown, when, site.batched)
        return found.those(found.word < words)

    def never(self, tables: Sequence[Table]) -> bool:
        return self.threshold == 0 or len(self.map) == 0

    def varies(self, tables: Sequence[Table]) -> bool:
        return not self.never(tables) and not self.permanent

    def changes_with(self, batched: bool) -> Changes:
        return "never" if self.permanent else changes_of(self.refresh, batched)

    def reads_stored(self, tables: Sequence[Table] = ()) -> bool:
        """Whether a cell is stuck, so that the code stored decides."""
        return bool(np.any(self.map.and_mask | ~np.uint32((1 << self.map.bit_width) - 1) != ALL_ONES))

    def mean(self, site: Site, tables: Sequence[Table]) -> Mean | None:
        return exactly(0 if self.never(tables) else _mean_cells(self.map, self.threshold))

    def describe(self, tables: Sequence[Table]) -> str:
        return self.row.words + _tell_activity(self.shown)

    @property
    def cell_kinds(self) -> Cells | None:
        return _cell_kinds(self.map)

    def check(self, site: Site) -> None:
        if self.map.bit_width != site.bit_width or site.words not in (None, self.map.words):
            raise ValueError(
                f"site {site.name!r}: a fault map of {self.map.words} words of {self.map.bit_width} bits for "
                f"{site.words} words of {site.bit_width} bits"
            )

    def in_plane(self, bit: int, never: int) -> Self | None:
        rows, plane = self.map, np.uint32(1 << bit) if bit < self.map.bit_width else np.uint32(0)
        and_mask, xor_mask = rows.and_mask | (ALL_ONES ^ plane), rows.xor_mask & plane
        left = (and_mask != ALL_ONES) | (xor_mask != 0)
        kept = replace(rows, word=rows.word[left], and_mask=and_mask[left], xor_mask=xor_mask[left])
        return self.model_copy(update={"map": kept})


_EACH: dict[Refresh, str] = {
    "inference": "inference",
    "batch": "batch",
    "epoch": "epoch",
    "power_cycle": "power cycle",
}


_DETECTED = {"zero": "0 where an error is detected", "due": "as read where an error is detected"}


def _tell_activity(shown: Activity) -> str:
    """When cells show their fault, where they do not always."""
    if shown.threshold == ALWAYS:
        return ""
    probability = tell_probability(shown.threshold / ALWAYS)
    return f" that show with probability {probability} in each {_EACH[shown.refresh]}"


def _cell_kinds(rows: FaultMap) -> Cells:
    return count_kinds(rows.cells()[2])


def count_kinds(kinds: Kinds) -> Cells:
    """How many of these cells there are of each kind."""
    flip, stuck_at_0, stuck_at_1 = np.bincount(kinds, minlength=len(CellKind)).tolist()
    return flip, stuck_at_0, stuck_at_1


def _mean_cells(rows: FaultMap, threshold: int) -> float:
    return len(rows.cells()[0]) * threshold / ALWAYS


class ProtectedProcess(StrikingProcess):
    """Faults in a memory whose words a code protects; code words take `slot` bits, one behind the other.

    Either drawn by the stream (one table, and the accepts of both directions), or the rows of a `map` of sub-words.
    `number` and `cells` say for the memory words that the map strikes which bits of the site they hold (32 word +
    bit, -1 for none); both are empty where code words lie in the memory in their order.
    """

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["protected"] = "protected"
    protection: Protection
    slot: Annotated[int, Field(ge=1, le=64)]
    tables: tuple[int, ...] = ()
    accept01: Accept = 0
    accept10: Accept = 0
    map: Rows | None = None
    threshold: Threshold = ALWAYS
    refresh: Refresh = "inference"
    number: tuple[int, ...] = ()
    cells: tuple[tuple[int, ...], ...] = ()
    representation: Representation | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (len(self.tables) == 1) == (self.map is not None) or len(self.tables) > 1:
            raise ValueError("a protected process needs either one count table or a map")
        if len(self.number) != len(self.cells) or any(len(row) != self.protection.data_bits for row in self.cells):
            raise ValueError(
                f"a protected process needs {self.protection.data_bits} cells for each memory word it names"
            )
        return self

    @property
    def used_tables(self) -> tuple[int, ...]:
        return self.tables

    @property
    def joins(self) -> bool:
        """Each memory is decoded on its own."""
        return False

    @property
    def counts_as_due(self) -> bool:
        return self.protection.on_detected == "due"

    @property
    def memory(self) -> Memory:
        return self.protection.memory(self.slot)

    @property
    def rows(self) -> MapRows:
        """The rows of the map; none where the faults are drawn."""
        if self.map is None:
            return NO_MAP
        return MapRows(self.map.word, self.map.and_mask, self.map.xor_mask, self.threshold, self.site_number)

    @property
    def layout(self) -> Layout | None:
        return Layout(np.array(self.number), np.array(self.cells)) if self.number else None

    def program(self, tables: Sequence[Table]) -> tuple[int, ...]:
        """The fault program of the memory's sub-words; empty where the faults come from a map."""
        if not self.tables:
            return ()
        body = (self.accept01, self.accept10, *tables[self.tables[0]]) * self.memory.sub_word_bits
        return (BY_NAME["bit"].number or 0, self.site_number, len(body), *body)

    def draws(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws:
        """The cells of memory words that are hit: `word` is a memory word, `bit` one of its cells."""
        found = self._in_sub_words(site, tables, when, words, hits)
        each = self.memory.sub_words
        word, cell = found.word // each, 32 * (found.word % each) + found.bit
        there = cell < self.memory.cells
        if not self.number:
            there &= word < self.memory.words(words)
        alone = {"zeros": np.minimum(found.zeros, 1), "ones": np.minimum(found.ones, 1)}
        return Draws(found.row, word, cell, found.aux, **alone).those(there)

    def strike(self, hits: Draws, codes: Codes, faultless: Codes, bit_width: int) -> Struck:
        """As any process; what is said of a hit is what the decoder made of its memory word."""
        after, changes, verdicts = codes.copy(), np.zeros(len(hits), bool), np.full(len(hits), "", object)
        for i, row in enumerate(codes):
            mine = np.flatnonzero(hits.row == i)
            read = read_through(hits.those(mine), self.memory, self.layout, row, bit_width)
            after[i], changes[mine], verdicts[mine] = read.codes, read.changes, read.verdicts
        return Struck(after, changes, verdicts.tolist())

    def _in_sub_words(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws:
        if self.map is not None:
            return draw_cells(self.map, Activity(self.threshold, self.refresh, self.site_number), when, site.batched)
        planes = self.memory.sub_word_bits
        accepts = {"accept01": (self.accept01,) * planes, "accept10": (self.accept10,) * planes}
        sub_words = self.memory.words(words) * self.memory.sub_words
        drawing = Drawing(BY_NAME["bit"], accepts, sub_words, planes)
        own = [tables[self.tables[0]]] * planes
        return draw_stream(drawing, self.site_number, own, when.rows(site.batched), when.seed, hits)

    def never(self, tables: Sequence[Table]) -> bool:
        drawn = any(tables[i] != (0,) for i in self.tables)
        return not drawn and (self.map is None or self.threshold == 0 or len(self.map) == 0)

    def varies(self, tables: Sequence[Table]) -> bool:
        return not self.never(tables) and (bool(self.tables) or self.threshold < ALWAYS)

    def changes_with(self, batched: bool) -> Changes:
        if self.map is None:
            return "sample" if batched else "step"
        return "never" if self.threshold == ALWAYS else changes_of(self.refresh, batched)

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """A decoder reads whole memory words."""
        return True

    def mean(self, site: Site, tables: Sequence[Table]) -> Mean | None:
        if self.never(tables):
            return exactly(0)
        if self.map is not None:
            return exactly(_mean_cells(self.map, self.threshold))
        if site.words is None:
            return None
        cells = self.memory.words(site.words) * self.memory.cells
        return mean_accepted(cells, tables[self.tables[0]], self.accept01, self.accept10)

    def describe(self, tables: Sequence[Table]) -> str:
        where = self.row.words.format(protection=self.protection.kind)
        what = f"{where} ({self.protection.data_bits} data bits, {_DETECTED[self.protection.on_detected]})"
        if self.map is not None:
            return f"faulty cells {what}{_tell_activity(Activity(self.threshold, self.refresh, self.site_number))}"
        own = [tables[i] for i in self.tables]
        return f"bit errors {what} {tell_accepts(own, [self.accept01], [self.accept10])}"

    @property
    def cell_kinds(self) -> Cells | None:
        return None if self.map is None else _cell_kinds(self.map)

    def places_of(self, words: Collection[int]) -> set[int]:
        """The memory words that hold bits of these words of the site."""
        if self.number:
            held = np.array(self.cells)
            rows = (np.isin(held >> 5, list(words)) & (held >= 0)).any(axis=1)
            return set(np.array(self.number)[rows].tolist())
        data = self.protection.data_bits
        slots = ((word * self.slot, (word + 1) * self.slot - 1) for word in words)
        return {memory_word for first, last in slots for memory_word in range(first // data, last // data + 1)}
