"""Processes that the fault stream draws, as the plan keeps them: in integers."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from hwfault.codes import Representation
from hwfault.program.drawing import Drawing, draw_stream
from hwfault.program.draws import Draws, PlaneHits, When
from hwfault.program.kinds import Operand
from hwfault.program.mapped import Accept, Uint32
from hwfault.program.means import Mean, add_means, exactly, hit_probability, mean_accepted
from hwfault.program.periods import Changes
from hwfault.program.sites import Site
from hwfault.program.striking import StrikingProcess
from hwfault.program.telling import tell_accepts, tell_sizes, tell_tables
from hwfault.stream.reference import TO_CODE
from hwfault.stream.tables import ACCEPT_ALL, Table

Length = Annotated[int, Field(ge=1, le=1 << 31)]
ARRAY = ("columns", "rows", "channels", "inner")
"""What `elements` of late bits are: the array's columns and rows, the layer's channels, and the words of one."""


class Process(StrikingProcess):
    """One process that the stream draws at one site, as integers; `tables` are indices into the plan's, one a plane."""

    fault: Annotated[int, Field(ge=0)]
    site_number: Uint32
    kind: Literal["bit", "cluster", "mask", "random", "late"]
    tables: tuple[int, ...]
    accept01: tuple[Accept, ...] = ()
    accept10: tuple[Accept, ...] = ()
    axis: Literal["bit", "word"] | None = None
    sizes: tuple[Accept, ...] = ()
    mask: Uint32 | None = None
    code: Uint32 | None = None
    """Of a mask process: the code that words become, in place of bits that flip."""
    elements: tuple[Length, Length, Length, Length] | None = None
    """For late bits: columns and rows of the array, the layer's channels, and the words of one of them."""
    representation: Representation | None = None

    @property
    def used_tables(self) -> tuple[int, ...]:
        return self.tables

    def program(self, tables: Sequence[Table]) -> tuple[int, ...]:
        """The process as a part of a fault program."""
        body = [number for operand in self.row.per_process for number in self._wire(operand, 0, tables)]
        for plane in range(len(self.tables)):
            for operand in self.row.per_plane:
                body += self._wire(operand, plane, tables)
        assert self.row.number is not None
        return (self.row.number, self.site_number, len(body), *body)

    def _wire(self, operand: Operand, plane: int, tables: Sequence[Table]) -> Sequence[int]:
        """An operand as integers."""
        if operand.name == "table":
            return tables[self.tables[plane]]
        if operand.name == "axis":
            return [int(self.axis == "word")]
        if operand.name == "sizes":
            return [len(self.sizes), *self.sizes]
        if operand.name in ARRAY:
            assert self.elements is not None
            return [self.elements[ARRAY.index(operand.name)]]
        value: Any = self._mask if operand.name == "mask" else getattr(self, operand.name)
        return [value[plane] if operand.per_plane else value]

    @property
    def _mask(self) -> int | None:
        """The mask as a fault program has it."""
        return self.mask if self.code is None else TO_CODE + self.code

    def draws(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws:
        drawing = Drawing(self.row, dict(self) | {"mask": self._mask}, words, site.bit_width)
        own = [tables[i] for i in self.tables]
        return draw_stream(drawing, self.site_number, own, when.rows(site.batched), when.seed, hits)

    def never(self, tables: Sequence[Table]) -> bool:
        return all(tables[i] == (0,) for i in self.tables)

    def varies(self, tables: Sequence[Table]) -> bool:
        return not self.never(tables)

    def changes_with(self, batched: bool) -> Changes:
        return "sample" if batched else "step"

    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """Whether the process does not accept every hit, or reads other words, so that the codes stored decide."""
        if self.row.reads == "others":
            return True
        if self.code is not None:  # a word that holds it already is no fault
            return not self.never(tables)
        planes = zip(self.accept01, self.accept10, self.tables, strict=False)
        return any(tables[i] != (0,) and {a01, a10} != {ACCEPT_ALL} for a01, a10, i in planes)

    def mean(self, site: Site, tables: Sequence[Table]) -> Mean | None:
        if self.never(tables):
            return exactly(0)
        if site.words is None:
            return None
        own = [tables[i] for i in self.tables]
        if "accept01" in self.row.names:
            planes = zip(own, self.accept01, self.accept10, strict=True)
            return add_means(mean_accepted(site.words, *plane) for plane in planes)
        hits = add_means(exactly(site.words * hit_probability(table)) for table in own)
        # a code, or bits of another word, that are the same as here change nothing
        return Mean(0, hits.high) if self.row.reads == "others" or self.code is not None else hits

    def describe(self, tables: Sequence[Table]) -> str:
        own = [tables[i] for i in self.tables]
        if self.code is None:
            what = self.row.words.format(mask=self.mask, axis=self.axis)
        else:
            what = f"words set to {self.code:#x}"
        if "accept01" in self.row.names:
            return f"{what} {tell_accepts(own, self.accept01, self.accept10)}"
        sizes = f" ({tell_sizes(self.sizes)})" if "sizes" in self.row.names else ""
        return f"{what}{sizes} {tell_tables(own)}"

    def check(self, site: Site) -> None:
        where = f"site {site.name!r}: a {self.kind} process"
        planes = self.row.planes(site.bit_width)
        accepted = planes if "accept01" in self.row.names else 0
        lengths = (len(self.tables), len(self.accept01), len(self.accept10))
        if lengths != (planes, accepted, accepted):
            raise ValueError(
                f"{where} on {site.bit_width} bits needs {planes} tables and {accepted} accepts each way, found "
                f"{lengths}"
            )
        if self.sizes and "sizes" not in self.row.names:
            raise ValueError(f"{where} has cluster sizes it should not")
        given = {"axis": self.axis, "mask": self._mask, "columns": self.elements}
        if any((value is not None) != (name in self.row.names) for name, value in given.items()):
            raise ValueError(f"{where} lacks its axis or mask, or has one too many")
        if self.mask is not None and not 0 < self.mask < 1 << site.bit_width:
            raise ValueError(f"site {site.name!r}: mask {self.mask:#x} does not fit {site.bit_width} bits")
        if self.code is not None and (self.mask is not None or self.kind != "mask" or self.code >> site.bit_width):
            raise ValueError(
                f"{where} with mask {self.mask} and code {self.code:#x}; expected one of them, of a mask process, in "
                f"{site.bit_width} bits"
            )
        if list(self.sizes) != sorted(self.sizes):
            raise ValueError(f"site {site.name!r}: the cluster sizes' thresholds do not ascend")

    def in_plane(self, bit: int, never: int) -> Self | None:
        if self.row.leads_back or self.code is not None or (self.axis == "bit" and self.sizes):
            return super().in_plane(bit, never)
        if self.mask is not None:
            mask = self.mask & 1 << bit
            return self.model_copy(update={"mask": mask}) if mask else None
        kept = tuple(table if plane == bit else never for plane, table in enumerate(self.tables))
        return self.model_copy(update={"tables": kept})
