"""What the engines of a campaign have in common."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import SiteList

Outputs = NDArray[np.floating[Any]]
Numbers = NDArray[np.int64]


class Ran(NamedTuple):
    """The outputs (k, ...) of a trial, and whether a protected memory detected what counts as DUE.

    `seen` is what else was seen on the way, as JSON tells it: the words that decoders corrected (`protection`), and
    what the faults did at each site (`statistics`).
    """

    outputs: Outputs
    detected: bool = False
    seen: Mapping[str, Any] | None = None


class Trial(NamedTuple):
    """What strikes in a trial: a plan under a seed."""

    plan: FaultPlan
    seed: int


class Engine(Protocol):
    """Runs trials on the samples that it was made with; sample i of the fault stream is the i-th of them."""

    name: str
    version: str
    batch_size: int

    @property
    def samples(self) -> int:
        """How many samples there are."""
        ...

    @property
    def sites(self) -> SiteList:
        """Where faults can strike."""
        ...

    def golden(self) -> Outputs:
        """The outputs (n, ...) of all samples without faults."""
        ...

    def with_batch(self, batch_size: int) -> "Engine":
        """The same in batches of another size, for want of memory."""
        ...

    def run(self, trials: Sequence[Trial], images: Numbers | None = None) -> Iterator[Ran]:
        """What each of the trials came to, in their order, on all samples or on `images` alone."""
        ...

    def run_each(self, trials: Sequence[Trial], images: Sequence[Numbers]) -> Iterator[Ran]:
        """What each of the trials came to, in their order, on images of its own."""
        ...


def changes_by_batch(plan: FaultPlan) -> bool:
    """Whether some faults of a seed are those of a batch."""
    changes = (process.changes_with(entry.site.batched) for entry in plan.sites for process in entry.processes)
    return "batch" in changes
