"""Protected memories on the sites of a network: the faults of their words, check bits among them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hwfault.errors import ModelError
from hwfault.laws.bound import Target
from hwfault.program.mapped import ProtectedProcess
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap, Words
from hwfault.stream.layouts import Layout, Stored
from hwfault.stream.mapping import Linear
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.protection import Memory
from hwfault.stream.protection_scheme import Protection

Cells = Callable[[int, int], FaultMap]
"""(rows, bits of a row) -> the faulty cells of a memory of that size."""


class ProtectedMemory:
    """The words of some sites in a protected memory: rows of one memory word each, its data bits before its check bits.

    Raises ModelError for a mapping whose rows are not the memory words' data bits.
    """

    def __init__(self, protection: Protection, mapping: AddressMapping, sites: Sequence[Site]) -> None:
        self._protection = protection
        self._mapping = mapping
        self._sites = sites
        # engines know by themselves what a memory word holds where code words lie one behind the other, lowest bit
        # first; for other mappings a process carries a table
        self.plain = isinstance(mapping, Linear) and mapping.bit_order == "lsb_first" and mapping.interleave == 1
        tensors = [Stored(site.name, site.shape or (1,), site.bit_width) for site in sites]
        # the layout of data bits alone: check bits lie behind them in each row, and hold no words
        self._data: Layout = self._fresh().layout(tensors)
        if self._data.row_bits != protection.data_bits:
            raise ModelError(
                f"the {mapping.kind} mapping has memory words of {self._data.row_bits} bits, the protection "
                f"{protection.data_bits} data bits; expected the same number"
            )

    def _fresh(self) -> AddressMapping:
        """The mapping of every word to a place of its own; a linear memory is one of memory words."""
        if not isinstance(self._mapping, Linear):
            if getattr(self._mapping, "tile", "fresh") == "repeat":
                raise ModelError(
                    f"the registers of the {self._mapping.kind} mapping hold one word after the other (tile: repeat), "
                    "which a protected memory does not; give it tile: fresh, or take the protection away"
                )
            return self._mapping
        rows = {"row_bits": self._protection.data_bits, "rows": None, "tile": "fresh"}
        return self._mapping.model_copy(update=rows)

    def slot(self, site: Site) -> int:
        """The bits that a code word takes."""
        if isinstance(self._mapping, Linear) and self._mapping.packing == "padded":
            return 1 << (site.bit_width - 1).bit_length()  # the next power of two
        return site.bit_width

    @property
    def _rows(self) -> int:
        """The memory words that there are: of a buffer that is used again, its own."""
        mapping = self._mapping
        if isinstance(mapping, Linear) and mapping.tile == "repeat" and mapping.rows is not None:
            bits = mapping.rows * mapping.row_bits
            return max(1, bits // self._protection.data_bits)
        return self._data.rows

    def processes(self, target: Target, cells: Cells, activity: dict[str, Any]) -> list[ProtectedProcess]:
        """A process for each site of the target, with what of the memory's faulty cells strikes it."""
        whole = cells(self._rows, self._protection.data_bits + self._protection.check_bits)
        return [self._process(target, i, whole, activity) for i in range(len(self._sites))]

    def _process(self, target: Target, i: int, whole: FaultMap, activity: dict[str, Any]) -> ProtectedProcess:
        site = self._sites[i]
        memory = self._protection.memory(self.slot(site))
        # the memory words from the one with the site's first bit to the one with its last
        first = int(self._data.cells(site.name, [0], [0])[0]) // memory.data_bits
        count = self._last_row(site) - first + 1
        rows = self._rows_of(memory, whole, first, count)
        table = {} if self.plain else self._table(i, memory, first, rows)
        return ProtectedProcess(
            **target.key(site),
            protection=self._protection,
            slot=memory.slot,
            map=rows,
            **activity,
            **table,
        )

    def _last_row(self, site: Site) -> int:
        """The last memory word that holds a bit of the site."""
        words = site.words or 1
        # of words one behind the other the last one lies last; elsewhere any of them may
        asked = np.array([words - 1]) if self.plain else np.arange(words)
        lowest = self._data.cells(site.name, asked, 0)
        highest = self._data.cells(site.name, asked, site.bit_width - 1)
        last = int(max(lowest.max(), highest.max()))
        return last // self._data.row_bits

    def _rows_of(self, memory: Memory, whole: FaultMap, first: int, count: int) -> FaultMap:
        """The faulty cells of the memory words first to first + count - 1, as rows of sub-words."""
        word, bit, kind = whole.cells()
        row, cell = np.divmod(word * whole.bit_width + bit, memory.cells)

        # a buffer that is used again has each of its faulty cells in every turn
        turns = np.arange((first + count - 1) // self._rows + 1)
        at = (row[:, None] + turns * self._rows - first).ravel(order="F")  # turn by turn, as np.tile repeats
        cell = np.tile(cell, len(turns))
        kind = np.tile(kind, len(turns))

        inside = (at >= 0) & (at < count)
        sub_word, bit = memory.sub_word_of(at[inside], cell[inside])
        words = count * memory.sub_words
        return FaultMap.from_cells(words, memory.sub_word_bits, sub_word, bit, kind[inside], whole.provenance)

    def _table(self, i: int, memory: Memory, first: int, rows: FaultMap) -> dict[str, Any]:
        """Which bits of site `i` the struck memory words hold: `32 word + bit`, -1 for no bit of it."""
        number: Words = np.unique(rows.word // memory.sub_words)
        data_bits = np.arange(memory.data_bits)
        asked = ((number + first)[:, None] * memory.data_bits + data_bits).ravel()
        at, tensor, word, bit = self._data.places(asked)
        cells = np.full(asked.size, -1)
        mine = tensor == i  # a memory word may hold the end of one site and the beginning of the next
        cells[at[mine]] = 32 * word[mine] + bit[mine]
        table = cells.reshape(-1, memory.data_bits)
        return {"number": tuple(number.tolist()), "cells": tuple(map(tuple, table.tolist()))}
