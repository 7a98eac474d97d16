"""Which layer's parameter each quantizer of weights or biases reads: several layers may share one quantizer.

Brevitas lets a layer take another's (`weight_quant=other.weight_quant`). Different parameters are different memories
all the same, and so each is a site: the first is named after the quantizer, the others after the path that it has in
their own layers. Which one a run reads is told by the parameter that it is given, not by the order of the runs.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from brevitas.proxy.parameter_quant import BiasQuantProxyFromInjectorBase, WeightQuantProxyFromInjectorBase
from torch import Tensor, nn

from hwfault.errors import PlanError
from hwfault.torch_ops.inside_torch import named_children, registered, viewed


def paths(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
    """(path, module, its parent) of each module within each of its parents, in the order of `named_modules`.

    Those of one that several parents have come once for each; what lies in it comes with the first of them only.
    """
    seen: set[int] = set()
    ahead: list[tuple[str, nn.Module, nn.Module | None]] = [("", model, None)]
    while ahead:
        path, module, parent = ahead.pop()
        yield path, module, parent
        if id(module) in seen:
            continue
        seen.add(id(module))
        prefix = f"{path}." if path else ""
        for name, child in reversed(list(named_children(module).items())):
            if child is not None:
                ahead.append((prefix + name, child, module))


def parameter_kind(proxy: Any) -> str | None:
    """What a quantizer quantizes, "weight" or "bias", by the name that a layer has it under; None: an activation."""
    return _kind_of_class(type(proxy))  # type: ignore[arg-type]  # mypy takes its instances' hash for the class's


@functools.lru_cache(maxsize=1024)  # Brevitas' proxies are protocols, which take long to say what is none of theirs
def _kind_of_class(proxy: type) -> str | None:
    if issubclass(proxy, WeightQuantProxyFromInjectorBase):
        return "weight"
    return "bias" if issubclass(proxy, BiasQuantProxyFromInjectorBase) else None


def readers(model: nn.Module) -> dict[str, nn.Module]:
    """The layer whose parameter each site of a weight or bias is, by the site's name.

    A parameter that several layers read with one quantizer comes once.
    """
    found: dict[str, nn.Module] = {}
    first: dict[int, str] = {}
    read: dict[int, set[int]] = {}
    for path, proxy, layer in paths(model):
        kind = parameter_kind(proxy)
        if kind is None or layer is None:
            continue
        own = first.setdefault(id(proxy), path)
        if path.rpartition(".")[2] != f"{kind}_quant" or not isinstance(getattr(layer, kind, None), Tensor):
            continue
        # one that is computed anew each time it is asked for is known by its layer
        held = registered(layer, kind)
        key = id(layer if held is None else held)
        known = read.setdefault(id(proxy), set())
        if key not in known:
            found[path if known else own] = layer
            known.add(key)
    return found


def unknown_reader(name: str, proxy: Any) -> str | None:
    """Why a quantizer that no layer of the network has for its own is no site; None where it reads one parameter."""
    kind = parameter_kind(proxy)
    if kind is None or len(_tracked(proxy, kind)) < 2:
        return None
    return (
        f"the quantizer {name!r} is shared by layers of which none has it as its {kind}_quant, so that their "
        f"{kind}s, which are different memories, cannot be told apart; give each layer a quantizer of its own"
    )


def _tracked(proxy: Any, kind: str) -> list[Tensor]:
    """The parameters of the layers that Brevitas made a quantizer for, each once."""
    found = [getattr(layer, kind, None) for layer in getattr(proxy, "tracked_module_list", ())]
    return list({id(p): p for p in found if isinstance(p, Tensor)}.values())


def parameter_of(proxy: Any, layer: Any) -> Tensor | None:
    """The parameter that a site of a quantizer is; None for activations, and before a layer has it."""
    kind = parameter_kind(proxy)
    if kind is None:
        return None
    if layer is not None:
        parameter = getattr(layer, kind, None)
        return parameter if isinstance(parameter, Tensor) else None
    return next(iter(_tracked(proxy, kind)), None)


class Reads:
    """Which site a run of a quantizer is, by the parameter that it is given.

    `layers` are those of the network that have the quantizer, by the site's name.
    """

    def __init__(self, proxy: Any, layers: Mapping[str, nn.Module]) -> None:
        self._kind = parameter_kind(proxy)
        self._layers = dict(layers)
        """The quantizer's layers outside of the network: what they read is no site of it."""
        there = {id(layer) for layer in layers.values()}
        self._outside = [layer for layer in proxy.tracked_module_list if id(layer) not in there]
        self._name = next(iter(layers))

    @classmethod
    def of(cls, proxy: Any, names: Mapping[str, nn.Module]) -> "Reads | None":
        """What tells the sites of a quantizer apart; None where it reads one parameter, whoever else has it."""
        kind = parameter_kind(proxy)
        layers = {name: layer for name, layer in names.items() if getattr(layer, f"{kind}_quant", None) is proxy}
        if kind is None or not layers:
            return None
        several = {id(p) for p in (*_tracked(proxy, kind), *(getattr(layer, kind) for layer in layers.values()))}
        return cls(proxy, layers) if len(several) > 1 else None

    def name(self, given: Tensor) -> str | None:
        """The site whose parameter a run is given; None for one of a layer outside of the network.

        Raises PlanError in compiled graphs, and for a tensor that is no layer's parameter.
        """
        assert self._kind is not None
        _refuse_compiled(f"the quantizer {self._name!r} is shared by layers with different {self._kind}s")
        for name, layer in self._layers.items():
            if _is(given, getattr(layer, self._kind)):
                return name
        if any(_is(given, getattr(layer, self._kind, None)) for layer in self._outside):
            return None
        names = ", ".join(map(repr, self._layers))
        raise PlanError(
            f"the quantizer {self._name!r} is shared by layers with different {self._kind}s ({names}), and what it "
            "reads now is none of them, so that it cannot be told whose faults it has; give each layer a quantizer of "
            "its own"
        )


def _refuse_compiled(why: str) -> None:
    """Raises PlanError in compiled graphs, which breaks them: what is called then runs uncompiled."""
    if torch.compiler.is_compiling():
        raise PlanError(
            f"{why}, and a compiled graph cannot check which parameter it reads; run the network uncompiled, or give "
            "each layer a quantizer of its own"
        )


def _is(given: Tensor, parameter: Any) -> bool:
    """Whether a tensor is a parameter, or a view of the whole of it, which is what a layer gives to its quantizer."""
    # Dynamo would compile this by itself, and answer for all tensors what it found for the first
    _refuse_compiled("a quantizer is shared by layers")
    if not isinstance(parameter, Tensor):
        return False
    if given is parameter:
        return True
    alike = given.shape == parameter.shape and given.dtype == parameter.dtype and given.device == parameter.device
    if not alike or given.stride() != parameter.stride():
        return False
    if viewed(given) is parameter:
        return True
    if given.device.type == "meta" or not given.numel():
        return False
    return given.data_ptr() == parameter.data_ptr() != 0
