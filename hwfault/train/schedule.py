"""When each fault strikes, and how hard: epochs, steps, ramps and phases of training."""

import math
import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, model_validator

from hwfault.laws.models import FaultModel, is_fault
from hwfault.plan.given import GivenFaults, OneFault, read_faults
from hwfault.records import Record

Count = Annotated[StrictInt, Field(ge=1)]


class Schedule(Record):
    """When a fault strikes in training; all conditions must hold, each fault of a run has its own.

    Epochs count from 1, steps from 0 in each epoch (a step is a batch, also where gradients are accumulated).
    In epochs `from_epoch` to `until_epoch` (inclusive, None: to the end), every `every_epochs`-th of them beginning
    with the first; there in every `every_steps`-th step, and of these in a random `share`. Over the first
    `ramp_epochs` epochs from `from_epoch` on the fault's probability rises to the full one, which the epoch after
    them is the first to have. With `refresh_epochs` the faults are held: every batch of so many epochs has the same.

    `during` says whether the fault strikes in training, in evaluation, or both. Evaluation has the full probability
    also while training ramps up, and no other condition than the epochs `from_epoch` to `until_epoch`.
    """

    from_epoch: Count = 1
    until_epoch: Count | None = None
    every_epochs: Count = 1
    every_steps: Count = 1
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    ramp: Literal["none", "linear", "cosine"] = "none"
    ramp_epochs: Annotated[StrictInt, Field(ge=0)] = 0
    during: Literal["train", "eval", "both"] = "both"
    refresh_epochs: Count | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.until_epoch is not None and self.until_epoch < self.from_epoch:
            raise ValueError(f"until_epoch is {self.until_epoch}, expected from_epoch ({self.from_epoch}) or later")
        if (self.ramp == "none") != (self.ramp_epochs == 0):
            raise ValueError(
                f"ramp is {self.ramp!r} over ramp_epochs {self.ramp_epochs}, expected both or neither: a shape "
                "(linear or cosine) and at least one epoch"
            )
        return self

    def factor(self, epoch: int, step: int, seed: int, k: int) -> float:
        """The factor (0 to 1) on the probability of the run's `k`-th fault in a training step; 0 is off.

        The share of steps is drawn from `seed`, `k`, `epoch` and `step` alone, so all ranks agree.
        """
        if self.during == "eval" or not self._within(epoch):
            return 0.0
        if (epoch - self.from_epoch) % self.every_epochs or step % self.every_steps:
            return 0.0
        if self.share < 1 and not _drawn(self.share, seed, k, epoch, step):
            return 0.0
        return self.ramp_factor(epoch)

    def eval_factor(self, epoch: int) -> float:
        """The factor in the evaluation of an epoch: 1 or 0."""
        return float(self.during != "train" and self._within(epoch))

    def ramp_factor(self, epoch: int) -> float:
        """How far the ramp has risen: in its i-th of W epochs t = i / (W + 1), or (1 - cos(pi t)) / 2; then 1."""
        i = epoch - self.from_epoch + 1
        if i > self.ramp_epochs:
            return 1.0
        t = i / (self.ramp_epochs + 1)
        return t if self.ramp == "linear" else (1 - math.cos(math.pi * t)) / 2

    def period(self, epoch: int) -> int | None:
        """The number of the period in which held faults stay the same, from 0; None where they are not held."""
        return None if self.refresh_epochs is None else (epoch - 1) // self.refresh_epochs

    def _within(self, epoch: int) -> bool:
        return self.from_epoch <= epoch and (self.until_epoch is None or epoch <= self.until_epoch)


class ScheduledFault(Record):
    """A fault and its schedule; in YAML the fault's own keys, and a key `schedule` if it has one.

    Raises ModelError for a ramp on a fault that has no probability to scale, and for faults that are held although
    nothing about them is drawn.
    """

    fault: FaultModel
    schedule: Schedule = Schedule()

    @model_validator(mode="before")
    @classmethod
    def _flat_or_bare(cls, value: Any) -> Any:
        if is_fault(value):
            return {"fault": value}
        if not isinstance(value, dict) or "fault" in value:
            return value
        fault = {key: part for key, part in value.items() if key != "schedule"}
        return {"fault": fault} | {key: value[key] for key in ("schedule",) if key in value}

    @model_validator(mode="after")
    def _can_follow(self) -> Self:
        if self.schedule.ramp != "none" and not self.fault.scalable:
            raise ValueError(
                f"a ramp on a fault of the model {self.fault.model!r}, which has no probability to scale; leave the "
                "ramp out, or begin later with from_epoch"
            )
        if self.schedule.refresh_epochs is not None and not self.fault.drawn:
            raise ValueError(
                f"refresh_epochs for a fault of the model {self.fault.model!r}, about which nothing is drawn; leave it "
                "out"
            )
        return self


GivenSchedules = ScheduledFault | GivenFaults | Iterable[ScheduledFault | OneFault]
"""Faults as `hwfault.plan.given` takes them, and those that have schedules."""


def schedule_faults(faults: GivenSchedules) -> tuple[ScheduledFault, ...]:
    """Faults with their schedules; those without one strike always, in training and evaluation.

    Raises ModelError for what is no fault, FileError for a file of faults that cannot be read.
    """
    if isinstance(faults, ScheduledFault):
        return (faults,)
    if not isinstance(faults, list | tuple):
        return tuple(ScheduledFault(fault=fault) for fault in read_faults(faults))  # type: ignore[arg-type]
    found: list[ScheduledFault] = []
    for given in faults:
        if isinstance(given, ScheduledFault):
            found.append(given)
        else:
            found += [ScheduledFault(fault=fault) for fault in read_faults(given)]
    return tuple(found)


def last_epoch(faults: Sequence[ScheduledFault]) -> int:
    """An epoch at which the schedules have come to their end: what a network is evaluated under after training.

    It is one in which every fault without `until_epoch` strikes and no other; if all have one, the last of these.
    """
    ends = [fault.schedule.until_epoch for fault in faults]
    closed = [end for end in ends if end is not None]
    if len(closed) == len(ends):
        return max(closed, default=1)
    return max([end + 1 for end in closed] + [fault.schedule.from_epoch for fault in faults])


def _drawn(share: float, seed: int, k: int, epoch: int, step: int) -> bool:
    """Whether a step is among the share: an independent draw for each (seed, fault, epoch, step)."""
    number = blake2b(struct.pack("<4Q", seed, k, epoch, step), digest_size=8, person=b"hwfault share")
    return int.from_bytes(number.digest(), "little") < int(share * 2**64)
