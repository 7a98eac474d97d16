"""Training under faults: networks, data, the loop, its configuration and checkpoints."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers see; all is imported on first use
    from hwfault.train.checkpoint import restore as restore
    from hwfault.train.checkpoint import save as save
    from hwfault.train.config import Phase as Phase
    from hwfault.train.config import TrainConfig as TrainConfig
    from hwfault.train.data import Dataset as Dataset
    from hwfault.train.history import Epoch as Epoch
    from hwfault.train.loop import train as train
    from hwfault.train.networks import build as build
    from hwfault.train.networks import digits_cnn as digits_cnn

_HELD = {
    "Dataset": "data",
    "Epoch": "history",
    "Phase": "config",
    "TrainConfig": "config",
    "build": "networks",
    "digits_cnn": "networks",
    "restore": "checkpoint",
    "save": "checkpoint",
    "train": "loop",
}
"""Name -> the module here that holds it."""
__all__ = list(_HELD)

if not TYPE_CHECKING:  # of a name that is not public a type checker shall complain

    def __getattr__(name: str) -> Any:
        # imported on first use, so that reading a run's configuration needs no torch
        if name in _HELD:
            return getattr(import_module(f"{__name__}.{_HELD[name]}"), name)
        if name in _HELD.values():
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
