"""The law `cells`: exactly the faults that are named, one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from hwfault.errors import ModelError, PlanError, nearest
from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.cell_table import LARGEST_TABLE, NO_NUMBER, Cell, CellTable, Ints, read_table, table_of
from hwfault.laws.files import Files, NamedFile
from hwfault.laws.on_sites import Digest, OnSites
from hwfault.program.processes import AnyProcess, MapProcess, SampledProcess, Site
from hwfault.program.selectors import Select, names_of
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.sampled_map import SampledMap

EXAMPLE = "{model: cells, cells: [{site: conv1.weight_quant, word: 3, bit: 0, kind: flip}]}"
_TOLD = 3


class CellFaults(OnSites):
    """Exactly the faults that are named: `cells`, each with its site, word, bit and kind (flip, stuck_0, stuck_1).

    Or a CSV `file` with the header site,word,bit,kind and, if it is wanted, sample and step. A cell is faulty in every
    sample, or in the `sample` of its number, of a weight or bias in the training `step`. In a plan `digest` is the
    SHA-256 of the file.
    """

    _chooses_by_itself: ClassVar[bool] = True
    drawn: ClassVar[bool] = False

    model: Literal["cells"] = "cells"
    sites: tuple[Select, ...] = ()
    cells: tuple[Cell, ...] | None = None
    file: str | None = None
    digest: Digest | None = None

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if (self.cells is None) == (self.file is None):
            raise ValueError("expected either `cells`, a list, or `file`, a CSV table of them")
        if self.cells == ():
            raise ValueError("an empty list of cells strikes nothing; expected at least one")
        if self.sites:
            raise ValueError("each cell names its site; leave `sites` out")
        return self

    def named_file(self) -> NamedFile | None:
        """The CSV file, if the cells stand in one."""
        return None if self.file is None else NamedFile(self.file, Path(self.file), self.digest)

    def describe(self) -> str:
        """How many cells there are, and where."""
        if self.cells is None:
            return f"cells file={self.file} on the sites that it names"
        names = list(dict.fromkeys(cell.site for cell in self.cells))
        more = f" and {len(names) - _TOLD} more" if names[_TOLD:] else ""
        return f"cells cells={len(self.cells)} on {', '.join(names[:_TOLD])}{more}"


@dataclass(frozen=True)
class BoundCells(Bound[CellFaults]):
    """The fault with its cells in a table."""

    table: CellTable | None = None


def bind(fault: CellFaults, files: Files) -> BoundCells:
    """The fault with the cells that it names, or that stand in its file; raises FileError, ModelError for no cells."""
    digest = None
    if fault.file is None:
        table = table_of(fault.cells or ())
    else:
        table, digest = files.read(fault.file, "a CSV table of cells", LARGEST_TABLE, read_table)
    if not table.names:
        raise ModelError(f"{fault.file}: no cells behind the header, expected at least one")
    return BoundCells(fault, tuple(Select(name=escape(name)) for name in table.names), digest=digest, table=table)


def lower(bound: Bound[CellFaults], target: Target) -> Lowered:
    """At each site a map of the cells that are faulty in every sample, and one of those that name theirs.

    Raises PlanError for a site whose size is not known, ModelError for a cell that it does not have, that is named
    twice, or that names a sample where there are steps or a step where there are samples.
    """
    assert isinstance(bound, BoundCells)
    assert bound.table is not None
    found = []
    for site, rows in _by_site(bound.table, target.sites):
        with target.errors_at(site):
            found.append(_processes(bound.table, rows, site, target))
    return Lowered(besides=found)


def check_cells(table: CellTable, group: Ints, sites: Sequence[Site]) -> None:
    """Raises ModelError for the first cell that no site has, or that is named twice in one group (n,) of rows.

    PlanError for a site whose size is not known.
    """
    known = {name for site in sites for name in names_of(site)}
    unknown = np.array([name not in known for name in table.names])[table.site]
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        name = table.names[table.site[row]]
        raise ModelError(f"{table.where(row)}: no site is called {name!r}: {nearest(name, known)}")
    for site, rows in _by_site(table, sites):
        if not len(rows):
            continue
        if site.words is None:
            raise PlanError(f"the shape of the site {site.name!r} is not known, so which words it has is neither")
        _check_inside(table, rows, site, site.words)
        number = _numbers(table, rows, site)
        # rows of one group stand together, and each group is asked for itself
        order = np.argsort(group[rows], kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(group[rows][order])) + 1):
            if len(part) > 1:
                _check_once(table, rows[part], number[part])


def _by_site(table: CellTable, sites: Sequence[Site]) -> Iterator[tuple[Site, Ints]]:
    """The rows of each site, which may be called by any of its names."""
    places = {name: place for place, site in enumerate(sites) for name in names_of(site)}
    owner = np.array([places.get(name, -1) for name in table.names], np.int64)[table.site]
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(sites) + 1))
    for place, site in enumerate(sites):
        yield site, order[ends[place] : ends[place + 1]]


def _processes(table: CellTable, rows: Ints, site: Site, target: Target) -> list[AnyProcess]:
    words = site.words
    if words is None:
        raise PlanError(
            f"the shape of the site {site.name!r} is not known, so which words it has is neither; list the network's "
            "sites with an example batch before resolving the faults"
        )
    _check_inside(table, rows, site, words)
    number = _numbers(table, rows, site)
    _check_once(table, rows, number)
    # cells of every sample are a map as any other; the others name theirs
    key, found = target.key(site), list[AnyProcess]()
    word, bit, kind = (column[rows] for column in (table.word, table.bit, table.kind))
    always, once = number == NO_NUMBER, number != NO_NUMBER
    if always.any():
        cells = FaultMap.from_cells(words, site.bit_width, word[always], bit[always], kind[always])
        found.append(MapProcess(**key, map=cells))
    if once.any():
        sampled = SampledMap.from_cells(words, site.bit_width, number[once], word[once], bit[once], kind[once])
        found.append(SampledProcess(**key, map=sampled))
    return found


def _check_inside(table: CellTable, rows: Ints, site: Site, words: int) -> None:
    """Raises ModelError for the first cell that the site does not have."""
    for what, column, end in (("word", table.word, words), ("bit", table.bit, site.bit_width)):
        outside = rows[column[rows] >= end]
        if len(outside):
            row = int(outside[0])
            raise ModelError(
                f"{table.where(row)}: {what} {column[row]}, expected 0 to {end - 1}: a sample of the site has {words} "
                f"words of {site.bit_width} bits"
            )


def _numbers(table: CellTable, rows: Ints, site: Site) -> Ints:
    """The sample or step of each of the rows; raises ModelError for the one that the site does not have."""
    own, other = (table.sample, table.step) if site.batched else (table.step, table.sample)
    wrong = rows[other[rows] != NO_NUMBER]
    if len(wrong):
        row = int(wrong[0])
        if site.batched:
            told = f"step {other[row]} of an {site.kind}, whose faults are told by their sample; give `sample`, or none"
        else:
            told = (
                f"sample {other[row]} of a {site.kind}, which is the same for all samples; give the training `step` (0 "
                "in evaluation), or none"
            )
        raise ModelError(f"{table.where(row)}: {told}")
    return own[rows]


def _check_once(table: CellTable, rows: Ints, number: Ints) -> None:
    """Raises ModelError for a cell that is named twice in one sample, or for all samples and for one."""
    cell = table.word[rows] * 32 + table.bit[rows]
    order = np.lexsort((rows, number, cell))  # what names no sample comes first
    same = cell[order][1:] == cell[order][:-1]
    alike = (number[order][1:] == number[order][:-1]) | (number[order][:-1] == NO_NUMBER)
    twice = np.flatnonzero(same & alike)
    if len(twice):
        first, second = sorted(rows[order[twice[0] : twice[0] + 2]].tolist())
        raise ModelError(
            f"{table.where(second)}: (word {table.word[second]}, bit {table.bit[second]}) is named before, at "
            f"{table.place[first]}; expected a cell once for every sample, or once for each of some samples"
        )
