"""Training under faults: networks, data, the loop, its configuration and checkpoints."""

from hwfault.train.checkpoint import restore, save
from hwfault.train.config import TrainConfig
from hwfault.train.data import Dataset
from hwfault.train.loop import Epoch, train
from hwfault.train.networks import build, digits_cnn

__all__ = ["Dataset", "Epoch", "TrainConfig", "build", "digits_cnn", "restore", "save", "train"]
