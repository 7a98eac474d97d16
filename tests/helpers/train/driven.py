"""A plain training loop under a FaultDriver, and what the sites of its network saw."""

import torch
from torch.nn import functional

from hwfault.laws.models import WordFaults
from hwfault.train.driver import FaultDriver
from hwfault.train.schedule import Schedule, ScheduledFault
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import Seen

ACTS = WordFaults(probability=0.2, effect="msb", sites="*act*")
WEIGHTS = WordFaults(probability=0.2, effect="msb", sites="*weight*")
ACT, WEIGHT = "3.act_quant", "1.weight_quant"


def at(fault, **schedule):
    return ScheduledFault(fault=fault, schedule=Schedule(**schedule))


class Loop:
    """A plain training loop, which notes what the sites saw in every step and evaluation."""

    def __init__(self, faults, name="cnn", **options):
        self.model, self.seen = build(name), Seen()
        self.driver = FaultDriver(self.model, faults, **{"seed": 7, "observe": self.seen} | options)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)

    def step(self, epoch, step, size=4):
        self.seen.clear()
        self.model.train()
        self.driver.train_step(epoch, step)
        loss = functional.cross_entropy(self.model(batch(size, seed=10 * epoch + step)), torch.arange(size) % 5)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return Seen(self.seen)

    @torch.no_grad()
    def evaluate(self, epoch=None, sizes=(4,), **options):
        self.seen.clear()
        self.model.eval()
        self.driver.evaluate(epoch, **options)
        for i, size in enumerate(sizes):
            self.model(batch(size, seed=100 + i))
        return Seen(self.seen)


def kinds(calls):
    """Which of the two kinds of sites were struck."""
    return {call.name.rpartition(".")[2] for call in calls}


def masks(calls, name):
    return [call.before != call.after for call in calls.of(name)]
