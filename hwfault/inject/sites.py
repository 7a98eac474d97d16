"""The injection sites of a Brevitas network: every quantizer proxy that yields integers."""

from collections.abc import Iterator
from typing import Any

import torch
from brevitas.core.quant.binary import BinaryQuant, ClampedBinaryQuant
from brevitas.nn.mixin.base import QuantRecurrentLayerMixin
from brevitas.proxy.parameter_quant import BiasQuantProxyFromInjectorBase, WeightQuantProxyFromInjectorBase
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjectorBase
from torch import Tensor, nn

from hwfault.errors import PlanError
from hwfault.inject.accumulators import Quantizer, accumulators
from hwfault.inject.mode import evaluation
from hwfault.plan import Site, SiteList
from hwfault.profiles.selectors import SiteKind


def sites(model: nn.Module, example: Tensor | None = None) -> SiteList:
    """Every place where the network holds quantized integers, in the order of its modules.

    A site is named after its quantizer's module path (`features.0.weight_quant`). Shapes of activations, without
    the batch, are known when an `example` batch is given: it is run in evaluation mode, without gradients. Then the
    accumulators (`features.0.accumulator`) follow, for only a forward shows whose integers a layer adds up.
    Raises PlanError for a quantizer that is not an integer quantizer with one scale a tensor or channel.
    """
    shapes = _activation_shapes(model, example) if example is not None else {}
    found = {n: Quantizer(_site(n, proxy, shapes.get(n)), proxy) for n, proxy in quantizers(model)}
    listed = [quantizer.site for quantizer in found.values()]
    if example is None:
        return SiteList(listed)
    sums, obstacles = accumulators(unwrap(model), example, found)
    return SiteList([*listed, *sums], obstacles)


def known_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Every quantizer that yields integers, with its site, by the site's name."""
    return {name: Quantizer(_site(name, proxy, None), proxy) for name, proxy in quantizers(model)}


def quantizers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(site name, quantizer proxy) of each site; a proxy shared by several layers comes once."""
    for name, module in unwrap(model).named_modules():
        if isinstance(module, QuantRecurrentLayerMixin):
            raise PlanError(
                f"the recurrent layer {name!r} ({type(module).__name__}) runs its quantizers where no hook sees them, "
                "so their integers cannot be struck; expected layers without recurrence, or build it from such layers"
            )
        if _kind(name, module) is not None and module.is_quant_enabled:
            yield name, module


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside what torch.compile or data parallelism wrapped around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _kind(name: str, module: nn.Module) -> SiteKind | None:
    if isinstance(module, WeightQuantProxyFromInjectorBase):
        return "weight"
    if isinstance(module, BiasQuantProxyFromInjectorBase):
        return "bias"
    if isinstance(module, ActQuantProxyFromInjectorBase):
        return "input" if name.rpartition(".")[2] == "input_quant" else "activation"
    return None


def _site(name: str, proxy: Any, shape: tuple[int, ...] | None) -> Site:
    kind = _kind(name, proxy)
    assert kind is not None
    if kind in ("weight", "bias"):
        shape = tuple(proxy.tracked_parameter_list[0].shape)
    layer = type(proxy.tracked_module_list[0]).__name__
    width = _bit_width(name, proxy)
    return Site(name=name, kind=kind, bit_width=width, signed=bool(proxy.is_signed), layer=layer, shape=shape)


def _bit_width(name: str, proxy: Any) -> int:
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    quantizer = proxy.tensor_quant if fused is None else fused.tensor_quant
    width = getattr(quantizer, "msb_clamp_bit_width_impl", None) or getattr(quantizer, "bit_width", None)
    if width is None or proxy.is_groupwise:
        raise PlanError(
            f"the quantizer {name!r} ({type(quantizer).__name__}) does not yield integers with one scale for each "
            "tensor or channel; hwfault handles Brevitas' integer quantizers only"
        )
    if int(width()) == 1 and proxy.is_signed and not isinstance(quantizer, BinaryQuant | ClampedBinaryQuant):
        raise PlanError(
            f"the quantizer {name!r} yields signed integers of one bit, -1 and 0; one signed bit means -1 and +1 to "
            "QONNX and to the fault stream: use a binary quantizer, or an unsigned one"
        )
    return int(width())


@torch.no_grad()
def _activation_shapes(model: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Tensor) -> None:
        if output.dim():  # Brevitas probes quantizers with a scalar to learn their scale
            shapes[name] = tuple(output.shape[1:])

    handles = [
        proxy.register_forward_hook(lambda _m, _a, output, name=name: note(name, output))
        for name, proxy in quantizers(model)
    ]
    try:
        with evaluation(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes
