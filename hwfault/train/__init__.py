"""Training under faults: networks, data, the loop, its configuration and checkpoints."""

from hwfault.train.checkpoint import restore, save
from hwfault.train.config import Phase, TrainConfig
from hwfault.train.data import Dataset
from hwfault.train.history import Epoch
from hwfault.train.loop import train
from hwfault.train.networks import build, digits_cnn

__all__ = ["Dataset", "Epoch", "Phase", "TrainConfig", "build", "digits_cnn", "restore", "save", "train"]
