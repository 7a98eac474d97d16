"""Which words and bits a process hits in which samples, and what each hit does to the code that is stored there.

Drawn in NumPy, by the reference of the fault stream or by its native library; what engines do is compared with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.codes import Codes
from hwfault.program.periods import Period, Samples, periods
from hwfault.program.sites import Site
from hwfault.stream import native, reference
from hwfault.stream.tables import Table

Engine = Literal["reference", "native"]
Ints = NDArray[np.int64]
PlaneHits = Callable[[int, int, int, int, int, Table], reference.Hits]
"""(seed, site number, sample, words, plane, table) -> the hits of one plane of one sample."""

_ENGINES: dict[Engine, PlaneHits] = {"reference": reference.plane_hits, "native": native.plane_hits}


class When(NamedTuple):
    """Which draw is meant: a seed, the numbers of samples of one batch, the number of its first one, step and epoch.

    A parameter is one sample of its own, whose number is the training `step` (0 in evaluation); `epoch` is that of
    training, too. `first` matters where faults change with the batch.
    """

    seed: int
    samples: Samples
    first: int
    step: int = 0
    epoch: int = 0

    def rows(self, batched: bool) -> Samples:
        """The sample numbers under which the stream draws at a site, one for each row of its codes."""
        return np.asarray(self.samples, np.int64) if batched else np.array([self.step], np.int64)

    def periods(self, refresh: Period, batched: bool) -> Samples:
        """The refresh period of each row."""
        return periods(refresh, self.rows(batched), batched, first=self.first, step=self.step, epoch=self.epoch)


def _numbers(value: int = 0) -> Ints:
    """A column that says the same of every hit."""
    return np.array(value, np.int64)


@dataclass(frozen=True)
class Draws:
    """The hits of one process: columns of one length, by sample, plane and stream order.

    `row` says which of the samples, `word` and `bit` where in it (bit -1: the word as a whole), `aux` the number that
    the stream gave the hit (-1: it is a cell of a map). `length` is how many words from `word` on are hit alike. What a
    hit does: of the bits of `zeros` those flip that hold 0, of `ones` those that hold 1; `added` is added to the code
    modulo 2^b; the bits of `kept` become those of the word `before`, 0 where that is -1.
    """

    row: Ints
    word: Ints
    bit: Ints
    aux: Ints
    length: Ints = field(default_factory=lambda: _numbers(1))
    zeros: Ints = field(default_factory=_numbers)
    ones: Ints = field(default_factory=_numbers)
    added: Ints = field(default_factory=_numbers)
    kept: Ints = field(default_factory=_numbers)
    before: Ints = field(default_factory=lambda: _numbers(-1))

    def __post_init__(self) -> None:
        for name, column in vars(self).items():
            whole = np.broadcast_to(np.asarray(column).astype(np.int64), self.row.shape)
            object.__setattr__(self, name, whole)

    def __len__(self) -> int:
        return len(self.row)

    def those(self, chosen: ArrayLike) -> "Draws":
        """Some of the hits, by a mask or by their indices."""
        return Draws(**{name: column[chosen] for name, column in vars(self).items()})

    @property
    def taken(self) -> NDArray[np.bool_]:
        """Which hits do anything at all: not those that no direction takes."""
        taken: NDArray[np.bool_] = (self.zeros | self.ones | self.added | self.kept) != 0
        return taken

    @property
    def stands(self) -> NDArray[np.bool_]:
        """Of which hits something is left: not of those on a word that a later one replaces."""
        place = self.row * (1 + self.word.max(initial=0)) + self.word
        last = np.zeros(len(self), bool)
        last[len(self) - 1 - np.unique(place[::-1], return_index=True)[1]] = True
        stands: NDArray[np.bool_] = self.taken & (last | (self.added == 0))
        return stands

    @property
    def conditional(self) -> NDArray[np.bool_]:
        """Of which hits the codes that are stored decide whether they change a word."""
        asks: NDArray[np.bool_] = (self.zeros != self.ones) | (self.kept != 0)
        return asks

    def codes_after(self, codes: Codes, faultless: Codes, bit_width: int) -> Codes:
        """The code (hits,) of each hit's first word after that hit alone.

        `codes` (rows, words) are those that the process finds; `faultless` those before all processes of its step.
        """
        full = (1 << bit_width) - 1
        stored = codes[self.row, self.word].astype(np.int64)
        flipped = stored ^ ((~stored & self.zeros) | (stored & self.ones))
        moved = flipped + self.added & full
        source = np.where(self.before < 0, 0, faultless[self.row, np.maximum(self.before, 0)])
        return ((moved & ~self.kept) | (source & self.kept)).astype(np.uint32)

    def changes(self, codes: Codes, faultless: Codes, bit_width: int) -> NDArray[np.bool_]:
        """Which hits make another code of the one that is stored; arguments as of `codes_after`."""
        after = self.codes_after(codes, faultless, bit_width)
        changes: NDArray[np.bool_] = self.stands & (after != codes[self.row, self.word])
        return changes

    def struck(self, codes: Codes, faultless: Codes, bit_width: int) -> Codes:
        """The codes (rows, words) after all hits; arguments as of `codes_after`."""
        # a bit flips once, however many hits of the process take it
        wide = self.those(np.repeat(np.arange(len(self)), self.length))
        along = np.arange(len(wide)) - np.repeat(np.cumsum(self.length) - self.length, self.length)
        at = wide.row, wide.word + along
        stored = codes[at].astype(np.int64)
        flips = np.zeros(codes.shape, np.int64)
        np.bitwise_or.at(flips, at, (~stored & wide.zeros) | (stored & wide.ones))
        out = (codes ^ flips).astype(np.uint32)
        # NumPy assigns in order, so that the last hit on a word stands
        whole = self.those((self.added | self.kept) != 0)
        out[whole.row, whole.word] = whole.codes_after(codes, faultless, bit_width)
        return out


class Drawn(Protocol):
    """A process that says what it hits."""

    def draws(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws: ...


def draws(
    process: Drawn, site: Site, tables: Sequence[Table], when: When, words: int, engine: Engine = "reference"
) -> Draws:
    """What a process hits at a site in samples of `words` words; `tables` are the plan's.

    A parameter, of which all samples of a batch read the one, has a single row. In a protected memory a hit's `word` is
    a memory word and its `bit` one of the cells of that.
    """
    return process.draws(site, tables, when, words, _ENGINES[engine])


def join_draws(parts: Sequence[Draws]) -> Draws:
    """The hits of several draws, one behind the other."""
    nothing = np.zeros(0, np.int64)
    none = Draws(nothing, nothing, nothing, nothing)
    every = [none, *parts]
    return Draws(**{name: np.concatenate([vars(part)[name] for part in every]) for name in vars(none)})


def in_every_row(rows: Mapping[int, Draws] | Draws, of: ArrayLike) -> Draws:
    """The hits of each row: the same in all of them, or those by the number (n,) that each row has."""
    numbers = np.asarray(of).tolist()
    found = [(rows if isinstance(rows, Draws) else rows[number]) for number in numbers]
    return join_draws([Draws(**(vars(part) | {"row": _numbers(i) + 0 * part.word})) for i, part in enumerate(found)])
