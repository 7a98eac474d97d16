"""A training run in a folder: what a killed run had reported is there."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

from hwfault.files import output_folder, write_atomically
from hwfault.train import checkpoint
from hwfault.train.config import TrainConfig
from hwfault.train.data import load
from hwfault.train.loop import Epoch, train
from hwfault.train.networks import build

CHECKPOINT, CONFIG, HISTORY = "checkpoint.safetensors", "config.json", "history.csv"


def train_into(
    out: Path | str, config: TrainConfig, begin: Callable[[str, int], Callable[[], object]]
) -> tuple[Epoch, ...]:
    """Trains what the configuration says; checkpoint and history are written after each epoch, each atomically.

    `begin(what, steps)` announces the work and answers with the function to call after each step. Raises what loading
    the data, building the network and training raise, and FileError if the folder cannot be written.
    """
    folder = output_folder(out)
    data, network = load(config.data), build(config.network, seed=config.seed, **config.network_args)
    config.save(folder / CONFIG)
    advance, history = begin(f"training {config.network}", config.epochs), list[Epoch]()

    def keep(epoch: Epoch) -> None:
        history.append(epoch)
        checkpoint.save(folder / CHECKPOINT, network, config)
        write_atomically(folder / HISTORY, _table(history).encode())
        advance()

    return train(network, data, config, progress=keep)


def _table(history: list[Epoch]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, Epoch.model_fields, lineterminator="\n")
    table.writeheader()
    table.writerows(epoch.model_dump() for epoch in history)
    return text.getvalue()
