"""The fault space of a task as a store keeps it, without the network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError

Counts = NDArray[np.int64]
_MOST_BITS = 32


class KeptSpace(NamedTuple):
    """The fault space as a task's identity keeps it: (name, words, bit_width) of each site, and where each ends."""

    names: tuple[str, ...]
    widths: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, identity: Mapping[str, Any], source: str) -> "KeptSpace":
        """That of a task; raises FileError where its identity has none."""
        try:
            rows = identity["faults"]["sites"]
            names = tuple(str(name) for name, _, _ in rows)
            words = [int(number) for _, number, _ in rows]
            widths = tuple(int(width) for _, _, width in rows)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{source}: the sites of a task cannot be read ({error!r}); the file is damaged") from None
        sizes = np.array(words, np.int64) * np.array(widths, np.int64)
        if not names or sizes.min() < 0 or not sizes.sum() or max(widths) > _MOST_BITS:
            raise FileError(f"{source}: the sites of a task hold no bits; the file is damaged")
        return cls(names, widths, tuple(np.cumsum(sizes).tolist()))

    @property
    def size(self) -> int:
        """How many bits one sample sees."""
        return self.ends[-1]

    @property
    def bits(self) -> list[int]:
        """How many of them each site has."""
        sizes: list[int] = np.diff([0, *self.ends]).tolist()
        return sizes

    def places(self, cells: Counts) -> tuple[Counts, Counts, Counts]:
        """The site, the word and the bit of each cell, by number."""
        ends = np.array(self.ends, np.int64)
        site = np.searchsorted(ends, cells, side="right")
        inside = cells - np.array([0, *self.ends[:-1]], np.int64)[site]
        word, bit = np.divmod(inside, np.array(self.widths, np.int64)[site])
        return site.astype(np.int64), word, bit
