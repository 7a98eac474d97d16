"""A training run in a folder: what a killed run had reported is there."""

import copy
import csv
import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hwfault.errors import FileError
from hwfault.files import output_folder, write_atomically
from hwfault.train import checkpoint
from hwfault.train.config import TrainConfig
from hwfault.train.data import Data, load
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
    check_runs(network, data)
    advance, history = begin(f"training {config.network}", config.epochs), list[Epoch]()

    def keep(epoch: Epoch) -> None:
        history.append(epoch)
        if len(history) == 1:  # not before the faults are known to fit the network
            config.save(folder / CONFIG)
        checkpoint.save(folder / CHECKPOINT, network, config)
        write_atomically(folder / HISTORY, _table(history).encode())
        advance()

    return train(network, data, config, progress=keep)


def check_runs(network: nn.Module, data: Data) -> None:
    """Raises FileError unless the network takes the data's inputs; the network itself is left as it is."""
    try:
        with torch.no_grad():
            copy.deepcopy(network).eval()(data.example)
    except Exception as error:
        shape = tuple(data.example.shape[1:])
        raise FileError(f"the network does not run on the data's inputs of shape {shape}: {error}") from error


def _table(history: list[Epoch]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, Epoch.model_fields, lineterminator="\n")
    table.writeheader()
    table.writerows(epoch.model_dump() for epoch in history)
    return text.getvalue()
