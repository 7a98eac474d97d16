"""Which quantizer proxies run as a whole by one operator, and what of them decides how."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from brevitas.core.bit_width import BitWidthConst
from brevitas.core.function_wrapper import Identity
from brevitas.core.function_wrapper.ops_ste import ScalarSignedClampMinSte
from brevitas.core.quant.int import RescalingIntQuant
from brevitas.core.scaling.int_scaling import IntScaling, PowerOfTwoIntScaling
from brevitas.core.stats.stats_op import AbsMax
from brevitas.core.utils import StatelessBuffer
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector, FusedActivationQuantProxy
from torch import Tensor, nn

from hwfault.fusion.guards import Entry, holding
from hwfault.fusion.parts import VIEW, tensor_quant, why_left_module, why_not_width
from hwfault.fusion.recipes import stage_of
from hwfault.network.shared_scale import SharedScale
from hwfault.torch_ops.inside_torch import buffers_of, compiled, has_global_hooks, hooks_of, named_children, written

_PROXIES = (ActQuantProxyFromInjector, WeightQuantProxyFromInjector)
_ACTIVATIONS = (Identity, nn.Identity, nn.ReLU)


def why_not_whole(proxy: Any, own: object = None) -> str | None:
    """Why a quantizer does not run as a whole by one operator; None for one that does.

    `own` is what may stand in for its forward. Whether its scale is computed inside, hwfault.fusion.recipes says.
    """
    if type(proxy) not in _PROXIES:
        return f"its proxy is a {type(proxy).__name__}"
    if vars(proxy).get("forward") is not own:
        return "another forward stands in for that of its proxy"
    quantizer = tensor_quant(proxy)
    if compiled(quantizer) is not None:
        return "it is compiled"
    return _why_not_switched(proxy) or _why_not_made_of(proxy, quantizer)


def _why_not_switched(proxy: Any) -> str | None:
    """The reasons that may come and go with a proxy's switches."""
    if not proxy.is_quant_enabled:
        return "it is switched off"
    if proxy.export_mode:
        return "it is being exported"
    if proxy.skip_create_quant_tensor:
        return "it returns values alone, as while it is calibrated"
    if not proxy.training and getattr(proxy, _cache_of(proxy)):
        return "it keeps what it returned (cache_inference_quant)"
    return None


def _cache_of(proxy: Any) -> str:
    """The attribute that says whether a proxy keeps what it returned last."""
    activations = type(proxy) is ActQuantProxyFromInjector
    return "cache_inference_quant_act" if activations else "_cache_inference_quant_weight"


def _why_not_made_of(proxy: Any, quantizer: Any) -> str | None:
    if type(quantizer) is not RescalingIntQuant:
        return f"it is a {type(quantizer).__name__}, expected a RescalingIntQuant"
    if quantizer.observer_only:
        return "it only observes"
    inner = quantizer.int_quant
    why = why_left_module(inner, vars(inner).get("forward"))
    if why is not None:
        return why
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    for what, part, known in (
        ("view", getattr(inner, VIEW), (Identity,)),
        ("bit width", quantizer.msb_clamp_bit_width_impl, (BitWidthConst,)),
        ("bit width", getattr(quantizer.msb_clamp_bit_width_impl, "bit_width", None), (StatelessBuffer,)),
        ("range of integers", quantizer.int_scaling_impl, (IntScaling, PowerOfTwoIntScaling)),
        ("activation", nn.Identity() if fused is None else fused.activation_impl, _ACTIVATIONS),
        ("proxy", fused, (FusedActivationQuantProxy, type(None))),
    ):
        if type(part) not in known:
            return f"its {what} is a {type(part).__name__}"
    if fused is not None and getattr(fused.activation_impl, "inplace", False):
        return "its activation overwrites what it is given"
    return why_not_width(Constant(quantizer.msb_clamp_bit_width_impl.bit_width)())


def why_not_passed_over(proxy: Any, by_rule: bool, own: type) -> str | None:
    """Why some part may not be passed over; `own` is the type of what may stand in for a forward."""
    if has_global_hooks():
        return "hooks are attached to all modules, of which its parts would not run"
    for part in passed_over(proxy, by_rule):
        name = type(part).__name__
        if any(hooks_of(part)):
            return f"a hook is attached to its part {name}, which would not run"
        if "forward" in vars(part) and not isinstance(vars(part)["forward"], own):
            return f"another forward stands in for that of its part {name}"
    return None


def leading(quantizer: Any) -> Any:
    """The quantizer whose scale one has: mostly its own."""
    scaling = quantizer.scaling_impl
    return scaling.leader if type(scaling) is SharedScale else quantizer


def passed_over(proxy: Any, by_rule: bool) -> Iterator[nn.Module]:
    """The modules that do not run while the operator stands for a proxy: all its parts, but those of a scale and zero
    point that are not computed by a rule; and those of the scale that it shares."""
    quantizer = tensor_quant(proxy)
    running = set() if by_rule else {*quantizer.scaling_impl.modules(), *quantizer.zero_point_impl.modules()}
    parts = [module for module in proxy.modules() if module is not proxy and module not in running]
    leader = leading(quantizer)
    if by_rule and leader is not quantizer:
        for part in (leader.scaling_impl, leader.int_scaling_impl, leader.msb_clamp_bit_width_impl):
            parts += part.modules()
    sentinel = [*getattr(proxy, "_zero_hw_sentinel", nn.Identity()).modules()]
    return iter([part for part in parts if part not in sentinel])


def deciding(proxy: Any) -> list[Entry]:
    """The attributes that decide how a proxy runs, beside its parts."""
    quantizer = tensor_quant(proxy)
    leader, inner = leading(quantizer), quantizer.int_quant
    switches = ("_is_quant_enabled", "disable_quant", "_export_mode", "skip_create_quant_tensor", "is_signed")
    found: list[Entry] = [(vars(proxy), name) for name in switches]
    found.append((vars(proxy), _cache_of(proxy)))
    if getattr(proxy, _cache_of(proxy)):
        found.append((vars(proxy), "training"))
    found += [(vars(quantizer), "observer_only"), *[(vars(inner), n) for n in ("forward", "signed", "narrow_range")]]
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    if fused is not None:
        found.append((vars(fused.activation_impl), "inplace"))
    for source in (quantizer, leader):
        ranges = source.int_scaling_impl
        found += [(vars(ranges), "signed"), (vars(ranges), "narrow_range")]
        found.append((buffers_of(source.msb_clamp_bit_width_impl.bit_width), "value"))
    limits = [part for part in leader.scaling_impl.modules() if type(part) is ScalarSignedClampMinSte]
    found += [(vars(limit), "min_val") for limit in limits]
    statistics = [part for part in leader.scaling_impl.modules() if type(part) is AbsMax]
    found += [(vars(statistic), "stats_reduce_dim") for statistic in statistics]
    return found + (_leading_to(quantizer.scaling_impl, leader) if leader is not quantizer else [])


def _leading_to(scaling: SharedScale, leader: Any) -> list[Entry]:
    """How the leader is found, and the parts of it that are read: none of them is below the proxy."""
    layer = scaling.leading_layer
    fused = layer.act_quant.fused_activation_quant_proxy
    path: list[Entry] = [
        (named_children(layer), "act_quant"),
        (named_children(layer.act_quant), "fused_activation_quant_proxy"),
        (named_children(fused), "tensor_quant"),
    ]
    read = ("scaling_impl", "int_scaling_impl", "msb_clamp_bit_width_impl")
    return [(vars(scaling), "_leader"), *path, *[(named_children(leader), name) for name in read]]


def same_as_now(proxy: Any) -> Callable[[], bool]:
    """What says, from now on, whether a proxy that runs itself has all parts, attributes and hooks that it has now.

    It may say no though nothing of importance changed; what lies outside of the proxy is never said to be the same.
    """
    modules = list(proxy.modules())
    if any(type(module) is SharedScale for module in modules):
        return lambda: False
    dicts: list[Mapping[str, Any]] = []
    for module in modules:
        dicts += [vars(module), named_children(module), buffers_of(module), *hooks_of(module)]
    holds, globally = holding(dicts, [], []), has_global_hooks()
    return lambda: holds() and has_global_hooks() == globally


class State:
    """What may change without another entry anywhere: the numbers of bit widths, and how a scaling module goes on."""

    def __init__(self, proxy: Any) -> None:
        quantizer = tensor_quant(proxy)
        leader = leading(quantizer)
        sources = [quantizer] if leader is quantizer else [quantizer, leader]
        self._widths = [Constant(source.msb_clamp_bit_width_impl.bit_width) for source in sources]
        self._stage = stage_of(leader.scaling_impl)

    def __call__(self) -> list[object]:
        found: list[object] = [width.stamp() for width in self._widths]
        return found if self._stage is None else [*found, self._stage()]


class Constant:
    """The one number of a StatelessBuffer of Brevitas'."""

    def __init__(self, buffer: Any) -> None:
        self._held: Any = buffers_of(buffer)

    def __call__(self) -> Tensor:
        value: Tensor = self._held["value"]
        return value.detach() if value.requires_grad else value

    def stamp(self) -> tuple[object, ...]:
        """Changes with the number; on a device, which is not waited for, with each writing to its memory."""
        value = self._held["value"]
        if value.is_cpu and value.numel() == 1:
            return (value.item(),)  # another tensor is another entry, which guards notice
        return id(value), -1 if value.is_inference() else written(value)
