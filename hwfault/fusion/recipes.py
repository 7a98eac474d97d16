"""Which of Brevitas' scales the operator computes itself, and by which rule.

A scaling module is known by the exact types of all its parts; anything else, such as a statistic of activations that is
still collected, stays Brevitas' own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from brevitas.core import restrict_val as restrictions
from brevitas.core.function_wrapper import CeilSte, Identity, OverOutputChannelView, OverTensorView, RoundSte
from brevitas.core.function_wrapper.misc import Abs, LogTwo, PowerOfTwo
from brevitas.core.function_wrapper.ops_ste import ScalarSignedClampMinSte
from brevitas.core.scaling.int_scaling import IntScaling, PowerOfTwoIntScaling
from brevitas.core.scaling.runtime import StatsFromParameterScaling, _StatsScaling
from brevitas.core.scaling.standalone import ConstScaling, ParameterFromRuntimeStatsScaling, ParameterScaling
from brevitas.core.stats.stats_op import AbsMax
from brevitas.core.stats.stats_wrapper import _ParameterListStats, _Stats
from brevitas.core.stats.view_wrapper import _ViewParameter
from brevitas.core.utils import StatelessBuffer
from torch import Tensor, nn

from hwfault.fusion.parts import why_not_width
from hwfault.torch_ops.inside_torch import buffers_of, hooks_of, parameters_of
from hwfault.torch_ops.scale_rule import Largest, Restriction, ScaleRule

_INTEGERS = (IntScaling, PowerOfTwoIntScaling)
_STEPS = (
    *(restrictions._RestrictClampValue, restrictions._RestrictValue, restrictions._ClampValue),
    *(restrictions.FloatRestrictValue, restrictions.LogFloatRestrictValue, restrictions.PowerOfTwoRestrictValue),
    *(Abs, LogTwo, PowerOfTwo, RoundSte, CeilSte, Identity, ScalarSignedClampMinSte, StatelessBuffer),
)
_STATISTICS = (
    _ParameterListStats,
    _Stats,
    _ViewParameter,
    _StatsScaling,
    OverTensorView,
    OverOutputChannelView,
    AbsMax,
)
_KNOWN = frozenset((*_STEPS, *_STATISTICS))
"""What may lie below a scaling module."""
_NOTHING = torch.empty(0)
"""What is read where a parameter is gone: no scale has its shape."""


class Recipe(NamedTuple):
    """A scale that the operator computes itself."""

    rule: ScaleRule
    parameter: Callable[[], Tensor | None]
    """What the rule reads at present; None for the magnitudes of the values."""


def recipe_of(scaling: Any, int_scaling: Any, bit_width: Tensor, values: tuple[int, ...] | None) -> Recipe | None:
    """The recipe of a scaling module, None if it stays Brevitas' own.

    `int_scaling` makes the integers' range of the bit width; `values` is the shape of a parameter that is quantized,
    None for activations.
    """
    reader = _READERS.get(type(scaling))
    if reader is None or type(int_scaling) not in _INTEGERS or why_not_width(bit_width):
        return None
    if any(any(hooks_of(part)) or "forward" in vars(part) for part in scaling.modules()):
        return None  # they run as they are
    if any(type(limit) not in (Identity, ScalarSignedClampMinSte) for limit in _limits(scaling)):
        return None
    with torch.no_grad():
        return reader(scaling, int_scaling(bit_width), values)


def stage_of(scaling: Any) -> Callable[[], object] | None:
    """What changes as a scaling module goes over to another way of computing its scale; None for one that does not."""
    if type(scaling) is not ParameterFromRuntimeStatsScaling:
        return None
    return lambda: (scaling.counter > scaling.collect_stats_steps, scaling.training, scaling.local_loss_mode)


def why_no_source(x: Tensor, recipe: Recipe) -> str | None:
    """Why a recipe does not go with what it would read now: its parameter, or the values."""
    rule, parameter = recipe.rule, recipe.parameter()
    if parameter is not None:
        return None if parameter.shape == rule.shape else f"its scale is no parameter of shape {rule.shape} any more"
    rows, first_only = rule.largest or (0, False)
    if x.numel() and (not first_only or x.shape[0] == rows):
        return None
    return f"its values of shape {tuple(x.shape)} do not have the {rows} largest magnitudes of its weights"


def _of_parameter(scaling: Any, threshold: Tensor, _values: object) -> Recipe | None:
    """ParameterScaling and ConstScaling."""
    if not _all_known(scaling) or not _is_identity(scaling.restrict_clamp_scale_threshold):
        return None
    restriction = _restriction(scaling.restrict_clamp_scaling.restrict_value_impl)
    if restriction is None:
        return None
    threshold = scaling.restrict_clamp_threshold(scaling.restrict_threshold_pre(threshold))
    least = _least(scaling.restrict_clamp_scaling.clamp_ste)
    source = _parameter(scaling) if type(scaling) is ParameterScaling else _constant(scaling.value)
    rule = ScaleRule(restriction, threshold, tuple(source().shape), least=least)
    return Recipe(rule, source)


def _of_learned(scaling: Any, threshold: Tensor, _values: object) -> Recipe | None:
    """ParameterFromRuntimeStatsScaling, once its range is a parameter."""
    if scaling.counter <= scaling.collect_stats_steps:
        return None
    steps = (scaling.restrict_scaling, scaling.restrict_threshold, scaling.restrict_scale_threshold)
    if not all(map(_all_known, (*steps, scaling.clamp_scaling, scaling.restrict_threshold_pre))):
        return None
    restriction = _restriction(scaling.restrict_scaling.restrict_value_impl)
    if restriction is None or type(scaling.restrict_scale_threshold.restrict_value_impl) is not Identity:
        return None
    threshold = scaling.restrict_threshold(scaling.restrict_threshold_pre(threshold))
    least = _least(scaling.clamp_scaling.clamp_min_ste)
    # in training what is divided is kept from falling below it, in evaluation the quotient
    limits = (least, None) if scaling.training else (None, least)
    source = _parameter(scaling)
    return Recipe(ScaleRule(restriction, threshold, tuple(source().shape), *limits), source)


def _parameter(scaling: Any) -> Callable[[], Tensor]:
    """What a scaling module learns; nothing where it is no parameter any more."""
    held: Any = parameters_of(scaling)
    return lambda: held.get("value", _NOTHING)


def _constant(buffer: Any) -> Callable[[], Tensor]:
    """What a StatelessBuffer returns, which no gradient reaches."""
    held: Any = buffers_of(buffer)
    return lambda: held["value"].detach() if held["value"].requires_grad else held["value"]


def _of_largest(scaling: Any, threshold: Tensor, values: tuple[int, ...] | None) -> Recipe | None:
    """StatsFromParameterScaling of the largest magnitudes, of all weights or of each output channel."""
    listed, steps = scaling.parameter_list_stats, scaling.stats_scaling_impl
    if values is None or not _all_known(scaling) or listed.extra_tracked_params_list is not None:
        return None
    largest = _largest(listed, values)
    restriction = _restriction(steps.restrict_clamp_scaling.restrict_value_impl)
    plain = type(steps.affine_rescaling) is Identity and _is_identity(steps.restrict_clamp_scale_threshold)
    plain &= type(steps.restrict_scaling_pre) is (Abs if restriction is Restriction.MAGNITUDE else LogTwo)
    if largest is None or restriction is None or not plain:
        return None
    threshold = steps.restrict_clamp_threshold(steps.restrict_threshold_pre(threshold))
    rule = ScaleRule(
        restriction,
        threshold,
        tuple(listed.stats.stats_output_shape),
        least=_least(steps.restrict_clamp_scaling.clamp_ste),
        largest=largest,
        least_magnitude=_least(steps.clamp_scaling.clamp_min_ste),
    )
    return Recipe(rule, lambda: None)


def _largest(listed: Any, values: tuple[int, ...]) -> Largest | None:
    """Whose largest magnitudes a statistic has, None where rows of values are no rows of memory."""
    view, statistic = listed.first_tracked_param.view_shape_impl, listed.stats.stats_impl
    shape = tuple(listed.stats.stats_output_shape)
    if type(statistic) is not AbsMax or 0 in values:
        return None
    if statistic.stats_reduce_dim is None:
        return Largest(1, first_only=False) if all(n == 1 for n in shape) else None
    channels = type(view) is OverOutputChannelView and type(view.permute_impl) is Identity
    if not channels or statistic.stats_reduce_dim != 1 or shape[:1] != values[:1] or any(n != 1 for n in shape[1:]):
        return None
    return Largest(values[0], first_only=True)


_READERS: dict[type, Callable[[Any, Tensor, tuple[int, ...] | None], Recipe | None]] = {
    ParameterScaling: _of_parameter,
    ConstScaling: _of_parameter,
    ParameterFromRuntimeStatsScaling: _of_learned,
    StatsFromParameterScaling: _of_largest,
}


_RESTRICTIONS: dict[tuple[type, ...], Restriction] = {
    (restrictions.FloatRestrictValue, Abs): Restriction.MAGNITUDE,
    (restrictions.LogFloatRestrictValue, PowerOfTwo): Restriction.POWER,
    (restrictions.PowerOfTwoRestrictValue, RoundSte, PowerOfTwo): Restriction.NEAREST_POWER,
    (restrictions.PowerOfTwoRestrictValue, CeilSte, PowerOfTwo): Restriction.NEXT_POWER,
}
"""By the types of a step and of its parts."""


def _all_known(module: nn.Module) -> bool:
    """Whether all parts of a module are of known types; of scaling modules, all parts below."""
    return all(type(part) in _KNOWN or (part is module and type(part) in _READERS) for part in module.modules())


def _restriction(step: nn.Module) -> Restriction | None:
    """What a step of Brevitas' restricts its input to."""
    return _RESTRICTIONS.get((type(step), *map(type, step.children())))


def _limits(scaling: nn.Module) -> list[Any]:
    """The parts of a scaling module that keep something from falling below a limit, as far as it has some."""
    parts = list(scaling.modules())
    after = [part.clamp_ste for part in parts if type(part) is restrictions._RestrictClampValue]
    return after + [part.clamp_min_ste for part in parts if type(part) is restrictions._ClampValue]


def _least(step: Any) -> float | None:
    return None if type(step) is Identity else float(step.min_val)


def _is_identity(step: Any) -> bool:
    return type(step.restrict_value_impl) is Identity and type(step.clamp_ste) is Identity
