"""Bit widths that may move while faults are attached: which can, and what stops when one does.

A plan strikes the bits that a site had when it was resolved. A width that is learned, loaded or set by hand meanwhile
would leave codes with faults in bits that they no longer have.
"""

from typing import Any

import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from hwfault.errors import HwfaultError
from hwfault.torch_ops.held import asserts, check, held
from hwfault.torch_ops.inside_torch import Moment, traced, written


def width_of(proxy: Any) -> nn.Module | None:
    """The module that a quantizer's bit width comes from, None if it has none."""
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    quantizer = proxy.tensor_quant if fused is None else fused.tensor_quant
    return getattr(quantizer, "msb_clamp_bit_width_impl", None) or getattr(quantizer, "bit_width", None)


class Width:
    """The bit width of a site when faults were attached to it; `checked` stops what runs with another.

    A constant of Brevitas' (BitWidthConst) is looked at only where that costs nothing, on the CPU.
    """

    def __init__(self, name: str, proxy: Any, bits: int) -> None:
        self.bits = bits
        self._name, self._proxy = name, proxy
        self._source = width_of(proxy)
        self._can_move = not isinstance(self._source, BitWidthConst)
        self._written = self._stamp()
        self._sentence = (
            f"the bit width of the site {name!r} is {{now}}, but was {bits} when the faults were attached, and faults "
            "would strike bits that its words do not have; leave the block and inject anew (a plan: resolve it again), "
            "or keep the width while faults are attached (its parameter's requires_grad_(False), or "
            "bit_width_impl_type='const')"
        )

    @classmethod
    def of(cls, name: str, proxy: Any) -> "Width | None":
        """The width that a quantizer has now; None if it has none."""
        source = width_of(proxy)
        return None if source is None else cls(name, proxy, int(source()))

    def checked(self, width: Tensor | None, carried: Tensor, now: Moment | None = None) -> Tensor:
        """`carried`, a tensor that the site is struck with: what is compiled cannot run without the check.

        `width` is that of the quantizer's output; None, where it gave bare values, stands for the quantizer's own.
        A caller that knows what goes on `now` spares the question.
        Raises HwfaultError at the forward that sees another width on the CPU, and at the capture of a CUDA graph if the
        width was written after the last forward; a GPU stops by an assertion.
        """
        if traced() if now is None else now.followed:
            return held(carried.detach(), self._now(width), *self._range) if self._can_move else carried
        if not self._can_move:  # most are constants, which cost next to nothing here
            unchanged = width is None and self._source is width_of(self._proxy)
            if unchanged or (width is not None and not asserts(width) and width.item() == self.bits):
                return carried
        found = self._now(width)
        if asserts(found):
            if self._can_move:
                self._check_capture()
                check(found, *self._range)
        elif int(found) != self.bits:
            check(found, *self._range)
        return carried

    def is_planned(self, width: Tensor) -> bool:
        """Whether an output of this width, a constant, may be struck; where `checked` would not look, it may."""
        return asserts(width) or (width.numel() == 1 and width.item() == self.bits)

    @property
    def can_move(self) -> bool:
        """Whether it may be another at the next forward without anybody setting it: all but a constant of Brevitas'."""
        return self._can_move

    @property
    def _range(self) -> tuple[int, int, str]:
        return self.bits, self.bits, self._sentence

    def _now(self, width: Tensor | None) -> Tensor:
        source = width_of(self._proxy) if width is None else None
        now: Tensor = torch.as_tensor(source()) if source is not None else width  # type: ignore[assignment]
        return now.detach()

    def _check_capture(self) -> None:
        """What is captured does not run yet: the host must know that the width is the one it was."""
        before, self._written = self._written, self._stamp()
        if before != self._written and torch.cuda.is_current_stream_capturing():
            self._written = before
            raise HwfaultError(
                f"the bit width of the site {self._name!r} was written after the last forward, so that a CUDA graph "
                f"may be captured with another one than the {self.bits} bits that it had when the faults were "
                "attached; run one forward before the capture, which checks it"
            )

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        """Changes when the width's parameters or buffers are written or replaced; never waits for a device."""
        if self._source is None:
            return ()
        tensors = [*self._source.parameters(), *self._source.buffers()]
        return tuple((id(t), -1 if t.is_inference() else written(t)) for t in tensors)


class InputWidth:
    """The width of a layer's inputs that no site brings, but a truncation or a sum of quantized tensors.

    Sums that need other words than the planned ones, of `bits` bits, stop what runs; `per_step` is the largest sum of
    inputs of 1. Where the width moves and the words do not, nothing is said.
    """

    def __init__(self, name: str, bits: int, per_step: int) -> None:
        self._low = 0 if bits <= 2 else -(-(1 << (bits - 2)) // per_step)
        self._high = ((1 << (bits - 1)) - 1) // per_step
        self._sentence = (
            f"the bit width of the inputs of {name!r} is not that of the example that the sites were listed with: "
            f"their largest magnitude is {{now}}, expected {self._low} to {self._high}, for which a sum has {bits} "
            "bits; list the sites again and resolve the plan for them, or keep the width while faults are attached"
        )

    def checked(self, x: IntQuantTensor, carried: Tensor) -> Tensor:
        """`carried`, as `Width.checked` has it."""
        width = x.bit_width.detach().double()
        symmetric = x.signed_t.bool() & ~x.zero_point.detach().any()
        largest = torch.where(symmetric, torch.exp2(width - 1), torch.exp2(width) - 1)
        if traced():
            watched: Tensor = held(carried.detach(), largest, self._low, self._high, self._sentence)
            return watched
        check(largest, self._low, self._high, self._sentence)
        return carried
