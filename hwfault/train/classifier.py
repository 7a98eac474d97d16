"""A network that classifies, as Lightning trains it: losses with and without faults, and what an epoch came to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwfault.errors import HwfaultError
from hwfault.train import state
from hwfault.train.batches import Batches
from hwfault.train.data import Data
from hwfault.train.driver import FaultDriver
from hwfault.train.history import Epoch, monitored, ramp_factor, smaller_is_better, strikes_in_evaluation
from hwfault.train.learning import LearningRate
from hwfault.train.losses import loss_of
from hwfault.train.optimizers import clip_weights, frozen_modules, optimizer_of
from hwfault.train.phases import Phase
from hwfault.train.randomness import mix_seed, reseed
from hwfault.train.ranks import from_first_rank
from hwfault.train.telling import on_all_ranks
from hwfault.train.totals import Totals

_CHECKED_EVERY = 100


class Classifier(lightning.LightningModule):
    """One phase of a training run.

    Everything random in a step is drawn from the seed and the numbers of phase, epoch, step and rank, so that a run
    that is resumed goes on as if it had not stopped. `counts` are those of the faults in phases before. `history`
    grows by one record an epoch, on every rank; `done` says in checkpoints that the phase is at its end.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Data,
        phase: Phase,
        driver: FaultDriver | None,
        history: list[Epoch],
        counts: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        if driver is not None and counts is not None:  # no phase repeats the faults of one before
            driver.load_state_dict(counts)
        self.network = network
        self.phase = phase
        self.config = phase.config
        self.driver = driver
        self.history = history
        self._counts = counts
        self.done = False
        self._data = data
        self._loss = loss_of(phase.config)
        self._rates: LearningRate
        self._totals: Totals
        self._validation: tuple[Totals, ...] = ()
        self._resumed: dict[str, Any] | None = None

    # data

    def train_dataloader(self) -> Batches:
        config, number = self.config, self.phase.number
        return Batches(
            self._data.train,
            config.batch_size,
            seed=mix_seed("order", config.seed, number) if number > 1 else config.seed,
            shuffle=True,
            augment=self.phase.augment,
            device=self.device,
            rank=self.global_rank,
            world=self.trainer.world_size,
            workers=config.workers,
        )

    def val_dataloader(self) -> list[Batches]:
        """The validation data once for each column of figures: clean, and again under the faults of evaluation."""
        split = self._data.validation
        assert split is not None  # the Trainer is told not to ask otherwise
        passes = 2 if strikes_in_evaluation(self.config) else 1
        size, rank, world = self.config.batch_size, self.global_rank, self.trainer.world_size
        return [Batches(split, size, device=self.device, rank=rank, world=world) for _ in range(passes)]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # they come on the device

    # training

    def configure_optimizers(self) -> Optimizer:
        steps = -(-len(self.train_dataloader()) // self.config.accumulate)
        self._rates = self.phase.learning_rate(steps)
        return optimizer_of(self.network, self.config)

    def on_train_start(self) -> None:
        if self._resumed is not None:
            self._load(self._resumed)
            self._resumed = None

    def on_train_epoch_start(self) -> None:
        for module in frozen_modules(self.network, self.phase.frozen):
            module.eval()
        self._totals = Totals(self._batches, self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        factor = self._rates.factor(self.trainer.global_step)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # type: ignore[union-attr]
            group["lr"] = self.config.learning_rate * factor
        seed = mix_seed("step", self.config.seed, self.phase.number, self.current_epoch, batch_idx, self.global_rank)
        reseed(seed, self.device)
        if self.driver is not None:
            self.driver.train_step(self.phase.fault_epoch(self.current_epoch), batch_idx)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        clean, faulty = list[Tensor](), list[Tensor]()
        if self.config.loss_on != "faulty" and self.driver is not None:
            with self.driver.clean():
                logits = self._logits(x)
            clean.append(self._loss(logits, y))
        if self.config.loss_on != "clean" or self.driver is None:
            for _ in range(self.config.draws):
                logits = self._logits(x)
                faulty.append(self._loss(logits, y))
        loss = _mean([_mean(losses) for losses in (clean, faulty) if losses])
        self._totals.add(loss, logits, y)
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.config.clip_weights:
            clip_weights(self.network, self.config.clip_weights)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % _CHECKED_EVERY == 0:
            self.check_finite()

    def _logits(self, x: Tensor) -> Tensor:
        out = self.network(x)
        logits: Tensor = getattr(out, "value", out)  # a QuantTensor's values
        if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < self._data.classes:
            raise HwfaultError(
                f"the network gives outputs of shape {tuple(logits.shape)} for a batch of {len(x)}, "
                f"expected ({len(x)}, classes) with the data's {self._data.classes} classes or more"
            )
        return logits.float()

    @property
    def _batches(self) -> int:
        return int(self.trainer.num_training_batches)

    @property
    def epoch(self) -> int:
        """The number of the epoch in the whole run, from 1."""
        return self.phase.first_epoch + self.current_epoch

    def check_finite(self) -> None:
        """Raises HwfaultError if a loss of this epoch was not finite, on all ranks; waits for the device."""
        found = self._totals.first_not_finite()
        if found is not None:
            step, loss = found
            problem = HwfaultError(
                f"the loss is {loss} in epoch {self.epoch} of {self.phase.epochs}, step {step + 1} of {self._batches}, "
                f"expected a finite number; lower learning_rate ({self.config.learning_rate:g}) or the faults' rate"
            )
            raise on_all_ranks(problem)

    # what an epoch came to

    def on_validation_epoch_start(self) -> None:
        from_first_rank(self.network)
        loaders = self.trainer.val_dataloaders or ()
        self._validation = tuple(Totals(len(loader), self.device) for loader in loaders)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        with self._evaluating(faulty=dataloader_idx == 1, first=batch_idx == 0):
            logits = self._logits(x)
        self._validation[dataloader_idx].add(self._loss(logits, y), logits, y)

    @contextmanager
    def _evaluating(self, *, faulty: bool, first: bool) -> Iterator[None]:
        if self.driver is None:
            yield
        elif not faulty:
            with self.driver.clean():
                yield
        else:
            if first:
                self.driver.evaluate(self.phase.fault_epoch(self.current_epoch))
            yield

    def on_train_epoch_end(self) -> None:
        self.check_finite()
        (loss, accuracy), *held_out = (totals.means() for totals in (self._totals, *self._validation))
        names = [("validation_loss", "validation_accuracy"), ("faulty_loss", "faulty_accuracy")]
        figures = dict[str, float]()
        for pair, values in zip(names, held_out, strict=False):
            figures |= dict(zip(pair, values, strict=True))
        made = Epoch(
            epoch=self.epoch,
            epochs=self.phase.epochs,
            phase=self.phase.number,
            ramp=ramp_factor(self.config.faults, self.phase.fault_epoch(self.current_epoch)),
            learning_rate=self.optimizers(use_pl_optimizer=False).param_groups[0]["lr"],  # type: ignore[union-attr]
            loss=loss,
            accuracy=accuracy,
            extends=self.config.extends,
            **figures,
        )
        self.history.append(made)
        self._observe(made)

    def _observe(self, made: Epoch) -> None:
        figures = made.model_dump(exclude_none=True)
        column = monitored(self.config, figures) or "loss"
        self._rates.observe(self.current_epoch + 1, figures[column], smaller=smaller_is_better(column))
        if self.config.early_stopping:
            self.log(column, figures[column], sync_dist=self.trainer.world_size > 1)

    # checkpoints

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """All tensors as they are in the middle of training, of which a network's own state_dict leaves some out."""
        return state.tensors(self.network)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> None:
        state.load_tensors(self.network, dict(state_dict))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["hwfault"] = {
            "phase": self.phase.number,
            "done": self.done,
            "world": self.trainer.world_size,
            "counters": state.counters(self.network),
            "faults": self.counts(),
            "rates": self._rates.state_dict(),
            "totals": self._totals.state_dict(),
            "history": [epoch.model_dump() for epoch in self.history],
        }

    def counts(self) -> dict[str, int] | None:
        """The counters of the faults so far, None where there were none."""
        return self._counts if self.driver is None else self.driver.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint["hwfault"]

    def _load(self, saved: dict[str, Any]) -> None:
        """What Lightning does not know of; the network's counters and the faults' were there from the start."""
        self._rates.load_state_dict(saved["rates"])
        self._totals = Totals(self._batches, self.device)
        self._totals.load_state_dict(saved["totals"])


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(list(losses)).mean()
