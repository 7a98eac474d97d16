"""Counting what differs at one site of one run, and where it first does."""

from collections import Counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat, integers
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.listing import faults_at
from hwfault.program.notes import note_on
from hwfault.program.processes import Site
from hwfault.proof.manifest import Integers
from hwfault.proof.report import BINS, Codes, Difference, Kind, SiteRecord
from hwfault.proof.sides import Differing, Mask

Array = NDArray[Any]
Words = NDArray[np.int64]
NO_WORDS: Words = np.zeros(0, np.int64)


class Pair(Protocol):
    """The codes (rows, words) of a site in one engine."""

    @property
    def before(self) -> NDArray[np.uint32]: ...

    @property
    def after(self) -> NDArray[np.uint32]: ...


AROUND = 4
"""How many words on either side of the first difference are its neighbours."""


class Tally:
    """The counts of one site in one run; `sees_before` is False where only the codes after the faults were found.

    `held` are the words that fault maps hold, which count as struck whether or not they changed (None: all of them).
    `integers` is the type of words that are integers themselves.
    """

    def __init__(
        self,
        site: Site,
        held: Words | None = NO_WORDS,
        *,
        sees_before: bool = True,
        integers: Integers | None = None,
    ) -> None:
        self.site, self._held, self._sees_before, self._integers = site, held, sees_before, integers
        self._format = CodeFormat(site.bit_width, site.signed)
        self._counts: Counter[str] = Counter()
        self._first: Difference | None = None
        self._strips: dict[str, Array] = {}
        self._largest_step = 0
        self.width = 0
        """The words of a sample."""
        self.first_sample = 0
        """The number of the first sample of the batch that differed first."""

    def add(self, found: Differing, ours: Pair, theirs: Pair, call: int, row: int, first_sample: int) -> None:
        """Counts a batch of one run of the site, whose first row is number `row` and whose samples begin as said."""
        self.width = found.codes.shape[1]
        self._counts.update(
            words=found.codes.size,
            faults_expected=int(np.count_nonzero(found.expected)),
            faults_seen=int(np.count_nonzero(found.seen)),
            faults_differ=int(np.count_nonzero(found.faults)),
            codes_differ=int(np.count_nonzero(found.codes)),
            strange=int(np.count_nonzero(found.strange)),
            no_numbers=found.no_numbers,
        )
        self._count_rounding(found, ours, theirs)
        differ = found.codes | found.faults
        self._draw("differ_at", differ)
        self._draw("faults_at", found.expected | found.seen)
        if self._first is None and differ.any():
            self._first, self.first_sample = self._difference(found, ours, theirs, call, row), first_sample

    def _count_rounding(self, found: Differing, ours: Pair, theirs: Pair) -> None:
        """Counts struck words among those whose codes differ, and by how many grid steps the others differ at most."""
        struck = found.expected | found.seen
        words = struck.shape[1]
        struck[:, slice(None) if self._held is None else self._held[self._held < words]] = True
        self._counts["unstruck"] += int(np.count_nonzero(~struck))
        if not found.codes.any():
            return
        self._counts["struck_differ"] += int(np.count_nonzero(found.codes & struck))
        rounded = found.codes & ~struck & ~found.strange
        recorded, other = (ours.before, theirs.before) if self._sees_before else (ours.after, theirs.after)
        steps = np.abs(integers(recorded[rounded], self._format) - integers(other[rounded], self._format))
        self._largest_step = max(self._largest_step, int(steps.max(initial=0)))

    def _draw(self, name: str, mask: Mask) -> None:
        words = mask.shape[1]
        if words:
            edges = np.unique(np.arange(min(BINS, words)) * words // min(BINS, words))
            strip = np.add.reduceat(mask.sum(axis=0, dtype=np.int64), edges)
            self._strips[name] = self._strips.get(name, 0) + strip

    def _difference(self, found: Differing, ours: Pair, theirs: Pair, call: int, row: int) -> Difference:
        element, word = divmod(int((found.codes | found.faults).argmax()), found.codes.shape[1])
        near = range(max(0, word - AROUND), min(found.codes.shape[1], word + AROUND + 1))
        words = tuple(self._codes(found, ours, theirs, element, w) for w in near)
        at, strange = words[word - near.start], bool(found.strange[element, word])
        kind: Kind = "site" if not self._sees_before else "faults" if found.faults[element, word] else "codes"
        before = kind == "codes" or (strange and self._sees_before)
        recorded, code = (at.recorded_before, at.found_before) if before else (at.recorded_after, at.found_after)
        return Difference(
            kind=kind,
            site=self.site.name,
            sample=row + element if self.site.batched else 0,
            word=word,
            call=call,
            recorded=recorded,
            found=float(found.values[element, word]) if code is None else code,
            strange=strange,
            words=words,
        )

    def _codes(self, found: Differing, ours: Pair, theirs: Pair, element: int, word: int) -> Codes:
        """The codes of one word; where a value stands for none, which is seen before the faults if these are, none."""
        strange = bool(found.strange[element, word])
        after = int(theirs.after[element, word])
        before = int(theirs.before[element, word]) if self._sees_before else None
        return Codes(
            word=word,
            recorded_before=int(ours.before[element, word]),
            recorded_after=int(ours.after[element, word]),
            found_before=None if strange else before,
            found_after=None if strange and not self._sees_before else after,
            found_value=float(found.values[element, word]) if strange else None,
        )

    def record(self, words_recorded: int | None = None) -> SiteRecord:
        """What was counted, of so many words that were recorded (None: these)."""
        strips = {name: tuple(strip.tolist()) for name, strip in self._strips.items()}
        counts = {"words": 0, **self._counts, "largest_step": self._largest_step}
        recorded = counts["words"] if words_recorded is None else words_recorded
        own = {"name": self.site.name, "kind": self.site.kind, "first": self._first, "words_recorded": recorded}
        own |= {"note": note_on(self.site), "integers": self._integers}
        return SiteRecord(**own, **counts, **strips)


def held_words(plan: FaultPlan, name: str) -> Words | None:
    """The words of a site that the fault maps of a plan hold; None: all, whose protected memory holds parts of each."""
    maps = [(process, getattr(process, "map", None)) for process in plan.at(name).processes]
    given = [(process, rows) for process, rows in maps if rows is not None]
    if any(getattr(process, "protection", None) is not None for process, _ in given):
        return None
    return np.concatenate([NO_WORDS, *(rows.word.astype(np.int64) for _, rows in given)])


def with_faults(found: Difference, plan: FaultPlan, seed: int, first_sample: int, words: int) -> Difference:
    """A difference with the faults that the stream draws on its word and the neighbours.

    `first_sample` is the number of the first sample of its batch, by which cells of a `batch` refresh are drawn.
    """
    entry = plan.at(found.site)
    own = {"sample": found.sample} if entry.site.batched else {}
    hits = faults_at(plan, found.site, seed=seed, first_sample=first_sample, words=words, **own)
    near = {codes.word for codes in found.words}
    places = {process.fault: process.places_of(near) for process in entry.processes}
    kept = [hit for hit in hits if not places[hit.process].isdisjoint(range(hit.word, hit.word + hit.length))]
    return found.model_copy(update={"faults": tuple(kept)})
