"""Initial weights for a quantized network from a checkpoint of its float twin."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import torch
from brevitas.proxy.parameter_quant import ParameterQuantProxyFromInjector
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hwfault.errors import FileError
from hwfault.inputs import open_regular

_PREFIXES = ("module.", "_orig_mod.", "network.", "model.")
_MOST, _LONGEST = 8, 160


def load_float(network: nn.Module, path: Path | str) -> tuple[str, ...]:
    """Copies the tensors of a float checkpoint into the network and returns the names of those that it has not.

    The file is a safetensors file or a state dict of torch.save, read without running code; the state may lie under
    the key `state_dict`, its names may begin with what data parallelism or a wrapping module put before all of them.
    What it need not have is what quantizers learn (ranges, scales) and `num_batches_tracked`: they keep their values,
    except scales that a weight's quantizer takes from its weights, which are taken from the new ones.
    Raises FileError, with the network as it was, for a file that cannot be read, or whose tensors are not the
    network's in name, shape and kind, or not finite.
    """
    given, own = _named(_read(Path(path)), path), network.state_dict()
    learned = tuple(f"{n}." for n, m in network.named_modules() if isinstance(m, QuantProxyFromInjector))
    if problems := [*_unmatched(given, own, learned), *_unfit(given, own, learned)]:
        raise FileError(
            f"{path}: does not fit this {type(network).__name__}: {_listed(problems)}; expected the tensors of its "
            "float twin"
        )
    with torch.no_grad():
        for name, tensor in given.items():
            own[name].copy_(tensor)
    _take_scales_anew(network)
    return tuple(name for name in own if name not in given)


def _take_scales_anew(network: nn.Module) -> None:
    """Makes quantizers of weights and biases anew where they keep what they once took from the old ones."""
    for proxy in network.modules():
        if isinstance(proxy, ParameterQuantProxyFromInjector) and any(True for _ in proxy.parameters()):
            training = proxy.training
            proxy.init_tensor_quant()
            proxy.train(training)


def _unmatched(given: Mapping[str, Tensor], own: Mapping[str, Tensor], learned: tuple[str, ...]) -> Iterable[str]:
    """Names that only one of the two has."""
    for name in own:
        if name not in given and not name.startswith(learned) and not name.endswith("num_batches_tracked"):
            yield f"it has no {name}"
    for name in given:
        if name not in own:
            yield f"it has an unknown {name}"


def _unfit(given: Mapping[str, Tensor], own: Mapping[str, Tensor], learned: tuple[str, ...]) -> Iterable[str]:
    """Tensors that cannot be copied."""
    for name, tensor in given.items():
        mine = own.get(name)
        if mine is None:
            continue
        if name.startswith(learned):
            yield f"{name} belongs to a quantizer (it is a quantized network's)"
        elif tensor.shape != mine.shape:
            yield f"{name} has shape {tuple(tensor.shape)}, expected {tuple(mine.shape)}"
        elif tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            yield f"{name} is no ordinary tensor"
        elif tensor.is_floating_point() != mine.is_floating_point() or tensor.is_complex():
            yield f"{name} holds {tensor.dtype}, expected {mine.dtype}"
        elif not torch.isfinite(tensor).all():
            yield f"{name} is not finite"


def _named(content: Any, path: Path | str) -> dict[str, Tensor]:
    """The state's tensors by the names that the network itself gives them."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
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


def _read(path: Path) -> Any:
    """What a safetensors file, or a pickle of nothing but tensors, holds."""
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); expected a float checkpoint") from None
    try:
        if start[8:] == b"{":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise FileError(f"{path}: not a complete safetensors file ({error}); it may be truncated") from None
    except Exception as error:  # whatever a damaged or hostile pickle makes torch raise
        # torch's own text advises to load the file without a check, which runs what is in it
        raise FileError(
            f"{path}: not a float checkpoint (torch refuses it: {type(error).__name__}); expected a safetensors file, "
            "or a state dict of torch.save with nothing but tensors in it"
        ) from None


def _listed(problems: list[str]) -> str:
    more = f" and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
    return ", ".join(problem[:_LONGEST] for problem in problems[:_MOST]) + more
