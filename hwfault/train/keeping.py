"""What a run leaves in its folder after each epoch, in an order that survives being killed at any point."""

from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Checkpoint

from hwfault.errors import FileError
from hwfault.files import write_atomically
from hwfault.train import checkpoint
from hwfault.train.ckpt import AtomicCheckpoints
from hwfault.train.classifier import Classifier
from hwfault.train.config import TrainConfig
from hwfault.train.events import Events
from hwfault.train.folder import BEST, CHECKPOINT, EVENTS, HISTORY, LAST
from hwfault.train.history import Epoch, monitored, smaller_is_better, table
from hwfault.train.ranks import share_problem


class Keep(Checkpoint):
    """Writes network, history and, last of all, the state to resume from: it is what says that the epoch is done.

    A Lightning `Checkpoint`, so that it comes after all other callbacks, whose state it writes.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._folder = folder
        self._config = config
        self._events = Events(folder / EVENTS)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        every = self._config.checkpoint_every_steps
        module = cast(Classifier, pl_module)
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        at_a_step = batches % trainer.accumulate_grad_batches == 0
        if not every or not at_a_step or batches == trainer.num_training_batches:  # the epoch's end writes it anyway
            return
        if trainer.global_step % every == 0:
            module.check_finite()
            self._keep_state(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        module = cast(Classifier, pl_module)
        problem = None
        if trainer.is_global_zero:
            try:
                self._keep_network(module)
            except FileError as error:
                problem = self._with_advice(error)
        share_problem(problem, module.device)
        module.done = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        self._keep_state(trainer)

    def _keep_state(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self._folder / LAST)
        problem = cast(AtomicCheckpoints, trainer.strategy.checkpoint_io).problem
        share_problem(problem and self._with_advice(problem), trainer.strategy.root_device)

    def _with_advice(self, problem: FileError) -> FileError:
        if not (self._folder / LAST).exists():
            return problem
        return FileError(f"{problem}; what was kept before is whole: go on from it with --resume")

    def _keep_network(self, module: Classifier) -> None:
        history = module.history
        folder = self._folder
        checkpoint.save(folder / CHECKPOINT, module.network, self._config)
        if self._config.checkpoint_every and module.epoch % self._config.checkpoint_every == 0:
            checkpoint.save(folder / f"epoch-{module.epoch:04}.safetensors", module.network, self._config)
        if best_epoch(module.config, history) == history[-1]:
            checkpoint.save(folder / BEST, module.network, self._config)
        write_atomically(folder / HISTORY, table(history).encode())
        self._events.add(module.epoch, history[-1].model_dump(exclude={"epoch", "epochs", "extends"}))


def best_epoch(config: TrainConfig, history: list[Epoch]) -> Epoch | None:
    """The first of the last phase's epochs with the best figure; None where nothing says which is best."""
    phase = [epoch for epoch in history if epoch.phase == history[-1].phase]
    column = monitored(config, phase[-1].model_dump(exclude_none=True))
    if column is None:
        return None
    choose = min if smaller_is_better(column) else max
    return choose(phase, key=lambda epoch: float(getattr(epoch, column)))
