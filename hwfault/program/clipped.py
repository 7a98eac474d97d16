"""Integers kept within a range: no fault, but what keeps faults from doing harm."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hwfault.codes import CodeFormat, Codes, Representation, integers
from hwfault.program.draws import Draws, PlaneHits, When, join_draws
from hwfault.program.mapped import Uint32
from hwfault.program.means import Mean, exactly
from hwfault.program.periods import Changes
from hwfault.program.sites import Site
from hwfault.program.striking import StrikingProcess, Struck
from hwfault.stream.tables import Table


class ClipProcess(StrikingProcess):
    """What lies below `low` becomes `below`, what lies above `high` becomes `above`; all are integers of the site.

    It draws nothing, and hits no word: what it changes is no fault.
    """

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["clip"] = "clip"
    low: int
    high: int
    below: int
    above: int
    bit_width: Annotated[int, Field(ge=1, le=32)]
    signed: bool
    representation: Literal[None] = None

    @model_validator(mode="after")
    def _range_of_the_words(self) -> Self:
        word = self.word
        if not word.low <= self.low <= self.high <= word.high:
            raise ValueError(
                f"a range of {self.low} to {self.high}, expected ascending integers from {word.low} to {word.high}"
            )
        for beyond in (self.below, self.above):
            if not self.low <= beyond <= self.high or (word.bipolar and not beyond):
                raise ValueError(f"integers beyond the range become {beyond}, expected {self.low} to {self.high}")
        return self

    @property
    def stored_as(self) -> Representation:
        return "twos_complement"

    @property
    def word(self) -> CodeFormat:
        """How the site stores its integers."""
        return CodeFormat(self.bit_width, self.signed)

    @property
    def joins(self) -> bool:
        return False

    def clipped(self, codes: Codes) -> Codes:
        """The two's complement codes with their integers within the range."""
        word = self.word
        known = integers(codes, word)
        kept = np.where(known < self.low, self.below, np.where(known > self.high, self.above, known))
        found = (kept > 0) if word.bipolar else kept & word.mask
        return found.astype(np.uint32)

    def draws(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws:
        return join_draws([])

    def strike(self, hits: Draws, codes: Codes, faultless: Codes, bit_width: int) -> Struck:
        return Struck(self.clipped(codes), np.zeros(0, bool), [])

    def never(self, tables: Sequence[Table]) -> bool:
        """Whether all integers of the site lie within the range."""
        return (self.low, self.high) == (self.word.low, self.word.high)

    def varies(self, tables: Sequence[Table]) -> bool:
        return False

    def changes_with(self, batched: bool) -> Changes:
        return "never"

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        return True

    def mean(self, site: Site, tables: Sequence[Table]) -> Mean | None:
        return exactly(0)

    def describe(self, tables: Sequence[Table]) -> str:
        said = self.row.words.format(low=self.low, high=self.high)
        if (self.below, self.above) == (self.low, self.high):
            return said
        return f"{said}, others become {' or '.join(str(q) for q in dict.fromkeys((self.below, self.above)))}"

    def check(self, site: Site) -> None:
        if (self.bit_width, self.signed) != (site.bit_width, site.signed):
            raise ValueError(
                f"site {site.name!r}: a range of {self.bit_width} bit words for words of {site.bit_width} bits"
            )
