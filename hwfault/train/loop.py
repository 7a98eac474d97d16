"""The training loop: clean, or under faults that ramp up."""

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from hwfault.errors import HwfaultError
from hwfault.inject import Injection, inject, sites
from hwfault.plan import resolve
from hwfault.profiles.records import Record
from hwfault.train.config import TrainConfig
from hwfault.train.data import Data
from hwfault.train.randomness import seeded


class Epoch(Record):
    """What one epoch (counted from 1 to `epochs`) came to: mean loss and accuracy on the training data, with faults.

    `ramp` is the factor on the faults' probabilities.
    """

    epoch: int
    epochs: int
    ramp: float
    loss: float
    accuracy: float


def train(
    network: nn.Module, data: Data, config: TrainConfig, *, progress: Callable[[Epoch], object] | None = None
) -> tuple[Epoch, ...]:
    """Trains the network in place, on its own device, and leaves it in evaluation mode.

    Equal seeds give equal weights on equal hardware with as many threads (torch.get_num_threads): gradients are float
    sums. `progress` is called after each epoch. Torch's random state is left as it was. Raises HwfaultError when the
    loss is no longer finite or the network's outputs do not fit the classes, ModelError for faults that do not fit
    its sites.
    """
    network.train()
    history: list[Epoch] = []
    with seeded(config.seed, network), _faults(network, data, config) as injection:
        run = _Run(network, data, config)
        for epoch in range(1, config.epochs + 1):
            _set_ramp(injection, epoch, config)
            if injection is not None:
                injection.clock.epoch = epoch
            loss, accuracy = run.epoch(epoch)
            ramp = ramp_factor(epoch, config)
            history.append(Epoch(epoch=epoch, epochs=config.epochs, ramp=ramp, loss=loss, accuracy=accuracy))
            if progress is not None:
                progress(history[-1])
    network.eval()
    return tuple(history)


def ramp_factor(epoch: int, config: TrainConfig) -> float:
    """The factor on fault probabilities in an epoch counted from 1: linear up to 1 over `config.ramp` of all epochs."""
    return min(1.0, epoch / max(1.0, config.ramp * config.epochs))


def _faults(network: nn.Module, data: Data, config: TrainConfig) -> AbstractContextManager[Injection | None]:
    if not config.faults:
        return nullcontext()
    example = copy.deepcopy(network), data.example.to(next((p.device for p in network.parameters()), None))
    plan = resolve(sites(*example), config.faults, device=_device_number(config))
    return inject(network, plan, seed=config.seed, gradient=config.gradient)


def _device_number(config: TrainConfig) -> int:
    return config.seed if config.device is None else config.device


def _set_ramp(injection: Injection | None, epoch: int, config: TrainConfig) -> None:
    ramp = ramp_factor(epoch, config)
    if injection is None or ramp == ramp_factor(epoch - 1, config):  # plans take time to resolve
        return
    planned = [entry.site for entry in injection.plan.sites]
    faults = [fault.scaled(ramp) for fault in config.faults]
    injection.plan = resolve(planned, faults, device=_device_number(config))


class _Run:
    """The state of one training run."""

    def __init__(self, network: nn.Module, data: Data, config: TrainConfig) -> None:
        self._network = network
        self._data = data
        self._config = config
        self._batches = math.ceil(len(data.train) / config.batch_size)
        self._order = torch.Generator().manual_seed(config.seed)
        self._device = next((p.device for p in network.parameters()), torch.device("cpu"))
        self._optimizer = _optimizer(network, config)
        self._schedule = CosineAnnealingLR(self._optimizer, config.epochs * self._batches)

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Trains on all the data once; mean loss and accuracy."""
        total, correct = 0.0, 0
        count, size = len(self._data.train), self._config.batch_size
        order = torch.randperm(count, generator=self._order)
        for step in range(1, self._batches + 1):
            index = order[(step - 1) * size : step * size]
            x, y = (t.to(self._device) for t in (self._data.train.inputs(index), self._data.train.labels[index]))
            logits = self._logits(x)
            loss = cross_entropy(logits, y)
            total += self._finite(loss, epoch, step) * len(y)
            correct += int((logits.argmax(1) == y).sum())
            self._step(loss)
        return total / count, correct / count

    def _step(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = getattr(out := self._network(x), "value", out)  # a QuantTensor's values
        if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < self._data.classes:
            raise HwfaultError(
                f"the network gives outputs of shape {tuple(logits.shape)} for a batch of {len(x)}, "
                f"expected ({len(x)}, classes) with the data's {self._data.classes} classes or more"
            )
        return logits

    def _finite(self, loss: Tensor, epoch: int, step: int) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise HwfaultError(
                f"the loss is {value} in epoch {epoch} of {self._config.epochs}, step {step} of {self._batches}, "
                f"expected a finite number; lower learning_rate ({self._config.learning_rate:g}) or the faults' rate"
            )
        return value


def _optimizer(network: nn.Module, config: TrainConfig) -> Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return SGD(network.parameters(), lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
    return AdamW(network.parameters(), lr=rate, weight_decay=decay)
