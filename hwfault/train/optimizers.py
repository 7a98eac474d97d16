"""Optimisers, and which of a network's parameters they change."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from hwfault.errors import ModelError, nearest
from hwfault.torch_ops.inside_torch import clamp_all
from hwfault.train.config import TrainConfig


def optimizer_of(network: nn.Module, config: TrainConfig) -> Optimizer:
    """The configured optimiser of the parameters that are not frozen."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return SGD(parameters, lr=rate, weight_decay=decay, momentum=config.momentum, nesterov=nesterov)
    kind = Adam if config.optimizer == "adam" else AdamW
    return kind(parameters, lr=rate, weight_decay=decay)


def clip_weights(network: nn.Module, limit: float) -> None:
    """Clips what layers multiply with (parameters of two dimensions or more, not frozen) to +-limit, in place."""
    weights: list[Tensor] = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
    with torch.no_grad():
        clamp_all(weights, limit)


def frozen_parameters(network: nn.Module, globs: Sequence[str]) -> list[str]:
    """The names of the parameters that globs name, by their own name or that of a module around them.

    Raises ModelError for a glob that names none, and if they leave nothing to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for glob in globs:
        if not any(_named(name, [glob]) for name in names):
            modules = [name for name, _ in network.named_modules() if name]
            raise ModelError(f"freeze: no parameter matches {glob!r}: {nearest(glob, [*modules, *names])}")
    frozen = [name for name in names if _named(name, globs)]
    if globs and len(frozen) == len(names):
        raise ModelError(f"freeze: {list(globs)} match every parameter, expected some left to train")
    return frozen


def frozen_modules(network: nn.Module, frozen: Iterable[str]) -> list[nn.Module]:
    """The modules that have parameters of their own, all of them frozen: what they gather in training is, too."""
    taken = set(frozen)
    found = []
    for name, module in network.named_modules():
        own = {f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)}
        if own and own <= taken:
            found.append(module)
    return found


def _named(name: str, globs: Iterable[str]) -> bool:
    parts = name.split(".")
    paths = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(path, glob) for path in paths for glob in globs)
