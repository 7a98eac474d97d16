"""Lightning's Trainer, set up in one place, and a run of all phases with it."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from hwfault.errors import HwfaultError, ModelError
from hwfault.notices import remark
from hwfault.own_code import is_code, named
from hwfault.train import ranks, state
from hwfault.train.ckpt import AtomicCheckpoints
from hwfault.train.classifier import Classifier
from hwfault.train.config import TrainConfig
from hwfault.train.data import Data
from hwfault.train.driver import FaultDriver
from hwfault.train.folder import LAST
from hwfault.train.fusing import fusing
from hwfault.train.history import Epoch, check_monitor, columns, monitored, smaller_is_better
from hwfault.train.keeping import Keep
from hwfault.train.phases import Phase, phases_of, prepare_phase
from hwfault.train.placement import placement
from hwfault.train.telling import on_all_ranks

_NEEDLESS = (  # warnings of Lightning's about what is meant to be so, and about torch's own parts
    r".*treespec, LeafSpec.*",
)


Said = Callable[[], str]
"""Says how a network's quantizers run, once they have."""


@dataclass(frozen=True)
class Watch:
    """What is told of a run: its start once it is known to fit the network, each batch, each epoch."""

    start: Callable[[], object] = field(default=lambda: None)
    batch: Callable[[], object] = field(default=lambda: None)
    epoch: Callable[[Epoch], object] = field(default=lambda _epoch: None)


class Run:
    """A network being trained, phase after phase; with a folder, what it comes to is kept there."""

    def __init__(
        self, network: nn.Module, data: Data, config: TrainConfig, *, folder: Path | None = None, watch: Watch
    ) -> None:
        self._network = network
        self._data = data
        self._config = config
        self._folder = folder
        self._watch = watch
        self._device = next((p.device for p in network.parameters()), torch.device("cpu"))
        augment = config.augment
        given = named("augment", augment) if augment is not None and is_code(augment) else augment
        self._phases = tuple(prepare_phase(phase, network, given) for phase in phases_of(config))
        self._counts: dict[str, int] | None = None
        self.history: list[Epoch] = []

    def fit(self, resumed: dict[str, Any] | None = None) -> None:
        """Trains through all phases, or those that a checkpoint's state leaves to do."""
        first, saved = 1, None
        if resumed is not None:
            saved = resumed["hwfault"]
            self.history.extend(Epoch(**epoch) for epoch in saved["history"])
            state.load_tensors(self._network, resumed["state_dict"])
            state.load_counters(self._network, saved["counters"])
            self._counts = saved["faults"]
            first = saved["phase"] + saved["done"]
        with quiet():
            self._check()
            self._watch.start()
            try:
                with fusing(self._network, wanted=self._config.fused) as how:
                    said: Said | None = how
                    for phase in self._phases[first - 1 :]:
                        again = saved is not None and saved["phase"] == phase.number
                        self._fit(phase, self._last if again else None, said)
                        said = None  # once is enough
            finally:
                ranks.end()
        self._network.eval()

    def check(self) -> None:
        """Raises what `fit` would raise before its first step."""
        with quiet():
            self._check()

    @property
    def _last(self) -> Path:
        assert self._folder is not None
        return self._folder / LAST

    def _check(self) -> None:
        """Finds out before the first phase what does not fit: faults, figures to monitor, the augmentation, ranks."""
        self._data.train.reader(self._phases[0].augment, seed=0, workers=0, device=torch.device("cpu"))
        trainer = self._trainer(self._phases[0])
        parts = {"training": self._data.train, "validation": self._data.validation}
        for name, split in parts.items():
            if split is not None and len(split) < trainer.world_size:
                raise ModelError(
                    f"there are {len(split)} samples for {name}, expected at least one for each of "
                    f"{trainer.world_size} ranks"
                )
        for phase in self._phases:
            check_monitor(phase.config, validation=self._data.validation is not None)
            with self._driver(phase, trainer):
                pass

    def _fit(self, phase: Phase, checkpoint: Path | None, said: Said | None) -> None:
        self._network.train()  # all of it: a phase before may have frozen some
        trainer = self._trainer(phase, said)
        with self._driver(phase, trainer) as driver, _frozen(self._network, phase.frozen):
            module = Classifier(self._network, self._data, phase, driver, self.history, self._counts)
            try:
                with _interruptible():
                    trainer.fit(module, ckpt_path=checkpoint)
            finally:
                self._network.to(self._device)  # Lightning leaves it on the CPU
            self._counts = module.counts()

    @contextmanager
    def _driver(self, phase: Phase, trainer: lightning.Trainer) -> Iterator[FaultDriver | None]:
        config = phase.config
        if not config.faults:
            yield None
            return
        self._network.to(trainer.strategy.root_device)
        driver = FaultDriver(
            self._network,
            config.faults,
            seed=phase.fault_seed,
            eval_seed=phase.evaluation_seed,
            gradient=config.gradient,
            device=config.seed if config.device is None else config.device,
            rank=trainer.global_rank,
            world=trainer.world_size,
            example=self._data.example,
        )
        try:
            yield driver
        finally:
            driver.remove()

    def _trainer(self, phase: Phase, said: Said | None = None) -> lightning.Trainer:
        config = phase.config
        return lightning.Trainer(
            **placement(config, self._device),
            precision=config.precision if config.precision != "32" else "32-true",
            max_epochs=config.epochs,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.clip_gradient or None,
            callbacks=self._callbacks(phase, said),
            plugins=[AtomicCheckpoints()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0 if self._data.validation is None else 1.0,
            use_distributed_sampler=False,
            inference_mode=False,
            default_root_dir=self._folder,
        )

    def _callbacks(self, phase: Phase, said: Said | None) -> list[Callback]:
        config, found = phase.config, list[Callback]()
        if config.early_stopping:
            figures = columns(config, validation=self._data.validation is not None)
            column = monitored(config, figures) or "loss"
            mode, patience = "min" if smaller_is_better(column) else "max", config.early_stopping
            found.append(EarlyStopping(column, 0.0, patience, mode=mode, check_on_train_epoch_end=True))
        if self._folder is not None:
            found.append(Keep(self._folder, self._config))
        return [*found, _Tell(self._watch, said)]


class _Tell(Checkpoint):
    """Tells of batches and epochs, and once of the quantizers that have run in a step as one operator each.

    A `Checkpoint`, so that an epoch is told of when it has been kept.
    """

    def __init__(self, watch: Watch, said: Said | None) -> None:
        self._watch = watch
        self._said = said

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._said is not None and trainer.is_global_zero:
            remark(self._said())
        self._said = None
        self._watch.batch()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._watch.epoch(cast(Classifier, pl_module).history[-1])


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM are exceptions as ever; Lightning makes them ends of the process, the latter a good one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        raise on_all_ranks(HwfaultError("stopped by SIGTERM; a run in a folder goes on with --resume")) from None
    except SystemExit:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
        raise KeyboardInterrupt from None


@contextmanager
def _frozen(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside, the named parameters are not trained."""
    parameters = dict(network.named_parameters())
    frozen = [parameters[name] for name in names if parameters[name].requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Lightning says nothing but its warnings."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    try:
        with warnings.catch_warnings():
            for log in logs:
                log.setLevel(logging.WARNING)
            for message in _NEEDLESS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
