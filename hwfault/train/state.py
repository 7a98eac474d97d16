"""All that a network is in the middle of its training, to the last bit; more than its state_dict.

Brevitas gathers statistics over the first batches in buffers and counters that are no part of a state_dict, as what
is kept of a network is to be used, not trained on.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hwfault.errors import FileError


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its name, as it is and not copied."""
    found: dict[str, Tensor] = {}
    found.update(network.named_parameters())
    found.update(network.named_buffers())
    return {name: tensor.detach() for name, tensor in found.items()}


def load_tensors(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Writes the tensors into the network; raises FileError unless names and shapes are the network's own."""
    own = tensors(network)
    wrong = sorted(own.keys() ^ state.keys())
    if not wrong:
        wrong = [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        raise FileError(f"the checkpoint is another network's: they differ in {wrong[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def counters(network: nn.Module) -> dict[str, Any]:
    """The numbers (int, float, bool) that modules keep as plain attributes, by module and attribute name."""
    found = {}
    for name, module in network.named_modules():
        for key, value in _numbers(module):
            found[f"{name}:{key}"] = value
    return found


def load_counters(network: nn.Module, state: dict[str, Any]) -> None:
    """Sets the attributes that the network has again."""
    for name, module in network.named_modules():
        for key, _ in _numbers(module):
            if f"{name}:{key}" in state:
                setattr(module, key, state[f"{name}:{key}"])


def _numbers(module: nn.Module) -> list[tuple[str, Any]]:
    """The module's own numbers; `training` is set anew for each pass, and what begins with _ is torch's."""
    found = []
    for key, value in vars(module).items():
        if isinstance(value, int | float) and key != "training" and not key.startswith("_"):
            found.append((key, value))
    return found
