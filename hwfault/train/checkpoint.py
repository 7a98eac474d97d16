"""Checkpoints: a network's tensors and its training configuration in one safetensors file, which runs no code."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from hwfault.errors import FileError, ModelError
from hwfault.files import write_atomically
from hwfault.train.config import TrainConfig
from hwfault.train.networks import build
from hwfault.train.spec import is_code

_CONFIG = "hwfault.config"


def save(path: Path | str, network: nn.Module, config: TrainConfig) -> None:
    """Writes the network's state and the configuration that made it, atomically; raises FileError."""
    # copies, because safetensors refuses tensors that share memory, as a quantizer used twice does
    state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in network.state_dict().items()}
    write_atomically(path, to_bytes(state, metadata={_CONFIG: config.to_json()}))


def load(path: Path | str, network: str | None = None) -> tuple[nn.Module, TrainConfig]:
    """The network that `save` wrote, in evaluation mode, and its configuration.

    A network of the user's own (module:function) must be named again in `network`: code that a file names is not
    run. Raises FileError for a file that is no checkpoint or is another network's.
    """
    state, config = _read(path)
    if network is None and is_code(config.network):
        raise FileError(
            f"{path}: holds the network {config.network!r}; code that a file names is not run, "
            f"so name it yourself (--network {config.network}) if you trust it"
        )
    built = build(network or config.network, **config.network_args)
    _fill(built, state, path)
    return built.eval(), config


def restore(path: Path | str, network: nn.Module) -> TrainConfig:
    """Puts a checkpoint's tensors into the network and returns its configuration.

    Raises FileError, with the network as it was, for a file that is no checkpoint or is another network's.
    """
    state, config = _read(path)
    _fill(network, state, path)
    return config


def _read(path: Path | str) -> tuple[dict[str, Tensor], TrainConfig]:
    _refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        return state, TrainConfig.parse(json.loads(metadata[_CONFIG]), f"{path}: its configuration")
    except SafetensorError as error:
        raise FileError(f"{path}: not a complete safetensors file ({error}); it may be truncated") from None
    except (KeyError, ValueError, RecursionError, ModelError) as error:
        reason = "has no configuration" if isinstance(error, KeyError) else f"has a wrong configuration ({error})"
        raise FileError(f"{path}: {reason}, expected a checkpoint written by hwfault") from None


def _refuse_pickle(path: Path | str) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint (.safetensors)") from None
    if start.startswith((b"PK", b"\x80")):
        raise FileError(
            f"{path}: is a pickle (torch.save), which can run code when it is read; expected a safetensors checkpoint "
            "written by hwfault train"
        )


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path | str) -> None:
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    if (problem := _misfit(network, state)) is not None:
        network.load_state_dict(before, strict=False)
        raise FileError(f"{path}: holds another network than {type(network).__name__} with these arguments: {problem}")


def _misfit(network: nn.Module, state: dict[str, Tensor]) -> str | None:
    """Loads the state; what does not fit, as text. Which keys must be there is for the network to say (Brevitas
    creates some of them on the way)."""
    own: dict[str, Any] = network.state_dict()
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            return f"{key} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        return str(error)
    wrong = [f"no {key}" for key in missing] + [f"{key}, which is unknown" for key in unexpected]
    return ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "") if wrong else None
