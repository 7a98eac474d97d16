"""The point of a sweep at which answers first turn, by bisection for each (seed, sample); seeds go side by side."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.nesting.turns import Bools, Found, Numbers, checked_samples

_UNKNOWN = -1

Run = Callable[[int, Sequence[int], Sequence[Numbers]], Iterator[Bools]]
"""(point, seeds, samples of each) -> which of these samples have turned there, for each seed in their order."""


class Search:
    """One seed's answers at `points` points, as far as runs have told; `checked` (samples,) run at all of them.

    All samples begin at the middle point, and each goes on in the half that its answer leaves.
    """

    def __init__(self, points: int, checked: Bools) -> None:
        self._points = points
        self._checked = checked
        # the first turn lies from `low` on and at `high` at the latest; behind the last point for answers that never do
        self._low = np.zeros(len(checked), np.int64)
        self._high = np.full(len(checked), points, np.int64)
        self._seen: NDArray[np.int8] = np.full((points, len(checked)), _UNKNOWN, np.int8)

    def asked(self) -> dict[int, Numbers]:
        """Which samples are to run next, at which points; empty where all is known.

        Samples that run at all points are taken along where others run, and alone in the end.
        """
        undecided = (self._low < self._high) & ~self._checked
        middle = (self._low + self._high) // 2
        missing = (self._seen == _UNKNOWN) & self._checked
        visited = np.unique(middle[undecided]).tolist() or range(self._points)
        found = {}
        for point in visited:
            samples = np.flatnonzero((undecided & (middle == point)) | missing[point])
            if len(samples):
                found[point] = samples
        return found

    def tell(self, point: int, samples: Numbers, turned: Bools) -> None:
        """Takes what was asked of a point."""
        self._seen[point, samples] = turned
        self._high[samples[turned]] = point
        self._low[samples[~turned]] = point + 1

    def found(self) -> Found:
        """What all answers came to."""
        first = self._low.copy()
        seen = self._seen[:, self._checked] == 1
        first[self._checked] = np.where(seen.any(axis=0), seen.argmax(axis=0), self._points)
        back = np.zeros(len(first), np.bool_)
        # turned at one point, and not at the next one
        back[self._checked] = (seen[:-1] & ~seen[1:]).any(axis=0)
        return Found(first, self._checked, back)


def find_turns(points: int, seeds: Sequence[int], samples: int, run: Run) -> list[Found]:
    """Where the answers of each seed first turn; all seeds that ask at a point run there together."""
    searches = [Search(points, checked_samples(seed, samples)) for seed in seeds]
    while True:
        asked = [search.asked() for search in searches]
        visited = sorted({point for one in asked for point in one})
        if not visited:
            return [search.found() for search in searches]
        for point in visited:
            there = [place for place, one in enumerate(asked) if point in one]
            chosen = [asked[place][point] for place in there]
            told = run(point, [seeds[place] for place in there], chosen)
            for place, own, turned in zip(there, chosen, told, strict=True):
                searches[place].tell(point, own, turned)
