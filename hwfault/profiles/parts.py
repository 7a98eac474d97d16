"""The parts of a fault profile that say what the hardware is, what a faulty cell does, and where numbers come from."""

import math
from typing import Literal, Self

from pydantic import model_validator

from hwfault.profiles.numbers import Probability, Share
from hwfault.program.periods import Refresh
from hwfault.records import Record, Sourced

Component = Literal["weight_memory", "activation_memory", "accumulator", "datapath", "input"]
Status = Literal["read", "derived", "assumed"]
STATUSES: tuple[Status, ...] = ("read", "derived", "assumed")
"""From the best backed to the worst."""


class Source(Record):
    """Where numbers come from, named by its `key`.

    `status`: read in the source itself, derived from it by computation, or assumed. `measured`: on real hardware.
    """

    key: str
    citation: str
    locator: str | None = None
    status: Status
    measured: bool
    licence_of_data: str | None = None


class Technology(Record):
    """What the hardware is, in words."""

    family: str | None = None
    node: str | None = None
    cell: str | None = None
    vendor: str | None = None
    note: str | None = None


class Effect(Sourced):
    """What a faulty cell does: shares that sum to 1, or for each effect the free parameter that is its probability."""

    flip: Share = 0.0
    stuck_at_0: Share = 0.0
    stuck_at_1: Share = 0.0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        given = [share for share in self.shares if share != 0.0]
        if given and all(isinstance(share, str) for share in given):
            return self
        if any(isinstance(share, str) for share in given):
            raise ValueError("expected either shares that sum to 1, or names of free parameters, not both")
        total = math.fsum(float(share) for share in given)
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"the shares of flip, stuck_at_0 and stuck_at_1 sum to {total:g}, expected 1")
        return self

    @property
    def shares(self) -> tuple[float | str, float | str, float | str]:
        """(flip, stuck_at_0, stuck_at_1), in the order of `faultmap.Kind`."""
        return self.flip, self.stuck_at_0, self.stuck_at_1

    @property
    def parameters(self) -> tuple[str, ...]:
        """The free parameters that stand for shares; () where the shares are numbers."""
        return tuple(share for share in self.shares if isinstance(share, str))


class Persistence(Sourced):
    """How long a fault stays: transient (drawn at every use), permanent (drawn once for a device), or intermittent.

    An intermittent cell shows its fault with probability `p_active` in each `refresh` period.
    """

    kind: Literal["transient", "intermittent", "permanent"]
    p_active: Probability = 1.0
    refresh: Refresh | None = None

    @model_validator(mode="after")
    def _only_where_it_has_a_meaning(self) -> Self:
        if self.kind == "intermittent":
            if self.refresh is None or "p_active" not in self.model_fields_set:
                raise ValueError("intermittent faults need both p_active and refresh")
        elif self.refresh is not None or self.p_active != 1.0:
            key = "p_active" if self.refresh is None else "refresh"
            raise ValueError(f"{key} goes with intermittent faults, not with {self.kind} ones")
        return self
