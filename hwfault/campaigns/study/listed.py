"""Trials that a file lists: each a set of faults that strike together, all of which are tried."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.laws.cell_table import KINDS, LARGEST_TABLE, NO_NUMBER, Cell, TrialTable, read_trials
from hwfault.laws.cells import CellFaults, check_cells
from hwfault.laws.files import Files
from hwfault.program.processes import SiteList

_WORDS = {int(value): word for word, value in KINDS.items()}


class Listed(NamedTuple):
    """The trials of a file, whose SHA-256 is `digest`; number i is the i-th that it names.

    `order` are the rows of the table, those of one trial together; trial i begins at `begins[i]` there.
    """

    table: TrialTable
    digest: str
    order: NDArray[np.int64]
    begins: NDArray[np.int64]

    @property
    def number(self) -> int:
        """How many trials there are."""
        return len(self.table.names)

    def faults(self, trial: int) -> CellFaults:
        """The faults of a trial, which strike together."""
        cells = self.table.cells
        found = []
        for row in self.order[self.begins[trial] : self.begins[trial + 1]].tolist():
            given = {"sample": int(cells.sample[row]), "step": int(cells.step[row])}
            told = {key: None if value == NO_NUMBER else value for key, value in given.items()}
            site, kind = cells.names[cells.site[row]], _WORDS[int(cells.kind[row])]
            found.append(Cell(site=site, word=int(cells.word[row]), bit=int(cells.bit[row]), kind=kind, **told))
        return CellFaults(cells=tuple(found))

    def count(self, trial: int) -> int:
        """How many faults a trial has."""
        return int(self.begins[trial + 1] - self.begins[trial])


def read_listed(path: str, files: Files, sites: SiteList) -> Listed:
    """The trials in a CSV file; raises FileError or ModelError, with the line, for what is none or no site has."""
    table, digest = files.read(path, "a CSV table of trials", LARGEST_TABLE, read_trials)
    check_cells(table.cells, table.trial, sites)
    order = np.argsort(table.trial, kind="stable")
    begins = np.searchsorted(table.trial[order], np.arange(len(table.names) + 1))
    return Listed(table, digest, order.astype(np.int64), begins.astype(np.int64))
