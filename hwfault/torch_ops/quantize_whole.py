"""A whole quantizer of Brevitas' as one operator: the scale by a rule, the rectifier in front, then the quantizer.

See hwfault.torch_ops.quantize for the quantizer and hwfault.torch_ops.scale_rule for scales.
"""

from types import ModuleType
from typing import Any

import torch
from brevitas.function.ops_ste import abs_binary_sign_grad, ceil_ste, round_ste, scalar_clamp_min_ste
from torch import Tensor, nn

from hwfault.torch_ops.extension import extension, first_striking
from hwfault.torch_ops.inside import Inside, Struck, kept_of, passing, stopping
from hwfault.torch_ops.inside_torch import forward_hooks, is_memory, traced
from hwfault.torch_ops.quantize import Ends, as_values, differentiated, in_steps, quantized
from hwfault.torch_ops.scale_rule import (
    Restriction,
    Scale,
    ScaleRule,
    add_to_largest,
    scale_of,
    source_gradient,
)


class ExtendedOperator:
    """`quantize_whole` of the C++ extension, with the same bits, and with the faults of its hook in the same pass."""

    def __init__(self, module: ModuleType, ends: Ends, rule: ScaleRule) -> None:
        self._module = module
        module.call_one_by_one(_one_by_one)
        restriction = list(Restriction).index(rule.restriction)
        rows, first_only = rule.largest or (0, False)
        limits = (rule.least, rule.least_scale, rows, first_only, rule.least_magnitude)
        self._quantizer = module.Quantizer(*ends, restriction, rule.threshold, rule.shape, *limits, (ends, rule))

    @classmethod
    def of(cls, ends: Ends, rule: ScaleRule) -> "ExtendedOperator | None":
        """The operator for a rule; None where there is no extension."""
        module = extension()
        return None if module is None or not rule.threshold.is_cpu else cls(module, ends, rule)

    def __call__(
        self, x: Tensor, parameter: Tensor | None, zero_point: Tensor, proxy: nn.Module, bit_width: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Values and scale, None for tensors that it does not take.

        `proxy` is the module whose hooks are called with the values next: the first of them may have had them struck.
        """
        hook = first_striking(forward_hooks(proxy), self._module)
        made: tuple[Tensor, Tensor] | None = self._quantizer(x, parameter, zero_point, hook, proxy, bit_width)
        return made


def quantize_whole(
    x: Tensor,
    parameter: Tensor | None,
    zero_point: Tensor,
    ends: Ends,
    rule: ScaleRule,
    inside: Inside | None = None,
) -> tuple[Tensor, Tensor]:
    """The quantized values and their scale; `parameter` is the rule's source, None for the values' magnitudes.

    For tensors for which `hwfault.torch_ops.quantize.why_not` has no reason, contiguous where the rule reads them, or
    faults strike `inside`.
    """
    followed = x.requires_grad or (parameter is not None and parameter.requires_grad)
    if followed and torch.is_grad_enabled():
        made: tuple[Tensor, Tensor] = _Whole.apply(  # type: ignore[no-untyped-call]
            x, parameter, zero_point, ends, rule, inside
        )
        return made
    scale = scale_of(rule, x, parameter).scale
    return quantized(x, scale, zero_point, ends, inside)[0], scale


class _Whole(torch.autograd.Function):
    """Values and scale, the gradients of values and parameter."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        parameter: Tensor | None,
        zero_point: Tensor,
        ends: Ends,
        rule: ScaleRule,
        inside: Inside | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.ends, ctx.rule, ctx.inside = ends, rule, stopping(inside)
        made = scale_of(rule, x, parameter)
        ctx.made = made._replace(scale=made.source)  # the scale itself is an output, which a node may not hold
        if parameter is not None and not parameter.requires_grad:
            ctx.mark_non_differentiable(made.scale)
        values, left = quantized(x, made.scale, zero_point, ends, inside)
        ctx.save_for_backward(x, parameter, zero_point, made.scale, left, *kept_of(ctx.inside))
        return values, made.scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        of_values, of_scale = gradients
        x, parameter, zero_point, scale, left, *_ = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        placed = None if of_values is None else as_values(of_values, x, ctx.inside is not None)
        strange = (of_values is not None and placed is None) or not (of_scale is None or is_memory(of_scale))
        if torch.is_grad_enabled() or traced() or strange:
            of_values = None if of_values is None else passing(of_values, scale, zero_point, ctx.inside, left)
            found = _one_by_one((of_values, of_scale), x, parameter, zero_point, ctx.ends, ctx.rule, wanted)
            return *found, None, None, None, None
        made = ctx.made._replace(scale=scale)
        struck = None if ctx.inside is None else Struck(ctx.inside, left is not None)
        found = _gradients((placed, of_scale), x, zero_point, made, ctx.ends, ctx.rule, wanted, struck)
        return *found, None, None, None, None


def _gradients(
    given: tuple[Tensor | None, Tensor | None],
    x: Tensor,
    zero_point: Tensor,
    made: Scale,
    ends: Ends,
    rule: ScaleRule,
    wanted: tuple[bool, bool],
    struck: Struck | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of values and parameter, as far as they are wanted."""
    of_values, of_scale = given
    reads_values = rule.largest is not None and wanted[0]
    of_x: Tensor | None = None
    if of_values is not None:
        summing = wanted[0], wanted[1] or reads_values
        of_x, summed = differentiated(of_values, x, made.scale, zero_point, ends, summing, struck)
        if summed is not None:
            of_scale = summed if of_scale is None else summed + of_scale
    if of_scale is None:
        return of_x, None
    of_source = source_gradient(rule, made, of_scale.to(made.scale.dtype))
    if not reads_values:
        return of_x, of_source if wanted[1] else None
    of_x = torch.zeros_like(x) if of_x is None else of_x
    add_to_largest(rule, x, made, of_source, of_x)
    return of_x, None


def _one_by_one(
    given: tuple[Tensor | None, Tensor | None],
    x: Tensor,
    parameter: Tensor | None,
    zero_point: Tensor,
    ends: Ends,
    rule: ScaleRule,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The same by Brevitas' own steps, which can be differentiated again."""
    again = torch.is_grad_enabled()
    sources = [x, parameter]
    with torch.enable_grad():
        if not again:
            sources = [
                None if t is None else t.detach().requires_grad_(w) for t, w in zip(sources, wanted, strict=True)
            ]
        values, own_parameter = sources
        assert values is not None
        scale = scale_in_steps(rule, values, own_parameter)
        outputs = [in_steps(values, scale, zero_point, ends), scale]
        asked = [t for t, wants in zip(sources, wanted, strict=True) if wants and t is not None]
        pairs = [(out, g) for out, g in zip(outputs, given, strict=True) if g is not None and out.requires_grad]
        if not pairs:
            return None, None
        followed, gradients = zip(*pairs, strict=True)
        # the scale may be all that a gradient is of, and does not depend on the values then
        found = iter(torch.autograd.grad(followed, asked, gradients, create_graph=again, allow_unused=True))
    of_x, of_parameter = (next(found) if wants else None for wants in wanted)
    return of_x, of_parameter


def scale_in_steps(rule: ScaleRule, x: Tensor, parameter: Tensor | None) -> Tensor:
    """The scale by Brevitas' functions."""
    source = _largest_in_steps(rule, x) if parameter is None else parameter
    if rule.restriction is Restriction.MAGNITUDE:
        source = source.abs()
    else:
        source = source.log2() if parameter is None else source
        if rule.restriction is Restriction.NEAREST_POWER:
            source = round_ste(source)
        elif rule.restriction is Restriction.NEXT_POWER:
            source = ceil_ste(source)
        source = torch.pow(2.0, source)
    if rule.least is not None:
        source = scalar_clamp_min_ste(abs_binary_sign_grad(source), rule.least)
    scale = source / rule.threshold
    return scale if rule.least_scale is None else scalar_clamp_min_ste(abs_binary_sign_grad(scale), rule.least_scale)


def _largest_in_steps(rule: ScaleRule, x: Tensor) -> Tensor:
    assert rule.largest is not None
    if rule.largest.first_only:
        found = torch.max(x.abs().reshape(rule.largest.rows, -1), dim=1)[0]
    else:
        found = torch.max(x.abs())
    found = found.view(rule.shape)
    return found if rule.least_magnitude is None else scalar_clamp_min_ste(found, rule.least_magnitude)
