"""On which processors a run trains: what Lightning's Trainer is told, checked against what there is."""

import os
from typing import Any

import torch

from hwfault.errors import ModelError
from hwfault.train.config import TrainConfig


def device_type(config: TrainConfig) -> str:
    """ "cuda" or "cpu": what `accelerator` names, a GPU if there is one for "auto"; ModelError if there is none."""
    found = torch.cuda.is_available()
    if config.accelerator == "gpu" and not found:
        raise ModelError("accelerator is 'gpu', but torch finds none; expected 'cpu' or 'auto'")
    return "cuda" if found and config.accelerator != "cpu" else "cpu"


def placement(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """The Trainer's arguments for ranks on devices of this kind; a single rank uses this very one.

    Raises ModelError for more devices than there are, others than torchrun has started processes for, and a precision
    that they do not have.
    """
    _check_precision(config, device)
    ranks, nodes = _ranks(config, device)
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    if ranks * nodes > 1:
        from hwfault.train.ranks import Ranks  # Lightning takes seconds to import

        return {"accelerator": accelerator, "devices": ranks, "num_nodes": nodes, "strategy": Ranks()}
    return {"accelerator": accelerator, "devices": 1 if device.index is None else [device.index]}


def world(config: TrainConfig, device: torch.device) -> int:
    """How many ranks train together."""
    ranks, nodes = _ranks(config, device)
    return ranks * nodes


def _ranks(config: TrainConfig, device: torch.device) -> tuple[int, int]:
    """Ranks on this machine, and machines."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        started, all_of_them = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        if config.devices not in (None, started):
            raise ModelError(
                f"devices is {config.devices}, but torchrun has started {started} processes; expected as many or none"
            )
        return started, all_of_them // started
    there_are = torch.cuda.device_count() if device.type == "cuda" else os.cpu_count() or 1
    ranks = config.devices or 1
    if ranks > there_are:
        kind = "GPUs" if device.type == "cuda" else "processors"
        raise ModelError(f"devices is {ranks}, but there are {there_are} {kind}; expected 1 to {there_are}")
    return ranks, 1


def _check_precision(config: TrainConfig, device: torch.device) -> None:
    if config.precision == "16-mixed" and device.type != "cuda":
        raise ModelError("precision is '16-mixed', which needs a GPU; on a CPU expected '32' or 'bf16-mixed'")
