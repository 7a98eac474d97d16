"""What a site's faults need to know of the present forward."""

from torch import Tensor

from hwfault.injection.clock import Clock

ScaleAndZero = tuple[Tensor, Tensor]
"""Scale and zero point."""


class Forward:
    """What a strike needs to know of the present forward: seed, clock, and the batch (None for parameters).

    `arranged` says that the samples lie in front, as they do unless a step takes values as they lie.
    """

    def __init__(self, clock: Clock, seed: Tensor, batch: int | None, straight_through: bool) -> None:
        self.clock, self.seed, self.batch, self.straight_through = clock, seed, batch, straight_through
        self.arranged = True
