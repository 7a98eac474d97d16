"""One run of an engine beside its record, batch by batch: at every site, at the outputs and the predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import PlanError
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site
from hwfault.proof.answer import site_answers
from hwfault.proof.engine import Answer
from hwfault.proof.expected import Batch, Expected
from hwfault.proof.outputs import Outputs
from hwfault.proof.places import SiteTensor
from hwfault.proof.report import RunRecord
from hwfault.proof.sides import Differing, Excuses, Mask, Side, differing, unstruck_differing
from hwfault.proof.tally import NO_WORDS, Tally, held_words, with_faults

Array = NDArray[Any]


class Comparison:
    """Counts what differs in one run, clean (`seed` and `plan` are None) or under a seed.

    An engine that is `seen_through` is a graph in onnxruntime, which tells of the codes before the faults, too, and 0
    from -0.
    """

    def __init__(self, seed: int | None, plan: FaultPlan | None, *, seen_through: bool) -> None:
        self._seed, self._plan, self._seen_through = seed, plan, seen_through
        self._tallies: dict[str, Tally] = {}
        self._outputs = Outputs(to_the_bit=seen_through)
        self._excuses = Excuses()

    def add_graph(
        self, expected: Expected, batch: Batch, found: Sequence[SiteTensor], answer: Answer, labels: Array | None = None
    ) -> None:
        """Compares a batch of a graph in onnxruntime, at the sites that were `found` there.

        Raises PlanError where the graph has other shapes, scales or zero points than were recorded.
        """
        self._outputs.begin(expected, batch, labels)
        self._excuses.begin()
        for place in found:
            site = place.site
            excused = self._excuses.of(site, batch.size)
            ours, theirs, differ = self._at(place, expected, batch, answer, excused)
            self._excuses.note(site, differ)
            tally = self._tally(site, expected)
            tally.add(differ, ours, theirs, place.call, batch.row(site), batch.first_sample)
        self._outputs.add(answer.output, self._excuses.everywhere(batch.size))
        self._outputs.observed(answer.output, answer.observed)

    def add_answer(
        self, expected: Expected, batch: Batch, answer: dict[str, Array], labels: Array | None = None
    ) -> None:
        """Compares a batch of another engine: its outputs, and the sites that it tells of.

        Raises HwfaultError for names and shapes that the record has not.
        """
        self._outputs.begin(expected, batch, labels)
        self._excuses.begin()
        for told in site_answers(answer, expected, batch):
            nothing = np.zeros(told.differs.shape, bool)
            struck = told.recorded.before != told.recorded.after
            differ = Differing(told.differs, nothing, struck, struck, told.strange, told.values)
            self._excuses.note(told.site, differ)
            row = batch.row(told.site)
            tally = self._tally(told.site, expected)
            tally.add(differ, told.recorded, told.found, told.call, row, batch.first_sample)
        self._outputs.add_answer(answer, self._excuses.everywhere(batch.size))

    def _at(
        self, place: SiteTensor, expected: Expected, batch: Batch, answer: Answer, excused: Mask
    ) -> tuple[Side, Side, Differing]:
        """What was recorded and what was found at one run of a site in one batch, and where they differ."""
        site, watched = place.site, place.watched
        words = place.words(answer.tensors)
        ours = expected.side(site, place.call, batch.rows(site), words[0].shape)
        _check_grid(place, expected)
        # most batches are equal to the bit, and nothing has to be read off them
        theirs = ours if ours.has(words) else Side(site, [*words, *place.grid])
        if watched is None:
            return ours, theirs, unstruck_differing(ours, theirs)
        seed, first = self._seed or 0, batch.first_sample
        return ours, theirs, differing(watched, ours, theirs, answer.tensors, seed, first, excused)

    def _tally(self, site: Site, expected: Expected) -> Tally:
        if site.name not in self._tallies:
            struck = self._plan is not None and site.name in self._plan.names
            held = held_words(self._plan, site.name) if self._plan is not None and struck else NO_WORDS
            kind = expected.integers_of(site)
            self._tallies[site.name] = Tally(site, held, sees_before=self._seen_through, integers=kind)
        return self._tallies[site.name]

    def record(
        self, sites_recorded: int, *, order: Sequence[str] = (), words: Mapping[str, int] | None = None
    ) -> RunRecord:
        """The record of the run, of so many sites; the first difference at a struck site has the faults around it.

        Sites stand in the given `order`, or else in that in which they came. `words` says how often each word of a site
        was recorded, where that may be more often than it was found.
        """
        place = {name: i for i, name in enumerate(order)}
        tallies = sorted(self._tallies.values(), key=lambda tally: place.get(tally.site.name, 0))
        sites = [tally.record(words[tally.site.name] * tally.width if words else None) for tally in tallies]
        first = next((site.first for site in sites if site.first is not None), self._outputs.first)
        if self._plan is not None and self._seed is not None and first is not None and first.site in self._plan.names:
            tally = self._tallies[first.site]
            first = with_faults(first, self._plan, self._seed, tally.first_sample, tally.width)
        own = {"seed": self._seed, "sites": tuple(sites), "sites_recorded": sites_recorded, "first": first}
        return RunRecord(**own, **self._outputs.counts)


def _check_grid(place: SiteTensor, expected: Expected) -> None:
    """Raises PlanError where a graph has another scale or zero point at a site than was recorded."""
    for mine, recorded in zip(place.grid, expected.grid(place.site, place.call), strict=True):
        if not np.array_equal(mine.ravel(), recorded.ravel()):
            raise PlanError(
                f"the graph has another scale or zero point at the site {place.site.name!r} than was recorded; "
                "expected the graph of the recorded network"
            )
