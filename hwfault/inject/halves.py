"""Integers that a 16 bit floating type holds only to the nearest neighbour.

Next to the end of a word's range the neighbour lies beyond it: 255 * scale, rounded to bfloat16's 8 significant bits,
may be nearer to 256 * scale, whose code is 0. Such values are taken one step of the type back before they are struck,
so that a fault finds the top of the range (or its neighbour) there; those that no fault changed keep their bits.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

_SIGNIFICANT_BITS = {torch.bfloat16: 8, torch.float16: 11}


class Range(NamedTuple):
    """The least and the largest integer of words."""

    low: int
    high: int

    @classmethod
    def of(cls, bit_width: int, signed: bool) -> Self:
        top = 1 << (bit_width - int(signed))
        return cls(-top if signed else 0, top - 1)

    def may_be_left(self, dtype: torch.dtype) -> bool:
        """Whether rounding a value to the type may lead to an integer beyond the range."""
        return dtype in _SIGNIFICANT_BITS and self.high >> (_SIGNIFICANT_BITS[dtype] - 1) > 0

    def strike(self, value: Tensor, scale: Tensor, zero_point: Tensor, struck: Callable[[Tensor], Tensor]) -> Tensor:
        """What `struck` makes of values within the range; gradients flow as if none had been taken back."""
        fixed = value.detach()
        q = torch.round(fixed.float() / scale.detach()) + zero_point.detach()
        back = torch.where((q < self.low) | (q > self.high), torch.nextafter(fixed, torch.zeros_like(fixed)), fixed)
        within = value + (back - fixed)  # exact: neighbours differ by one step of the type
        faulty = struck(within)
        return torch.where(faulty.detach() == back, value, faulty)
