"""Which of Brevitas' quantizers the one operator stands for, told by the exact type of each part that it passes over.

A subclass may do anything else, and so may a hook or another forward on a part that no longer runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp, TensorClampSte
from brevitas.core.quant.delay import DelayWrapper, _NoDelay
from brevitas.core.quant.int_base import IntQuant
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import Tensor, jit, nn

from hwfault.fusion.guards import Entry, holding
from hwfault.network.readers import paths
from hwfault.torch_ops.inside_torch import compiled, has_global_hooks, hooks_made, hooks_of, named_children

_PARTS: dict[str, tuple[str, tuple[type, ...]]] = {
    "float_to_int_impl": ("rounding", (RoundSte,)),
    "tensor_clamp_impl": ("clamp", (TensorClamp, TensorClampSte)),
    "delay_wrapper": ("delay", (DelayWrapper,)),
    "delay_wrapper.delay_impl": ("delay", (_NoDelay,)),
}
"""The parts of IntQuant that are passed over: what each is, and which types are known."""
VIEW = "input_view_impl"


def quantizers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """(path, proxy) of each of Brevitas' quantizers that quantizes anything, by its first path."""
    seen: set[int] = set()
    for path, module, _ in paths(model):
        if isinstance(module, QuantProxyFromInjector) and id(module) not in seen and tensor_quant(module) is not None:
            seen.add(id(module))
            yield path, module


def tensor_quant(proxy: Any) -> Any:
    """What computes scale and values of a quantizer, None where nothing is quantized."""
    return getattr(getattr(proxy, "fused_activation_quant_proxy", None) or proxy, "tensor_quant", None)


def int_quant(proxy: Any) -> Any:
    """The module of a quantizer that goes from values and scale to quantized values, as far as it has one."""
    return getattr(tensor_quant(proxy), "int_quant", None)


def why_left(proxy: Any) -> str | None:
    """Why a quantizer stays Brevitas' own; None for one that the operator stands for."""
    whole, inner = tensor_quant(proxy), int_quant(proxy)
    if compiled(whole) is not None:
        return "it is compiled"
    if inner is None:
        return f"it is a {type(whole).__name__}, expected an integer quantizer with an IntQuant"
    return why_left_module(inner)


def why_left_module(module: Any, own: object = None) -> str | None:
    """The same for the module that `int_quant` found; `own` is what may stand in for its forward."""
    if isinstance(module, jit.ScriptModule):
        return "Brevitas compiles its parts (BREVITAS_JIT=1)"
    if type(module) is not IntQuant:
        return f"its integers come from a {type(module).__name__}, expected an IntQuant"
    if vars(module).get("forward") is not own:
        return "another forward stands in for that of its IntQuant"
    for name, (what, known) in _PARTS.items():
        part = module.get_submodule(name)
        if type(part) not in known:
            expected = " or ".join(sorted(kind.__name__ for kind in known))
            return f"its {what} is a {type(part).__name__}, expected {expected}"
    for name, part in passed_over(module).items():
        if any(hooks_of(part)):
            return f"a hook is attached to its part {name!r}, which would not run"
        if "forward" in vars(part):
            return f"another forward stands in for that of its part {name!r}"
    return None


def why_not_width(bit_width: Tensor) -> str | None:
    """Why the operator does not take a bit width."""
    if bit_width.dim() or bit_width.dtype != torch.float32:
        return f"its bit width is a tensor {tuple(bit_width.shape)} of {bit_width.dtype}, expected one float32"
    return None


def passed_over(module: Any) -> dict[str, nn.Module]:
    """The parts of an IntQuant that do not run while the operator stands for it."""
    names = [*_PARTS, VIEW] if type(getattr(module, VIEW)) is Identity else [*_PARTS]
    return {name: module.get_submodule(name) for name in names}


class Watch:
    """Whether modules that are passed over are still what they were, with no hook and no other forward on them.

    `above` are modules that run themselves, of which only the children are looked at; `entries` are others that decide.
    """

    def __init__(
        self, modules: Iterable[nn.Module], above: Iterable[nn.Module] = (), entries: Sequence[Entry] = ()
    ) -> None:
        watched = list(modules)
        children = [named_children(module) for module in (*above, *watched) if named_children(module)]
        # one attribute more, where another forward stands in
        self._holds = holding(children, [vars(module) for module in watched], entries)
        self._hooks = [hooks for module in watched for hooks in hooks_of(module)]
        self._made = 0

    def __call__(self) -> bool:
        if self._made != hooks_made():
            if any(self._hooks) or has_global_hooks():
                return False
            self._made = hooks_made()
        return self._holds()
