"""Checkpoints: a network's tensors and its training configuration in one safetensors file, which runs no code."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from hwfault.errors import FileError, ModelError, PlanError, expect_kind
from hwfault.files import write_atomically
from hwfault.inputs import check_regular, open_regular
from hwfault.network.sites import sites
from hwfault.own_code import is_code
from hwfault.program.selectors import names_of
from hwfault.train.config import TrainConfig
from hwfault.train.folder import CONFIG_KEY
from hwfault.train.networks import build
from hwfault.train.state_files import read_state

_FORMATS = "hwfault.formats"
_NAMED = "--network module:function --data d.npz"


def save(path: Path | str, network: nn.Module, config: TrainConfig) -> None:
    """Writes the network's state and the configuration that made it, atomically.

    Raises FileError where it cannot be written, HwfaultError for what is no network or configuration.
    """
    expect_kind(network, nn.Module, "the network", "a torch.nn.Module")
    expect_kind(config, TrainConfig, "the configuration", "a hwfault.train.TrainConfig, which tells how to build it")
    # copies, because safetensors refuses tensors that share memory, as a quantizer used twice does
    state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in network.state_dict().items()}
    metadata = {CONFIG_KEY: config.to_json(), _FORMATS: json.dumps(_formats(network))}
    write_atomically(path, to_bytes(state, metadata=metadata))


def load(path: Path | str, network: str | None = None) -> tuple[nn.Module, TrainConfig]:
    """The network that `save` wrote, in evaluation mode, and its configuration.

    A network of the user's own (module:function) must be named again in `network`: code that a file names is not
    run. Weights that were saved elsewhere (safetensors, or a state dict of torch.save) are read, too, where `network`
    says whose they are; their configuration tells that and nothing else. Raises FileError for a file that is no
    checkpoint or is another network's.
    """
    if network is not None and not is_own(path):
        return _load_foreign(path, network)
    content = _read(path)
    config = content.config
    if network is None and is_code(config.network):
        raise FileError(
            f"{path}: holds the network {config.network!r}; code that a file names is not run, "
            f"so name it yourself (--network {config.network}) if you trust it"
        )
    built = build(network or config.network, **config.network_args)
    _fill(built, content, path)
    return built.eval(), config


def is_own(path: Path | str) -> bool:
    """Whether a file is a checkpoint that `save` wrote, as far as what it says of itself tells; else weights alone.

    Raises FileError for a file that cannot be read.
    """
    if not _has_header(_start_of(path)):
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return CONFIG_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True  # whoever reads it says what is wrong with it


def _load_foreign(path: Path | str, network: str) -> tuple[nn.Module, TrainConfig]:
    """A network with weights that were saved elsewhere; its configuration tells its name only."""
    built = build(network)
    _fill(built, _Content(read_state(path), TrainConfig(network=network), {}), path)
    return built.eval(), TrainConfig(network=network)


def configuration(path: Path | str) -> TrainConfig:
    """The configuration that a checkpoint was made with; raises FileError for a file that is no checkpoint."""
    return _read(path).config


def restore(path: Path | str, network: nn.Module) -> TrainConfig:
    """Puts a checkpoint's tensors into the network and returns its configuration.

    Raises FileError, with the network as it was, for a file that is no checkpoint or is another network's.
    """
    content = _read(path)
    _fill(network, content, path)
    return content.config


def holds_quantized(path: Path | str) -> bool:
    """Whether a file is a checkpoint that `save` wrote of a network with quantizers."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            return bool(json.loads((file.metadata() or {}).get(_FORMATS, "{}")))
    except (SafetensorError, OSError, ValueError):
        return False


@dataclass(frozen=True)
class _Content:
    state: dict[str, Tensor]
    config: TrainConfig
    formats: dict[str, Any]


def _formats(network: nn.Module) -> dict[str, str]:
    """What each site stores: networks of other bit widths may have the very same tensors."""
    try:
        listed = sites(network)
        # by every name of a memory, as before names had aliases
        return {n: f"{s.bit_width} bit {'signed' if s.signed else 'unsigned'}" for s in listed for n in names_of(s)}
    except PlanError:  # no faults can strike it, but it may be kept
        return {}


def _read(path: Path | str) -> _Content:
    _refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        config = TrainConfig.parse(json.loads(metadata[CONFIG_KEY]), f"{path}: its configuration")
        return _Content(state, config, dict(json.loads(metadata[_FORMATS])))
    except SafetensorError as error:
        raise FileError(
            f"{path}: not a complete safetensors file ({error}); it may be truncated, or another kind of file: "
            "expected a run's folder or its checkpoint (.safetensors)"
        ) from None
    except KeyError as error:
        raise FileError(
            f"{path}: has no {error.args[0]}, expected a checkpoint of hwfault train or hf.save; weights that were "
            f"saved elsewhere need their network beside them ({_NAMED})"
        ) from None
    except (ValueError, TypeError, RecursionError, ModelError) as error:
        raise FileError(f"{path}: its metadata is wrong ({error}), expected a checkpoint of hwfault train") from None


def _start_of(path: Path | str) -> bytes:
    """A file's first bytes, as many as tell what kind it is; raises FileError."""
    try:
        with open_regular(path) as file:
            return file.read(9)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint (.safetensors)") from None


def _has_header(start: bytes) -> bool:
    """Whether a file begins as safetensors do: eight bytes of a length, then JSON."""
    return start[8:] == b"{"


def _refuse_pickle(path: Path | str) -> None:
    start = _start_of(path)
    if start.startswith((b"PK", b"\x80")) and not _has_header(start):  # a header of 128 bytes begins so, too
        raise FileError(
            f"{path}: is a pickle (torch.save), which can run code when it is read; expected a checkpoint of hwfault "
            f"train or hf.save. A state dict with nothing but tensors needs its network beside it ({_NAMED})"
        )


def _fill(network: nn.Module, content: _Content, path: Path | str) -> None:
    """Puts the tensors into the network, which stays on its device: loading may make new buffers on the CPU."""
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    device = next((p.device for p in network.parameters()), None)
    if problem := _other_format(content.formats, _formats(network)) or _load(network, content.state):
        network.load_state_dict(before, strict=False)
    network.to(device)
    if problem:
        raise FileError(f"{path}: is another network's, not one of this {type(network).__name__}: {problem}")


def _other_format(given: dict[str, Any], own: dict[str, str]) -> str:
    for name, stored in own.items():
        if given.get(name, stored) != stored:
            return f"{name} is {given[name]}, expected {stored}"
    return ""


def _load(network: nn.Module, state: dict[str, Tensor]) -> str:
    """Loads the state; answers what does not fit. Which keys may be missing Brevitas' modules know, not we."""
    own: dict[str, Tensor] = network.state_dict()
    for key, tensor in own.items():
        if key in state and state[key].shape != tensor.shape:
            return f"{key} has shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        return str(error)
    wrong = [f"it has no {key}" for key in missing] + [f"it has an unknown {key}" for key in unexpected]
    return ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
