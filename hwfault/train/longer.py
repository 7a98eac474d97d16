"""More epochs for a run: in place where those done would have been the same in a longer one, else as a new run."""

from hashlib import file_digest
from pathlib import Path
from typing import Any

from hwfault.errors import FileError
from hwfault.inputs import open_regular
from hwfault.train.config import TrainConfig
from hwfault.train.folder import CHECKPOINT, HISTORY
from hwfault.train.learning import Cosine


def only_longer(stored: TrainConfig, config: TrainConfig) -> bool:
    """Whether a configuration is a stored one with more epochs and nothing else."""
    return config.epochs > stored.epochs and stored.model_copy(update={"epochs": config.epochs}) == config


def check_lengthened(folder: Path, config: TrainConfig) -> None:
    """Raises FileError where the epochs that are done would have been others in a longer run."""
    instead = (
        f"begin a new run from its weights: hwfault train --extend {folder} --epochs {config.epochs} --out ANOTHER"
    )
    if config.phases:
        raise FileError(
            f"{folder}: the run has phases, each with epochs of its own, and cannot be lengthened; {instead}"
        )
    if isinstance(config.schedule, Cosine):
        raise FileError(
            f"{folder}: the learning rate follows a cosine to the run's end, so that a longer run would have had other "
            f"weights by now; {instead}"
        )


def lengthened(folder: Path, saved: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """A run's state as a run of the configuration's epochs would have left it; the same where it has as many.

    Raises FileError where the run had stopped early.
    """
    own = saved["hwfault"]
    history, epochs = own["history"], config.total_epochs
    if not history or history[-1]["epochs"] >= epochs:
        return saved
    if own["done"] and history[-1]["epoch"] < history[-1]["epochs"]:
        raise FileError(
            f"{folder}: the run stopped early, after {history[-1]['epoch']} of {history[-1]['epochs']} epochs, as "
            "nothing got better; more of them would stop at once"
        )
    told = [epoch | {"epochs": epochs} for epoch in history]
    return saved | {"hwfault": own | {"history": told, "done": False}}


def extended(run: Path, config: TrainConfig) -> TrainConfig:
    """The configuration of a new run that begins with the weights of another.

    `config` is the other run's, with what the new one has otherwise. Raises FileError where there is no checkpoint.
    """
    checkpoint = run / CHECKPOINT
    try:
        with open_regular(checkpoint) as file:
            digest = file_digest(file, "sha256").hexdigest()
        epochs = len((run / HISTORY).read_text(encoding="utf-8").splitlines()) - 1
    except (OSError, ValueError) as error:
        raise FileError(
            f"{run / HISTORY}: cannot be read ({error}); expected the history of the run to extend"
        ) from None
    told = f"{run}, {epochs} epochs, sha256 {digest[:12]}"
    return config.model_copy(update={"initial": str(checkpoint), "extends": told})
