"""What stands in for the forward of an IntQuant."""

import torch
from brevitas.core.function_wrapper import Identity, TensorClampSte
from torch import Tensor

from hwfault.fusion.parts import Watch, passed_over, why_left_module, why_not_width
from hwfault.fusion.stand_in import OwnForward
from hwfault.torch_ops.inside_torch import has_global_hooks, written
from hwfault.torch_ops.quantize import Ends, quantize, why_not


class OneOperator(OwnForward):
    """Quantizes as an IntQuant does, which must be one for which `why_left_module` has no reason."""

    @property
    def why(self) -> str | None:
        """Why the latest run was Brevitas' own; None if it was not."""
        return self._why

    def __call__(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        if self._is_followed():
            return self._by_brevitas(scale, zero_point, bit_width, x)
        self._why = self._why_not_now(bit_width)
        if self._why is not None:
            return self._by_brevitas(scale, zero_point, bit_width, x)
        viewed = x if self._view is None else self._view(x)
        self._why = why_not(viewed, scale, zero_point)
        if self._why is not None:
            return self._by_brevitas(scale, zero_point, bit_width, x)
        return quantize(viewed, scale, zero_point, self._ends_of(bit_width))

    def _by_brevitas(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self._plain(scale, zero_point, bit_width, x)
        return out

    def _look(self) -> None:
        self._unchanged = Watch([self.module, *passed_over(self.module).values()])
        self._passes = type(self.module.tensor_clamp_impl) is TensorClampSte
        view = self.module.input_view_impl
        self._view = None if type(view) is Identity else view
        self._ends: dict[tuple[float, bool, bool], Ends] = {}
        self._known: tuple[tuple[int, int, bool, bool], Tensor, Ends] | None = None

    def _why_not_now(self, bit_width: Tensor) -> str | None:
        if not self._unchanged():
            why = why_left_module(self.module, self)
            if why is not None:
                return why
            self._look()
        if has_global_hooks():
            return "hooks are attached to all modules, of which its parts would not run"
        if bit_width.requires_grad and torch.is_grad_enabled():
            return "its bit width is learned"
        return why_not_width(bit_width)

    def _ends_of(self, bit_width: Tensor) -> Ends:
        """The least and the largest integer, as Brevitas has them."""
        own = self.module.signed, self.module.narrow_range
        if bit_width.device.type != "cpu":
            return self._ends_there(bit_width, own)
        key = bit_width.item(), *own
        if key not in self._ends:
            least, most = self._range(bit_width)
            self._ends[key] = Ends(float(least), float(most), self._passes)
        return self._ends[key]

    def _ends_there(self, bit_width: Tensor, own: tuple[bool, bool]) -> Ends:
        """The same of a device, which is not waited for: computed anew if the width's memory was written."""
        if bit_width.is_inference():
            return Ends(*self._range(bit_width), self._passes)
        key = bit_width.data_ptr(), written(bit_width), *own
        if self._known is None or self._known[0] != key:
            # the width is held, so that no other comes to lie in its place
            self._known = key, bit_width, Ends(*self._range(bit_width), self._passes)
        return self._known[2]

    def _range(self, bit_width: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.module.min_int(bit_width), self.module.max_int(bit_width)
