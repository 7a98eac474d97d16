"""The fault space: every bit that one sample sees at some sites, numbered, and how single cells are drawn from it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import HwfaultError, PlanError
from hwfault.laws.cell_table import Cell
from hwfault.laws.cells import CellFaults
from hwfault.program.processes import Site
from hwfault.program.selectors import Select, chosen
from hwfault.stream import site_number
from hwfault.stream.check import check_seed
from hwfault.stream.reference import stream_words

_AT_ONCE = 256
"""How many words of the stream are drawn together."""


class FaultSpace(NamedTuple):
    """The bits of some sites: cell number ends[i-1] + word * bit_width + bit is a bit of sites[i]."""

    sites: tuple[Site, ...]
    ends: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many bits one sample sees."""
        return self.ends[-1]

    def cell(self, number: int) -> Cell:
        """The flip of the bit of that number."""
        place = int(np.searchsorted(np.array(self.ends), number, side="right"))
        site = self.sites[place]
        before = self.ends[place - 1] if place else 0
        word, bit = divmod(number - before, site.bit_width)
        return Cell(site=site.name, word=word, bit=bit, kind="flip")


def fault_space(sites: Sequence[Site], selectors: Sequence[Select]) -> FaultSpace:
    """The fault space of the sites that any of the selectors chooses, in the network's order.

    Raises HwfaultError where they choose none, PlanError for a site whose size is not known.
    """
    found = chosen(sites, selectors)
    if not found:
        told = ", ".join(str(one) for one in selectors)
        raise HwfaultError(f"the fault space is empty: no site matches {told}; `hwfault sites` lists them")
    unknown = [site.name for site in found if site.words is None]
    if unknown:
        raise PlanError(f"the shape of the site {unknown[0]!r} is not known, so its bits cannot be counted")
    bits = [(site.words or 0) * site.bit_width for site in found]
    if not sum(bits):
        raise HwfaultError(f"the fault space is empty: the sites chosen hold no words ({found[0].name!r} ...)")
    return FaultSpace(tuple(found), tuple(np.cumsum(bits).tolist()))


def draw_cells(space: FaultSpace, flips: int, seed: int) -> list[int]:
    """The numbers of `flips` cells, drawn uniformly and without replacement; as drawn, not sorted.

    The stream's words of (seed, site number of "flips#N", sample 0, block b, plane 0) make numbers v of 64 bits, two
    words each, the lower half first. Those of the highest floor(2^64 / size) * size on are passed over, and so is a
    cell that was drawn before; else v mod size is the next cell (docs/fault-stream.md, "A number of flips"). Raises
    HwfaultError for more flips than there are cells.
    """
    check_seed(seed)
    if not 1 <= flips <= space.size:
        raise HwfaultError(f"{flips} flips a trial, expected 1 to {space.size}: so many bits the sites chosen have")
    number = site_number(f"flips#{flips}", 0)
    limit = (1 << 64) // space.size * space.size
    found: dict[int, None] = {}
    block = 0
    while len(found) < flips:
        words = stream_words(seed, number, 0, block, 0, _AT_ONCE).astype(np.uint64)
        for value in _pairs(words).tolist():
            if value < limit and len(found) < flips:
                found.setdefault(value % space.size)
        block += 1
    return list(found)


def draw_pair(space: FaultSpace, samples: int, number: int) -> tuple[int, int]:
    """The cell and the sample of a drawn pair: `number` is the seed, uniform over all pairs, with replacement.

    One number v of (seed, site number of "flip#pair"), drawn as for `draw_cells`, is the pair: v mod (size * samples)
    is the sample's number times size, plus the cell's.
    """
    sample, cell = divmod(draw_number(number, "flip#pair", space.size * samples), space.size)
    return cell, sample


def draw_number(key: int, name: str, below: int) -> int:
    """A number from 0 to `below` - 1, uniform: v mod `below`, where v is one of (key, site number of `name`).

    It is the first below the limit, as for `draw_cells`.
    """
    limit = (1 << 64) // below * below
    words = stream_words(check_seed(key), site_number(name, 0), 0, 0, 0, _AT_ONCE).astype(np.uint64)
    value: int = next(value for value in _pairs(words).tolist() if value < limit)
    return value % below


def _pairs(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers of 64 bits of every two words of 32, the lower half first."""
    joined: NDArray[np.uint64] = words[0::2] | (words[1::2] << np.uint64(32))
    return joined


def drawn_flips(space: FaultSpace, flips: int, seed: int) -> CellFaults:
    """The faults of one trial of exactly so many flips; raises HwfaultError for more than there are bits."""
    return CellFaults(cells=tuple(space.cell(number) for number in draw_cells(space, flips, seed)))
