"""Which of Brevitas' quantizers the one operator stands for, told by the exact type of each part that it passes over.

A subclass may do anything else, and so may a hook or another forward on a part that no longer runs.
"""

from collections.abc import Iterator
from typing import Any

from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp, TensorClampSte
from brevitas.core.quant.delay import DelayWrapper, _NoDelay
from brevitas.core.quant.int_base import IntQuant
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import jit, nn

from hwfault.network.readers import paths
from hwfault.torch_ops.inside_torch import compiled, hooks_of, named_children

_PARTS: dict[str, tuple[str, tuple[type, ...]]] = {
    "float_to_int_impl": ("rounding", (RoundSte,)),
    "tensor_clamp_impl": ("clamp", (TensorClamp, TensorClampSte)),
    "delay_wrapper": ("delay", (DelayWrapper,)),
    "delay_wrapper.delay_impl": ("delay", (_NoDelay,)),
}
"""The parts of IntQuant that are passed over: what each is, and which types are known."""
_VIEW = "input_view_impl"


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


def passed_over(module: Any) -> dict[str, nn.Module]:
    """The parts of an IntQuant that do not run while the operator stands for it."""
    names = [*_PARTS, _VIEW] if type(getattr(module, _VIEW)) is Identity else [*_PARTS]
    return {name: module.get_submodule(name) for name in names}


class Unchanged:
    """Whether the parts of an IntQuant are those that were looked at, with no hook and no other forward on them."""

    def __init__(self, module: Any) -> None:
        parts = passed_over(module)
        owners = [named_children(module), named_children(parts["delay_wrapper"])]
        self._held = [(children, tuple(children.values())) for children in owners]
        self._hooks = tuple(hooks for part in parts.values() for hooks in hooks_of(part))
        self._own = tuple(vars(part) for part in parts.values())

    def __call__(self) -> bool:
        if any(self._hooks):
            return False
        for children, held in self._held:
            if tuple(children.values()) != held:
                return False
        return not any("forward" in own for own in self._own)
