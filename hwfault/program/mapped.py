"""Fault maps in a plan: permanent and intermittent cells, and memories whose words are protected."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from hwfault.codes import Codes, Representation
from hwfault.records import Record
from hwfault.stream import native
from hwfault.stream.fault_map import ALL_ONES, FaultMap
from hwfault.stream.protection import NO_MAP, Layout, MapRows, Memory
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.reference import activity
from hwfault.stream.tables import ACCEPT_ALL, ALWAYS, Table

Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]
Accept = Annotated[int, Field(ge=0, le=ACCEPT_ALL)]
Threshold = Annotated[int, Field(ge=0, le=ALWAYS)]
Refresh = Literal["inference", "batch", "epoch", "power_cycle"]
Samples = NDArray[np.int64]


def periods_of(refresh: Refresh, samples: Samples, batched: bool) -> Samples:
    """The refresh period of each element of a batch; a parameter has one, under "inference" that of a batch."""
    if refresh in ("epoch", "power_cycle"):
        return np.zeros_like(samples)
    return samples if refresh == "inference" and batched else np.repeat(samples[:1], len(samples))


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


class MapProcess(Record):
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

    def never(self, tables: Sequence[Table]) -> bool:
        """Whether there is no faulty cell, or none that ever shows."""
        return self.threshold == 0 or len(self.map.word) == 0

    @property
    def reads_stored(self) -> bool:
        """Whether a cell is stuck, so that the code stored decides."""
        return bool(np.any(self.map.and_mask | ~np.uint32((1 << self.map.bit_width) - 1) != ALL_ONES))


class ProtectedProcess(Record):
    """Faults in a memory whose words a code protects; code words take `slot` bits, one behind the other.

    Either drawn by the stream (one table, and the accepts of both directions), or the rows of a `map` of sub-words.
    `number` and `cells` say for the memory words that the map strikes which bits of the site they hold (32 word + bit,
    -1 for none); both are empty where code words lie in the memory in their order.
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

    def never(self, tables: Sequence[Table]) -> bool:
        """Whether nothing is ever drawn, and no faulty cell ever shows."""
        drawn = any(tables[i] != (0,) for i in self.tables)
        return not drawn and (self.map is None or self.threshold == 0 or len(self.map.word) == 0)

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
        return (0, self.site_number, len(body), *body)


class MapStep(NamedTuple):
    """A fault map."""

    process: MapProcess

    @property
    def representation(self) -> Representation:
        return self.process.representation or "twos_complement"

    @property
    def changes(self) -> bool:
        """Whether a parameter's faults may differ from batch to batch of one seed."""
        return self.process.threshold < ALWAYS and self.process.refresh in ("inference", "batch")

    def struck(self, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
        """The codes (samples, words) after the step; `samples[0]` is the period of a parameter and of a batch."""
        if self.process.permanent:
            return self.process.map.apply(codes)
        periods = periods_of(self.process.refresh, samples, batched)[: len(codes)].tolist()
        maps = {period: self.active(seed, period) for period in set(periods)}
        rows = [maps[period].apply(row) for row, period in zip(codes, periods, strict=True)]
        return np.stack(rows) if rows else codes

    def active(self, seed: int, period: int) -> FaultMap:
        """The cells that show their fault in a period."""
        word, bit, kind = self.process.map.cells()
        drawn = activity(seed=seed, site=self.process.site_number, period=period, word=word, bit=bit)
        on = drawn < self.process.threshold
        return FaultMap.from_cells(
            self.process.map.words, self.process.map.bit_width, word[on], bit[on], kind[on], self.process.map.provenance
        )


class ProtectedStep(NamedTuple):
    """Faults in a protected memory, and what its decoder lets through."""

    process: ProtectedProcess
    program: tuple[int, ...]
    bit_width: int

    @property
    def representation(self) -> Representation:
        return self.process.representation or "twos_complement"

    @property
    def changes(self) -> bool:
        """Whether a parameter's faults may differ from batch to batch of one seed."""
        return self.process.threshold < ALWAYS and self.process.refresh in ("inference", "batch")

    def struck(self, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
        """The codes (samples, words) after the step."""
        struck, _ = native.protect_codes(
            codes,
            self.process.memory,
            bit_width=self.bit_width,
            program=self.program,
            seed=seed,
            samples=samples[: len(codes)] if batched else np.zeros(1, np.int64),
            rows=self.process.rows,
            periods=periods_of(self.process.refresh, samples, batched)[: len(codes)],
            layout=self.process.layout,
        )
        return struck
