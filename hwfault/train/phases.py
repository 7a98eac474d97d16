"""The phases of a run: each a configuration, and where it lies among the epochs of all."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from hwfault.train.config import TrainConfig
from hwfault.train.learning import LearningRate
from hwfault.train.optimizers import frozen_parameters
from hwfault.train.randomness import mix_seed


@dataclass(frozen=True)
class Phase:
    """One phase: its number and first epoch in the run, both from 1, and the epochs of all phases together.

    `faults_from` is the epoch of the run from which its faults' schedules count; `faults_of` the number of the phase
    that gave them, 0 for the run itself. `frozen` are names of parameters.
    """

    number: int
    config: TrainConfig
    first_epoch: int
    epochs: int
    faults_from: int
    faults_of: int
    frozen: tuple[str, ...] = ()
    augment: str | Callable[..., Any] | None = None

    def fault_epoch(self, current: int) -> int:
        """The epoch (from 1) in the faults' schedules for an epoch of this phase counted from 0."""
        return self.first_epoch + current - self.faults_from + 1

    @property
    def fault_seed(self) -> int:
        """The seed of the faults in training; faults that a phase gave are others than the run's."""
        seed = self.config.seed
        return mix_seed("faults", seed, self.faults_of) if self.faults_of else seed

    @property
    def evaluation_seed(self) -> int:
        """The seed of the faults in evaluation: the same in every epoch and phase."""
        return mix_seed("evaluation", self.config.seed)

    def learning_rate(self, steps: int) -> LearningRate:
        """The learning rate's factor over this phase's epochs of `steps` optimiser steps each."""
        config = self.config
        frozen = self._warming_up if config.freeze_schedule else 0
        return LearningRate(
            config.schedule, epochs=config.epochs, steps=steps, warmup=config.warmup_epochs, frozen=frozen
        )

    @property
    def _warming_up(self) -> int:
        """How many epochs of this phase have a fault whose ramp is still rising."""
        last = 0  # the last epoch of the faults' schedules in which one rises
        for fault in self.config.faults:
            schedule = fault.schedule
            if schedule.ramp != "none" and schedule.during != "eval":
                last = max(last, schedule.from_epoch + schedule.ramp_epochs - 1)
        return max(0, last - self.fault_epoch(0) + 1)


def phases_of(config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of a run, in order; a run without phases is one."""
    total = sum(part.epochs for part in config.parts)
    found = []
    first = 1
    for number, part in enumerate(config.parts, 1):
        # faults that a phase gives itself begin with it; others go on as those of the run
        own = bool(config.phases) and config.phases[number - 1].faults is not None
        phase = Phase(
            number,
            part,
            first_epoch=first,
            epochs=total,
            faults_from=first if own else 1,
            faults_of=number if own else 0,
        )
        found.append(phase)
        first += part.epochs
    return tuple(found)


def prepare_phase(phase: Phase, network: nn.Module, augment: str | Callable[..., Any] | None) -> Phase:
    """The phase with what its globs and names mean for this network; raises ModelError for globs that match nothing."""
    frozen = tuple(frozen_parameters(network, phase.config.freeze))
    return replace(phase, frozen=frozen, augment=augment)
