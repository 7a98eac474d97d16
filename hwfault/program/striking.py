"""What every process of a plan answers, whatever strikes: a record of the wire format with its meaning."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import Codes, Representation
from hwfault.errors import PlanError
from hwfault.program.draws import Draws, Ints, PlaneHits, When
from hwfault.program.kinds import BY_NAME, Kind, Mechanism
from hwfault.program.means import Mean
from hwfault.program.periods import Changes
from hwfault.program.sites import Site
from hwfault.program.telling import Cells
from hwfault.records import Record
from hwfault.stream.tables import Table


class Struck(NamedTuple):
    """The codes (rows, words) after a process, which of its hits (hits,) made another one, and what is said of each."""

    codes: Codes
    changes: NDArray[np.bool_]
    verdicts: Sequence[str]


class StrikingProcess(Record):
    """The base of the process records, which have the fields `kind`, `fault` and `representation`."""

    @property
    def row(self) -> Kind:
        """What is true of its kind."""
        return BY_NAME[self.kind]  # type: ignore[attr-defined]

    @property
    def mechanism(self) -> Mechanism:
        """How it strikes."""
        return self.row.mechanism

    @property
    def stored_as(self) -> Representation:
        """How the integers are stored that it strikes."""
        return self.representation or "twos_complement"  # type: ignore[attr-defined]

    @property
    def used_tables(self) -> tuple[int, ...]:
        """Which of the plan's count tables it draws with."""
        return ()

    @property
    def counts_as_due(self) -> bool:
        """Whether a detected error makes a run one that is detected and unrecoverable."""
        return False

    @property
    def joins(self) -> bool:
        """Whether neighbours of its mechanism may strike together with it, as one step."""
        return True

    @property
    def named_cells(self) -> tuple[Ints, Ints] | None:
        """(word, bit) of the cells of the site that a map names; None where no cells of the site are named."""
        return None

    def program(self, tables: Sequence[Table]) -> tuple[int, ...]:
        """What the stream draws for it, as a part of a fault program; empty where it draws nothing."""
        return ()

    @abstractmethod
    def draws(self, site: Site, tables: Sequence[Table], when: When, words: int, hits: PlaneHits) -> Draws:
        """What it hits; see `hwfault.program.draws.draws`."""

    def strike(self, hits: Draws, codes: Codes, faultless: Codes, bit_width: int) -> Struck:
        """What its `hits` make of `codes` (rows, words), those that it finds, in its representation.

        `faultless` are the codes before all that strikes together with it.
        """
        changes = hits.changes(codes, faultless, bit_width)
        return Struck(hits.struck(codes, faultless, bit_width), changes, [""] * len(hits))

    @abstractmethod
    def never(self, tables: Sequence[Table]) -> bool:
        """Whether nothing is ever drawn, and no faulty cell ever shows."""

    @abstractmethod
    def varies(self, tables: Sequence[Table]) -> bool:
        """Whether the seed has a say in what it strikes."""

    @abstractmethod
    def changes_with(self, batched: bool) -> Changes:
        """With what its faults change under one seed, where samples are `batched` or at a parameter."""

    def in_each_sample(self, batched: bool) -> bool:
        """Whether each sample has as many faults of it on average, so that they are counted for each."""
        return self.changes_with(batched) == "sample"

    @abstractmethod
    def reads_stored(self, tables: Sequence[Table]) -> bool:
        """Whether the codes that are stored decide which words become faulty."""

    @abstractmethod
    def describe(self, tables: Sequence[Table]) -> str:
        """What it does, in words for people, but for the number of its cells."""

    @property
    def cell_kinds(self) -> Cells | None:
        """How many cells of a map it has; None where it has none."""
        return None

    @abstractmethod
    def mean(self, site: Site, tables: Sequence[Table]) -> Mean | None:
        """How many faults it makes in one sample on average; None where the site's size is needed and not known."""

    def check(self, site: Site) -> None:
        """Raises ValueError unless the process can strike the site."""

    def in_plane(self, bit: int, never: int) -> Self | None:
        """The process in one bit plane alone, where its faults are the very same; None where nothing of it is left.

        `never` is the number of a count table that draws nothing. Raises PlanError where it has no such part.
        """
        raise PlanError("it strikes several bits at once")

    def places_of(self, words: Collection[int]) -> set[int]:
        """Where hits on these words of the site fall: the numbers that draws have for them."""
        return set(words)


def changes_with(process: StrikingProcess, site: Site) -> Changes:
    """With what the faults of a process at a site change under one seed."""
    return process.changes_with(site.batched)
