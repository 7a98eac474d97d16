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
    return {name: t.detach() for name, t in [*network.named_parameters(), *network.named_buffers()]}


def load_tensors(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Writes the tensors into the network; raises FileError unless names and shapes are the network's own."""
    own = tensors(network)
    wrong = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        raise FileError(f"the checkpoint is another network's: they differ in {wrong[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def counters(network: nn.Module) -> dict[str, Any]:
    """The numbers (int, float, bool) that modules keep as plain attributes, by module and attribute name."""
    return {f"{name}:{key}": value for name, module in network.named_modules() for key, value in _numbers(module)}


def load_counters(network: nn.Module, state: dict[str, Any]) -> None:
    """Sets the attributes that the network has again."""
    for name, module in network.named_modules():
        for key, _ in _numbers(module):
            if f"{name}:{key}" in state:
                setattr(module, key, state[f"{name}:{key}"])


def _numbers(module: nn.Module) -> list[tuple[str, Any]]:
    plain = vars(module).items()
    return [(k, v) for k, v in plain if isinstance(v, int | float) and k != "training" and not k.startswith("_")]
