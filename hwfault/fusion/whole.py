"""What stands in for the forward of a quantizer proxy: rectifier, scale and quantizer as one operator."""

from collections.abc import Callable
from typing import Any

import torch
from brevitas.core.function_wrapper import TensorClamp
from brevitas.core.utils import StatelessBuffer
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from hwfault.fusion.parts import Watch, tensor_quant
from hwfault.fusion.quantizer import OneOperator
from hwfault.fusion.recipes import Recipe, recipe_of, why_no_source
from hwfault.fusion.stand_in import OwnForward
from hwfault.fusion.whole_parts import (
    Constant,
    State,
    deciding,
    leading,
    passed_over,
    same_as_now,
    why_not_passed_over,
    why_not_whole,
)
from hwfault.torch_ops.inside import Asked, Inside, first_inside
from hwfault.torch_ops.inside_torch import forward_hooks
from hwfault.torch_ops.quantize import Ends, may_strike_inside, quantize, why_not, why_not_tensors
from hwfault.torch_ops.quantize_whole import ExtendedOperator, quantize_whole

_FLAGS = {flag: torch.tensor(flag) for flag in (False, True)}
"""As quantized tensors carry them."""
CHANGED = "its parts were changed while it ran"
Made = tuple[Tensor, Tensor, Tensor]
"""Values, scale and zero point."""


class WholeQuantizer(OwnForward):
    """Quantizes as a proxy does, which must be one for which `why_not_whole` has no reason."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A copy of what holds it as its proxy's forward, as parts do that search for a scale, holds the plain one."""
        return getattr, (self.module, "forward")

    @property
    def why(self) -> str | None:
        """Why the proxy as it is now runs by its own forward, or why it did so when it ran last; None if neither."""
        if WholeQuantizer.of(self.module) is not self:
            return "another forward stands in for that of its proxy"
        if self._why_left is None:
            self._look_again()
        else:
            self._look()
        return self._why_left or self._why

    def __call__(self, x: Any) -> Any:
        value = x[0] if type(x) is IntQuantTensor else x
        made = self._made(value) if self._may_run(value) else None
        if made is None:
            return self._plain(x)
        # IntQuantTensor(...) would look at each of them once more
        rest = (self._width(), self._signed, _FLAGS[self.module.training])
        return tuple.__new__(IntQuantTensor, (*made, *rest))

    def _may_run(self, x: Any) -> bool:
        if self._is_followed():
            return False
        self._look_again()
        self._why = self._why_left
        if self._why is None and not isinstance(x, Tensor):
            self._why = f"it was given a {type(x).__name__}, expected a tensor or an IntQuantTensor"
        return self._why is None

    def _made(self, x: Tensor) -> Made | None:
        """None where the tensors are not such that the operator takes them."""
        return self._from_scale(x) if self._recipe is None else self._by_rule(x, self._recipe)

    def _by_rule(self, x: Tensor, recipe: Recipe) -> Made | None:
        parameter, zero_point = recipe.parameter(), self._zero_point()
        if self._extended is not None:
            made = self._extended(x, parameter, zero_point, self.module, self._width())
            if made is not None:
                return *made, zero_point
        self._why = why_no_source(x, recipe)
        if self._why is not None:
            self._changed()
            return None
        source = x if parameter is None else parameter
        self._why = why_not_tensors(x, source, zero_point, recipe.rule.shape, parameter is None)
        if self._why is not None:
            return None
        inside = self._plan_inside(x, recipe.rule.shape, zero_point, x.requires_grad or source.requires_grad)
        values, scale = quantize_whole(x, parameter, zero_point, self._ends, recipe.rule, inside)
        self._note_struck(values, inside)
        return values, scale, zero_point

    def _from_scale(self, x: Tensor) -> Made:
        """With the scale and the zero point of Brevitas' own modules, which may take statistics."""
        quantizer, width = self._quantizer, self._width()
        if self._ends.rectifies:
            x = torch.relu(x)
        scale = quantizer.scaling_impl(x, self._range)
        zero_point = quantizer.zero_point_impl(x, scale, width)
        # those modules may have changed others that have not run yet
        self._why = why_not(x, scale, zero_point) if self._watch() else CHANGED
        if self._why is not None:
            return quantizer.int_quant(scale, zero_point, width, x), scale, zero_point
        inside = self._plan_inside(x, scale.shape, zero_point, x.requires_grad or scale.requires_grad)
        values = quantize(x, scale, zero_point, self._ends._replace(rectifies=False), inside)
        self._note_struck(values, inside)
        return values, scale, zero_point

    def _plan_inside(
        self, x: Tensor, scale_shape: tuple[int, ...], zero_point: Tensor, differentiable: bool
    ) -> Inside | None:
        """The faults that are to strike the values when they are made; None where the proxy's hooks do it, if any."""
        hook = first_inside(forward_hooks(self.module))
        if hook is None or not may_strike_inside(x, scale_shape):
            return None
        followed = differentiable and torch.is_grad_enabled()
        return hook.plan_inside(self.module, Asked(x, scale_shape, zero_point, self._width(), followed))

    def _note_struck(self, values: Tensor, inside: Inside | None) -> None:
        hook = first_inside(forward_hooks(self.module))
        if inside is not None and hook is not None:
            hook.note_struck(values)

    def _look_again(self) -> None:
        if not self._watch() or self._state() != self._held:
            self._look()

    def _look(self) -> None:
        """Notes what the proxy is made of, and by which rule its scale is computed."""
        proxy = self.module
        self._watch: Callable[[], bool] = _never
        self._state: Callable[[], list[object]] = list
        self._recipe: Recipe | None = None
        self._extended: ExtendedOperator | None = None
        self._why_left = why_not_whole(proxy, WholeQuantizer.of(proxy))
        if self._why_left is None:
            self._look_at(proxy, tensor_quant(proxy))
        if self._why_left is not None:
            self._watch = same_as_now(proxy)
        self._held: list[object] = self._state()

    def _changed(self) -> None:
        """The proxy is looked at when it runs next; another recipe may do then."""
        self._watch = _never

    def _look_at(self, proxy: Any, quantizer: Any) -> None:
        self._why_left = why_not_passed_over(proxy, False, OneOperator)
        if self._why_left is not None:  # before any of them runs
            return
        self._quantizer = quantizer
        self._width = Constant(quantizer.msb_clamp_bit_width_impl.bit_width)
        self._signed = _FLAGS[bool(proxy.is_signed)]
        self._look_at_integers(quantizer, quantizer.int_quant, getattr(proxy, "fused_activation_quant_proxy", None))
        zero = quantizer.zero_point_impl
        if type(zero) is ZeroZeroPoint and type(zero.zero_point) is StatelessBuffer:
            self._zero_point = Constant(zero.zero_point)
            self._recipe = self._recipe_of(proxy, leading(quantizer))
        self._extended = None if self._recipe is None else ExtendedOperator.of(self._ends, self._recipe.rule)
        by_rule = self._recipe is not None
        self._why_left = why_not_passed_over(proxy, by_rule, OneOperator)
        if self._why_left is None:
            self._watch = Watch(passed_over(proxy, by_rule), [proxy], deciding(proxy))
            self._state = State(proxy)

    def _look_at_integers(self, quantizer: Any, inner: Any, fused: Any) -> None:
        width = self._width()
        with torch.no_grad():
            least, most = inner.min_int(width), inner.max_int(width)
            self._range = quantizer.int_scaling_impl(width)
        if width.device.type == "cpu":
            least, most = float(least), float(most)
        rectifies = fused is not None and type(fused.activation_impl) is nn.ReLU
        self._ends = Ends(least, most, type(inner.tensor_clamp_impl) is not TensorClamp, rectifies)

    def _recipe_of(self, proxy: Any, leader: Any) -> Recipe | None:
        parameters = getattr(proxy, "tracked_parameter_list", None)
        shape = tuple(parameters[0].shape) if parameters else None
        width = Constant(leader.msb_clamp_bit_width_impl.bit_width)()
        return recipe_of(leader.scaling_impl, leader.int_scaling_impl, width, shape)


def _never() -> bool:
    return False
