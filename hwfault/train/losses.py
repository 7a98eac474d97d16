"""Losses on logits, and how well the logits do."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from hwfault.train.config import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over samples and classes of max(0, 1 - t z)^2, with t = 1 for a sample's class and -1 for the others."""
    targets = 2 * one_hot(labels, logits.shape[1]) - 1
    return (1 - targets * logits).clamp(min=0).square().mean()


def loss_of(config: TrainConfig) -> Loss:
    """The loss that the configuration names: of logits (n, classes) and labels (n,), a scalar."""
    if config.loss == "squared_hinge":
        return squared_hinge
    return lambda logits, labels: cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
