"""What the engines of a campaign have in common."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import SiteList

Outputs = NDArray[np.floating[Any]]
Numbers = NDArray[np.int64]


class Ran(NamedTuple):
    """The outputs (k, ...) of a trial, and whether a protected memory detected what counts as DUE."""

    outputs: Outputs
    detected: bool = False


class Trial(NamedTuple):
    """What strikes in a trial: a plan under a seed."""

    plan: FaultPlan
    seed: int


class Engine(Protocol):
    """Runs trials on the samples that it was made with; sample i of the fault stream is the i-th of them."""

    name: str
    version: str

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

    def run(self, trials: Sequence[Trial], images: Numbers | None = None) -> Iterator[Ran]:
        """What each of the trials came to, in their order, on all samples or on `images` alone."""
        ...
