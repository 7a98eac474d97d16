"""What a trial does to one sample, site by site: the codes before and after each site's own faults."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.engines.engine import Numbers, Outputs, Trial
from hwfault.codes import CodeFormat, integers
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.batch_axes import in_rows
from hwfault.program.processes import Site

Array = NDArray[Any]


class SeenSite(NamedTuple):
    """One run of a site: the integers (words,) of the sample before the site's own faults, and after them."""

    site: Site
    call: int
    before: NDArray[np.int64]
    after: NDArray[np.int64]


class Watched(NamedTuple):
    """A trial on one sample: its outputs (1, ...), and the sites in the order in which they ran."""

    outputs: Outputs
    sites: tuple[SeenSite, ...]


class Batch(NamedTuple):
    """The samples among which one is looked at: their `numbers` in the stream, and the place of the one there.

    `in_order` says that they are a batch of a run of all samples, which is numbered on from its first.
    """

    numbers: Numbers
    place: int
    in_order: bool

    @property
    def first(self) -> int:
        """The number of the first."""
        return int(self.numbers[0])


@runtime_checkable
class Watching(Protocol):
    """An engine that shows what happens at every site."""

    def watch(self, trial: Trial | None, batch: Batch) -> Watched:
        """What a trial (None: the golden run) does to one sample of a batch."""
        ...


def batch_of(sample: int, samples: int, batch_size: int, *, alone: bool) -> Batch:
    """The samples that run together with one: none where it runs `alone`, else those of its batch of all of them.

    Others of the batch change what float sums round to, and faults that change from batch to batch.
    """
    if alone:
        return Batch(np.array([sample], np.int64), 0, False)
    first = sample // batch_size * batch_size
    numbers = np.arange(first, min(first + batch_size, samples), dtype=np.int64)
    return Batch(numbers, sample - first, True)


class Eye:
    """Keeps of every site of a plan that is shown what one sample of a batch, at this place in it, has there."""

    def __init__(self, place: int, plan: FaultPlan | None = None) -> None:
        self._place = place
        self._plan = plan
        self._calls: Counter[str] = Counter()
        self._seen: list[SeenSite] = []

    def observe(
        self,
        name: str,
        _before: Any,
        _after: Any,
        _scale: Any,
        _zero_point: Any,
        codes_before: Any,
        codes_after: Any,
    ) -> None:
        """Takes what an injection shows of one run of a site."""
        assert self._plan is not None
        site = self._plan.at(name).site
        words = [codes.numpy(force=True) for codes in (codes_before, codes_after)]
        self.add(site, [in_rows(codes, site.batched, site.batch) for codes in words])

    def add(self, site: Site, rows: Sequence[Array]) -> None:
        """Takes the code words (samples, words) before and after; a parameter has one row."""
        fmt = CodeFormat(site.bit_width, site.signed)
        place = self._place if site.batched else 0
        before, after = (integers(codes[place].astype(np.uint32), fmt) for codes in rows)
        self._seen.append(SeenSite(site, self._calls[site.name], before, after))
        self._calls[site.name] += 1

    @property
    def seen(self) -> tuple[SeenSite, ...]:
        """What was shown, in its order."""
        return tuple(self._seen)
