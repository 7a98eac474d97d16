"""Initial weights for a quantized network from a checkpoint of its float twin."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from brevitas.proxy.parameter_quant import ParameterQuantProxyFromInjector
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import Tensor, nn

from hwfault.errors import FileError
from hwfault.train.state_files import read_state

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
    given, own = read_state(path), network.state_dict()
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


def _listed(problems: list[str]) -> str:
    more = f" and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
    return ", ".join(problem[:_LONGEST] for problem in problems[:_MOST]) + more
