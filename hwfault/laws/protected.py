"""Protected memories on the sites of a network: the faults of their words, check bits among them."""

from collections.abc import Callable, Sequence

import numpy as np

from hwfault.errors import ModelError
from hwfault.program.mapped import ProtectedProcess
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap, Words
from hwfault.stream.layouts import Layout, Stored
from hwfault.stream.mapping import Linear
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.protection import Memory
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import site_number

Device = Callable[[int, int], FaultMap]
"""(rows, bits of a row) -> the faulty cells of a memory of that size."""


class ProtectedMemory:
    """The words of some sites in a protected memory: rows of one memory word each, its data bits before its check bits.

    Raises ModelError for a mapping whose rows are not the memory words' data bits.
    """

    def __init__(self, protection: Protection, mapping: AddressMapping, sites: Sequence[Site]) -> None:
        self._protection, self._mapping, self._sites = protection, mapping, sites
        self.plain = isinstance(mapping, Linear) and mapping.bit_order == "lsb_first" and mapping.interleave == 1
        tensors = [Stored(site.name, site.shape or (1,), site.bit_width) for site in sites]
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
        padded = isinstance(self._mapping, Linear) and self._mapping.packing == "padded"
        return 1 << (site.bit_width - 1).bit_length() if padded else site.bit_width

    @property
    def _rows(self) -> int:
        """The memory words that there are: of a buffer that is used again, its own."""
        mapping = self._mapping
        if isinstance(mapping, Linear) and mapping.tile == "repeat" and mapping.rows is not None:
            return max(1, mapping.rows * mapping.row_bits // self._protection.data_bits)
        return self._data.rows

    def processes(self, k: int, device: Device, activity: dict[str, object]) -> list[ProtectedProcess]:
        """A process for each site, with what of the device's faults strikes it."""
        whole = device(self._rows, self._protection.data_bits + self._protection.check_bits)
        return [self._process(k, i, site, whole, activity) for i, site in enumerate(self._sites)]

    def _process(self, k: int, i: int, site: Site, whole: FaultMap, activity: dict[str, object]) -> ProtectedProcess:
        memory = self._protection.memory(self.slot(site))
        first = int(self._data.cells(site.name, [0], [0])[0]) // memory.data_bits
        count = self._last_row(site) - first + 1
        rows = self._rows_of(memory, whole, first, count)
        table = {} if self.plain else self._table(i, memory, first, rows)
        own = {"protection": self._protection, "slot": memory.slot, "map": rows, **activity, **table}
        return ProtectedProcess(fault=k, site_number=site_number(site.name, k), **own)

    def _last_row(self, site: Site) -> int:
        words = np.arange(site.words or 1) if not self.plain else np.array([(site.words or 1) - 1])
        cells = [self._data.cells(site.name, words, np.full_like(words, bit)) for bit in (0, site.bit_width - 1)]
        return int(max(c.max() for c in cells)) // self._data.row_bits

    def _rows_of(self, memory: Memory, whole: FaultMap, first: int, count: int) -> FaultMap:
        """The faulty cells of the memory words first to first + count - 1, as rows of sub-words."""
        word, bit, kind = whole.cells()
        row, cell = np.divmod(word * whole.bit_width + bit, memory.cells)
        turns = range((first + count - 1) // self._rows + 1)
        parts = [(row + turn * self._rows - first, cell, kind) for turn in turns]
        at, cell, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
        inside = (at >= 0) & (at < count)
        sub_word, bit = memory.sub_word_of(at[inside], cell[inside])
        words = count * memory.sub_words
        return FaultMap.from_cells(words, memory.sub_word_bits, sub_word, bit, kind[inside], whole.provenance)

    def _table(self, i: int, memory: Memory, first: int, rows: FaultMap) -> dict[str, object]:
        """Which bits of the site the struck memory words hold."""
        number: Words = np.unique(rows.word // memory.sub_words)
        bits = np.arange(memory.data_bits)
        asked, tensor, word, bit = self._data.places(((number + first)[:, None] * memory.data_bits + bits).ravel())
        cells = np.full(number.size * memory.data_bits, -1)
        mine = tensor == i
        cells[asked[mine]] = 32 * word[mine] + bit[mine]
        return {
            "number": tuple(number.tolist()),
            "cells": tuple(map(tuple, cells.reshape(-1, memory.data_bits).tolist())),
        }
