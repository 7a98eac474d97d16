"""Tensors by name from files that others wrote: safetensors, and torch.save's archives read without running code."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hwfault.errors import FileError
from hwfault.inputs import open_regular

_WITHIN = ("state_dict", "model_state_dict", "model", "network")
"""Under which a state may lie in a file; Lightning's is the first."""
_PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "net.")
"""What data parallelism, compilation or a wrapping module put before all names."""


def read_state(path: Path | str) -> dict[str, Tensor]:
    """The tensors in a safetensors file or a state dict of torch.save, by the names that the network gives them.

    The state may lie in a mapping under one of the usual names, and all names may begin with what data parallelism or a
    wrapping module put before them. Raises FileError for a file that cannot be read, or holds more than tensors and
    plain data: nothing in it is run.
    """
    return _named(_read(Path(path)), path)


def _named(content: Any, path: Path | str) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WITHIN if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise FileError(f"{path}: holds a {type(content).__name__}, expected a state dict: tensors by name")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise FileError(f"{path}: holds {kind} under {short_repr(name)}, expected a state dict: tensors by name")
    state = dict(content)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _refuse_packed(path: Path) -> None:
    """Raises FileError for an archive with packed members, which could unpack to any size: torch.save packs none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise FileError(f"{path}: is an archive with packed members, expected one of torch.save, which packs none")


def _read(path: Path) -> Any:
    """What a safetensors file, or a pickle of nothing but tensors and plain data, holds."""
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint") from None
    try:
        if start[8:] == b"{":
            return load_file(path)
        _refuse_packed(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise FileError(f"{path}: not a complete safetensors file ({error}); it may be truncated") from None
    except FileError:
        raise
    except Exception as error:  # whatever a damaged or hostile pickle makes torch raise
        # torch's own text advises to load the file without a check, which runs what is in it
        raise FileError(
            f"{path}: not a checkpoint of tensors alone (torch refuses it: "
            f"{type(error).__name__}); expected a safetensors file, or a state dict of torch.save with nothing but "
            "tensors in it"
        ) from None
