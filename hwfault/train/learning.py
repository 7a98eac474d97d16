"""Learning rates: schedules as records, and the rate of each optimiser step as a function of its number."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hwfault.records import Record

Shrinking = Annotated[float, Field(gt=0, le=1)]
Epochs = Annotated[int, Field(strict=True, ge=1)]


class Constant(Record):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"


class Cosine(Record):
    """Half a cosine from the full rate down to `floor` (a share of it) at the end of training."""

    name: Literal["cosine"] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


class Step(Record):
    """`gamma` times the rate after each `step_size` epochs."""

    name: Literal["step"] = "step"
    step_size: Epochs
    gamma: Shrinking = 0.1


class MultiStep(Record):
    """`gamma` times the rate after each of the numbers of epochs in `milestones`."""

    name: Literal["multistep"] = "multistep"
    milestones: Annotated[tuple[Epochs, ...], Field(min_length=1)]
    gamma: Shrinking = 0.1


class Exponential(Record):
    """`gamma` times the rate after each epoch."""

    name: Literal["exponential"] = "exponential"
    gamma: Shrinking


class Plateau(Record):
    """`gamma` times the rate whenever the monitored figure did not get better for more than `patience` epochs.

    Better is better by more than the share `threshold` of the best so far; the rate stays at `floor` of the full one.
    """

    name: Literal["plateau"] = "plateau"
    gamma: Shrinking = 0.1
    patience: Annotated[int, Field(strict=True, ge=0)] = 5
    threshold: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


_Schedule = Annotated[Constant | Cosine | Step | MultiStep | Exponential | Plateau, Field(discriminator="name")]
_ALONE = Literal["constant", "cosine", "plateau"]
"""The schedules whose keys all have defaults."""
RateSchedule = Annotated[_Schedule, BeforeValidator(_named, json_schema_input_type=_ALONE | _Schedule)]
"""One of the schedules; its name alone is enough where no key of it must be given."""


class LearningRate:
    """The factor on the learning rate at each optimiser step.

    The rate rises linearly over the first `warmup` epochs, whose last step is the first to have the full rate. The
    schedule stands still for the first `frozen` epochs; the cosine begins after both.
    """

    def __init__(self, schedule: RateSchedule, *, epochs: int, steps: int, warmup: int = 0, frozen: int = 0) -> None:
        self._schedule = schedule
        self._steps = steps
        self._epochs = epochs
        self._warmup = warmup
        self._frozen = frozen
        # what a plateau has seen
        self._factor = 1.0
        self._best = math.nan
        self._bad = 0

    def factor(self, step: int) -> float:
        """The factor for a step counted from 0, of `steps` an epoch."""
        rising = 1.0
        if self._warmup:
            rising = min(1.0, (step + 1) / (self._warmup * self._steps))
        return rising * self._scheduled(step)

    def _scheduled(self, step: int) -> float:
        done = max(0, step // self._steps - self._frozen)
        match self._schedule:
            case Cosine(floor=floor):
                begin = max(self._frozen, self._warmup) * self._steps
                t = max(0, step - begin) / max(1, self._epochs * self._steps - begin)
                return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, t))) / 2
            case Step(step_size=size, gamma=gamma):
                return gamma ** (done // size)
            case MultiStep(milestones=milestones, gamma=gamma):
                return gamma ** sum(done >= milestone for milestone in milestones)
            case Exponential(gamma=gamma):
                return gamma**done
        return self._factor

    def observe(self, epoch: int, figure: float, *, smaller: bool) -> None:
        """Tells a plateau the monitored figure at the end of an epoch counted from 1."""
        plateau = self._schedule
        if not isinstance(plateau, Plateau) or epoch <= max(self._frozen, self._warmup):
            return
        if smaller:
            figure = -figure
        if math.isnan(self._best) or figure > self._best + plateau.threshold * abs(self._best):
            self._best = figure
            self._bad = 0
            return
        self._bad += 1
        if self._bad > plateau.patience:
            self._factor = max(plateau.floor, self._factor * plateau.gamma)
            self._bad = 0

    def state_dict(self) -> dict[str, float]:
        """What a plateau has seen."""
        return {"factor": self._factor, "best": self._best, "bad": self._bad}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Goes on where `state_dict` was taken."""
        self._factor = state["factor"]
        self._best = state["best"]
        self._bad = int(state["bad"])
